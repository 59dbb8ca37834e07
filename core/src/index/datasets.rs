//! Datasets and warm-ups as the API server has them, and what a new version
//! inherits from the one before.

use super::{ClusterIndex, NodeId};
use crate::manifest::{self, ManifestHash};
use std::collections::BTreeMap;
use std::fmt;

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
            self.rechoose_warmups_of(name);
            self.nodes.invalidate_all_orders();
            self.drop_unused_versions();
        }
    }

    /// The Dataset is gone.
    pub fn remove_dataset(&mut self, name: &DatasetName) {
        if self.datasets.remove(name).is_some() {
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

    /// The names of all Datasets.
    pub fn dataset_names(&self) -> impl Iterator<Item = &DatasetName> {
        self.datasets.keys()
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
