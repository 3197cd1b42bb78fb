//! One replicated SQLite database: applies committed commands, answers reads.
