//! What the extender's tasks share: the index, the replies that are held, and what
//! was decided of late.

use crate::metrics::Metrics;
use hearth_core::decide::{Decision, Now};
use hearth_core::index::{
    Affected, ClusterIndex, DatasetFacts, DatasetName, Millis, Settings, Unprepared, WarmupProgress,
};
use hearth_core::manifest::{Manifest, ManifestHash};
use hearth_core::pod::{Demand, PodFacts};
use hearth_core::wire::report::Orders;
use lru::LruCache;
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, watch};

/// Decisions kept until their pods are bound.
const DECISIONS_KEPT: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
/// Manifests kept before a Dataset's status names them.
const OFFERS_KEPT: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");
/// A manifest is asked of one node at a time, and of the next after so long.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What the tasks share. Every lock is held for one short, synchronous step.
pub struct State {
    index: RwLock<ClusterIndex>,
    started: Instant,
    turns: Mutex<HashMap<String, watch::Sender<Turn>>>,
    decisions: Mutex<LruCache<String, Decision>>,
    offers: Mutex<LruCache<ManifestHash, Arc<Manifest>>>,
    asked: Mutex<HashMap<ManifestHash, Instant>>,
    agents: RwLock<AgentPods>,
    changed: Notify,
    /// The metrics.
    pub metrics: Metrics,
}

/// The agents' pods as the API server has them.
#[derive(Debug, Default)]
pub struct AgentPods {
    /// All kinds of objects have been seen once.
    pub synced: bool,
    /// UIDs of the pods, by which a deleted agent's token is told.
    pub uids: HashSet<String>,
    /// Nodes that have an agent running.
    pub nodes: HashSet<String>,
}

/// How often a node has reported, and been woken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Turn {
    reports: u64,
    wakes: u64,
}

/// A report's claim to hold its reply until there is something to say.
pub struct Hold {
    turn: Turn,
    receiver: watch::Receiver<Turn>,
}

/// Why a held reply is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The node's orders may have changed.
    News,
    /// A newer report of the same node has come: this one has nothing more to say.
    Superseded,
}

impl State {
    /// A state that knows nothing.
    pub fn new(settings: Settings, metrics: Metrics) -> Self {
        Self {
            index: RwLock::new(ClusterIndex::new(settings)),
            started: Instant::now(),
            turns: Mutex::default(),
            decisions: Mutex::new(LruCache::new(DECISIONS_KEPT)),
            offers: Mutex::new(LruCache::new(OFFERS_KEPT)),
            asked: Mutex::default(),
            agents: RwLock::default(),
            changed: Notify::new(),
            metrics,
        }
    }

    /// The present, as the core wants it.
    pub fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            monotonic: Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)),
            unix_seconds: i64::try_from(unix.as_secs()).unwrap_or(i64::MAX),
        }
    }

    /// How long the extender has run.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Reads the index. Keep `read` short and synchronous: reports wait meanwhile.
    pub fn read<T>(&self, read: impl FnOnce(&ClusterIndex) -> T) -> T {
        read(&self.index.read())
    }

    /// Changes the index and lets those know who live by it.
    pub fn write<T>(&self, write: impl FnOnce(&mut ClusterIndex) -> T) -> T {
        let result = write(&mut self.index.write());
        self.changed.notify_waiters();
        result
    }

    /// What a pod asks for; its claims are of the Datasets that are known now.
    pub fn demand(&self, pod: &PodFacts) -> Option<Demand> {
        pod.demand(|own| self.read(|index| index.claimed(own)))
    }

    /// Makes ready what `demand` asks for; its files are found without holding the index.
    pub fn prepare(&self, demand: &Demand) {
        let found: Vec<_> =
            self.read(|index| index.unprepared(demand)).into_iter().map(Unprepared::find).collect();
        self.write(|index| {
            found.into_iter().for_each(|found| index.keep(found));
            index.touch(demand);
        });
    }

    /// How far the warm-up `uid` is; its files are found and counted without holding the index.
    pub fn warmup_progress(&self, uid: &str) -> Option<WarmupProgress> {
        if let Some(unprepared) = self.read(|index| index.unprepared_warmup(uid)) {
            let found = unprepared.find();
            self.index.write().keep(found);
        }
        let now = self.now().monotonic;
        let mut progress = self.read(|index| index.warmup_progress(now, uid))?;
        for node in &progress.unfinished {
            let missing = self.read(|index| index.warmup_missing(uid, node));
            progress.files_done += missing.map_or(0, |missing| missing.files_done());
        }
        Some(progress)
    }

    /// The orders of `node` with their digest; made under the write lock, since they
    /// are kept there, but no change that others wait for.
    pub fn orders(&self, node: &str) -> (Arc<Orders>, u64) {
        let now = self.now().monotonic;
        self.index.write().orders(now, node)
    }

    /// Resolves at the next change of the index. Changes that come while nobody
    /// waits are not kept: look once more at intervals.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Starts to hold a reply to `node`; an older one of the same node is let go.
    pub fn hold(&self, node: &str) -> Hold {
        let mut turns = self.turns.lock();
        let sender = turns.entry(node.to_owned()).or_default();
        sender.send_modify(|turn| turn.reports += 1);
        let mut receiver = sender.subscribe();
        let turn = *receiver.borrow_and_update();
        Hold { turn, receiver }
    }

    /// The orders of `node` may have changed.
    pub fn wake(&self, node: &str) {
        if let Some(sender) = self.turns.lock().get(node) {
            sender.send_modify(|turn| turn.wakes += 1);
        }
    }

    /// The orders of any node may have changed.
    pub fn wake_all(&self) {
        for sender in self.turns.lock().values() {
            sender.send_modify(|turn| turn.wakes += 1);
        }
    }

    /// The node is gone, and with it its held reply.
    pub fn forget_node(&self, node: &str) {
        self.turns.lock().remove(node);
    }

    /// Keeps what was decided for a pod until it is bound.
    pub fn remember(&self, pod_uid: &str, decision: Decision) {
        self.decisions.lock().put(pod_uid.to_owned(), decision);
    }

    /// What was last decided for a pod; forgotten then.
    pub fn take_decision(&self, pod_uid: &str) -> Option<Decision> {
        self.decisions.lock().pop(pod_uid)
    }

    /// Takes a manifest that an agent sent: into the index when a Dataset names it,
    /// and else aside, since the one who lists sends it before the status names it.
    pub fn offer_manifest(&self, hash: ManifestHash, manifest: Arc<Manifest>) {
        // Aside first: a Dataset that names it at this moment finds it there.
        self.offers.lock().put(hash, manifest);
        self.accept_offers();
    }

    /// Takes in what was put aside and is named now.
    pub fn accept_offers(&self) {
        let missing = self.read(ClusterIndex::missing_manifests);
        for hash in missing {
            let offer = self.offers.lock().pop(&hash);
            if let Some(manifest) = offer {
                for name in self.read(|index| index.datasets_at(&hash)) {
                    self.foresee(&name, hash, manifest.clone());
                }
                self.write(|index| index.add_manifest(hash, manifest));
            }
        }
    }

    /// Takes in what the API server says of a Dataset, and wakes the nodes that it matters
    /// to. What its new version inherits is worked out first, without holding the index.
    pub fn set_dataset(&self, name: &DatasetName, facts: DatasetFacts) {
        if let Some((hash, manifest)) = facts.manifest.and_then(|hash| Some((hash, self.manifest(&hash)?))) {
            self.foresee(name, hash, manifest);
        }
        let affected = self.write(|index| index.set_dataset(name, facts));
        self.accept_offers();
        match affected {
            Affected::All => self.wake_all(),
            Affected::Nodes(nodes) => nodes.iter().for_each(|node| self.wake(node)),
        }
    }

    fn foresee(&self, name: &DatasetName, new: ManifestHash, manifest: Arc<Manifest>) {
        if let Some(unsucceeded) = self.read(|index| index.unsucceeded(name, new, manifest)) {
            let succession = unsucceeded.find();
            self.index.write().foresee(succession);
        }
    }

    /// A manifest that is here, in the index or aside.
    pub fn manifest(&self, hash: &ManifestHash) -> Option<Arc<Manifest>> {
        self.read(|index| index.manifest(hash)).or_else(|| self.offers.lock().get(hash).cloned())
    }

    /// The missing manifests that `node` has and is to be asked for now.
    pub fn manifests_to_ask(&self, node: &str) -> Vec<ManifestHash> {
        let mut missing = self.read(|index| index.missing_manifests_of(node));
        if missing.is_empty() {
            return missing;
        }
        let now = Instant::now();
        let mut asked = self.asked.lock();
        asked.retain(|_, at| now - *at < ASK_AGAIN_AFTER);
        missing.retain(|hash| match asked.entry(*hash) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(now);
                true
            }
        });
        missing
    }

    /// Reads what is known of the agents' pods.
    pub fn agents<T>(&self, read: impl FnOnce(&AgentPods) -> T) -> T {
        read(&self.agents.read())
    }

    /// Changes what is known of the agents' pods.
    pub fn set_agents(&self, write: impl FnOnce(&mut AgentPods)) {
        write(&mut self.agents.write());
    }

    /// Whether placements can be trusted: with the reason, either way.
    pub fn readiness(&self, ready_after: Duration) -> Result<String, String> {
        let now = self.now().monotonic;
        let waited = self.uptime();
        let late = waited >= ready_after;
        self.agents(|agents| {
            if !agents.synced {
                return Err("the API server's objects have not all been seen yet".to_owned());
            }
            let expected = agents.nodes.len();
            let heard =
                self.read(|index| agents.nodes.iter().filter(|node| index.is_live_node(node, now)).count());
            // One that is only held may be lost for good.
            let missing = self.read(|index| index.missing_current_manifests().len());
            match (heard == expected && missing == 0, late) {
                (true, _) => Ok(format!("{heard} of {expected} agents report")),
                (false, true) => Ok(format!(
                    "waited {} s; {heard} of {expected} agents report, {missing} manifests are missing",
                    ready_after.as_secs()
                )),
                (false, false) => {
                    Err(format!("{heard} of {expected} agents report, {missing} manifests are missing"))
                }
            }
        })
    }
}

impl Hold {
    /// Waits for the next reason to look again.
    pub async fn woken(&mut self) -> Woken {
        // An error says that the node was forgotten: nothing more to wait for.
        if self.receiver.changed().await.is_err() {
            return Woken::Superseded;
        }
        let turn = *self.receiver.borrow_and_update();
        if turn.reports == self.turn.reports { Woken::News } else { Woken::Superseded }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State::new(Settings::default(), Metrics::new().unwrap())
    }

    #[tokio::test]
    async fn a_newer_report_lets_the_older_one_go() {
        let state = state();
        let mut first = state.hold("a");
        let mut second = state.hold("a");
        assert_eq!(first.woken().await, Woken::Superseded);
        state.wake("a");
        assert_eq!(second.woken().await, Woken::News);
        state.wake_all();
        assert_eq!(second.woken().await, Woken::News);
        state.forget_node("a");
        assert_eq!(second.woken().await, Woken::Superseded);
    }

    #[tokio::test]
    async fn a_wake_before_the_wait_is_not_lost() {
        let state = state();
        let mut hold = state.hold("a");
        state.wake("a");
        assert_eq!(hold.woken().await, Woken::News);
    }

    #[test]
    fn readiness_says_what_is_missing() {
        let state = state();
        assert!(state.readiness(Duration::from_secs(30)).unwrap_err().contains("not all been seen"));
        state.set_agents(|agents| {
            agents.synced = true;
            agents.nodes.insert("a".to_owned());
        });
        assert!(state.readiness(Duration::from_secs(30)).unwrap_err().starts_with("0 of 1 agents"));
        assert!(state.readiness(Duration::ZERO).unwrap().starts_with("waited 0 s; 0 of 1"));
    }
}
