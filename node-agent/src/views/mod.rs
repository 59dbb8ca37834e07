//! Views: versions of datasets as pods see them, read-only.
//!
//! A part of a version that is wholly in the store is shown as a *native* view: a
//! read-only bind mount of a tree of hard links to the store's files. No process
//! stands between the pod and its data, so the mount goes on without the agent.
//! Any other part is shown as a *FUSE* view, which fetches what is read.
//!
//! ```text
//! views/volumes/<32 hex>     what is published, one record for each volume and target
//! views/trees/<64 hex>       hard links of one version
//! views/trees/part-<32 hex>  hard links of the part of a version that one glob picks
//! views/fuse/<32 hex>       FUSE views, by the names of their records
//! views/scratch              links and trees on their way in or out
//! views/staging              mounts on their way to their targets
//! views/unlinking            1 while files are given up, and a little longer: links may be left of them
//! ```
//!
//! `trees`, `scratch` and `unlinking` are in each tier of the store, as hard links need its file system; what
//! is spread over several tiers is shown as a FUSE view.

mod bind;
mod error;
mod evict;
mod in_use;
mod publish;
mod record;
mod served;
#[cfg(test)]
mod tests;
mod tier_trees;
mod tree;
mod trees;
mod unlinking;
mod version;
mod wants;

pub use error::ViewError;
pub use in_use::InUse;
pub use publish::{Published, VolumeRequest, VolumeState};
pub(crate) use tree::{DIRECTORY_MODE, FILE_MODE};
pub use wants::together;

use crate::blocks::Blocks;
use crate::datasets::Datasets;
use crate::events::Events;
use crate::fill::Demands;
use crate::fuse::ReaderParts;
use crate::manifests::Manifests;
use crate::metrics::Metrics;
use crate::reads::Reads;
use crate::store::{BlockSets, Store, Taken};
use crate::versions::Versions;
use bind::Binder;
use error::io_error;
use hearth_core::wire::report::Want;
use in_use::Use;
use parking_lot::Mutex;
use record::{Record, Records, name_of};
use served::Served;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use trees::Trees;

/// When to look again after an error.
const AGAIN: Duration = Duration::from_secs(5);
/// How often it is looked whether the keeper is there.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// What views need.
pub struct ViewParts {
    /// What is held.
    pub store: Store,
    /// Blocks in memory.
    pub blocks: Arc<Blocks>,
    /// What is learned of how datasets are read.
    pub reads: Reads,
    /// How Datasets are found.
    pub datasets: Datasets,
    /// How manifests are found.
    pub manifests: Manifests,
    /// Which versions pods get.
    pub versions: Versions,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Longest time that a read waits for what is not here.
    pub read_timeout: Duration,
    /// Who tells pods of reads that fail.
    pub events: Events,
    /// Where the keeper of FUSE sessions is, if they are to be kept.
    pub keeper: Option<PathBuf>,
    /// Cancelled when the agent is asked to end.
    pub shutdown: CancellationToken,
}

/// The volumes of one node. Clones are the same.
#[derive(Clone)]
pub struct Views(Arc<Inner>);

struct Inner {
    store: Store,
    datasets: Datasets,
    manifests: Manifests,
    versions: Versions,
    trees: Trees,
    binder: Binder,
    served: Served,
    published: Mutex<Volumes>,
    reads: Reads,
    /// Volumes that a call works on now.
    busy: Mutex<HashSet<String>>,
    in_use: InUse,
    wants: watch::Sender<Vec<Want>>,
    /// What volumes wait for, by the name of their record.
    wanted: Mutex<BTreeMap<String, wants::Wanted>>,
    /// What readers of FUSE views wait for.
    demands: Demands,
    /// Told when files have become whole.
    grown: Notify,
    /// Told when blocks have come.
    arrived: Arc<Notify>,
}

struct Volumes {
    records: Records,
    /// By the name of their record: their versions are not forgotten.
    uses: HashMap<String, Use>,
    /// How often a record has changed.
    changes: u64,
    /// The blocks that native views show, as long as no record changes.
    shown: Option<Arc<BlockSets>>,
}

impl Volumes {
    /// Keeps a record, durably.
    fn put(&mut self, record: Record) -> Result<(), ViewError> {
        self.has_changed();
        self.records.put(record)
    }

    /// Forgets a record; one that is not there is fine.
    fn remove(&mut self, volume: &str, target: &Path) -> Result<Option<Record>, ViewError> {
        self.has_changed();
        self.records.remove(volume, target)
    }

    fn has_changed(&mut self) {
        self.shown = None;
        self.changes += 1;
    }
}

impl Views {
    /// Takes up what is published, below `directory`, on the file system of the store's home.
    /// Blocks on the disk.
    pub fn open(directory: &Path, parts: ViewParts) -> Result<Self, ViewError> {
        std::fs::create_dir_all(directory).map_err(io_error("cannot make", directory))?;
        let records = Records::open(&directory.join("volumes"))?;
        let in_use = InUse::default();
        let mut uses = HashMap::new();
        let mut kept = Vec::new();
        for record in records.all() {
            let Some(hash) = record.manifest() else { continue };
            kept.push((hash, record.tree_globs.clone()));
            // Nobody retires anything yet.
            uses.extend(in_use.try_acquire(hash).map(|used| (name_of(&record.volume, &record.target), used)));
        }
        let (demands, arrived) = (Demands::default(), Arc::new(Notify::new()));
        let reader = ReaderParts {
            store: parts.store.clone(),
            blocks: parts.blocks,
            demands: demands.clone(),
            arrived: arrived.clone(),
            metrics: parts.metrics,
            timeout: parts.read_timeout,
            events: parts.events,
            reads: parts.reads.clone(),
        };
        let (served, orphans) = Served::open(&directory.join("fuse"), reader, parts.keeper, parts.shutdown)?;
        let views = Self(Arc::new(Inner {
            trees: Trees::open(parts.store.clone(), directory, &kept)?,
            binder: Binder::new(&directory.join("staging"))?,
            served,
            store: parts.store,
            datasets: parts.datasets,
            manifests: parts.manifests,
            versions: parts.versions,
            published: Mutex::new(Volumes { records, uses, changes: 0, shown: None }),
            reads: parts.reads,
            busy: Mutex::default(),
            in_use,
            wants: watch::Sender::default(),
            wanted: Mutex::default(),
            demands,
            grown: Notify::new(),
            arrived,
        }));
        views.0.recover(orphans);
        Ok(views)
    }

    /// Which versions pods read.
    pub fn in_use(&self) -> InUse {
        self.0.in_use.clone()
    }

    /// What volumes wait for; to be fetched besides what the extender orders.
    pub fn wants(&self) -> watch::Receiver<Vec<Want>> {
        self.0.wants.subscribe()
    }

    /// What readers of FUSE views wait for; to be fetched before all else.
    pub fn demands(&self) -> Demands {
        self.0.demands.clone()
    }

    /// How many FUSE sessions live, and how many of them outlive this process.
    pub fn sessions(&self) -> (usize, usize) {
        self.0.served.sessions().count()
    }

    /// How many volumes are published: as native views, and as FUSE views.
    pub fn counts(&self) -> (usize, usize) {
        let published = self.0.published.lock();
        let fuse = published.records.all().filter(|record| record.fetched.is_some()).count();
        (published.records.all().count() - fuse, fuse)
    }

    /// Lets the trees grow with the store, and tells readers what has come, until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let grown = async {
            loop {
                if let Err(error) = self.grow().await {
                    tracing::warn!("the trees of native views cannot grow: {error}");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        };
        let expired = async {
            let mut tick = tokio::time::interval(wants::KEPT / 4);
            loop {
                tick.tick().await;
                self.0.expire_wants();
            }
        };
        let unmarked = async {
            let mut tick = tokio::time::interval(LOOK_AFTER);
            loop {
                tick.tick().await;
                let inner = self.0.clone();
                let _ = tokio::task::spawn_blocking(move || inner.trees.unmark()).await;
            }
        };
        let kept = async {
            let mut tick = tokio::time::interval(LOOK_AFTER);
            loop {
                tick.tick().await;
                let inner = self.0.clone();
                let _ = tokio::task::spawn_blocking(move || inner.served.sessions().look_after()).await;
            }
        };
        tokio::select! {
            () = grown => Ok(()),
            () = kept => Ok(()),
            () = unmarked => Ok(()),
            () = expired => Ok(()),
            () = self.tell_arrivals() => Ok(()),
            () = shutdown.cancelled() => Ok(()),
        }
    }

    /// Readers look for themselves what it was that came.
    async fn tell_arrivals(&self) {
        let (_, mut feed) = self.0.store.subscribe();
        loop {
            feed.changed().await;
            if feed.take_changes() == Taken::Lagged {
                feed = self.0.store.subscribe().1;
            }
            self.0.arrived.notify_waiters();
        }
    }

    /// Ends when all has to be looked at again.
    async fn grow(&self) -> Result<(), ViewError> {
        let inner = self.0.clone();
        let caught_up = blocking(move || {
            for trees in inner.trees.working() {
                if let Err(error) = inner.finish_unlinking(trees) {
                    tracing::warn!("links of what was given up are left: {error}");
                }
            }
            inner.trees.catch_up()
        });
        let feed = Arc::new(caught_up.await?);
        loop {
            self.0.grown.notify_waiters();
            feed.changed().await;
            let (inner, taken) = (self.0.clone(), feed.clone());
            if !blocking(move || inner.trees.follow(&taken)).await? {
                return Ok(());
            }
        }
    }
}

/// Runs what blocks on the disk where blocking is allowed.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ViewError> + Send + 'static,
) -> Result<T, ViewError> {
    let closed = || ViewError::Store(crate::store::StoreError::Closed);
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(closed()))
}
