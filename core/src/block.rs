//! Block arithmetic: how a file is cut into blocks and how blocks are numbered.

use std::ops::Range;

/// Bytes in every block of a file but its last, which may be shorter.
///
/// It is part of the store's format and of every inventory: changing it makes
/// all caches cold and asks for a new [`crate::manifest::FORMAT_VERSION`].
pub const BLOCK_SIZE: u64 = 4 << 20;

/// The number of a block within one manifest, file by file in path order: those of unlisted files
/// behind all others.
pub type BlockNumber = u32;

/// How many blocks a file of `size` bytes has; an empty file has none.
pub const fn blocks_in(size: u64) -> u64 {
    size.div_ceil(BLOCK_SIZE)
}

/// The bytes of the file that its `index`-th block covers; empty when the file
/// has no such block.
pub fn byte_range(size: u64, index: u64) -> Range<u64> {
    let start = index.saturating_mul(BLOCK_SIZE).min(size);
    let end = start.saturating_add(BLOCK_SIZE).min(size);
    start..end
}

/// The indices of the file's blocks that `bytes` touches.
pub fn blocks_touching(size: u64, bytes: &Range<u64>) -> Range<u64> {
    let end = bytes.end.min(size);
    if bytes.start >= end {
        return 0..0;
    }
    bytes.start / BLOCK_SIZE..blocks_in(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn edges() {
        assert_eq!(blocks_in(0), 0);
        assert_eq!(blocks_in(1), 1);
        assert_eq!(blocks_in(BLOCK_SIZE), 1);
        assert_eq!(blocks_in(BLOCK_SIZE + 1), 2);
        assert_eq!(byte_range(0, 0), 0..0);
        assert_eq!(byte_range(BLOCK_SIZE, 0), 0..BLOCK_SIZE);
        assert!(byte_range(BLOCK_SIZE, 1).is_empty());
        assert_eq!(blocks_touching(0, &(0..10)), 0..0);
        assert_eq!(blocks_touching(BLOCK_SIZE + 1, &(BLOCK_SIZE..u64::MAX)), 1..2);
    }

    proptest! {
        #[test]
        fn blocks_tile_the_file(size in 0..1u64 << 40) {
            let blocks = blocks_in(size);
            let first = byte_range(size, 0);
            prop_assert_eq!(first.start, 0);
            if blocks > 0 {
                let last = byte_range(size, blocks - 1);
                prop_assert_eq!(last.end, size);
                prop_assert!(!last.is_empty());
                if blocks > 1 {
                    prop_assert_eq!(byte_range(size, blocks - 2).end, last.start);
                }
            }
            prop_assert!(byte_range(size, blocks).is_empty());
        }

        #[test]
        fn touching_blocks_cover_the_bytes(size in 0..1u64 << 40, start: u64, len in 0..1u64 << 30) {
            let start = if size == 0 { 0 } else { start % size };
            let bytes = start..(start + len);
            let blocks = blocks_touching(size, &bytes);
            let end = bytes.end.min(size);
            if start < end {
                prop_assert!(byte_range(size, blocks.start).contains(&start));
                prop_assert!(byte_range(size, blocks.end - 1).contains(&(end - 1)));
            } else {
                prop_assert!(blocks.is_empty());
            }
        }

        #[test]
        fn no_size_overflows(size: u64, index: u64) {
            let range = byte_range(size, index);
            prop_assert!(range.start <= range.end && range.end <= size);
            prop_assert!(blocks_in(size) <= size.div_ceil(BLOCK_SIZE));
        }
    }
}
