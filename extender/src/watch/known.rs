//! The few objects that are kept as they are: those whose status the leader writes, the
//! pods that wait for a warm node, and those that need a version held.

use super::runs::Runs;
use hearth_api::{Dataset, Eviction, Warmup};
use hearth_core::pod::{Demand, PodFacts};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// Objects by UID.
#[derive(Default)]
pub struct Known {
    datasets: RwLock<HashMap<String, Arc<Dataset>>>,
    dataset_changes: watch::Sender<()>,
    warmups: RwLock<HashMap<String, Arc<Warmup>>>,
    runs: RwLock<Runs>,
    /// Told when a Warmup of a CronWarmup comes, changes or goes.
    run_changes: Notify,
    evictions: RwLock<HashMap<String, Arc<Eviction>>>,
    waiting: RwLock<HashMap<String, WaitingPod>>,
    holding: RwLock<HashMap<String, HoldingPod>>,
    /// Told when holds may have to be others.
    holds: Notify,
}

/// A pending pod that insists on a warm node.
#[derive(Clone, Debug)]
pub struct WaitingPod {
    /// `namespace/name`.
    pub name: String,
    /// What it asks for.
    pub demand: Arc<Demand>,
    /// What it is made from, when it mounts claims: whose they are can change.
    pub claimant: Option<Arc<PodFacts>>,
}

/// A pod that needs the versions held that it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldingPod {
    /// What it asks for.
    pub demand: Arc<Demand>,
    /// It has not started yet.
    pub starts: bool,
}

impl Known {
    /// All Datasets.
    pub fn datasets(&self) -> Vec<Arc<Dataset>> {
        self.datasets.read().values().cloned().collect()
    }

    /// The Dataset with this UID.
    pub fn dataset(&self, uid: &str) -> Option<Arc<Dataset>> {
        self.datasets.read().get(uid).cloned()
    }

    /// Tells whenever a Dataset comes, changes or goes.
    pub fn dataset_changes(&self) -> watch::Receiver<()> {
        self.dataset_changes.subscribe()
    }

    /// All Warmups.
    pub fn warmups(&self) -> Vec<Arc<Warmup>> {
        self.warmups.read().values().cloned().collect()
    }

    /// The Warmups that the CronWarmup with this UID has made.
    pub fn runs_of(&self, owner: &str) -> Vec<Arc<Warmup>> {
        self.runs.read().of(owner)
    }

    /// A number that is another after those have changed.
    pub fn change_of_runs(&self, owner: &str) -> u64 {
        self.runs.read().change_of(owner)
    }

    /// Resolves when the Warmups of any CronWarmup have changed since it last did.
    pub async fn runs_changed(&self) {
        self.run_changes.notified().await;
    }

    /// All Evictions.
    pub fn evictions(&self) -> Vec<Arc<Eviction>> {
        self.evictions.read().values().cloned().collect()
    }

    /// The pods that wait, by UID.
    pub fn waiting(&self) -> Vec<(String, WaitingPod)> {
        self.waiting.read().iter().map(|(uid, pod)| (uid.clone(), pod.clone())).collect()
    }

    /// The pods that need versions held.
    pub fn holding(&self) -> Vec<HoldingPod> {
        self.holding.read().values().cloned().collect()
    }

    /// Resolves when holds may have to be others than when it last did.
    pub async fn holds_changed(&self) {
        self.holds.notified().await;
    }

    pub(super) fn waiting_count(&self) -> usize {
        self.waiting.read().len()
    }

    pub(super) fn set_dataset(&self, uid: String, dataset: Dataset) {
        self.datasets.write().insert(uid, Arc::new(dataset));
        self.holds.notify_one();
        self.dataset_changes.send_replace(());
    }

    pub(super) fn remove_datasets(&self, gone: impl Fn(&str) -> bool) -> Vec<Arc<Dataset>> {
        let gone = remove(&mut self.datasets.write(), gone);
        self.dataset_changes.send_replace(());
        gone
    }

    /// Returns what was known of it before.
    pub(super) fn set_warmup(&self, uid: String, warmup: Warmup) -> Option<Arc<Warmup>> {
        let warmup = Arc::new(warmup);
        let before = self.warmups.write().insert(uid, warmup.clone());
        self.change_runs(before.as_deref(), Some(&warmup));
        before
    }

    pub(super) fn remove_warmups(&self, gone: impl Fn(&str) -> bool) -> Vec<Arc<Warmup>> {
        let gone = remove(&mut self.warmups.write(), gone);
        gone.iter().for_each(|warmup| self.change_runs(Some(warmup), None));
        gone
    }

    fn change_runs(&self, before: Option<&Warmup>, after: Option<&Arc<Warmup>>) {
        let mut runs = self.runs.write();
        let was = before.is_some_and(|before| runs.remove(before));
        let is = after.is_some_and(|after| runs.set(after));
        if was || is {
            self.run_changes.notify_one();
        }
    }

    /// Returns what was known of it before.
    pub(super) fn set_eviction(&self, uid: String, eviction: Eviction) -> Option<Arc<Eviction>> {
        self.evictions.write().insert(uid, Arc::new(eviction))
    }

    pub(super) fn remove_evictions(&self, gone: impl Fn(&str) -> bool) -> Vec<Arc<Eviction>> {
        remove(&mut self.evictions.write(), gone)
    }

    pub(super) fn set_waiting(&self, uid: &str, pod: Option<WaitingPod>) {
        let mut waiting = self.waiting.write();
        match pod {
            Some(pod) => waiting.insert(uid.to_owned(), pod),
            None => waiting.remove(uid),
        };
    }

    /// `starts` is `None` for a pod that needs nothing held.
    pub(super) fn set_holding(&self, uid: &str, demand: &Demand, starts: Option<bool>) {
        let same = |pod: &HoldingPod| Some(pod.starts) == starts && *pod.demand == *demand;
        // Most changes of a pod are of something else.
        if self.holding.read().get(uid).is_some_and(same) {
            return;
        }
        match starts {
            Some(starts) => {
                let pod = HoldingPod { demand: Arc::new(demand.clone()), starts };
                self.holding.write().insert(uid.to_owned(), pod);
            }
            None => return self.unset_holding(uid),
        }
        self.holds.notify_one();
    }

    pub(super) fn unset_holding(&self, uid: &str) {
        if self.holding.write().remove(uid).is_some() {
            self.holds.notify_one();
        }
    }

    pub(super) fn retain_pods(&self, keep: impl Fn(&str) -> bool) {
        self.waiting.write().retain(|uid, _| keep(uid));
        self.holding.write().retain(|uid, _| keep(uid));
    }
}

fn remove<T>(objects: &mut HashMap<String, Arc<T>>, gone: impl Fn(&str) -> bool) -> Vec<Arc<T>> {
    objects.extract_if(|uid, _| gone(uid)).map(|(_, object)| object).collect()
}
