//! Lists one Dataset's origins and makes its manifest.

use super::changes::Changes;
use super::file_list;
use crate::origin::{Address, Origin, OriginError, Origins, Sink};
use bytes::Bytes;
use futures::future::try_join_all;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use hearth_api::{Dataset, Unlisted};
use hearth_core::block::BlockNumber;
use hearth_core::file_list::{FileList, Missing};
use hearth_core::manifest::{
    EncodedFiles, EncodedManifest, ListedObject, ManifestBuilder, ManifestHash, ManifestOrigin, SkipReason,
    Skipped,
};
use hearth_core::object::Validator;
use hearth_core::selection::FileFilter;
use parking_lot::Mutex;
use std::sync::Arc;

/// More are taken for a listing that does not end. One object takes some hundred
/// bytes of memory while the listing is made.
const MOST_OBJECTS: usize = 20_000_000;
/// Keys of one origin, whether they are taken or not: a listing that does not end has more.
const MOST_KEYS: usize = 5 * MOST_OBJECTS;
/// Origins of one Dataset, as the schema has it.
const MOST_ORIGINS: usize = 32;
/// Parts of origins that are listed at one time.
const PARTS: usize = 8;

/// What listing a Dataset gave.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) manifest: EncodedManifest,
    pub(crate) skipped: Skipped,
    /// What the dataset's list of files names and no origin has.
    pub(crate) missing: Missing,
}

/// What a listing comes to, without the manifest itself.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) hash: ManifestHash,
    pub(super) files: u64,
    pub(super) unlisted: u64,
    pub(super) bytes: u64,
    pub(super) blocks: BlockNumber,
    pub(super) skipped: Skipped,
    pub(super) missing: Missing,
}

impl Listed {
    /// What it comes to, and the manifest's encoding.
    pub(super) fn of(listing: Listing) -> (Self, Bytes) {
        let Listing { manifest: EncodedManifest { bytes, listed, unlisted, size, blocks }, skipped, missing } =
            listing;
        let (hash, files, unlisted) = (ManifestHash::of(&bytes), listed as u64, unlisted as u64);
        (Self { hash, files, unlisted, bytes: size, blocks, skipped, missing }, bytes.into())
    }
}

/// An origin that is open, and how the manifest names it.
pub(super) struct Open {
    pub(super) origin: Arc<dyn Origin>,
    pub(super) named: ManifestOrigin,
}

/// Where a path stands in the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Among what is kept on nodes.
    Listed,
    /// Among what is only shown.
    Shown,
}

/// What is taken of all origins so far.
struct Taken {
    builder: ManifestBuilder,
    /// The dataset's list of files, if it has one.
    only: Option<FileList>,
    /// What becomes of the others.
    others: Unlisted,
}

impl Taken {
    fn of(dataset: &Dataset, origins: &[Open], only: Option<FileList>) -> Self {
        let builder = ManifestBuilder::new(origins.iter().map(|origin| origin.named.clone()).collect());
        let others = dataset.spec.files.as_ref().map(|files| files.unlisted).unwrap_or_default();
        Self { builder, only, others }
    }

    /// Takes what did not change from an encoding; whether that can be read, and is not too much.
    fn keep(&mut self, before: &[u8], changes: &Changes) -> bool {
        let Ok(files) = EncodedFiles::open(before) else { return false };
        let mounts: Vec<String> = files.origins().iter().map(|origin| origin.mount.clone()).collect();
        for object in files {
            let Some(object) = object.ok().filter(|_| self.builder.len() < MOST_OBJECTS) else {
                return false;
            };
            let mount = mounts[usize::from(object.origin)].as_str();
            let path = object.path.strip_prefix(mount).unwrap_or(&object.path);
            if !changes.has(object.origin, path) {
                self.builder.push(object);
            }
        }
        true
    }

    async fn finish(self) -> Result<Listing, OriginError> {
        let Self { builder, only, .. } = self;
        // Sorting millions of paths takes seconds.
        let finish = move || (builder.encode(), only.as_ref().map(FileList::missing).unwrap_or_default());
        let (built, missing) = tokio::task::spawn_blocking(finish)
            .await
            .map_err(|error| OriginError::Malformed(format!("making the manifest ended: {error}")))?;
        let (manifest, skipped) = built.map_err(|error| OriginError::Refused(error.to_string()))?;
        Ok(Listing { manifest, skipped, missing })
    }

    /// Whether the dataset has this path, and if so whether it is listed; `filter` is
    /// `spec.files`' globs.
    fn place(&mut self, path: &str, filter: &FileFilter) -> Option<Place> {
        // What is listed and excluded is not missing.
        let is_wanted = self.only.as_mut().is_none_or(|only| only.takes(path));
        match (is_wanted && filter.takes(path), self.others) {
            (true, _) => Some(Place::Listed),
            (false, Unlisted::Show) => Some(Place::Shown),
            (false, Unlisted::Hide) => None,
        }
    }
}

/// Lists all origins of a Dataset. `client` is for the ConfigMap that it may name.
pub(crate) async fn list(
    origins: &Origins,
    client: &kube::Client,
    dataset: &Dataset,
) -> Result<Listing, OriginError> {
    let refused = |error: &dyn std::fmt::Display| OriginError::Refused(error.to_string());
    let filter = dataset.file_filter().map_err(|error| refused(&error))?;
    dataset.refresh_interval().map_err(|error| refused(&error))?;
    dataset.quota_bytes().map_err(|error| refused(&error))?;
    let opened = open(origins, dataset).await?;
    let only = file_list::load(client, dataset, &opened).await?;
    let taken = Mutex::new(Taken::of(dataset, &opened, only));
    // All at once: they are other stores, or other parts of one.
    let lists = (0_u16..).zip(&opened).map(|(index, Open { origin, named })| {
        let mut taker =
            Taker { index, start: "", mount: &named.mount, filter: &filter, taken: &taken, seen: 0 };
        async move { origin.list(&mut taker).await }
    });
    try_join_all(lists).await?;
    taken.into_inner().finish().await
}

/// Lists again what may have changed since the version with this encoding, and takes all else from there; `None` when
/// that cannot be.
pub(super) async fn relist(
    origins: &Origins,
    dataset: &Dataset,
    before: Bytes,
    changes: Changes,
) -> Result<Option<Listing>, OriginError> {
    let filter = dataset.file_filter().map_err(|error| OriginError::Refused(error.to_string()))?;
    let opened = open(origins, dataset).await?;
    let is_of_these = EncodedFiles::open(&before)
        .is_ok_and(|files| files.origins().iter().eq(opened.iter().map(|origin| &origin.named)));
    if !is_of_these {
        return Ok(None);
    }
    let taken = Mutex::new(Taken::of(dataset, &opened, None));
    let mut lists = Vec::new();
    for ((index, Open { origin, named }), starts) in (0_u16..).zip(&opened).zip(&changes.starts) {
        for start in starts {
            let mut taker =
                Taker { index, start, mount: &named.mount, filter: &filter, taken: &taken, seen: 0 };
            lists.push(async move { origin.list_prefix(start, &mut taker).await }.boxed());
        }
    }
    stream::iter(lists).buffer_unordered(PARTS).try_collect::<()>().await?;
    let mut taken = taken.into_inner();
    // Millions of files take seconds.
    let keep = move || taken.keep(&before, &changes).then_some(taken);
    let kept = tokio::task::spawn_blocking(keep)
        .await
        .map_err(|error| OriginError::Malformed(format!("keeping what did not change ended: {error}")))?;
    match kept {
        Some(taken) => taken.finish().await.map(Some),
        None => Ok(None),
    }
}

async fn open(origins: &Origins, dataset: &Dataset) -> Result<Vec<Open>, OriginError> {
    let namespace = dataset.metadata.namespace.as_deref().unwrap_or_default();
    let specs = &dataset.spec.origins;
    if specs.is_empty() || specs.len() > MOST_ORIGINS {
        return Err(OriginError::Refused(format!(
            "spec.origins has {} entries, and 1 to {MOST_ORIGINS} are allowed",
            specs.len()
        )));
    }
    let named: Vec<_> =
        specs.iter().map(|spec| Address::listed(namespace, spec)).collect::<Result<_, OriginError>>()?;
    let open = specs.iter().zip(named).map(|(spec, named)| async move {
        Ok::<_, OriginError>(Open { origin: origins.open(namespace, spec).await?, named })
    });
    try_join_all(open).await
}

/// Takes what the filter takes of one origin.
struct Taker<'a> {
    index: u16,
    /// With what paths below the origin begin: others may come, too.
    start: &'a str,
    mount: &'a str,
    filter: &'a FileFilter,
    taken: &'a Mutex<Taken>,
    /// Keys so far.
    seen: usize,
}

impl Sink for Taker<'_> {
    fn object(
        &mut self,
        path: &str,
        size: u64,
        modified: i64,
        validator: Validator,
    ) -> Result<(), OriginError> {
        if !path.starts_with(self.start) {
            return Ok(());
        }
        let path = format!("{}{path}", self.mount);
        self.seen += 1;
        if self.seen > MOST_KEYS {
            return Err(OriginError::Refused(format!(
                "the listing has more than {MOST_KEYS} keys, wanted or not: name a prefix of the origin that has fewer"
            )));
        }
        let mut taken = self.taken.lock();
        let Some(place) = taken.place(&path, self.filter) else { return Ok(()) };
        if taken.builder.len() >= MOST_OBJECTS {
            return Err(OriginError::Refused(format!(
                "the listing has more than {MOST_OBJECTS} objects: split the dataset, or narrow spec.files.include with spec.files.unlisted: Hide"
            )));
        }
        let unlisted = place == Place::Shown;
        taken.builder.push(ListedObject { origin: self.index, path, size, modified, validator, unlisted });
        Ok(())
    }

    fn skip(&mut self, key: &str, reason: SkipReason) {
        let path = format!("{}{key}", self.mount);
        let mut taken = self.taken.lock();
        if taken.place(&path, self.filter).is_some() {
            taken.builder.skip(&path, reason);
        }
    }
}
