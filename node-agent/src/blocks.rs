//! A few blocks in memory, read from the store and found good, or fetched and not kept
//! there: reads come in much smaller pieces than a block. And those that are on their way into the
//! store: whoever reads does not wait until they are in its index.

use crate::store::{Store, StoreError};
use bytes::Bytes;
use hearth_core::block::BlockNumber;
use hearth_core::manifest::{File, ManifestHash};
use lru::LruCache;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

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
    /// Those on their way into the store.
    arriving: Mutex<HashMap<Key, Bytes>>,
    /// Whoever reads a block holds its slot.
    slots: [tokio::sync::Mutex<()>; SLOTS],
}

struct Kept {
    blocks: LruCache<Key, Bytes>,
    bytes: usize,
}

/// A block on its way into the store, until this is dropped.
pub(crate) struct Arriving {
    blocks: Arc<Blocks>,
    key: Key,
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.blocks.arriving.lock().remove(&self.key);
    }
}

impl Blocks {
    /// Nothing is in memory yet.
    pub fn new(store: Store) -> Self {
        let kept = Kept { blocks: LruCache::unbounded(), bytes: 0 };
        Self { store, kept: Mutex::new(kept), arriving: Mutex::default(), slots: Default::default() }
    }

    /// A block if it is in memory.
    pub(crate) fn kept(&self, hash: ManifestHash, number: BlockNumber) -> Option<Bytes> {
        let key = (hash, number);
        let kept = self.kept.lock().blocks.get(&key).cloned();
        kept.or_else(|| {
            let block = self.arriving.lock().get(&key).cloned()?;
            // The next piece of it may be asked for when it has arrived.
            self.keep(key, block.clone());
            Some(block)
        })
    }

    /// Whether a block is in memory. It does not count as used by this.
    pub(crate) fn has(&self, hash: ManifestHash, number: BlockNumber) -> bool {
        let key = (hash, number);
        self.kept.lock().blocks.contains(&key) || self.arriving.lock().contains_key(&key)
    }

    /// A good block is about to be written.
    pub(crate) fn arriving(self: &Arc<Self>, key: Key, block: Bytes) -> Arriving {
        self.arriving.lock().insert(key, block);
        Arriving { blocks: Arc::clone(self), key }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::open_store;

    #[test]
    fn a_block_on_its_way_is_read_as_if_it_were_there() {
        let directory = tempfile::tempdir().unwrap();
        let blocks = Arc::new(Blocks::new(open_store(directory.path(), None)));
        let (hash, data) = (ManifestHash([1; 32]), Bytes::from_static(b"data"));
        let arriving = blocks.arriving((hash, 1), data.clone());
        assert!(blocks.has(hash, 1) && !blocks.has(hash, 2));
        drop(arriving);
        assert!(!blocks.has(hash, 1), "nobody has read it: the store has it now");
        let arriving = blocks.arriving((hash, 1), data.clone());
        assert_eq!(blocks.kept(hash, 1), Some(data.clone()));
        drop(arriving);
        assert_eq!(blocks.kept(hash, 1), Some(data), "the rest of it is asked for next");
    }
}
