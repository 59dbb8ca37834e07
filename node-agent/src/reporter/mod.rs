//! Tells every replica of the extender what this node holds, and takes their orders.

mod orders;
mod session;
mod succession;
#[cfg(test)]
mod tests;

use crate::fill::FillStatus;
use crate::manifests::Manifests;
use crate::metrics::Metrics;
use crate::replicas::{Known, Replica};
use crate::store::Store;
use crate::versions::Told;
use crate::views::{InUse, ViewError};
use hearth_core::manifest::ManifestHash;
use hearth_core::wire::eviction::{EvictionDone, EvictionOrder};
use hearth_core::wire::report::{NodeStatus, Orders, Speaker, Want};
use orders::{Desk, Union};
use parking_lot::Mutex;
use session::Session;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often it is seen to that silent replicas no longer count.
const TICK: Duration = Duration::from_secs(10);

/// How a version is forgotten.
pub type Forget = Arc<dyn Fn(&ManifestHash) -> Result<(), ViewError> + Send + Sync>;

/// What reporting needs.
pub struct ReporterParts {
    /// Who speaks.
    pub speaker: Speaker,
    /// What is held.
    pub store: Store,
    /// How manifests come and go.
    pub manifests: Manifests,
    /// Whom to tell.
    pub replicas: Known,
    /// Which versions pods read.
    pub in_use: InUse,
    /// Forgets a version that nobody uses; blocks on the disk.
    pub forget: Forget,
    /// Where the versions go that pods are to get.
    pub versions: watch::Sender<Told>,
    /// How fetching does.
    pub fill: watch::Receiver<FillStatus>,
    /// Where that goes which is to be given up.
    pub evictions: watch::Sender<Vec<EvictionOrder>>,
    /// What was.
    pub evicted: watch::Receiver<Vec<EvictionDone>>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// What all conversations share.
struct Shared {
    speaker: Speaker,
    store: Store,
    manifests: Manifests,
    in_use: InUse,
    forget: Forget,
    fill: watch::Receiver<FillStatus>,
    evictions: watch::Sender<Vec<EvictionOrder>>,
    evicted: watch::Receiver<Vec<EvictionDone>>,
    metrics: Arc<Metrics>,
    desk: Mutex<Desk>,
    union: watch::Sender<Union>,
    wants: watch::Sender<Vec<Want>>,
    versions: watch::Sender<Told>,
}

/// The task that reports.
pub struct Reporter {
    shared: Arc<Shared>,
    replicas: Known,
    sessions: BTreeMap<SocketAddr, (Arc<Replica>, AbortHandle)>,
    tasks: JoinSet<()>,
}

/// When a replica last took a report.
#[derive(Clone)]
pub struct LastReport(Arc<Shared>);

impl LastReport {
    /// How long ago; `None` before the first.
    pub fn age(&self) -> Option<Duration> {
        self.0.desk.lock().last_heard().map(|heard| heard.elapsed())
    }
}

impl Reporter {
    /// Nothing is reported yet; the receiver follows what the replicas want fetched.
    pub fn new(parts: ReporterParts) -> (Self, watch::Receiver<Vec<Want>>) {
        let ReporterParts {
            speaker,
            store,
            manifests,
            replicas,
            in_use,
            forget,
            versions,
            fill,
            evictions,
            evicted,
            metrics,
        } = parts;
        let (wants, receiver) = watch::channel(Vec::new());
        let shared = Arc::new(Shared {
            speaker,
            store,
            manifests,
            in_use,
            forget,
            fill,
            evictions,
            evicted,
            metrics,
            desk: Mutex::default(),
            union: watch::Sender::new(Union::default()),
            wants,
            versions,
        });
        (Self { shared, replicas, sessions: BTreeMap::new(), tasks: JoinSet::new() }, receiver)
    }

    /// For readiness.
    pub fn last_report(&self) -> LastReport {
        LastReport(self.shared.clone())
    }

    /// Reports until `shutdown`. Fails only when a task panics.
    pub async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let succession = succession::run(self.shared.clone(), self.shared.union.subscribe());
        self.tasks.spawn(succession);
        let mut tick = tokio::time::interval(TICK);
        self.replicas.mark_changed();
        loop {
            tokio::select! {
                changed = self.replicas.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.follow();
                }
                Some(ended) = self.tasks.join_next() => match ended {
                    Err(error) if error.is_panic() => return Err(error.into()),
                    _ => {}
                },
                _ = tick.tick() => self.shared.publish(),
                () = shutdown.cancelled() => break,
            }
        }
        self.tasks.shutdown().await;
        Ok(())
    }

    /// One session for each replica that is there now.
    fn follow(&mut self) {
        let known = self.replicas.borrow_and_update().clone();
        let addresses: BTreeSet<SocketAddr> = known.iter().map(|replica| replica.address()).collect();
        self.sessions.retain(|address, (replica, task)| {
            let stays = known.iter().any(|other| Arc::ptr_eq(replica, other));
            if !stays {
                task.abort();
            }
            if !addresses.contains(address) {
                // An error says that it never took a report.
                let _ = self.shared.metrics.replica_success.remove_label_values(&[&address.to_string()]);
            }
            stays
        });
        for replica in known {
            let shared = self.shared.clone();
            self.sessions.entry(replica.address()).or_insert_with(|| {
                let task = self.tasks.spawn(Session::new(shared, replica.clone()).run());
                (replica, task)
            });
        }
        self.shared.desk.lock().keep_only(&addresses);
        self.shared.publish();
    }
}

impl Shared {
    /// How the node does.
    fn status(&self) -> NodeStatus {
        let usage = self.store.usage().unwrap_or_else(|error| {
            tracing::warn!("the store's usage cannot be told: {error}");
            crate::store::Usage::default()
        });
        let fill = self.fill.borrow();
        NodeStatus {
            capacity_bytes: usage.capacity_bytes,
            keeps_nothing: self.store.keeps_nothing(),
            used_bytes: usage.used_bytes,
            origin_bytes_per_second: fill.origin_bytes_per_second,
            troubles: fill.troubles.clone(),
            in_use: self.in_use.versions(),
            evictions: self.evicted.borrow().clone(),
            failed_files: fill.failed_files.clone(),
        }
    }

    fn heard(&self, replica: SocketAddr, sequence: u64, orders: Option<Orders>) {
        let changed = orders.is_some();
        self.desk.lock().heard(replica, Instant::now(), sequence, orders);
        let now = jiff::Timestamp::now().as_millisecond() as f64 / 1000.0;
        self.metrics.replica_success.with_label_values(&[&replica.to_string()]).set(now);
        if changed {
            self.publish();
        }
    }

    /// Tells who acts on orders what they are now.
    fn publish(&self) {
        let (union, told) = {
            let (desk, now) = (self.desk.lock(), Instant::now());
            (desk.union(now), desk.told(now))
        };
        self.wants.send_if_modified(|wants| replace(wants, &union.wants));
        self.evictions.send_if_modified(|before| replace(before, &union.evictions));
        self.union.send_if_modified(|before| replace(before, &union));
        self.versions.send_if_modified(|before| replace(before, &told));
    }

    /// Hands a manifest to a replica that misses it.
    async fn upload(&self, replica: &Replica, hash: ManifestHash) {
        let encoding = match self.manifests.encoding(hash).await {
            Ok(Some(encoding)) => encoding,
            Ok(None) => return,
            Err(error) => return tracing::warn!(manifest = ?hash, "the manifest cannot be read: {error}"),
        };
        if let Err(error) = replica.put_manifest(&hash, encoding).await {
            tracing::warn!(replica = %replica.address(), manifest = ?hash, "the manifest was not taken: {error}");
        }
    }
}

fn replace<T: Clone + PartialEq>(before: &mut T, after: &T) -> bool {
    let changed = before != after;
    if changed {
        after.clone_into(before);
    }
    changed
}
