//! Files, environment and flags become one valid configuration.
