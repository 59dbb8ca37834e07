//! Why a volume cannot be published, in the words that kubelet shows in the pod's events.

use crate::manifests::ManifestError;
use crate::store::StoreError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a volume cannot be published, unpublished or looked at.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The volume asks for what cannot be.
    #[error("{0}")]
    Invalid(String),
    /// No such Dataset, or the pod may not have it.
    #[error("{0}")]
    NotFound(String),
    /// It may work later; kubelet asks again.
    #[error("{0}")]
    NotYet(String),
    /// Another call for the same volume is under way.
    #[error("another call for this volume is under way; kubelet asks again")]
    Busy,
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node's file system or its mounts fail.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
}

impl From<ManifestError> for ViewError {
    fn from(error: ManifestError) -> Self {
        match error {
            ManifestError::Store(error) => Self::Store(error),
            nowhere @ ManifestError::Nowhere { .. } => Self::NotYet(nowhere.to_string()),
        }
    }
}

/// Makes the error of an operation on `path`.
pub(super) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ViewError {
    let path = path.to_owned();
    move |source| ViewError::Io { what, path, source }
}
