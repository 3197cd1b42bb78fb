//! Everything one core owns.

pub mod request;
