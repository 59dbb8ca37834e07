//! An origin that is far away: answers come late, and all connections share one line.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What may pass at once after a pause. Less than this is let through without a sleep, which takes a millisecond at least.
const BURST: Duration = Duration::from_millis(5);

/// How far away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// Bytes of answers a second, of all connections together.
    pub bytes_per_second: u64,
    /// From a request to the first byte of its answer, beside what the server takes.
    pub latency: Duration,
}

/// The line to it.
#[derive(Debug)]
pub(crate) struct Line {
    throttle: Throttle,
    /// When all that was taken on is through.
    free: Mutex<Instant>,
}

impl Line {
    pub(crate) fn new(throttle: Throttle) -> Self {
        Self { throttle, free: Mutex::new(Instant::now()) }
    }

    /// Waits as long as a request takes to be answered.
    pub(crate) async fn latency(&self) {
        tokio::time::sleep(self.throttle.latency).await;
    }

    /// Waits until so many bytes more are through.
    pub(crate) async fn carry(&self, bytes: usize) {
        let now = Instant::now();
        let through = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            *free = self.throttle.through(*free, now, bytes);
            *free
        };
        if through > now {
            tokio::time::sleep_until(through.into()).await;
        }
    }
}

impl Throttle {
    /// When bytes that come now are through a line that is free at `free`.
    fn through(&self, free: Instant, now: Instant, bytes: usize) -> Instant {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.max(1) as f64);
        // An idle line saves up a burst, and no more.
        free.max(now.checked_sub(BURST).unwrap_or(now)) + takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEGABYTE: Throttle = Throttle { bytes_per_second: 1_000_000, latency: Duration::ZERO };

    #[test]
    fn all_that_is_carried_takes_its_time() {
        let start = Instant::now() + Duration::from_secs(1);
        let through = (0..10).fold(start, |free, _| MEGABYTE.through(free, start, 100_000));
        assert_eq!(through - start, Duration::from_secs(1));
    }

    #[test]
    fn a_pause_saves_up_no_more_than_a_burst() {
        let start = Instant::now();
        let later = start + Duration::from_secs(60);
        assert_eq!(MEGABYTE.through(start, later, 1_000_000), later + Duration::from_secs(1) - BURST);
    }
}
