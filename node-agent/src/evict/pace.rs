//! How fast objects are given up. Pure.
//!
//! Each batch takes a processor and the disk's journal for a moment. Nobody waits for most of
//! them: those that make room down to the low watermark, or keep to a limit. Between these it
//! rests, so that who reads and trains finds both free more often than not.

use std::time::Duration;

/// Rests in lengths of the batch before.
const USUAL: u32 = 16;
const WHILE_BUSY: u32 = 32;
/// Who comes to wait meanwhile waits no longer than this.
const LONGEST: Duration = Duration::from_millis(500);

/// How long to rest after a batch that took so long, when the disks are busy or not.
pub(super) fn rest(took: Duration, is_awaited: bool, is_busy: bool) -> Duration {
    if is_awaited {
        return Duration::ZERO;
    }
    let times = if is_busy { WHILE_BUSY } else { USUAL };
    took.saturating_mul(times).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_when_nobody_waits_and_longer_when_the_disks_are_busy() {
        let took = Duration::from_millis(50);
        assert_eq!(rest(took, true, true), Duration::ZERO);
        assert_eq!(rest(took / 50, false, false), took * 16 / 50);
        assert_eq!(rest(took / 50, false, true), took * 32 / 50);
        assert_eq!(rest(Duration::MAX, false, true), LONGEST);
    }
}
