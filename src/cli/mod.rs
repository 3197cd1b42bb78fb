//! What a person may type.
