//! Blocks that somebody waits for now: they are fetched before all else.

use hearth_core::block::BlockNumber;
use hearth_core::manifest::ManifestHash;
use parking_lot::Mutex;
use roaring::RoaringBitmap;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// What readers ask for. Clones are the same. It is bounded by the blocks of the
/// versions that are read: asking twice is asking once.
#[derive(Clone, Debug, Default)]
pub struct Demands(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    blocks: Mutex<HashMap<ManifestHash, RoaringBitmap>>,
    made: Notify,
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

    /// Returns when something has been asked for.
    pub(super) async fn made(&self) {
        self.0.made.notified().await;
    }

    pub(super) fn take(&self) -> HashMap<ManifestHash, RoaringBitmap> {
        std::mem::take(&mut self.0.blocks.lock())
    }
}
