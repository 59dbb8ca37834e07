//! How far to fetch ahead of a reader. Pure.
//!
//! Whoever reads a file from block to block soon wants more of it: each such step
//! doubles what is fetched ahead, up to a limit. A reader that jumps wants nothing but
//! where it lands. Several readers of one file, as the workers of one job are, are told
//! apart by where they are.

use hearth_core::block::BlockNumber;
use lru::LruCache;
use std::num::NonZeroUsize;

/// Most blocks ahead: 128 MiB, what a fast network has under way in a tenth of a second.
const MOST: BlockNumber = 32;
/// The first step that is no jump.
const FIRST: BlockNumber = 2;
/// Readers of one version that are remembered, by where they are.
const READERS: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// The readers of one version.
pub(super) struct Ahead {
    /// How far ahead of it was fetched for whoever read the block of this number last.
    readers: LruCache<BlockNumber, BlockNumber>,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { readers: LruCache::new(READERS) }
    }
}

impl Ahead {
    /// Somebody reads the blocks from `first` to `last` of a file that begins at block
    /// `start`; how many behind `last` to fetch.
    pub(super) fn reads(&mut self, start: BlockNumber, first: BlockNumber, last: BlockNumber) -> BlockNumber {
        let here = self.readers.pop(&first);
        let before = first.checked_sub(1).filter(|before| *before >= start);
        let came = before.and_then(|before| self.readers.pop(&before));
        let ahead = match (here, came) {
            // Small reads within one block are one step.
            (Some(ahead), _) if first == last => ahead,
            (Some(ahead), _) | (None, Some(ahead)) => (ahead * 2).clamp(FIRST, MOST),
            // Whoever begins at the beginning mostly goes on.
            (None, None) if first == start => FIRST,
            (None, None) => last - first,
        };
        self.readers.put(last, ahead);
        ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_on_gets_more_and_more() {
        let mut ahead = Ahead::default();
        let steps: Vec<_> = (10..18).map(|block| ahead.reads(10, block, block)).collect();
        assert_eq!(steps, [2, 4, 8, 16, 32, 32, 32, 32]);
        // Many small reads of one block say nothing new.
        assert_eq!([ahead.reads(10, 17, 17), ahead.reads(10, 17, 17)], [32, 32]);
        // Reads that cross from one block to the next.
        assert_eq!([ahead.reads(10, 17, 18), ahead.reads(10, 18, 19)], [32, 32]);
    }

    #[test]
    fn who_jumps_gets_nothing_more() {
        let mut ahead = Ahead::default();
        for block in [70, 13, 50, 30, 90] {
            assert_eq!(ahead.reads(10, block, block), 0);
        }
        // Two readers of one file do not disturb each other.
        let steps: Vec<_> =
            (0..4).flat_map(|n| [ahead.reads(0, 20 + n, 20 + n), ahead.reads(0, 200 + n, 200 + n)]).collect();
        assert_eq!(steps, [0, 0, 2, 2, 4, 4, 8, 8]);
    }

    #[test]
    fn the_end_of_one_file_is_not_the_beginning_of_the_next() {
        let mut ahead = Ahead::default();
        for block in 0..10 {
            ahead.reads(0, block, block);
        }
        assert_eq!(ahead.reads(10, 10, 10), FIRST);
    }
}
