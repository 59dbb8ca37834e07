//! Where room for blocks comes from.

use crate::store::{Reservation, StoreError, Tier};
use futures::FutureExt;
use futures::future::BoxFuture;
use hearth_core::evict::NotEnough;
use hearth_core::manifest::{Manifest, ManifestHash};
use std::sync::Arc;

/// Why there is no room.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoRoom {
    /// What could be given up is not enough.
    #[error("there is no room: {0}")]
    NotEnough(#[from] NotEnough),
    /// The store says so.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others are making room, and it takes long.
    #[error("there is no room yet: others have been making room for longer than {seconds} s")]
    Late {
        /// How long it was waited for.
        seconds: u64,
    },
    /// It cannot be made.
    #[error("room cannot be made: {0}")]
    Failed(String),
}

/// A block that has come for a reader, and for which there is no room.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// The version by which it came.
    pub hash: ManifestHash,
    /// That version.
    pub manifest: Arc<Manifest>,
    /// Its file.
    pub file: usize,
    /// Its bytes.
    pub bytes: u64,
    /// Its dataset has used up its quota: only others of the same may go for it.
    pub over_quota: bool,
}

/// Makes room in the store.
pub trait MakeRoom: Send + Sync {
    /// Room for `bytes` more of a file of a version, in place of what is of less value.
    fn reserve(
        &self,
        hash: ManifestHash,
        file: usize,
        bytes: u64,
    ) -> BoxFuture<'_, Result<Reservation, NoRoom>>;

    /// Room for it that is there already, without waiting for others; `None` when there is none.
    fn free(
        &self,
        hash: ManifestHash,
        file: usize,
        bytes: u64,
    ) -> BoxFuture<'_, Result<Option<Reservation>, NoRoom>>;

    /// Room for a block also in place of what is of the same value but read less; `None`
    /// when there is no such thing.
    fn admit(&self, visitor: Visitor) -> BoxFuture<'static, Result<Option<Reservation>, NoRoom>>;
}

/// Nothing makes room for anything in this tier.
impl MakeRoom for Tier {
    fn reserve(&self, _: ManifestHash, _: usize, bytes: u64) -> BoxFuture<'_, Result<Reservation, NoRoom>> {
        // Looks at counters and at the file system's, which takes no longer than a lock.
        std::future::ready(Self::reserve(self, bytes).map_err(NoRoom::Store)).boxed()
    }

    fn free(
        &self,
        _: ManifestHash,
        _: usize,
        bytes: u64,
    ) -> BoxFuture<'_, Result<Option<Reservation>, NoRoom>> {
        std::future::ready(Self::reserve(self, bytes).map(Some).map_err(NoRoom::Store)).boxed()
    }

    fn admit(&self, _: Visitor) -> BoxFuture<'static, Result<Option<Reservation>, NoRoom>> {
        std::future::ready(Ok(None)).boxed()
    }
}
