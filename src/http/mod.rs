//! hyper on glommio: one server, timeouts, limits.
