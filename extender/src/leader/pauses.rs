//! What failed is left alone for a while, ever longer, and not all of it until the same moment. Pure.

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use std::collections::HashMap;
use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(1);
/// Jitter may double it.
const AT_MOST: Duration = Duration::from_secs(20);

/// What has failed when it was last tried, by UID.
#[derive(Debug, Default)]
pub(super) struct Pauses(HashMap<String, (Instant, ExponentialBackoff)>);

impl Pauses {
    /// Whether it may be tried.
    pub(super) fn allow(&self, uid: &str, now: Instant) -> bool {
        self.0.get(uid).is_none_or(|(until, _)| *until <= now)
    }

    /// It was tried. What succeeds is forgotten: its next failure is its first.
    pub(super) fn tried(&mut self, uid: &str, succeeded: bool, now: Instant) {
        let known = self.0.remove(uid);
        if succeeded {
            return;
        }
        let mut pauses = known.map_or_else(
            || {
                let pauses = ExponentialBuilder::default().with_min_delay(FIRST).with_max_delay(AT_MOST);
                pauses.without_max_times().with_jitter().build()
            },
            |(_, pauses)| pauses,
        );
        let pause = pauses.next().unwrap_or(AT_MOST);
        self.0.insert(uid.to_owned(), (now + pause, pauses));
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
            waited.push(pauses.0["bad"].0 - now);
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
