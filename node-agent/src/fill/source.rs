//! Gets all that is needed to fetch a want: its Dataset, its manifest, its origins.

use super::plan::Run;
use super::quota::Counted;
use super::room::NoRoom;
use crate::datasets::Datasets;
use crate::manifests::{ManifestError, Manifests, blocking};
use crate::origin::{Address, Origin, OriginError, Origins};
use crate::store::{Store, StoreError};
use hearth_api::Dataset;
use hearth_core::manifest::{File, Manifest, ManifestHash, ManifestOrigin};
use hearth_core::selection::{GlobError, Selection};
use hearth_core::wire::report::{TroubleKind, Want};
use roaring::RoaringBitmap;
use std::sync::Arc;

/// Why a want cannot be fetched.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum FillError {
    #[error(transparent)]
    Origin(#[from] OriginError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Manifest(String),
    #[error("the part that is asked for cannot be understood: {0}")]
    Globs(#[from] GlobError),
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error("the dataset's quota on one node is used up: spec.cache.quota is {0} bytes")]
    Quota(u64),
}

impl FillError {
    pub(super) fn kind(&self) -> TroubleKind {
        match self {
            Self::Origin(error) => error.trouble(),
            Self::Store(error) if error.is_no_space() => TroubleKind::NoSpace,
            Self::NoRoom(NoRoom::Store(error)) if error.is_no_space() => TroubleKind::NoSpace,
            Self::NoRoom(NoRoom::Store(_) | NoRoom::Failed(_)) => TroubleKind::Store,
            Self::NoRoom(NoRoom::NotEnough(_) | NoRoom::Late { .. }) | Self::Quota(_) => TroubleKind::NoSpace,
            Self::Store(_) => TroubleKind::Store,
            Self::Manifest(_) | Self::Globs(_) => TroubleKind::Origin,
        }
    }
}

impl From<ManifestError> for FillError {
    fn from(error: ManifestError) -> Self {
        match error {
            ManifestError::Store(error) => Self::Store(error),
            error @ ManifestError::Nowhere { .. } => Self::Manifest(error.to_string()),
        }
    }
}

/// Where a want comes from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) hash: ManifestHash,
    pub(super) manifest: Arc<Manifest>,
    /// One for each of the manifest's, or why it cannot be asked.
    origins: Vec<Result<Arc<dyn Origin>, OriginError>>,
    quota: Option<u64>,
    selection: Selection,
}

impl Source {
    /// The origin of one of the manifest's files.
    pub(super) fn origin(&self, index: u16) -> Result<&Arc<dyn Origin>, OriginError> {
        let unknown = || OriginError::Refused("the manifest's origin is not in the Dataset".to_owned());
        self.origins.get(usize::from(index)).ok_or_else(unknown)?.as_ref().map_err(Clone::clone)
    }

    /// Whether there are others than one that fails.
    pub(super) fn has_several_origins(&self) -> bool {
        self.origins.len() > 1
    }

    /// Requests that its origins allow at one time.
    pub(super) fn most_at_once(&self) -> usize {
        self.origins.iter().flatten().map(|origin| origin.most_at_once()).min().unwrap_or(usize::MAX)
    }

    /// Bytes of a request's blocks.
    pub(super) fn bytes_of(&self, run: &Run) -> u64 {
        let mut blocks = RoaringBitmap::new();
        blocks.insert_range(run.numbers.clone());
        self.manifest.bytes_of(&blocks)
    }
}

#[cfg(test)]
impl Source {
    /// Of a manifest whose origins nobody asks.
    pub(super) fn of(manifest: Arc<Manifest>) -> Arc<Self> {
        let hash = ManifestHash::of(&manifest.encode());
        let selection = Selection::new(Vec::<String>::new()).unwrap();
        Arc::new(Self { hash, manifest, origins: Vec::new(), quota: None, selection })
    }
}

/// What a want's fetching starts from.
pub(super) struct Prepared {
    pub(super) source: Arc<Source>,
    /// Blocks to fetch.
    pub(super) missing: RoaringBitmap,
    /// Blocks of unlisted files, which are only read.
    pub(super) shown: RoaringBitmap,
    /// What the dataset takes and may take; `None` without a quota.
    pub(super) counted: Option<Counted>,
}

/// Prepares wants.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) store: Store,
    pub(super) datasets: Datasets,
    pub(super) manifests: Manifests,
    pub(super) origins: Arc<Origins>,
}

impl Sources {
    /// Opens what a want comes from, unless `known` is still good, and counts what is missing.
    pub(super) async fn prepare(
        &self,
        want: &Want,
        known: Option<Arc<Source>>,
    ) -> Result<Prepared, FillError> {
        let source = match known {
            Some(source) => source,
            None => Arc::new(self.open(want).await?),
        };
        let store = self.store.clone();
        let name = format!("{}/{}", want.namespace, want.dataset);
        blocking(move || {
            let missing = store.missing(&source.hash, &source.selection)?;
            let shown = source.manifest.unlisted_blocks_of(&source.selection);
            let held = match source.quota {
                Some(quota) => Some(Counted { quota, held: held_of(&store, &source, &name)? }),
                None => None,
            };
            Ok(Prepared { source, missing, shown, counted: held })
        })
        .await
        .map_err(FillError::from)
    }

    async fn open(&self, want: &Want) -> Result<Source, FillError> {
        let selection = Selection::new(want.globs.iter().cloned())?;
        let dataset = self.datasets.of(want).await?;
        let name = format!("{}/{}", want.namespace, want.dataset);
        let manifest = self.manifests.adopted(want.manifest, &name).await?;
        let mut origins = Vec::with_capacity(manifest.origins().len());
        for listed in manifest.origins() {
            let spec = spec_of(&dataset, listed).ok_or_else(|| {
                OriginError::Refused(format!(
                    "Dataset {name} names another origin, Secret or ServiceAccount than when this version was listed; the next version will be fetched"
                ))
            });
            origins.push(match spec {
                Ok(spec) => self.origins.open(&want.namespace, spec).await,
                Err(error) => Err(error),
            });
        }
        // What the others have can be fetched while one is out of order.
        if let Some(Err(error)) = origins.first()
            && origins.iter().all(Result::is_err)
        {
            return Err(error.clone().into());
        }
        // The API server has checked it; what it lets through limits nothing.
        let quota = dataset.quota_bytes().unwrap_or(None);
        Ok(Source { hash: want.manifest, manifest, origins, quota, selection })
    }
}

/// The Dataset's origin that a manifest's is of. The identity must be the one that
/// listed: what it may read goes into the cache under its name.
fn spec_of<'a>(dataset: &'a Dataset, listed: &ManifestOrigin) -> Option<&'a hearth_api::Origin> {
    let namespace = dataset.metadata.namespace.as_deref().unwrap_or_default();
    let is_it = |spec: &&hearth_api::Origin| Address::listed(namespace, spec).is_ok_and(|of| of == *listed);
    dataset.spec.origins.iter().find(is_it)
}

/// Bytes of a dataset on this node: of the version that is fetched, and of others what
/// this one does not share with them.
fn held_of(store: &Store, current: &Source, dataset: &str) -> Result<u64, StoreError> {
    let mut bytes = current.manifest.bytes_of(&store.held(&current.hash).unwrap_or_default());
    for (hash, of) in store.manifests() {
        if of != dataset || hash == current.hash {
            continue;
        }
        let (Some(held), Some(other)) = (store.held(&hash), store.manifest(&hash)?) else { continue };
        for file in other.files() {
            let mut blocks = RoaringBitmap::new();
            blocks.insert_range(file.blocks());
            blocks &= &held;
            let shared = |file: &File<'_>| {
                let found = current.manifest.find(file.path).filter(|found| !found.unlisted);
                found.is_some_and(|found| current.manifest.object_id(&found) == other.object_id(file))
            };
            if !blocks.is_empty() && !shared(&file) {
                bytes += other.bytes_of(&blocks);
            }
        }
    }
    Ok(bytes)
}
