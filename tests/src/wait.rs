//! Waiting on conditions: every wait has a deadline and says what it saw last.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// How long to wait between two looks. Short enough not to be felt, long enough to leave the cores to the programs under test.
const PAUSE: Duration = Duration::from_millis(50);

/// Calls `probe` until it succeeds, or fails with what it last said when `within` has passed.
///
/// An error of the probe means "not yet, because …".
///
/// # Errors
/// When the deadline passes first.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut probe: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        // A probe that hangs must not outlive the deadline.
        let left = within.saturating_sub(start.elapsed());
        let seen = match tokio::time::timeout(left.max(PAUSE), probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => format!("{seen:#}"),
            Err(_) => "no answer to the last look".to_owned(),
        };
        if start.elapsed() >= within {
            return Err(anyhow!("waited {within:?} for: {what}; last seen: {seen}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
