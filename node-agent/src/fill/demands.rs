//! Blocks that somebody waits for now: they are fetched before all else.

use hearth_core::block::BlockNumber;
use hearth_core::manifest::ManifestHash;
use parking_lot::Mutex;
use roaring::RoaringBitmap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
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

    /// Returns when something has been asked for.
    pub(super) async fn made(&self) {
        self.0.made.notified().await;
    }

    pub(super) fn take(&self) -> HashMap<ManifestHash, RoaringBitmap> {
        std::mem::take(&mut self.0.blocks.lock())
    }
}
