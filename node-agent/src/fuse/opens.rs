//! How open files are read: by the kernel itself, or by us. The kernel insists that all
//! opens of one inode that live are read the same way, from the same backing file.

use fuser::BackingId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// How an inode is read for as long as it is open.
#[derive(Clone, Debug)]
pub(super) enum Mode {
    /// We are asked.
    Served,
    /// The kernel reads the backing file.
    Passthrough(Arc<BackingId>),
}

/// The inodes that are open.
#[derive(Debug, Default)]
pub(super) struct Opens(Mutex<HashMap<u64, (Mode, u64)>>);

impl Opens {
    /// Counts an open; the first one decides by `choose`.
    pub(super) fn open(&self, inode: u64, choose: impl FnOnce() -> Mode) -> Mode {
        let mut opens = self.0.lock();
        let (mode, count) = opens.entry(inode).or_insert_with(|| (choose(), 0));
        *count += 1;
        mode.clone()
    }

    /// The last one lets the backing file go.
    pub(super) fn release(&self, inode: u64) {
        let mut opens = self.0.lock();
        if let Some((_, count)) = opens.get_mut(&inode) {
            *count -= 1;
            if *count == 0 {
                opens.remove(&inode);
            }
        }
    }
}
