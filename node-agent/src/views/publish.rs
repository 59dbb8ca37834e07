//! Publishing a volume: whose, which version, when, and as what.

use super::bind::{is_mount, unmount_all};
use super::error::{ViewError, io_error};
use super::record::{Record, name_of};
use super::served::Shown;
use super::tier_trees::files_of_selection;
use super::wants::Until;
use super::{Inner, Views, blocking};
use crate::events::PodReference;
use crate::store::{Tier, TierId};
use hearth_api::Dataset;
use hearth_core::explain;
use hearth_core::manifest::{Manifest, ManifestHash, Selected};
use hearth_core::pod::Asked;
use hearth_core::volume::VolumeAttributes;
use hearth_core::wire::report::{POD_PRIORITY, Want};
use kube::ResourceExt;
use roaring::RoaringBitmap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// kubelet gives a call two minutes, and asks again when it is told to.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a volume that waits is looked at when no file becomes whole.
const LOOK: Duration = Duration::from_secs(1);

/// What is to be published.
#[derive(Clone, Debug)]
pub struct VolumeRequest {
    /// The volume, as kubelet names it.
    pub volume: String,
    /// Where it is to be seen.
    pub target: PathBuf,
    /// Namespace of the pod.
    pub namespace: String,
    /// The pod; `None` when kubelet does not say.
    pub pod: Option<PodReference>,
    /// What it asks for.
    pub attributes: VolumeAttributes,
}

/// How a volume was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is there now.
    Now,
    /// It was there already.
    Before,
}

/// How a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeState {
    /// Bytes of its files, the unlisted ones left out.
    pub bytes: u64,
    /// Of those, bytes that are on this node.
    pub held: u64,
    /// How many files these are.
    pub files: u64,
    /// What is wrong with it; `None` when nothing is.
    pub problem: Option<String>,
}

/// Only one call works on a volume at a time.
struct Busy {
    inner: Arc<Inner>,
    name: String,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.inner.busy.lock().remove(&self.name);
    }
}

impl Views {
    /// Mounts what is asked for at the target. Publishing what is published changes
    /// nothing, and a volume that lost its mount gets the same version again.
    pub async fn publish(&self, request: VolumeRequest) -> Result<Published, ViewError> {
        let name = name_of(&request.volume, &request.target);
        let _busy = self.busy(&name)?;
        let asked = request.attributes.asked(&request.namespace).map_err(ViewError::Invalid)?;
        let wait = request.attributes.wait_percent().map_err(ViewError::Invalid)?;
        // Who may read is asked every time: a grant may have been taken back.
        let dataset = self.permitted(&request.namespace, &asked).await?;
        let known = self.0.published.lock().records.get(&request.volume, &request.target).cloned();
        // Whoever has it keeps it.
        if known.is_none() && dataset.metadata.deletion_timestamp.is_some() {
            return Err(ViewError::NotFound(format!(
                "Dataset {} is being deleted: nothing more is mounted of it; make it again, or take it out of the pod",
                asked.name()
            )));
        }
        let hash = match known.as_ref().and_then(Record::manifest) {
            Some(hash) => hash,
            None => self.version(&request, &asked, &dataset).await?,
        };
        let used = self.0.in_use.acquire(hash).await.ok_or_else(|| {
            ViewError::NotYet(format!(
                "the version of Dataset {} is being forgotten; kubelet asks again",
                asked.name()
            ))
        })?;
        let manifest = self.0.manifests.adopted(hash, &asked.name().to_string()).await?;
        let inner = self.0.clone();
        if let Some(record) = known.clone() {
            let looked = inner.clone();
            if blocking(move || looked.is_published(&record)).await? {
                self.0.published.lock().uses.insert(name, used);
                return Ok(Published::Before);
            }
        }
        let record = Record::new(&request, &asked, hash);
        let want = want(&dataset, &asked, hash);
        let part = {
            let (manifest, asked, root) = (manifest.clone(), asked.clone(), record.root.clone());
            blocking(move || Part::find(&manifest, &asked, &root)).await?
        };
        let view = self.wait_for(&name, &want, &manifest, &part, wait).await?;
        let record = if view == View::Fuse { record.served(&want) } else { record };
        let (target, recorded, place) = (request.target.clone(), record.clone(), self.0.served.place(&name));
        let published = blocking(move || {
            let trees = match view {
                View::Fuse => None,
                View::Native(tier) => Some(inner.trees.of(tier)?),
            };
            // From seeing that all is there until it is noted that it is shown.
            let links = trees.map(|trees| trees.show());
            let source = match trees {
                None => place,
                Some(trees) => match trees.whole(hash, &manifest, &recorded.tree_globs, &part.files)? {
                    Some(source) => source.join(&recorded.root),
                    None => {
                        return Err(ViewError::NotYet(format!(
                            "files of Dataset {} have just gone from this node and are fetched again; kubelet asks again",
                            recorded.dataset
                        )));
                    }
                },
            };
            // Half made by a call that was never answered, of a tree that is gone, or of a
            // FUSE session that ended.
            unmount_all(&target)?;
            // Before the mount: what is mounted is known after a crash.
            inner.published.lock().put(recorded.clone())?;
            drop(links);
            match view {
                View::Fuse => inner.served.mount(&recorded, &Shown { hash, manifest, files: part.files })?,
                View::Native(_) => inner.served.unmount(&recorded.name())?,
            }
            bind_at(&inner, &source, &target)
        });
        published.await?;
        self.0.published.lock().uses.insert(name.clone(), used);
        match view {
            View::Fuse => self.0.want(name, want, Until::Unpublished),
            View::Native(_) => self.0.unwant(&name),
        }
        self.0.reads.of(&record.dataset).mounted();
        tracing::info!(dataset = record.dataset, manifest = ?hash, target = %request.target.display(), "published, {view}");
        Ok(Published::Now)
    }

    /// Takes a volume away; one that is not there is fine.
    pub async fn unpublish(&self, volume: &str, target: &Path) -> Result<(), ViewError> {
        let name = name_of(volume, target);
        let _busy = self.busy(&name)?;
        self.0.unwant(&name);
        let (inner, volume, target) = (self.0.clone(), volume.to_owned(), target.to_owned());
        blocking(move || {
            unmount_all(&target)?;
            inner.served.unmount(&name)?;
            match fs::remove_dir(&target) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("cannot remove", &target)(error));
                }
                _ => {}
            }
            let mut published = inner.published.lock();
            let Some(record) = published.remove(&volume, &target)? else { return Ok(()) };
            let used = published.uses.remove(&name_of(&volume, &target));
            let shared = published
                .records
                .all()
                .any(|other| other.manifest() == record.manifest() && other.tree_globs == record.tree_globs);
            drop(published);
            if let (false, Some(hash)) = (shared, record.manifest()) {
                inner.trees.unused(hash, &record.tree_globs)?;
            }
            drop(used);
            tracing::info!(dataset = record.dataset, target = %target.display(), "unpublished");
            Ok(())
        })
        .await
    }

    /// How a published volume is; `None` for one that is not.
    pub async fn state(&self, volume: &str, target: &Path) -> Result<Option<VolumeState>, ViewError> {
        let known = self.0.published.lock().records.get(volume, target).cloned();
        let Some(record) = known else { return Ok(None) };
        let (inner, target) = (self.0.clone(), target.to_owned());
        let state = blocking(move || {
            let selection = hearth_core::selection::Selection::new(record.globs.iter().cloned())
                .map_err(|error| ViewError::Invalid(error.to_string()))?;
            let hash = record.manifest().filter(|hash| inner.store.is_adopted(hash));
            let manifest = hash.and_then(|hash| inner.store.manifest(&hash).transpose()).transpose()?;
            let (Some(hash), Some(manifest)) = (hash, manifest) else {
                let problem =
                    Some(format!("the version of Dataset {} is not on this node any more", record.dataset));
                return Ok(VolumeState { bytes: 0, held: 0, files: 0, problem });
            };
            let selected = Selected::find(&manifest, &selection);
            let held = selected.bytes_of(&manifest, &inner.store.held(&hash).unwrap_or_default());
            let problem = match is_mount(&target)? {
                true if record.fetched.is_some() && !inner.is_published(&record)? => Some(
                    "its FUSE session has ended: the node agent was restarted, and the pod has to be started again"
                        .to_owned(),
                ),
                true => None,
                false => Some(format!(
                    "nothing is mounted at {}: the node was restarted, and kubelet has to start the pod again",
                    target.display()
                )),
            };
            Ok(VolumeState { bytes: selected.bytes, held, files: selected.files, problem })
        });
        state.await.map(Some)
    }

    fn busy(&self, name: &str) -> Result<Busy, ViewError> {
        match self.0.busy.lock().insert(name.to_owned()) {
            true => Ok(Busy { inner: self.0.clone(), name: name.to_owned() }),
            false => Err(ViewError::Busy),
        }
    }

    /// The Dataset, if a pod of `namespace` may read it. The same words when it is not
    /// there, so that nobody learns what other namespaces have.
    pub(super) async fn permitted(&self, namespace: &str, asked: &Asked) -> Result<Dataset, ViewError> {
        let found = self.0.datasets.named(&asked.namespace, &asked.dataset).await;
        let found = found.map_err(|error| ViewError::NotYet(error.to_string()))?;
        let shared = |dataset: &Dataset| {
            let share_with = dataset.spec.share_with.as_ref();
            share_with.is_some_and(|shared| shared.namespaces.iter().any(|allowed| allowed == namespace))
        };
        found.filter(|dataset| asked.namespace == namespace || shared(dataset)).ok_or_else(|| {
            ViewError::NotFound(format!(
                "Dataset {} does not exist, or is not shared with the pod's namespace {namespace}: create it, or add the namespace to its spec.shareWith",
                asked.name()
            ))
        })
    }

    /// Has the part fetched, and waits until as much of it is on this node as `wait`
    /// says; as what it can be shown then.
    async fn wait_for(
        &self,
        name: &str,
        want: &Want,
        manifest: &Manifest,
        part: &Part,
        wait: Option<u8>,
    ) -> Result<View, ViewError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let grown = self.0.grown.notified();
            let missing = |held: &RoaringBitmap| part.selected.missing(manifest, held);
            // Unlisted files are nowhere to be linked to.
            let is_kept = part.selected.unlisted == 0;
            let has_all =
                |tier: &&Tier| tier.held(&want.manifest).is_some_and(|held| missing(&held).is_empty());
            if let Some(tier) = self.0.store.tiers().iter().filter(|_| is_kept).find(has_all) {
                return Ok(View::Native(tier.id()));
            }
            let missing = missing(&self.0.store.held(&want.manifest).unwrap_or_default());
            self.0.want(name.to_owned(), want.clone(), Until::Forgotten);
            // What was all here and was given up since is looked at again when somebody asks.
            self.0.demands.demand(want.manifest, missing.min());
            let held = part.selected.bytes.saturating_sub(manifest.bytes_of(&missing));
            let is_enough =
                |percent| u128::from(held) * 100 >= u128::from(part.selected.bytes) * u128::from(percent);
            let Some(percent) = wait.filter(|percent| !is_enough(*percent)) else {
                return Ok(View::Fuse);
            };
            if Instant::now() >= deadline {
                return Err(ViewError::NotYet(format!(
                    "{} of {} of Dataset {}/{} are on this node, and the rest is being fetched; it is mounted once {percent} % is here, kubelet asks again",
                    explain::bytes(held),
                    explain::bytes(part.selected.bytes),
                    want.namespace,
                    want.dataset,
                )));
            }
            let _ = tokio::time::timeout(LOOK, grown).await;
        }
    }
}

/// As what a volume is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    /// From this tier.
    Native(TierId),
    Fuse,
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native(_) => "native",
            Self::Fuse => "fuse",
        })
    }
}

impl Inner {
    /// Whether what a record says is mounted, and alive.
    pub(super) fn is_published(&self, record: &Record) -> Result<bool, ViewError> {
        if !is_mount(&record.target)? {
            return Ok(false);
        }
        if record.fetched.is_some() {
            return Ok(self.served.sessions().serves(&record.name(), &record.target));
        }
        let Some(hash) = record.manifest() else { return Ok(false) };
        let mut places = self.trees.places(hash, &record.tree_globs);
        Ok(places.any(|place| is_same(&place.join(&record.root), &record.target)))
    }
}

/// Shows `source` at `target`, which is made when it is not there.
pub(super) fn bind_at(inner: &Inner, source: &Path, target: &Path) -> Result<(), ViewError> {
    fs::create_dir_all(target).map_err(io_error("cannot make", target))?;
    inner.binder.mount(source, target)
}

/// What is fetched for a volume.
fn want(dataset: &Dataset, asked: &Asked, manifest: ManifestHash) -> Want {
    Want {
        namespace: asked.namespace.clone(),
        dataset: asked.dataset.clone(),
        uid: dataset.uid().unwrap_or_default(),
        generation: dataset.metadata.generation.unwrap_or(0),
        manifest,
        globs: asked.selection.globs().to_vec(),
        priority: POD_PRIORITY,
    }
}

/// What a volume shows.
struct Part {
    selected: Selected,
    files: RoaringBitmap,
}

impl Part {
    fn find(manifest: &Manifest, asked: &Asked, root: &str) -> Result<Self, ViewError> {
        let files = files_of_selection(manifest, &asked.selection);
        if files.is_empty() && !asked.selection.is_all() {
            return Err(ViewError::Invalid(format!(
                "no file of Dataset {} matches {}: see volumeAttributes.path and volumeAttributes.files",
                asked.name(),
                asked.selection.globs().join(", ")
            )));
        }
        if !root.is_empty() && manifest.find(root).is_some() {
            return Err(ViewError::Invalid(format!(
                "volumeAttributes.path must be a directory of Dataset {}, and {root} is a file",
                asked.name()
            )));
        }
        Ok(Self { selected: Selected::find(manifest, &asked.selection), files })
    }
}

/// Whether the same directory is seen at both.
fn is_same(source: &Path, target: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let of = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    of(source).is_some_and(|source| Some(source) == of(target))
}
