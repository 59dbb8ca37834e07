//! How fast fetching goes: bytes per second of the time in which something was fetched.

use std::time::Duration;

/// How much of the average the newest window is.
const WEIGHT: f64 = 0.3;
/// Shorter times say little.
const WINDOW: Duration = Duration::from_secs(1);

/// A moving average over busy time. Idle time neither counts nor forgets.
#[derive(Debug, Default)]
pub(super) struct Rate {
    average: Option<f64>,
    bytes: u64,
    busy: Duration,
}

impl Rate {
    /// Counts bytes that were kept.
    pub(super) fn fetched(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Counts time in which something was being fetched.
    pub(super) fn was_busy(&mut self, busy: Duration) {
        self.busy += busy;
        if self.busy >= WINDOW && self.bytes > 0 {
            self.close();
        }
    }

    /// Nothing is being fetched any more: what is left of a window counts if there
    /// is nothing better.
    pub(super) fn idle(&mut self) {
        if self.average.is_none() && self.bytes > 0 && !self.busy.is_zero() {
            self.close();
        }
    }

    fn close(&mut self) {
        let rate = self.bytes as f64 / self.busy.as_secs_f64();
        self.average = Some(self.average.map_or(rate, |average| average + WEIGHT * (rate - average)));
        (self.bytes, self.busy) = (0, Duration::ZERO);
    }

    /// Bytes per second of late; `None` before the first fetch.
    pub(super) fn bytes_per_second(&self) -> Option<u64> {
        self.average.map(|average| average as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_to_what_is_measured_and_stays_while_idle() {
        let mut rate = Rate::default();
        assert_eq!(rate.bytes_per_second(), None);
        for _ in 0..30 {
            rate.fetched(1000);
            rate.was_busy(Duration::from_millis(500));
        }
        assert_eq!(rate.bytes_per_second(), Some(2000));
        for _ in 0..60 {
            rate.fetched(100);
            rate.was_busy(Duration::from_millis(500));
        }
        assert!(rate.bytes_per_second().unwrap() < 250);
    }

    #[test]
    fn a_short_fetch_is_better_than_no_measure() {
        let mut rate = Rate::default();
        rate.fetched(100);
        rate.was_busy(Duration::from_millis(100));
        assert_eq!(rate.bytes_per_second(), None);
        rate.idle();
        assert_eq!(rate.bytes_per_second(), Some(1000));
        rate.fetched(1);
        rate.idle();
        assert_eq!(rate.bytes_per_second(), Some(1000));
    }
}
