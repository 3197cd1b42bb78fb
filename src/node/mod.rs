//! Boot, one driver per core, mesh between cores, shutdown.
