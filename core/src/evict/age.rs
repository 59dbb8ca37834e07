//! Ages of objects: how long ago they were read, in bins that widen with age.

/// Bins of each octave.
const PER_OCTAVE: usize = 8;
/// How many bins there are for the ages that 16 bits can hold.
pub(super) const BINS: usize = 14 * PER_OCTAVE;

/// The bin of an age in ticks. An age and its bin's edge differ by an eighth at most.
pub(super) fn bin(ticks: u16) -> usize {
    let octave = ticks.checked_ilog2().unwrap_or(0) as usize;
    match octave.checked_sub(3) {
        None => usize::from(ticks),
        Some(doublings) => (doublings + 1) * PER_OCTAVE + (usize::from(ticks) >> doublings) % PER_OCTAVE,
    }
}

/// How many ticks a bin spans.
pub(super) fn width(bin: usize) -> u32 {
    1 << (bin / PER_OCTAVE).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_tile_the_ages() {
        let mut start = 0;
        for bin in 0..BINS {
            let end = start + width(bin);
            for ticks in [start, end - 1] {
                assert_eq!(super::bin(ticks as u16), bin, "age {ticks}");
            }
            assert!(start < 8 || width(bin) * 8 <= start);
            start = end;
        }
        assert_eq!(start, 1 << 16);
    }
}
