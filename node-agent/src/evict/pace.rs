//! How fast objects are given up.
//!
//! Each takes a processor and the disk for a moment. Nobody waits for most of them: those that
//! make room down to the low watermark, or keep to a limit. Between these it rests, after each few files
//! and not after many: who reads beside it finds both free, or waits for hardly a moment.

use std::time::{Duration, Instant};

/// Rests in lengths of the work before.
const USUAL: u32 = 16;
const WHILE_BUSY: u32 = 32;
/// Who comes to wait meanwhile waits no longer than this.
const LONGEST: Duration = Duration::from_millis(100);

/// A rest that would be shorter waits for more work: threads do not sleep for less.
const SHORTEST: Duration = Duration::from_millis(1);

/// Takes rests.
#[derive(Debug)]
pub(super) struct Pace {
    times: u32,
    /// Of the work that is not rested from yet.
    began: Instant,
}

impl Pace {
    /// Without rests at first.
    pub(super) fn new() -> Self {
        Self { times: 0, began: Instant::now() }
    }

    /// From now on, with somebody who waits or not, and when the disks are busy or not.
    pub(super) fn set(&mut self, is_awaited: bool, is_busy: bool) {
        self.times = times(is_awaited, is_busy);
    }

    /// Rests, if that is due.
    pub(super) fn rest(&mut self) {
        if let Some(rest) = rest(self.began.elapsed(), self.times) {
            std::thread::sleep(rest);
            self.began = Instant::now();
        }
    }
}

fn times(is_awaited: bool, is_busy: bool) -> u32 {
    match (is_awaited, is_busy) {
        (true, _) => 0,
        (false, false) => USUAL,
        (false, true) => WHILE_BUSY,
    }
}

/// How long to rest after work that took so long; `None` for more work first.
fn rest(took: Duration, times: u32) -> Option<Duration> {
    match took.saturating_mul(times).min(LONGEST) {
        _ if times == 0 => Some(Duration::ZERO),
        rest => (rest >= SHORTEST).then_some(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_when_nobody_waits_and_longer_when_the_disks_are_busy() {
        let took = Duration::from_millis(1);
        assert_eq!(rest(took, times(true, true)), Some(Duration::ZERO));
        assert_eq!(rest(took, times(false, false)), Some(took * 16));
        assert_eq!(rest(took, times(false, true)), Some(took * 32));
        assert_eq!(rest(Duration::MAX, times(false, true)), Some(LONGEST));
        assert_eq!(rest(Duration::from_micros(40), times(false, false)), None);
    }
}
