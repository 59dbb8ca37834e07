//! A tier: one cache directory, with an index of its own. What happens to one is nothing to
//! the others.

use super::StoreError;
use super::engine::Engine;
use super::evict::{BlockSets, Evicted};
use super::space::{Reservation, Usage};
use hearth_core::block::BlockNumber;
use hearth_core::evict::Room;
use hearth_core::manifest::{Manifest, ManifestHash};
use hearth_core::tier::Medium;
use roaring::RoaringBitmap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which tier of its store: its place among them, the fastest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TierId(pub(super) usize);

impl TierId {
    /// Its place in [`Store::tiers`](super::Store::tiers).
    pub fn index(self) -> usize {
        self.0
    }
}

/// A handle to one tier of an open store.
#[derive(Clone, Debug)]
pub struct Tier {
    pub(super) id: TierId,
    pub(super) medium: Medium,
    pub(super) engine: Arc<Engine>,
}

impl Tier {
    /// Which it is.
    pub fn id(&self) -> TierId {
        self.id
    }

    /// What it is on.
    pub fn medium(&self) -> Medium {
        self.medium
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        self.engine.shared.layout.root()
    }

    /// Whether its disk works, as far as is known. Of one that has failed nothing is held.
    pub fn works(&self) -> bool {
        self.engine.shared.health.works()
    }

    /// Finds out whether its disk works. Blocks on the disk.
    pub fn look_after(&self) {
        self.engine.look_after();
    }

    /// Its disk has not answered for so long: it counts as failed.
    pub fn hangs(&self, seconds: u64) {
        self.engine.hangs(seconds);
    }

    /// The manifests that are stored here, with their datasets. Looks at memory only.
    pub fn manifests(&self) -> Vec<(ManifestHash, String)> {
        self.engine.manifests()
    }

    /// See [`Store::manifest`](super::Store::manifest).
    pub fn manifest(&self, hash: &ManifestHash) -> Result<Option<Arc<Manifest>>, StoreError> {
        self.engine.manifest(hash)
    }

    /// Whether the manifest is in this tier's inventory. Looks at memory only.
    pub fn is_adopted(&self, hash: &ManifestHash) -> bool {
        self.engine.is_adopted(hash)
    }

    /// The blocks of a manifest that are held here; `None` when it is not adopted here. Looks
    /// at memory only.
    pub fn held(&self, hash: &ManifestHash) -> Option<RoaringBitmap> {
        self.engine.held(hash)
    }

    /// Whether some of these blocks of a manifest are held here. Looks at memory only.
    pub fn holds_some(&self, hash: &ManifestHash, blocks: Range<BlockNumber>) -> bool {
        self.engine.shared.inventory.shows_some(hash, blocks)
    }

    /// The object file of a file of a manifest that is adopted here, when all its blocks are
    /// held here. See [`Store::whole_file`](super::Store::whole_file).
    pub fn whole_file(&self, hash: &ManifestHash, file: usize) -> Result<Option<PathBuf>, StoreError> {
        self.engine.whole_file(hash, file)
    }

    /// Which of these files of a manifest that is adopted here another one lists, too, as the
    /// same objects.
    pub fn also_listed(
        &self,
        hash: &ManifestHash,
        files: &RoaringBitmap,
        other: &ManifestHash,
    ) -> Result<RoaringBitmap, StoreError> {
        self.engine.also_listed(hash, files, other)
    }

    /// See [`Store::read_block`](super::Store::read_block).
    pub fn read_block(
        &self,
        hash: &ManifestHash,
        file: usize,
        block: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.engine.read_block(hash, file, block)
    }

    /// As [`Store::write_block`](super::Store::write_block), for threads that may block.
    pub fn write_block(
        &self,
        hash: &ManifestHash,
        file: usize,
        block: u64,
        data: &[u8],
    ) -> Result<(), StoreError> {
        self.engine.write_block_now(*hash, file, block, data)
    }

    /// Gives up the objects of these files of an adopted manifest here, in all manifests that
    /// list them. Left alone are those that have one of the blocks in `stay`, and those
    /// that somebody writes. Done when their files are unlinked; whoever has one open
    /// keeps good bytes, and links that others made stay. Calls `pause` after each.
    pub fn evict(
        &self,
        hash: &ManifestHash,
        files: &[usize],
        stay: Arc<BlockSets>,
        pause: &mut dyn FnMut(),
    ) -> Result<Evicted, StoreError> {
        self.engine.evict(hash, files, stay, pause)
    }

    /// Has all that was written here before synced: afterwards a power cut leaves it. Blocks on the disk.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.engine.sync()
    }

    /// Whether files were found to be other than they were written when it was opened.
    pub fn has_lost_files(&self) -> bool {
        self.engine.shared.lost_files
    }

    /// Sets room for `bytes` aside until the guard is dropped.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, StoreError> {
        self.engine.reserve(bytes)
    }

    /// How much room there is for a reservation. `late` are bytes that were given up and that
    /// the file system does not show as free yet.
    pub fn room(&self, late: u64) -> Result<Room, StoreError> {
        self.engine.room(late)
    }

    /// How much room what is held takes, reservations left out.
    pub fn room_of_held(&self, late: u64) -> Result<Room, StoreError> {
        self.engine.room_of_held(late)
    }

    /// Whether it is configured to keep nothing.
    pub(super) fn keeps_nothing(&self) -> bool {
        self.engine.shared.space.keeps_nothing()
    }

    /// Whether others have taken much of what must stay free.
    pub fn is_short(&self) -> Result<bool, StoreError> {
        self.engine.shared.space.is_short()
    }

    /// How full it is.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        self.engine.usage()
    }
}
