//! The REST API of the network. Translates; decides nothing.

pub mod body;
pub mod json;
pub mod rows;
pub mod time;
