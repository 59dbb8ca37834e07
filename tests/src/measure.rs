//! What benchmarks share.

use anyhow::{Context, Result};

/// The middle one of some figures; of none, no number.
#[must_use]
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Nothing of any file is in memory afterwards, but for what is mapped.
///
/// # Errors
/// When this is not root.
pub fn empty_page_cache() -> Result<()> {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("cannot empty the page cache: it takes root")
}
