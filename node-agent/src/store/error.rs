//! Why a store cannot do what it is asked.

use hearth_core::manifest::{DecodeError, ManifestHash};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a store cannot do what it is asked. Cheap to clone: one failed commit
/// fails every write that took part in it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the store open.
    #[error("the store in {} is in use by another process", directory.display())]
    Locked {
        /// Where the store is.
        directory: PathBuf,
    },
    /// The store may not grow: its capacity is used up, or the file system's free
    /// bytes or inodes are below what must stay free, or the system says so.
    #[error("no space: {why}")]
    NoSpace {
        /// Which bound, with numbers.
        why: String,
    },
    /// The disk refuses.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// The index refuses: the disk below it failed, or it does not answer.
    #[error("the store's index: {why}")]
    Index {
        /// What it says.
        why: String,
    },
    /// What was read is not what was once written, or not what its name says.
    #[error("{what} is damaged: {why}")]
    Damaged {
        /// Which file or argument.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// Not stored here, or not adopted where that is asked for.
    #[error("manifest {0} is not known to this store")]
    UnknownManifest(ManifestHash),
    /// A file or block that the manifest does not have, or data of another length.
    #[error("manifest {manifest} has no such block: {why}")]
    NoSuchBlock {
        /// Which manifest.
        manifest: ManifestHash,
        /// What was asked and what there is.
        why: String,
    },
    /// The manifest cannot be read by this release.
    #[error("manifest {manifest} cannot be read: {why}")]
    Manifest {
        /// Which.
        manifest: ManifestHash,
        /// What the decoder says.
        why: Arc<DecodeError>,
    },
    /// The store was closed, or its committer has ended.
    #[error("the store is closed")]
    Closed,
    /// A wait inside the store took longer than anything healthy does.
    #[error("the store did not finish {what} within {seconds} seconds")]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// How long.
        seconds: u64,
    },
}

impl StoreError {
    /// The error of an operation on `path`; a full disk is [`StoreError::NoSpace`].
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { why: format!("{}: {source}", path.display()) }
            }
            _ => Self::Io { path: path.to_owned(), source: Arc::new(source) },
        }
    }

    /// Whether the disk below is at fault, as far as is known.
    pub fn is_disks(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Index { .. } | Self::NoSpace { .. } | Self::TimedOut { .. })
    }

    /// Whether more room would help.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }
}
