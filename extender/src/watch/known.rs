//! The few objects that are kept as they are: those whose status the leader writes,
//! and the pods that wait for a warm node.

use hearth_api::{Dataset, Warmup};
use hearth_core::pod::{Demand, PodFacts};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Objects by UID.
#[derive(Default)]
pub struct Known {
    datasets: RwLock<HashMap<String, Arc<Dataset>>>,
    dataset_changes: watch::Sender<()>,
    warmups: RwLock<HashMap<String, Arc<Warmup>>>,
    waiting: RwLock<HashMap<String, WaitingPod>>,
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

impl Known {
    /// All Datasets.
    pub fn datasets(&self) -> Vec<Arc<Dataset>> {
        self.datasets.read().values().cloned().collect()
    }

    /// Tells whenever a Dataset comes, changes or goes.
    pub fn dataset_changes(&self) -> watch::Receiver<()> {
        self.dataset_changes.subscribe()
    }

    /// All Warmups.
    pub fn warmups(&self) -> Vec<Arc<Warmup>> {
        self.warmups.read().values().cloned().collect()
    }

    /// The pods that wait, by UID.
    pub fn waiting(&self) -> Vec<(String, WaitingPod)> {
        self.waiting.read().iter().map(|(uid, pod)| (uid.clone(), pod.clone())).collect()
    }

    pub(super) fn waiting_count(&self) -> usize {
        self.waiting.read().len()
    }

    pub(super) fn set_dataset(&self, uid: String, dataset: Dataset) {
        self.datasets.write().insert(uid, Arc::new(dataset));
        self.dataset_changes.send_replace(());
    }

    pub(super) fn remove_datasets(&self, gone: impl Fn(&str) -> bool) -> Vec<Arc<Dataset>> {
        let gone = remove(&mut self.datasets.write(), gone);
        self.dataset_changes.send_replace(());
        gone
    }

    /// Returns what was known of it before.
    pub(super) fn set_warmup(&self, uid: String, warmup: Warmup) -> Option<Arc<Warmup>> {
        self.warmups.write().insert(uid, Arc::new(warmup))
    }

    pub(super) fn remove_warmups(&self, gone: impl Fn(&str) -> bool) -> Vec<Arc<Warmup>> {
        remove(&mut self.warmups.write(), gone)
    }

    pub(super) fn set_waiting(&self, uid: &str, pod: Option<WaitingPod>) {
        let mut waiting = self.waiting.write();
        match pod {
            Some(pod) => waiting.insert(uid.to_owned(), pod),
            None => waiting.remove(uid),
        };
    }

    pub(super) fn retain_waiting(&self, keep: impl Fn(&str) -> bool) {
        self.waiting.write().retain(|uid, _| keep(uid));
    }
}

fn remove<T>(objects: &mut HashMap<String, Arc<T>>, gone: impl Fn(&str) -> bool) -> Vec<Arc<T>> {
    objects.extract_if(|uid, _| gone(uid)).map(|(_, object)| object).collect()
}
