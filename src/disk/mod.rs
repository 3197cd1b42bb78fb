//! Log segments on `io_uring`, and the helper thread for SQLite files.
