//! Datasets and warm-ups as the API server has them, and what a new version
//! inherits from the one before.

use super::{ClusterIndex, NodeId};
use crate::manifest::{self, ManifestHash};
use crate::placement;
use crate::selection::Selection;
use hashbrown::HashSet;
use std::collections::BTreeMap;
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
    /// The version that its status names.
    pub manifest: Option<ManifestHash>,
    /// Namespaces that may use it besides its own.
    pub share_with: Vec<String>,
    /// Nodes that may cache it; all when empty.
    pub node_selector: BTreeMap<String, String>,
}

pub(super) struct Dataset {
    pub(super) facts: DatasetFacts,
    /// The version named before the current one.
    pub(super) previous: Option<ManifestHash>,
}

/// What the API server says of a Warmup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmupFacts {
    /// Which Dataset.
    pub dataset: DatasetName,
    /// Which part of it.
    pub selection: Selection,
    /// Nodes that may be chosen; all when empty.
    pub node_selector: BTreeMap<String, String>,
    /// How many of them; all when `None`.
    pub replicas: Option<usize>,
    /// Higher first; below what bound pods read.
    pub priority: i32,
}

pub(super) struct Warmup {
    pub(super) facts: WarmupFacts,
    /// Names of the nodes that are to get warm.
    pub(super) chosen: HashSet<Arc<str>>,
}

impl ClusterIndex {
    /// Takes in what the API server says of a Dataset.
    pub fn set_dataset(&mut self, name: &DatasetName, facts: DatasetFacts) {
        if let Some(hash) = facts.manifest {
            self.versions.entry(hash).or_default();
        }
        let changed = match self.datasets.get_mut(name) {
            None => {
                self.datasets.insert(name.clone(), Dataset { facts, previous: None });
                true
            }
            Some(dataset) if dataset.facts == facts => false,
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
            self.rechoose_warmups();
            self.nodes.invalidate_all_orders();
            self.drop_unused_versions();
        }
    }

    /// The Dataset is gone.
    pub fn remove_dataset(&mut self, name: &DatasetName) {
        if self.datasets.remove(name).is_some() {
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

    /// The names of all Datasets.
    pub fn dataset_names(&self) -> impl Iterator<Item = &DatasetName> {
        self.datasets.keys()
    }

    /// Takes in what the API server says of a Warmup that is to be carried out.
    pub fn set_warmup(&mut self, uid: &str, facts: WarmupFacts) {
        if self.warmups.get(uid).is_some_and(|warmup| warmup.facts == facts) {
            return;
        }
        self.remove_warmup(uid);
        self.warmups.insert(uid.to_owned(), Warmup { facts, chosen: HashSet::new() });
        self.rechoose_warmups();
    }

    /// The Warmup is gone, or asks for nothing any more.
    pub fn remove_warmup(&mut self, uid: &str) {
        let Some(warmup) = self.warmups.remove(uid) else { return };
        for node in warmup.chosen {
            self.fetching.remove(&warmup.facts.dataset, &warmup.facts.selection, &node);
            self.nodes.invalidate_orders(&node);
        }
    }

    /// Chooses nodes for every Warmup by rendezvous hashing over the nodes that
    /// its own selector and its dataset's allow: every replica chooses alike.
    pub(super) fn rechoose_warmups(&mut self) {
        for (uid, warmup) in &mut self.warmups {
            let of_dataset =
                self.datasets.get(&warmup.facts.dataset).map(|dataset| &dataset.facts.node_selector);
            let allowed = self.nodes.iter().filter(|(_, node)| {
                node.facts.as_ref().is_some_and(|facts| {
                    facts.schedulable
                        && selects(&warmup.facts.node_selector, &facts.labels)
                        && of_dataset.is_none_or(|selector| selects(selector, &facts.labels))
                })
            });
            let names: Vec<&Arc<str>> = allowed.map(|(_, node)| &node.name).collect();
            let chosen: HashSet<Arc<str>> =
                placement::choose(uid, names.iter().map(|name| &***name), warmup.facts.replicas)
                    .into_iter()
                    .map(Arc::from)
                    .collect();
            let (dataset, selection) = (&warmup.facts.dataset, &warmup.facts.selection);
            for node in warmup.chosen.difference(&chosen) {
                self.fetching.remove(dataset, selection, node);
            }
            for node in chosen.difference(&warmup.chosen) {
                self.fetching.add(dataset.clone(), selection, node);
            }
            warmup.chosen = chosen;
        }
        self.nodes.invalidate_all_orders();
    }

    /// Gives a dataset's current version what the nodes hold of the one before.
    pub(super) fn inherit(&mut self, name: &DatasetName) {
        let Some(dataset) = self.datasets.get(name) else { return };
        let (Some(new), Some(old)) = (dataset.facts.manifest, dataset.previous) else { return };
        let (Some(to), Some(from)) = (self.manifest(&new), self.manifest(&old)) else { return };
        let Some(version) = self.versions.get(&old) else { return };
        let inherited: Vec<(NodeId, _)> = version
            .holders()
            .filter(|(_, held)| !held.is_empty())
            .map(|(node, held)| (node, manifest::inherit(&from, &to, held)))
            .collect();
        if let Some(version) = self.versions.get_mut(&new) {
            for (node, blocks) in inherited {
                version.suppose(node, blocks);
            }
        }
    }
}

/// Whether labels have all that a selector names.
pub(super) fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
