//! What the holders of a version hold of the next one, worked out before that becomes
//! current and without holding the index: a refresh neither makes the cluster look cold
//! nor keeps the scheduler waiting.

use super::{ClusterIndex, Dataset, DatasetName, NodeId};
use crate::manifest::{Manifest, ManifestHash, Unchanged};
use roaring::RoaringBitmap;
use std::sync::Arc;

/// Two versions, and who holds the older one.
pub struct Unsucceeded {
    old: ManifestHash,
    new: ManifestHash,
    from: Arc<Manifest>,
    to: Arc<Manifest>,
    holders: Vec<(NodeId, RoaringBitmap)>,
}

/// What the holders of an old version hold of a new one.
pub struct Succession {
    pub(super) old: ManifestHash,
    pub(super) new: ManifestHash,
    pub(super) inherited: Vec<(NodeId, RoaringBitmap)>,
}

impl Unsucceeded {
    /// Looks at every path of both manifests: not to be done under a lock.
    pub fn find(self) -> Succession {
        let unchanged = Unchanged::between(&self.from, &self.to);
        let inherited = self.holders.into_iter().map(|(node, held)| (node, unchanged.inherited(&held)));
        Succession { old: self.old, new: self.new, inherited: inherited.collect() }
    }
}

impl Dataset {
    /// The version that `new` follows.
    fn before(&self, new: ManifestHash) -> Option<ManifestHash> {
        match self.facts.manifest {
            Some(current) if current != new => Some(current),
            _ => self.previous,
        }
    }
}

impl ClusterIndex {
    /// What there is to work out before the version `new` of a Dataset, whose manifest
    /// is `to`, is taken in; `None` when nothing is inherited.
    pub fn unsucceeded(
        &self,
        name: &DatasetName,
        new: ManifestHash,
        to: Arc<Manifest>,
    ) -> Option<Unsucceeded> {
        let old = self.datasets.get(name)?.before(new).filter(|old| *old != new)?;
        if self.foreseen.iter().any(|foreseen| (foreseen.old, foreseen.new) == (old, new)) {
            return None;
        }
        let version = self.versions.get(&old)?;
        let from = version.manifest.clone()?;
        let holders = version.holders().filter(|(_, held)| !held.is_empty());
        let holders: Vec<_> = holders.map(|(node, held)| (node, held.clone())).collect();
        (!holders.is_empty()).then_some(Unsucceeded { old, new, from, to, holders })
    }

    /// Keeps what was worked out until the new version is taken in.
    pub fn foresee(&mut self, succession: Succession) {
        const MOST_KEPT: usize = 16;
        if self.foreseen.len() == MOST_KEPT {
            self.foreseen.remove(0);
        }
        self.foreseen.push(succession);
    }

    /// Gives a dataset's current version what the nodes hold of the one before.
    pub(super) fn inherit(&mut self, name: &DatasetName) {
        let Some(dataset) = self.datasets.get(name) else { return };
        let Some(new) = dataset.facts.manifest else { return };
        let Some(to) = self.manifest(&new) else { return };
        let found = self
            .foreseen
            .iter()
            .position(|foreseen| foreseen.new == new && dataset.before(new) == Some(foreseen.old));
        let succession = match found {
            Some(at) => self.foreseen.remove(at),
            None => match self.unsucceeded(name, new, to) {
                Some(unsucceeded) => unsucceeded.find(),
                None => return,
            },
        };
        if let Some(version) = self.versions.get_mut(&new) {
            for (node, blocks) in succession.inherited {
                // It may have gone meanwhile.
                if self.nodes.get(node).is_some() {
                    version.suppose(node, blocks);
                }
            }
        }
    }
}
