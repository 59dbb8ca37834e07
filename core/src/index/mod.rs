//! The index of who holds what: fed by reports and by what the API server says,
//! asked by the scheduler's calls.
//!
//! One writer; readers only look. Time comes in as [`Millis`].

mod choice;
mod datasets;
mod evictions;
mod failed;
mod fetching;
mod node;
mod orders;
mod pending;
mod prepare;
mod progress;
mod removal;
mod replicas;
mod reports;
mod succession;
mod version;
mod warmups;
mod weigh;

pub use datasets::{Affected, DatasetFacts, DatasetName};
pub use evictions::{EvictionFacts, EvictionNodes};
pub use failed::{Failed, FailedOn};
pub use node::NodeFacts;
pub use pending::{PendingPod, Place};
pub use prepare::{Prepared, Unprepared};
pub use progress::{DatasetWarmth, TooSmall, WarmupMissing, WarmupProgress};
pub use replicas::Replicas;
pub use succession::{Succession, Unsucceeded};
pub use warmups::WarmupFacts;
pub use weigh::{ASSUMED_BYTES_PER_SECOND, Problem, Weighed, Weighing};

use crate::manifest::{Manifest, ManifestHash};
use crate::pod::Demand;
use crate::wire::report::Speaker;
use datasets::Dataset;
use fetching::Fetching;
use hashbrown::{HashMap, HashSet};
use node::{Node, NodeId, Nodes};
use pending::Pending;
use std::collections::BTreeMap;
use std::sync::Arc;
use version::Version;
use warmups::Warmup;

/// Monotonic milliseconds since a start of the caller's choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Millis {
    /// Milliseconds from `earlier` to here; 0 when that is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What can be set about an index.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A node that has not reported for so long counts as cold.
    pub silent_after_millis: u64,
    /// How many selections are kept counted; the least recently prepared goes first.
    pub selections_kept: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { silent_after_millis: 10_000, selections_kept: 10_000 }
    }
}

struct BoundPod {
    node: Arc<str>,
    demand: Demand,
}

/// Who holds what, who is to hold what, and what there is.
pub struct ClusterIndex {
    settings: Settings,
    nodes: Nodes,
    versions: HashMap<ManifestHash, Version>,
    datasets: HashMap<DatasetName, Dataset>,
    /// Namespaces of the Datasets, by name.
    namesakes: HashMap<String, HashSet<String>>,
    datasets_synced: bool,
    pods: HashMap<String, BoundPod>,
    pods_by_node: HashMap<Arc<str>, HashSet<String>>,
    warmups: HashMap<String, Warmup>,
    /// UIDs of the Warmups that have chosen a node.
    warmups_by_node: HashMap<Arc<str>, HashSet<String>>,
    pending: Pending,
    /// Nodes that have said that they cannot fetch something.
    troubled: HashSet<NodeId>,
    evictions: BTreeMap<String, EvictionFacts>,
    fetching: Fetching,
    /// Worked out ahead, the oldest first.
    foreseen: Vec<Succession>,
    /// Rises with every preparation: the age of selections.
    preparations: u64,
}

impl ClusterIndex {
    /// An index that knows nothing.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            nodes: Nodes::default(),
            versions: HashMap::new(),
            datasets: HashMap::new(),
            namesakes: HashMap::new(),
            datasets_synced: false,
            pods: HashMap::new(),
            pods_by_node: HashMap::new(),
            warmups: HashMap::new(),
            warmups_by_node: HashMap::new(),
            pending: Pending::default(),
            troubled: HashSet::new(),
            evictions: BTreeMap::new(),
            fetching: Fetching::default(),
            foreseen: Vec::new(),
            preparations: 0,
        }
    }

    /// Takes in what the API server says of a node.
    pub fn set_node(&mut self, name: &str, facts: NodeFacts) {
        let node = self.nodes.get_or_insert(name);
        let changed = node.facts.as_ref() != Some(&facts);
        node.facts = Some(facts);
        if changed {
            self.nodes.invalidate_orders(name);
            self.reconsider(name);
        }
    }

    /// The node is gone: what it held is, too.
    pub fn remove_node(&mut self, name: &str) {
        let Some(id) = self.nodes.remove(name) else { return };
        self.troubled.remove(&id);
        for version in self.versions.values_mut() {
            version.forget(id);
        }
        self.drop_unused_versions();
        self.reconsider(name);
    }

    /// What the API server says of a node.
    pub fn node_facts(&self, name: &str) -> Option<&NodeFacts> {
        self.nodes.by_name(name)?.facts.as_ref()
    }

    /// All nodes that are known, with what the API server says of them.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, Option<&NodeFacts>)> {
        self.nodes.iter().map(|(_, node)| (&*node.name, node.facts.as_ref()))
    }

    /// Gives the manifest of a hash that [`Self::missing_manifests`] names.
    pub fn add_manifest(&mut self, hash: ManifestHash, manifest: Arc<Manifest>) {
        let Some(version) = self.versions.get_mut(&hash) else { return };
        if version.manifest.is_some() {
            return;
        }
        version.set_manifest(manifest);
        let heirs: Vec<DatasetName> = self
            .datasets
            .iter()
            .filter(|(_, dataset)| dataset.facts.manifest == Some(hash) || dataset.previous == Some(hash))
            .map(|(name, _)| name.clone())
            .collect();
        for name in heirs {
            self.inherit(&name);
        }
    }

    /// A manifest that is here.
    pub fn manifest(&self, hash: &ManifestHash) -> Option<Arc<Manifest>> {
        self.versions.get(hash)?.manifest.clone()
    }

    /// Current and held versions whose manifest is not here.
    pub fn missing_manifests(&self) -> Vec<ManifestHash> {
        let mut missing = self.missing_current_manifests();
        missing.extend(self.held_versions().filter(|hash| self.lacks_manifest(hash)));
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Those of [`Self::missing_manifests`] that are of current versions.
    pub fn missing_current_manifests(&self) -> Vec<ManifestHash> {
        let current = self.datasets.values().filter_map(|dataset| dataset.facts.manifest);
        let mut missing: Vec<_> = current.filter(|hash| self.lacks_manifest(hash)).collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    fn lacks_manifest(&self, hash: &ManifestHash) -> bool {
        self.versions.get(hash).is_some_and(|version| version.manifest.is_none())
    }

    fn held_versions(&self) -> impl Iterator<Item = ManifestHash> {
        self.datasets.values().flat_map(|dataset| dataset.facts.held.values().copied())
    }

    /// Those of [`Self::missing_manifests`] that `node` has reported to know.
    pub fn missing_manifests_of(&self, node: &str) -> Vec<ManifestHash> {
        let Some(id) = self.nodes.id(node) else { return Vec::new() };
        let reported = self.nodes.get(id).into_iter().flat_map(|node| node.reported.keys());
        // Asked with every report, and nearly always there is nothing: not a reason to look at every Dataset.
        if !reported.into_iter().any(|hash| self.lacks_manifest(hash)) {
            return Vec::new();
        }
        let mut missing = self.missing_manifests();
        missing.retain(|hash| self.versions.get(hash).is_some_and(|version| version.reported_by(id)));
        missing
    }

    /// The pod `uid` is bound to `node` and runs, or will.
    pub fn bind_pod(&mut self, uid: &str, node: &str, demand: Demand) {
        if let Some(old) = self.pods.get(uid) {
            if *old.node == *node && old.demand == demand {
                return;
            }
            self.unbind_pod(uid);
        }
        let node: Arc<str> = node.into();
        self.pods_by_node.entry(node.clone()).or_default().insert(uid.to_owned());
        self.nodes.invalidate_orders(&node);
        for asked in &demand.asked {
            self.fetching.add(asked.name(), &asked.selection, &node);
        }
        self.pods.insert(uid.to_owned(), BoundPod { node, demand });
    }

    /// The pod has ended or is gone.
    pub fn unbind_pod(&mut self, uid: &str) {
        let Some(pod) = self.pods.remove(uid) else { return };
        for asked in &pod.demand.asked {
            self.fetching.remove(&asked.name(), &asked.selection, &pod.node);
        }
        if let Some(pods) = self.pods_by_node.get_mut(&pod.node) {
            pods.remove(uid);
            if pods.is_empty() {
                self.pods_by_node.remove(&pod.node);
            }
        }
        self.nodes.invalidate_orders(&pod.node);
    }

    /// Nodes whose agent has reported within the silence limit.
    pub fn live_nodes(&self, now: Millis) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter(move |(_, node)| self.is_live(node, now)).map(|(_, node)| &*node.name)
    }

    /// Whether an agent reports from `node`.
    pub fn is_live_node(&self, node: &str, now: Millis) -> bool {
        self.nodes.by_name(node).is_some_and(|node| self.is_live(node, now))
    }

    /// Who reported last for `node`, and when.
    pub fn heard(&self, node: &str) -> Option<(&Speaker, Millis)> {
        let session = self.nodes.by_name(node)?.session.as_ref()?;
        Some((&session.speaker, session.heard))
    }

    /// Nodes that have reported once and are silent now.
    pub fn silent_nodes(&self, now: Millis) -> usize {
        self.nodes.iter().filter(|(_, node)| node.session.is_some() && !self.is_live(node, now)).count()
    }

    fn is_live(&self, node: &Node, now: Millis) -> bool {
        node.session.as_ref().is_some_and(|session| {
            let same = node.facts.as_ref().is_none_or(|facts| facts.uid == session.speaker.node_uid);
            same && now.since(session.heard) < self.settings.silent_after_millis
        })
    }

    /// Versions that no dataset names and no node reports serve nobody.
    fn drop_unused_versions(&mut self) {
        let named: HashSet<ManifestHash> = self
            .datasets
            .values()
            .flat_map(|dataset| [dataset.facts.manifest, dataset.previous])
            .flatten()
            .chain(self.held_versions())
            .collect();
        self.versions.retain(|hash, version| named.contains(hash) || version.is_reported());
    }
}

#[cfg(test)]
mod tests;
