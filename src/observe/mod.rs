//! What a node says about itself while it runs: its log.

pub mod logging;
