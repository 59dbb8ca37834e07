//! What failed is left alone for a while, ever longer, and not all of it until the same moment. Pure.

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

pub(super) const FIRST: Duration = Duration::from_secs(1);
/// Jitter may double it.
const AT_MOST: Duration = Duration::from_secs(20);

/// What failed is left alone until then.
#[derive(Debug)]
pub(super) struct Pause {
    until: Instant,
    next: ExponentialBackoff,
}

impl Pause {
    /// It has failed now; `before` is its pause before, if it had failed then, too.
    pub(super) fn after(before: Option<Self>, now: Instant) -> Self {
        let first = || {
            let pauses = ExponentialBuilder::default().with_min_delay(FIRST).with_max_delay(AT_MOST);
            pauses.without_max_times().with_jitter().build()
        };
        let mut next = before.map_or_else(first, |before| before.next);
        Self { until: now + next.next().unwrap_or(AT_MOST), next }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until <= now
    }
}

/// What has failed when it was last tried, by UID.
#[derive(Debug, Default)]
pub(super) struct Pauses(HashMap<String, Pause>);

impl Pauses {
    /// Whether it may be tried.
    pub(super) fn allow(&self, uid: &str, now: Instant) -> bool {
        self.0.get(uid).is_none_or(|pause| pause.is_over(now))
    }

    /// It was tried. What succeeds is forgotten: its next failure is its first.
    pub(super) fn tried(&mut self, uid: &str, succeeded: bool, now: Instant) {
        let before = self.0.remove(uid);
        if !succeeded {
            self.0.insert(uid.to_owned(), Pause::after(before, now));
        }
    }

    /// Forgets the others.
    pub(super) fn keep(&mut self, is_known: impl Fn(&str) -> bool) {
        self.0.retain(|uid, _| is_known(uid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_waits_longer_each_time_and_nobody_else_does() {
        let (mut pauses, now) = (Pauses::default(), Instant::now());
        let mut waited = Vec::new();
        for _ in 0..8 {
            pauses.tried("bad", false, now);
            assert!(!pauses.allow("bad", now) && pauses.allow("good", now));
            waited.push(pauses.0["bad"].until - now);
        }
        assert!(waited[0] >= FIRST && waited[0] <= FIRST * 2, "{waited:?}");
        assert!(waited[7] >= AT_MOST && waited[7] <= AT_MOST * 2, "{waited:?}");
        assert!(pauses.allow("bad", now + waited[7]));
        pauses.tried("bad", true, now);
        assert!(pauses.allow("bad", now) && pauses.0.is_empty());
        pauses.tried("gone", false, now);
        pauses.keep(|uid| uid != "gone");
        assert!(pauses.0.is_empty());
    }
}
