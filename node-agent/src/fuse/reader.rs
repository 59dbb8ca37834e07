//! Reads of one version: from what is here at once, and from what is not as soon as it comes.

use super::ahead::Ahead;
use crate::blocks::Blocks;
use crate::events::{Events, PodReference};
use crate::fill::Demands;
use crate::metrics::Metrics;
use crate::reads::{Habit, Reads};
use crate::store::Store;
use bytes::{Bytes, BytesMut};
use hearth_core::block::{BLOCK_SIZE, BlockNumber, blocks_touching};
use hearth_core::manifest::{File, Manifest, ManifestHash};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How often a block that does not come is demanded again: what was demanded may have
/// failed, or have been dropped for a new plan.
const AGAIN: Duration = Duration::from_secs(1);

/// Blocks fetched ahead when they are not kept on disk: the few that are in memory are for
/// all readers of the node.
const AHEAD_IF_SCARCE: BlockNumber = 1;

/// What reading needs.
#[derive(Clone)]
pub(crate) struct ReaderParts {
    /// What is held.
    pub(crate) store: Store,
    /// Blocks in memory.
    pub(crate) blocks: Arc<Blocks>,
    /// How blocks that are not held are asked for.
    pub(crate) demands: Demands,
    /// Told when blocks have come.
    pub(crate) arrived: Arc<Notify>,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// Longest time that a read waits.
    pub(crate) timeout: Duration,
    /// Who tells pods of reads that fail.
    pub(crate) events: Events,
    /// What is learned of how files are read.
    pub(crate) reads: Reads,
}

/// Reads files of one version.
pub(crate) struct Reader {
    parts: ReaderParts,
    hash: ManifestHash,
    manifest: Arc<Manifest>,
    dataset: String,
    /// Whose reads they are.
    pod: Option<PodReference>,
    ahead: Mutex<Ahead>,
    habit: Habit,
}

impl Reader {
    pub(crate) fn new(
        parts: ReaderParts,
        hash: ManifestHash,
        manifest: Arc<Manifest>,
        dataset: String,
        pod: Option<PodReference>,
    ) -> Self {
        let habit = parts.reads.of(&dataset);
        Self { parts, hash, manifest, dataset, pod, ahead: Mutex::default(), habit }
    }

    pub(super) fn store(&self) -> &Store {
        &self.parts.store
    }

    pub(super) fn hash(&self) -> &ManifestHash {
        &self.hash
    }

    /// The bytes, if all of them are in memory.
    pub(super) fn read_kept(&self, index: u32, offset: u64, size: u32) -> Option<Bytes> {
        let file = self.manifest.file(index as usize)?;
        let wanted = offset..offset.saturating_add(size.into()).min(file.size);
        if wanted.is_empty() {
            return Some(Bytes::new());
        }
        let blocks = blocks_touching(file.size, &wanted);
        if blocks.end - blocks.start != 1 {
            return None;
        }
        let block = self.parts.blocks.kept(self.hash, file.first_block + blocks.start as BlockNumber)?;
        Some(part(&block, blocks.start, &wanted))
    }

    /// Reads up to `size` bytes; fewer only at the end of the file. Or why not.
    pub(super) async fn read(&self, index: u32, offset: u64, size: u32) -> Result<Bytes, String> {
        let file = self.manifest.file(index as usize).ok_or("the version has no such file")?;
        let wanted = offset..offset.saturating_add(size.into()).min(file.size);
        if wanted.is_empty() {
            return Ok(Bytes::new());
        }
        let blocks = blocks_touching(file.size, &wanted);
        let number = |at: u64| file.first_block + at as BlockNumber;
        let (first, last) = (number(blocks.start), number(blocks.end - 1));
        let mut ahead = self.ahead.lock().reads(file.first_block, first, last);
        if file.unlisted || self.parts.demands.is_scarce(&self.hash) {
            ahead = ahead.min(AHEAD_IF_SCARCE);
        }
        self.demand(first..last.saturating_add(ahead + 1).min(file.blocks().end));
        let mut all = BytesMut::new();
        for at in blocks.clone() {
            let block = self.block(&file, number(at), last).await?;
            let part = part(&block, at, &wanted);
            if blocks.end - blocks.start == 1 {
                return Ok(part);
            }
            all.extend_from_slice(&part);
        }
        Ok(all.freeze())
    }

    /// One block of a read that goes on to `last`; waits until it has come.
    async fn block(&self, file: &File<'_>, number: BlockNumber, last: BlockNumber) -> Result<Bytes, String> {
        let deadline = Instant::now() + self.parts.timeout;
        let mut again = Instant::now() + AGAIN;
        let mut coming = self.parts.demands.wait_for(self.hash, number);
        loop {
            let mut arrived = std::pin::pin!(self.parts.arrived.notified());
            arrived.as_mut().enable();
            let found = self.parts.blocks.get(self.hash, file, number).await;
            let found = found.map_err(|error| error.to_string())?;
            if let Some(block) = found {
                return Ok(block);
            }
            if self.parts.demands.is_refused(&self.hash, number) {
                return Err(
                    "its object was changed or deleted at the origin, and this version of it is not here"
                        .to_owned(),
                );
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let at = u64::from(number - file.first_block) * BLOCK_SIZE;
                return Err(format!(
                    "the bytes from {at} on did not come from the origin within {} s",
                    self.parts.timeout.as_secs_f32()
                ));
            }
            tokio::select! {
                block = coming.block() => {
                    self.parts.blocks.keep((self.hash, number), block.clone());
                    return Ok(block);
                }
                // In another way, or another block.
                () = arrived => {}
                () = tokio::time::sleep(left.min(AGAIN)) => {}
            }
            if Instant::now() >= again {
                self.demand(number..last + 1);
                again += AGAIN;
            }
        }
    }

    fn demand(&self, numbers: std::ops::Range<BlockNumber>) {
        let is_here = |number: &BlockNumber| {
            let (hash, number) = (self.hash, *number);
            self.parts.store.holds(&hash, number) || self.parts.blocks.has(hash, number)
        };
        let missing = numbers.filter(|number| !is_here(number));
        self.parts.demands.demand(self.hash, missing);
    }

    /// A file is opened, however it is read then.
    pub(super) fn opened(&self, index: u32) {
        // Of what is never kept nothing is learned of what to keep.
        if let Some(file) = self.manifest.file(index as usize).filter(|file| !file.unlisted) {
            self.habit.opened(self.manifest.listed_count() as u64, &self.manifest.object_id(&file));
        }
    }

    /// A file is opened that is not whole: one of a single block will be read from its beginning.
    pub(super) fn opened_served(&self, index: u32) {
        let file = self.manifest.file(index as usize);
        if let Some(file) = file.filter(|file| file.blocks().len() == 1) {
            self.demand(file.blocks());
        }
    }

    /// Tells and counts a read that has failed.
    pub(super) fn failed(&self, index: u32, why: &str) {
        let file = self.manifest.file(index as usize).map_or("", |file| file.path);
        self.parts.metrics.fuse_read_errors.inc();
        tracing::warn!(dataset = self.dataset, file, "a read fails with EIO: {why}");
        if let Some(pod) = &self.pod {
            let note = format!("a read of {file} of Dataset {} failed with EIO: {why}", self.dataset);
            self.parts.events.read_failed(pod, &note);
        }
    }

    /// Tells and counts a request that has ended the agents before this one.
    pub(super) fn refused(&self, request: u64) {
        self.parts.metrics.fuse_read_errors.inc();
        tracing::error!(
            dataset = self.dataset,
            request,
            "a request fails with EIO: no agent has lived to answer it, and it is not tried again"
        );
    }
}

/// What a block has of the wanted bytes of its file.
fn part(block: &Bytes, at: u64, wanted: &std::ops::Range<u64>) -> Bytes {
    let begins = at * BLOCK_SIZE;
    // A block's length fits.
    let start = (wanted.start.saturating_sub(begins) as usize).min(block.len());
    let end = (wanted.end.saturating_sub(begins).min(block.len() as u64)) as usize;
    block.slice(start..end.max(start))
}
