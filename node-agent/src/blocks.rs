//! A few blocks in memory, read from the store and found good, or fetched and not kept
//! there: reads come in much smaller pieces than a block.

use crate::store::{Store, StoreError};
use bytes::Bytes;
use hearth_core::block::BlockNumber;
use hearth_core::manifest::{File, ManifestHash};
use lru::LruCache;
use parking_lot::Mutex;

/// Bytes of blocks that are kept, for all views of the node.
const KEPT: usize = 48 << 20;
/// Blocks that are read at one time; each of them is read once.
const SLOTS: usize = 8;

/// Which block.
type Key = (ManifestHash, BlockNumber);

/// Blocks of the store, the latest of them in memory.
pub struct Blocks {
    store: Store,
    kept: Mutex<Kept>,
    /// Whoever reads a block holds its slot.
    slots: [tokio::sync::Mutex<()>; SLOTS],
}

struct Kept {
    blocks: LruCache<Key, Bytes>,
    bytes: usize,
}

impl Blocks {
    /// Nothing is in memory yet.
    pub fn new(store: Store) -> Self {
        let kept = Kept { blocks: LruCache::unbounded(), bytes: 0 };
        Self { store, kept: Mutex::new(kept), slots: Default::default() }
    }

    /// A block if it is in memory.
    pub(crate) fn kept(&self, hash: ManifestHash, number: BlockNumber) -> Option<Bytes> {
        self.kept.lock().blocks.get(&(hash, number)).cloned()
    }

    /// Whether a block is in memory. It does not count as used by this.
    pub(crate) fn has(&self, hash: ManifestHash, number: BlockNumber) -> bool {
        self.kept.lock().blocks.contains(&(hash, number))
    }

    /// The block of that number, which is of this file; `None` when it is not held.
    pub(crate) async fn get(
        &self,
        hash: ManifestHash,
        file: &File<'_>,
        number: BlockNumber,
    ) -> Result<Option<Bytes>, StoreError> {
        if let Some(block) = self.kept(hash, number) {
            return Ok(Some(block));
        }
        if !self.store.holds(&hash, number) {
            return Ok(None);
        }
        let _slot = self.slots[number as usize % SLOTS].lock().await;
        if let Some(block) = self.kept(hash, number) {
            return Ok(Some(block));
        }
        let (store, index, block) = (self.store.clone(), file.index, u64::from(number - file.first_block));
        let read = tokio::task::spawn_blocking(move || store.read_block(&hash, index, block));
        let block = read.await.map_err(|_| StoreError::Closed)??.map(Bytes::from);
        if let Some(block) = &block {
            self.keep((hash, number), block.clone());
        }
        Ok(block)
    }

    /// Keeps a block that is good.
    pub(crate) fn keep(&self, key: Key, block: Bytes) {
        let mut kept = self.kept.lock();
        kept.bytes += block.len();
        if let Some((_, before)) = kept.blocks.push(key, block) {
            kept.bytes -= before.len();
        }
        while kept.bytes > KEPT {
            let Some((_, oldest)) = kept.blocks.pop_lru() else { return };
            kept.bytes -= oldest.len();
        }
    }
}
