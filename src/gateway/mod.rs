//! The REST API of the network. Translates; decides nothing.
