//! Blocks that somebody waits for now: they are fetched before all else, and handed over
//! as they come. Whoever reads need not wait until they are kept.

use bytes::Bytes;
use hearth_core::block::BlockNumber;
use hearth_core::manifest::ManifestHash;
use parking_lot::Mutex;
use roaring::RoaringBitmap;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// How long a refusal holds; then somebody has to ask again.
const REFUSED: Duration = Duration::from_secs(5);

/// What readers ask for. Clones are the same. It is bounded by the blocks of the
/// versions that are read: asking twice is asking once.
#[derive(Clone, Debug, Default)]
pub struct Demands(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    blocks: Mutex<HashMap<ManifestHash, RoaringBitmap>>,
    /// What cannot come, and until when that holds.
    refused: Mutex<HashMap<ManifestHash, (RoaringBitmap, Instant)>>,
    made: Notify,
    /// Versions of which no more is kept.
    scarce: Mutex<HashSet<ManifestHash>>,
    /// Told when a reader begins to wait.
    waits: Notify,
    /// What readers wait for this moment.
    awaited: Mutex<HashMap<Key, Awaited>>,
}

type Key = (ManifestHash, BlockNumber);

#[derive(Debug)]
struct Awaited {
    readers: usize,
    block: watch::Sender<Option<Bytes>>,
}

/// One reader's waiting for one block, until it is dropped.
#[derive(Debug)]
pub struct Awaiting {
    demands: Demands,
    key: Key,
    block: watch::Receiver<Option<Bytes>>,
}

impl Awaiting {
    /// The block, once it has come from the origin. Never, when it comes in another way.
    pub async fn block(&mut self) -> Bytes {
        match self.block.wait_for(Option::is_some).await.map(|block| block.clone()) {
            Ok(Some(block)) => block,
            // The sender lives as long as this does.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Awaiting {
    fn drop(&mut self) {
        let mut awaited = self.demands.0.awaited.lock();
        if let Some(block) = awaited.get_mut(&self.key) {
            block.readers -= 1;
            if block.readers == 0 {
                awaited.remove(&self.key);
            }
        }
    }
}

impl Demands {
    /// Asks for blocks of a version. They come if a want has them; whoever waits asks
    /// again now and then.
    pub fn demand(&self, hash: ManifestHash, blocks: impl IntoIterator<Item = BlockNumber>) {
        let blocks: RoaringBitmap = blocks.into_iter().collect();
        if !blocks.is_empty() {
            *self.0.blocks.lock().entry(hash).or_default() |= blocks;
            self.0.made.notify_one();
        }
    }

    /// Has a block handed over when it comes; it is not asked for by this.
    pub fn wait_for(&self, hash: ManifestHash, block: BlockNumber) -> Awaiting {
        let key = (hash, block);
        let mut awaited = self.0.awaited.lock();
        let entry =
            awaited.entry(key).or_insert_with(|| Awaited { readers: 0, block: watch::Sender::default() });
        entry.readers += 1;
        self.0.waits.notify_waiters();
        Awaiting { demands: self.clone(), key, block: entry.block.subscribe() }
    }

    /// Returns when a reader waits for one of these blocks.
    pub(super) async fn awaited(&self, hash: ManifestHash, blocks: Range<BlockNumber>) {
        loop {
            let mut waits = std::pin::pin!(self.0.waits.notified());
            waits.as_mut().enable();
            if self.0.awaited.lock().keys().any(|(of, block)| *of == hash && blocks.contains(block)) {
                return;
            }
            waits.await;
        }
    }

    /// A block has come, whole and as it was listed.
    pub(super) fn hand_over(&self, hash: ManifestHash, block: BlockNumber, data: &Bytes) {
        if let Some(awaited) = self.0.awaited.lock().get(&(hash, block)) {
            awaited.block.send_replace(Some(data.clone()));
        }
    }

    /// Whether a block that was asked for cannot come: its object is not what was listed.
    pub fn is_refused(&self, hash: &ManifestHash, block: BlockNumber) -> bool {
        let refused = self.0.refused.lock();
        refused.get(hash).is_some_and(|(blocks, until)| blocks.contains(block) && *until > Instant::now())
    }

    /// These blocks of a version cannot come.
    pub(super) fn refuse(&self, hash: ManifestHash, blocks: &RoaringBitmap, now: Instant) {
        let mut refused = self.0.refused.lock();
        refused.retain(|_, (_, until)| *until > now);
        if !blocks.is_empty() {
            let (all, until) = refused.entry(hash).or_insert_with(|| (RoaringBitmap::new(), now));
            *all |= blocks;
            *until = now + REFUSED;
        }
    }

    /// Whether what is fetched of a version stays in memory for a short time only: to be
    /// asked for no sooner than it is read.
    pub fn is_scarce(&self, hash: &ManifestHash) -> bool {
        self.0.scarce.lock().contains(hash)
    }

    pub(super) fn set_scarce(&self, versions: HashSet<ManifestHash>) {
        *self.0.scarce.lock() = versions;
    }

    /// Returns when something has been asked for.
    pub(super) async fn made(&self) {
        self.0.made.notified().await;
    }

    pub(super) fn take(&self) -> HashMap<ManifestHash, RoaringBitmap> {
        std::mem::take(&mut self.0.blocks.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn who_waits_is_handed_the_block_and_nobody_else_keeps_it() {
        let (demands, hash) = (Demands::default(), ManifestHash::of(b"one"));
        let block = Bytes::from_static(b"block");
        demands.hand_over(hash, 1, &block);
        let (mut one, mut other) = (demands.wait_for(hash, 1), demands.wait_for(hash, 1));
        assert!(one.block().now_or_never().is_none(), "it came before anybody waited");
        demands.hand_over(hash, 2, &block);
        demands.hand_over(ManifestHash::of(b"other"), 1, &block);
        assert!(one.block().now_or_never().is_none(), "it was another one");
        demands.hand_over(hash, 1, &block);
        assert_eq!(one.block().await, block);
        drop(one);
        assert_eq!(other.block().await, block);
        drop(other);
        assert!(demands.0.awaited.lock().is_empty());
    }
}
