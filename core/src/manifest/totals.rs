//! What a manifest's files come to.

use super::BuildError;
use crate::block::{self, BlockNumber};

/// Counted file by file: what has more than can be numbered makes no manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Totals {
    /// Blocks of listed files.
    pub(super) blocks: BlockNumber,
    /// Bytes of listed files.
    pub(super) bytes: u64,
    pub(super) unlisted_files: usize,
    pub(super) unlisted_blocks: BlockNumber,
    /// All files.
    pub(super) files: usize,
    /// Bytes of all files' paths.
    pub(super) paths: u32,
}

impl Totals {
    /// Counts one file more.
    pub(super) fn add(&mut self, path: &str, size: u64, unlisted: bool) -> Result<(), BuildError> {
        let blocks = BlockNumber::try_from(block::blocks_in(size)).map_err(|_| BuildError::TooManyBlocks)?;
        // All of them are numbered in one range.
        let before = self.blocks + self.unlisted_blocks;
        before.checked_add(blocks).ok_or(BuildError::TooManyBlocks)?;
        let path = u32::try_from(path.len()).ok();
        self.paths = path.and_then(|path| self.paths.checked_add(path)).ok_or(BuildError::TooManyBlocks)?;
        self.files += 1;
        if unlisted {
            self.unlisted_files += 1;
            self.unlisted_blocks += blocks;
        } else {
            self.blocks += blocks;
            self.bytes += size;
        }
        Ok(())
    }
}
