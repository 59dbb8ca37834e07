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
//! - Order: bytes, then directory entries, then the index; a block is visible in the inventory
//!   when the index has it, durably. Bytes and entries are synced together, seconds later: until then
//!   the index says so, and what a power cut leaves of them is read before it is claimed again. So what
//!   is claimed is there, and a power cut costs what was fetched in its last seconds at most, and large
//!   files that became whole in these.
//! - An object that several known manifests list is stored once and counts in all.
//! - A block read from here passed its checksum at that moment. One that does not
//!   pass is dropped from the inventory and can be written again.
//! - A file that has ever been whole is never written again, only unlinked: whoever
//!   has it open keeps good bytes.
//!
//! All methods (`tiers.rs`) block on the disk except [`Store::write_block`], and those that
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
mod reading;
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
mod torn;
mod unsynced;
mod writing;

pub use error::StoreError;
pub use evict::{BlockSets, Evicted};
pub use space::{Reservation, Usage};
pub use stats::StoreStats;
pub use subscription::{Subscription, Taken};
pub use tier::{Tier, TierId};

use crate::config::units::Size;
use disk::Disk;
use hearth_core::evict::Watermarks;
use hearth_core::tier::Medium;
use real_disk::RealDisk;
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
}
