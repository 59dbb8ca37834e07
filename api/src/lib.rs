//! Hearth's custom resources as Rust types.
