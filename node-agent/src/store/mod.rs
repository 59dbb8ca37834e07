//! The store: blocks of immutable objects in one or several tiers, and in each a durable index
//! of what it holds.
//!
//! # Layout of a tier
//!
//! ```text
//! LOCK                      locked for as long as a process has the store open
//! index.redb                what is held, with a checksum per row and per block
//! ballast                   given up on a full disk, so that the index can still delete
//! objects/ab/<32 hex>       one sparse file per object, blocks at their own offsets
//! manifests/<64 hex>        encodings of the known manifests
//! ```
//!
//! # What may be relied on
//!
//! - Order: bytes, then directory entries, then the index, each durable before
//!   the next; a block is visible in the inventory after that. So what was once
//!   published is there after a power cut, and nothing else is claimed.
//! - An object that several known manifests list is stored once and counts in all.
//! - A block read from here passed its checksum at that moment. One that does not
//!   pass is dropped from the inventory and can be written again.
//! - A file that has ever been whole is never written again, only unlinked: whoever
//!   has it open keeps good bytes.
//!
//! All methods block on the disk except [`Store::write_block`], and those that
//! only look at memory, which say so; call them from blocking threads.

mod adopt;
#[cfg(any(test, feature = "bench-support"))]
pub mod bulk;
mod busy;
mod commands;
mod committer;
mod disk;
mod engine;
mod error;
mod evict;
#[cfg(test)]
mod fake_disk;
mod gate;
mod health;
mod index;
mod inventory;
mod layout;
mod manifests;
mod opening;
mod real_disk;
mod retire;
mod rows;
mod space;
mod staging;
mod stats;
mod subscription;
mod sweep;
#[cfg(test)]
mod tests;
mod tier;
mod tiers;

pub use error::StoreError;
pub use evict::{BlockSets, Evicted};
pub use space::{Reservation, Usage};
pub use stats::StoreStats;
pub use subscription::{Subscription, Taken};
pub use tier::{Tier, TierId};

use crate::config::units::Size;
use bytes::Bytes;
use disk::Disk;
use hearth_core::block::BlockNumber;
use hearth_core::evict::Watermarks;
use hearth_core::manifest::{Manifest, ManifestHash};
use hearth_core::selection::Selection;
use hearth_core::tier::Medium;
use hearth_core::wire::report::Holding;
use real_disk::RealDisk;
use roaring::RoaringBitmap;
use std::path::PathBuf;
use std::sync::Arc;
use tiers::Tiers;

/// Where a tier of a store is and how much it may take.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Its directory; made when it is not there.
    pub directory: PathBuf,
    /// What that is on.
    pub medium: Medium,
    /// Most bytes of blocks to hold; `None` for as much as `min_free` leaves.
    pub capacity: Option<Size>,
    /// What must stay free on its file system.
    pub min_free: Size,
    /// Most that all that is on its file system may take, inodes included; for tmpfs.
    pub file_system: Option<u64>,
    /// When something has to go, and how much.
    pub watermarks: Watermarks,
}

impl StoreConfig {
    /// One that takes as much as there is.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            medium: Medium::Ssd,
            capacity: None,
            min_free: Size::Bytes(0),
            file_system: None,
            watermarks: Watermarks::default(),
        }
    }
}

/// Which store this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreIdentity {
    /// Made with the store: a reformatted disk, or a lost index, has another.
    pub uuid: uuid::Uuid,
    /// How often it has been opened, this time included.
    pub boot: u64,
}

/// A handle to an open store. The last one to go closes it.
#[derive(Clone)]
pub struct Store(Arc<Tiers>);

impl Store {
    /// Opens a store of one tier, or makes it. What it held is known when this returns.
    ///
    /// A damaged index is put aside and an empty one begun, with a new
    /// [`StoreIdentity::uuid`]: the tier is then cold, but true.
    pub fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        Self::open_tiers(std::slice::from_ref(config))
    }

    /// Opens a store of several tiers. The first is its home: it has the manifests, and the
    /// store is identified by it. Of the others, one that cannot be opened is left out.
    pub fn open_tiers(configs: &[StoreConfig]) -> Result<Self, StoreError> {
        let on_disk = |config: &StoreConfig| (config.clone(), Arc::new(RealDisk) as Arc<dyn Disk>);
        Self::open_on(&configs.iter().map(on_disk).collect::<Vec<_>>())
    }

    fn open_on(configs: &[(StoreConfig, Arc<dyn Disk>)]) -> Result<Self, StoreError> {
        Ok(Self(Arc::new(Tiers::open(configs)?)))
    }

    /// Its tiers, the fastest first.
    pub fn tiers(&self) -> &[Tier] {
        self.0.all()
    }

    /// The tier that was named first.
    pub fn home(&self) -> &Tier {
        self.0.home()
    }

    /// Makes a stored manifest known to a tier, so that this can get blocks of it.
    pub fn admit(&self, tier: TierId, hash: &ManifestHash) -> Result<(), StoreError> {
        self.0.admit(tier, hash)
    }

    /// Which store this is. Looks at memory only.
    pub fn identity(&self) -> StoreIdentity {
        self.0.identity()
    }

    /// Keeps a manifest, durably, under the name of the dataset (`namespace/name`)
    /// that it is known from. Refused as [`StoreError::Damaged`] when `bytes` do not
    /// hash to `hash`. It is not in the inventory before [`Store::adopt`].
    pub fn put_manifest(&self, hash: ManifestHash, dataset: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.0.put_manifest(hash, dataset, bytes)
    }

    /// A stored manifest; `None` when it is not here. Kept decoded while it is in use.
    pub fn manifest(&self, hash: &ManifestHash) -> Result<Option<Arc<Manifest>>, StoreError> {
        self.0.manifest(hash)
    }

    /// The encoding of a stored manifest, its hash checked; `None` when it is not here.
    pub fn manifest_bytes(&self, hash: &ManifestHash) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.manifest_bytes(hash)
    }

    /// The stored manifests and their datasets, adopted or not. Looks at memory only.
    pub fn manifests(&self) -> Vec<(ManifestHash, String)> {
        self.0.manifests()
    }

    /// Whether the manifest is in the inventory. Looks at memory only.
    pub fn is_adopted(&self, hash: &ManifestHash) -> bool {
        self.0.is_adopted(hash)
    }

    /// Takes a stored manifest into the inventory with whatever the store already
    /// holds of its objects. Adopting what is adopted changes nothing.
    pub fn adopt(&self, hash: &ManifestHash) -> Result<(), StoreError> {
        self.0.adopt(hash)
    }

    /// Forgets a manifest, at once and durably, and then frees the objects that no
    /// other adopted manifest lists. Freeing goes on after a crash. Retiring what
    /// is not known changes nothing.
    pub fn retire(&self, hash: &ManifestHash) -> Result<(), StoreError> {
        self.0.retire(hash)
    }

    /// The blocks of a selection that are not held.
    pub fn missing(&self, hash: &ManifestHash, selection: &Selection) -> Result<RoaringBitmap, StoreError> {
        self.0.missing(hash, selection)
    }

    /// The held blocks of an adopted manifest; `None` for others. Looks at memory only.
    pub fn held(&self, hash: &ManifestHash) -> Option<RoaringBitmap> {
        self.0.held(hash)
    }

    /// Whether a block of an adopted manifest is held. Looks at memory only.
    pub fn holds(&self, hash: &ManifestHash, number: BlockNumber) -> bool {
        self.0.holds(hash, number)
    }

    /// Writes the `block`-th block of a file of a manifest that is adopted in that tier. Done
    /// when it is durable and in the inventory; writing what is held there changes nothing.
    ///
    /// Hold a [`Reservation`] of its bytes there until then: this does not look at capacity.
    /// A write whose future is dropped may still happen.
    pub async fn write_block(
        &self,
        tier: TierId,
        hash: &ManifestHash,
        file: usize,
        block: u64,
        data: Bytes,
    ) -> Result<(), StoreError> {
        self.0.write_block(tier, hash, file, block, data).await
    }

    /// Reads the `block`-th block of a file of an adopted manifest. `None` when it is
    /// not held, or no longer: what turns out damaged or missing leaves the inventory
    /// before this returns.
    pub fn read_block(
        &self,
        hash: &ManifestHash,
        file: usize,
        block: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.read_block(hash, file, block)
    }

    /// Reads the `block`-th block of a file of an adopted manifest from the disk and not from
    /// memory: its bytes, if they are as they were written. Otherwise as
    /// [`Store::read_block`].
    pub fn verify_block(
        &self,
        hash: &ManifestHash,
        file: usize,
        block: u64,
    ) -> Result<Option<u64>, StoreError> {
        self.0.verify_block(hash, file, block)
    }

    /// The object file of a file of an adopted manifest, when all its blocks are held:
    /// to be linked and read, never to be written. `None` for an empty file, which has none.
    pub fn whole_file(&self, hash: &ManifestHash, file: usize) -> Result<Option<PathBuf>, StoreError> {
        self.0.whole_file(hash, file)
    }

    /// What other manifests hold that may list objects of this one.
    pub fn held_by_sharers(&self, hash: &ManifestHash) -> Result<BlockSets, StoreError> {
        self.0.held_by_sharers(hash)
    }

    /// What is held now, and a feed of every change from there on: no change is in
    /// both or in neither. Looks at memory only.
    pub fn subscribe(&self) -> (Vec<Holding>, Subscription) {
        Tiers::subscribe(&self.0)
    }

    /// How full its tiers are that work, together.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        self.0.usage()
    }

    /// What it counted. Looks at memory only.
    pub fn stats(&self) -> &StoreStats {
        self.0.stats()
    }
}
