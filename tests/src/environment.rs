//! What a person can set for a longer run, or to repeat one.

use anyhow::{Context, Result};

/// A number from the environment, or another.
///
/// # Errors
/// When the variable holds something else.
pub fn number(name: &str, default: u64) -> Result<u64> {
    std::env::var(name)
        .map_or(Ok(default), |text| text.parse().with_context(|| format!("{name} is no number")))
}
