//! Datasets as the API server has them.

use super::ClusterIndex;
use crate::claim;
use crate::hold::{Held, MOST_HELD};
use crate::manifest::ManifestHash;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Names a Dataset.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatasetName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl DatasetName {
    /// The Dataset `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        Some(Self::new(namespace, name))
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What the API server says of a Dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatasetFacts {
    /// UID of the object.
    pub uid: String,
    /// Generation of its spec.
    pub generation: i64,
    /// The version that its status names; `None` once it is being deleted.
    pub manifest: Option<ManifestHash>,
    /// Versions that its status holds for the pods of owners; none once it is being deleted.
    pub held: Held,
    /// It is being deleted; with the versions that its status named until then.
    pub ending: Option<BTreeSet<ManifestHash>>,
    /// Namespaces that may use it besides its own.
    pub share_with: Vec<String>,
    /// Nodes that may cache it; all when empty.
    pub node_selector: BTreeMap<String, String>,
    /// How many nodes are to hold all of it, pods or not; none when `None`.
    pub replicas: Option<usize>,
}

pub(super) struct Dataset {
    pub(super) facts: DatasetFacts,
    /// The version named before the current one.
    pub(super) previous: Option<ManifestHash>,
}

/// Whose orders may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affected {
    /// All nodes'.
    All,
    /// These nodes'.
    Nodes(Vec<Arc<str>>),
}

impl ClusterIndex {
    /// Takes in what the API server says of a Dataset.
    pub fn set_dataset(&mut self, name: &DatasetName, facts: DatasetFacts) -> Affected {
        for hash in facts.manifest.iter().chain(facts.held.values()) {
            self.versions.entry(*hash).or_default();
        }
        let changed = match self.datasets.get_mut(name) {
            None => {
                self.datasets.insert(name.clone(), Dataset { facts, previous: None });
                self.namesakes.entry(name.name.clone()).or_default().insert(name.namespace.clone());
                true
            }
            Some(dataset) if dataset.facts == facts => false,
            // Every Job that starts brings one: not a reason to look at every node.
            Some(dataset) if only_holds_more(&dataset.facts, &facts) => {
                let before = std::mem::replace(&mut dataset.facts, facts).held;
                return Affected::Nodes(self.tell_held(name, &before));
            }
            Some(dataset) => {
                // An object made again under the name is another dataset.
                if dataset.facts.uid != facts.uid {
                    dataset.previous = None;
                } else if dataset.facts.manifest != facts.manifest {
                    dataset.previous = dataset.facts.manifest.or(dataset.previous);
                }
                dataset.facts = facts;
                true
            }
        };
        if changed {
            self.inherit(name);
            self.want_replicas(name);
            self.rechoose_warmups_of(name);
            self.nodes.invalidate_all_orders();
            self.drop_unused_versions();
            return Affected::All;
        }
        Affected::Nodes(Vec::new())
    }

    /// The current version is held for more owners than before: the nodes of their pods.
    fn tell_held(&mut self, name: &DatasetName, before: &Held) -> Vec<Arc<str>> {
        let Some(dataset) = self.datasets.get(name) else { return Vec::new() };
        let is_new = |owner: &String| dataset.facts.held.contains_key(owner) && !before.contains_key(owner);
        let told = self.pods.values().filter(|pod| {
            pod.demand.owner.as_ref().is_some_and(is_new)
                && pod.demand.asked.iter().any(|asked| asked.name() == *name)
        });
        let mut nodes: Vec<Arc<str>> = told.map(|pod| pod.node.clone()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        for node in &nodes {
            self.nodes.invalidate_orders(node);
        }
        nodes
    }

    /// The Dataset is gone.
    pub fn remove_dataset(&mut self, name: &DatasetName) {
        if self.datasets.remove(name).is_some() {
            if let Some(namespaces) = self.namesakes.get_mut(&name.name) {
                namespaces.remove(&name.namespace);
                if namespaces.is_empty() {
                    self.namesakes.remove(&name.name);
                }
            }
            self.want_replicas(name);
            self.rechoose_warmups_of(name);
            self.nodes.invalidate_all_orders();
            self.drop_unused_versions();
        }
    }

    /// All Datasets have been seen once: from now on a version that none of them
    /// names is superfluous, and not merely not seen yet.
    pub fn set_datasets_synced(&mut self) {
        self.datasets_synced = true;
        self.nodes.invalidate_all_orders();
    }

    /// What is known of a Dataset.
    pub fn dataset(&self, name: &DatasetName) -> Option<&DatasetFacts> {
        self.datasets.get(name).map(|dataset| &dataset.facts)
    }

    /// The Dataset that a namespace's claim is of, when `own` is the one of the claim's name
    /// in that namespace; `own` when it is of none.
    pub fn claimed(&self, own: &DatasetName) -> DatasetName {
        let namespaces = self.namesakes.get(&own.name).into_iter().flatten();
        let datasets = namespaces.filter_map(|namespace| {
            let facts = self.dataset(&DatasetName::new(namespace, &own.name))?;
            Some((namespace.as_str(), facts.share_with.as_slice()))
        });
        let of = claim::source(&own.namespace, datasets).unwrap_or(&own.namespace);
        DatasetName::new(of, &own.name)
    }

    /// Datasets whose current version this is.
    pub fn datasets_at(&self, hash: &ManifestHash) -> Vec<DatasetName> {
        let current = self.datasets.iter().filter(|(_, dataset)| dataset.facts.manifest == Some(*hash));
        current.map(|(name, _)| name.clone()).collect()
    }

    /// The names of all Datasets.
    pub fn dataset_names(&self) -> impl Iterator<Item = &DatasetName> {
        self.datasets.keys()
    }
}

/// Whether all that is new are holds of what is current anyway, and there is room for more.
fn only_holds_more(before: &DatasetFacts, after: &DatasetFacts) -> bool {
    let mut added = after.held.iter().filter(|(owner, _)| !before.held.contains_key(*owner));
    let rest = DatasetFacts { held: after.held.clone(), ..before.clone() };
    rest == *after
        && after.held.len() < MOST_HELD
        && before.held.iter().all(|(owner, version)| after.held.get(owner) == Some(version))
        && added.all(|(_, version)| Some(*version) == after.manifest)
}
