//! The real executable, as users run it.
