//! Bytes to messages and back: what replicas store and what nodes say to each other.
//!
//! Formats are versioned and documented to the byte at the top of their file. Payloads are never
//! copied on decoding: a decoded message borrows the buffer it came from.

pub mod bytes;
pub mod command;
pub mod storage;
pub mod rows;
pub mod spool;
pub mod outcome;
