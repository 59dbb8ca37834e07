//! What a store counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a store counted since it was opened.
#[derive(Debug, Default)]
pub struct StoreStats {
    /// Blocks that were written.
    pub blocks_written: AtomicU64,
    /// Their bytes.
    pub bytes_written: AtomicU64,
    /// Blocks read and found good.
    pub blocks_read: AtomicU64,
    /// Their bytes.
    pub bytes_read: AtomicU64,
    /// Blocks given up because they were damaged, missing or unreadable.
    pub blocks_damaged: AtomicU64,
    /// Rows of the index given up because their checksum was wrong.
    pub rows_damaged: AtomicU64,
    /// Manifests given up because they were missing or damaged.
    pub manifests_lost: AtomicU64,
    /// Times that a damaged index was put aside and an empty one begun.
    pub index_rebuilds: AtomicU64,
    /// Times that the index was opened again after an error.
    pub index_reopens: AtomicU64,
    /// Times that the file system was synced as a whole.
    pub syncs: AtomicU64,
    /// Durable commits.
    pub commits: AtomicU64,
    /// Microseconds that they took, together.
    pub commit_micros: AtomicU64,
    /// Commits that failed.
    pub commits_failed: AtomicU64,
    /// Object files removed because nothing held them.
    pub orphans_removed: AtomicU64,
    /// Times that the disk was full when something was written.
    pub no_space: AtomicU64,
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
