//! What a node says about itself while it runs: its log, and the page with its metrics.

pub mod histogram;
pub mod logging;
pub mod page;
