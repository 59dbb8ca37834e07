//! What the committer is asked to do.

use super::error::StoreError;
use super::evict::{BlockSets, Doomed, Evicted};
use super::gate::Pass;
use super::manifests::Object;
use hearth_core::manifest::ManifestHash;
use hearth_core::object::ObjectId;
use roaring::RoaringBitmap;
use std::sync::Arc;

/// Where an answer goes.
pub(super) type Reply<T> = Box<dyn FnOnce(Result<T, StoreError>) + Send>;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is in the inventory.
    Kept,
    /// The object's file was given up meanwhile: write again.
    Void,
}

/// A block whose bytes are written already.
pub(super) struct Write {
    pub(super) object: Arc<Object>,
    /// The manifest by which it was written.
    pub(super) manifest: ManifestHash,
    pub(super) block: u64,
    pub(super) length: u64,
    pub(super) sum: u32,
    /// They are not synced: that is noted.
    pub(super) unsynced: bool,
    /// Whoever wrote it does nothing else until it is answered.
    pub(super) awaited: bool,
    pub(super) pass: Pass,
    pub(super) reply: Reply<Written>,
}

/// A block that did not read back.
pub(super) struct GiveUp {
    pub(super) object: Arc<Object>,
    pub(super) block: u64,
    /// The checksum that it should have had; what was written since is left alone.
    pub(super) sum: Option<u32>,
    /// Give up the whole object: its file is missing, or its row damaged.
    pub(super) entire: bool,
    pub(super) reply: Reply<()>,
}

/// Objects that a retired manifest listed.
pub(super) struct Free {
    pub(super) objects: Vec<Arc<Object>>,
    pub(super) reply: Reply<()>,
}

/// Objects to give up, so that there is room for others.
pub(super) struct Evict {
    pub(super) objects: Vec<Arc<Object>>,
    /// An object that has one of these does not go.
    pub(super) stay: Arc<BlockSets>,
    pub(super) reply: Reply<(Evicted, Doomed)>,
}

/// Changes of object rows: many go into one transaction.
pub(super) enum BlockCommand {
    Write(Write),
    GiveUp(GiveUp),
    Free(Free),
    Evict(Evict),
}

/// Changes of manifests: one transaction each.
pub(super) enum ManifestCommand {
    /// Keep a manifest whose file is durable.
    Put { hash: ManifestHash, dataset: String, reply: Reply<()> },
    /// From here on changes of its objects count.
    BeginAdopting { hash: ManifestHash, reply: Reply<()> },
    /// Show it, with the blocks that a scan found.
    FinishAdopting { hash: ManifestHash, found: RoaringBitmap, reply: Reply<()> },
    /// Take it out of the inventory.
    BeginRetiring { hash: ManifestHash, reply: Reply<()> },
    /// Its objects are freed: forget it.
    FinishRetiring { hash: ManifestHash, reply: Reply<()> },
    /// Its file is gone or damaged: forget it now, and find its objects later.
    Lose { hash: ManifestHash, reply: Reply<()> },
    /// Remove objects that none of `seen` lists, unless others are known by now;
    /// answers whether it was done.
    Collect { objects: Vec<ObjectId>, seen: Vec<ManifestHash>, reply: Reply<bool> },
    /// No object is there without a manifest.
    Collected { reply: Reply<()> },
    /// What was noted up to that number is synced.
    Synced { upto: u64, reply: Reply<()> },
    /// Answers once memory says what the index says.
    Settle { reply: Reply<()> },
}

/// All that the committer is asked to do.
pub(super) enum Command {
    Block(BlockCommand),
    Manifest(ManifestCommand),
}
