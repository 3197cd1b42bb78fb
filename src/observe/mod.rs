//! Logs, counters and histograms.
