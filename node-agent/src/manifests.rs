//! Manifests by hash: from the store, else from any replica of the extender.

use crate::replicas::{CallError, Known};
use crate::store::{Store, StoreError};
use bytes::Bytes;
use hearth_core::manifest::{Manifest, ManifestHash};
use std::sync::Arc;

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody who could be asked has it.
    #[error("manifest {hash:?} is not to be had: {why}")]
    Nowhere {
        /// Which.
        hash: ManifestHash,
        /// What the replicas said.
        why: String,
    },
}

/// Finds manifests and keeps them in the store.
#[derive(Clone)]
pub struct Manifests {
    store: Store,
    replicas: Known,
}

impl Manifests {
    /// From this store, and from these replicas.
    pub fn new(store: Store, replicas: Known) -> Self {
        Self { store, replicas }
    }

    /// A manifest that is in the store's inventory when this returns; `dataset` is
    /// the `namespace/name` of the Dataset that names it.
    pub async fn adopted(&self, hash: ManifestHash, dataset: &str) -> Result<Arc<Manifest>, ManifestError> {
        if let Some(manifest) = self.adopt(hash).await? {
            return Ok(manifest);
        }
        let encoding = self.fetch(&hash).await?;
        let (store, dataset) = (self.store.clone(), dataset.to_owned());
        blocking(move || store.put_manifest(hash, &dataset, &encoding)).await?;
        match self.adopt(hash).await? {
            Some(manifest) => Ok(manifest),
            None => Err(StoreError::UnknownManifest(hash).into()),
        }
    }

    /// Keeps a manifest that was made here. It is not in the inventory before
    /// [`Manifests::adopted`].
    pub async fn put(&self, hash: ManifestHash, dataset: &str, encoding: Bytes) -> Result<(), StoreError> {
        let (store, dataset) = (self.store.clone(), dataset.to_owned());
        blocking(move || store.put_manifest(hash, &dataset, &encoding)).await
    }

    /// The encoding of a stored manifest.
    pub async fn encoding(&self, hash: ManifestHash) -> Result<Option<Bytes>, StoreError> {
        let store = self.store.clone();
        blocking(move || Ok(store.manifest_bytes(&hash)?.map(Bytes::from))).await
    }

    /// Hands a manifest to every replica; how many took it.
    pub async fn offer(&self, hash: ManifestHash, encoding: &Bytes) -> usize {
        let replicas = self.replicas.borrow().clone();
        let offers = replicas.iter().map(|replica| async move {
            let outcome = replica.put_manifest(&hash, encoding.clone()).await;
            if let Err(error) = &outcome {
                tracing::warn!(replica = %replica.address(), manifest = ?hash, "the manifest was not taken: {error}");
            }
            outcome.is_ok()
        });
        futures::future::join_all(offers).await.into_iter().filter(|taken| *taken).count()
    }

    /// Adopts a manifest if it is stored.
    async fn adopt(&self, hash: ManifestHash) -> Result<Option<Arc<Manifest>>, StoreError> {
        let store = self.store.clone();
        blocking(move || {
            let adopted = || -> Result<Option<Arc<Manifest>>, StoreError> {
                let Some(manifest) = store.manifest(&hash)? else { return Ok(None) };
                store.adopt(&hash)?;
                Ok(Some(manifest))
            };
            match adopted() {
                // Another disk may take it.
                Err(error) if error.is_disks() && store.tiers().len() > 1 => Ok(None),
                adopted => adopted,
            }
        })
        .await
    }

    async fn fetch(&self, hash: &ManifestHash) -> Result<Bytes, ManifestError> {
        let replicas = self.replicas.borrow().clone();
        let mut why = Vec::new();
        for replica in &replicas {
            match replica.manifest(hash).await {
                // Whoever sent something else is no better than one who has it not.
                Ok(encoding) if ManifestHash::of(&encoding) != *hash => {
                    why.push(format!("{} sent another manifest", replica.address()));
                }
                Ok(encoding) => return Ok(encoding),
                Err(CallError::NotFound) => why.push(format!("{} does not have it", replica.address())),
                Err(error) => why.push(format!("{}: {error}", replica.address())),
            }
        }
        if why.is_empty() {
            why.push("no replica of the extender is known yet".to_owned());
        }
        Err(ManifestError::Nowhere { hash: *hash, why: why.join("; ") })
    }
}

/// Runs what blocks on the disk where blocking is allowed.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(StoreError::Closed))
}
