//! How far datasets and warm-ups are, for their statuses.

use super::{ClusterIndex, DatasetName, Millis, NodeId};
use crate::selection::Selection;
use crate::wire::report::Trouble;
use std::sync::Arc;

/// How warm a dataset is in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatasetWarmth {
    /// Bytes of its current version.
    pub bytes: u64,
    /// Live nodes that hold all of it.
    pub whole: usize,
    /// Live nodes that hold some of it, the whole ones included.
    pub some: usize,
    /// Most bytes that one live node holds.
    pub most: u64,
    /// What keeps nodes from fetching it, at most a few.
    pub troubles: Vec<(Arc<str>, Trouble)>,
}

/// How far a warm-up is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WarmupProgress {
    /// Nodes that are to get warm.
    pub nodes_wanted: usize,
    /// Of those, nodes that hold all of it.
    pub nodes_done: usize,
    /// Bytes that the wanted nodes hold of it, added up.
    pub bytes_done: u64,
    /// Bytes that they will hold in the end.
    pub bytes_total: u64,
    /// Files that they hold wholly, added up.
    pub files_done: u64,
    /// Files that they will hold in the end.
    pub files_total: u64,
    /// Bytes per second that the fetching nodes reach together.
    pub rate: u64,
    /// What keeps nodes from fetching it, at most a few.
    pub troubles: Vec<(Arc<str>, Trouble)>,
    /// Why nothing can be done, as one sentence.
    pub problem: Option<String>,
}

/// Enough for a status message to name one and count the others.
const TROUBLES_SHOWN: usize = 8;

impl ClusterIndex {
    /// How warm a dataset's current version is; `None` before it has one here.
    pub fn dataset_warmth(&self, now: Millis, name: &DatasetName) -> Option<DatasetWarmth> {
        let hash = self.datasets.get(name)?.facts.manifest?;
        let version = self.versions.get(&hash)?;
        let counted = version.counted(&Selection::all())?;
        let mut warmth = DatasetWarmth { bytes: counted.bytes, ..DatasetWarmth::default() };
        for (id, node) in self.nodes.iter().filter(|(_, node)| self.is_live(node, now)) {
            let held = counted.by_node.get(&id).copied().unwrap_or(0);
            warmth.whole += usize::from(held == counted.bytes && version.reported_by(id));
            warmth.some += usize::from(held > 0);
            warmth.most = warmth.most.max(held);
            let troubles = node.session.iter().flat_map(|session| &session.status.troubles);
            for trouble in troubles.filter(|trouble| trouble.manifest == hash) {
                if warmth.troubles.len() < TROUBLES_SHOWN {
                    warmth.troubles.push((node.name.clone(), trouble.clone()));
                }
            }
        }
        Some(warmth)
    }

    /// How far the warm-up `uid` is; `None` when it is not known.
    pub fn warmup_progress(&self, now: Millis, uid: &str) -> Option<WarmupProgress> {
        let warmup = self.warmups.get(uid)?;
        let mut progress = WarmupProgress { nodes_wanted: warmup.chosen.len(), ..WarmupProgress::default() };
        let name = &warmup.facts.dataset;
        let dataset = self.datasets.get(name);
        let hash = dataset.and_then(|dataset| dataset.facts.manifest);
        let version = hash.and_then(|hash| self.versions.get(&hash));
        let manifest = version.and_then(|version| version.manifest.as_ref());
        let (Some(hash), Some(version), Some(manifest)) = (hash, version, manifest) else {
            progress.problem = Some(match dataset {
                None => format!("Dataset {name} does not exist: create it, or name another"),
                Some(_) => format!("Dataset {name} has not been listed yet: see its conditions"),
            });
            return Some(progress);
        };
        let selection = &warmup.facts.selection;
        let files: Vec<_> = manifest.select(selection).map(|file| file.blocks()).collect();
        if files.is_empty() {
            progress.problem = Some(match selection.is_all() {
                true => format!("Dataset {name} has no files"),
                false => format!("no file of Dataset {name} matches {}", selection.globs().join(", ")),
            });
        }
        let wanted = manifest.blocks_of(selection);
        let bytes = manifest.bytes_of(&wanted);
        progress.bytes_total = bytes * warmup.chosen.len() as u64;
        progress.files_total = files.len() as u64 * warmup.chosen.len() as u64;
        for (id, node) in warmup.chosen.iter().filter_map(|name| self.live(name, now)) {
            if let Some(session) = &node.session {
                for trouble in session.status.troubles.iter().filter(|trouble| trouble.manifest == hash) {
                    if progress.troubles.len() < TROUBLES_SHOWN {
                        progress.troubles.push((node.name.clone(), trouble.clone()));
                    }
                }
            }
            let Some(held) = version.held_by(id) else { continue };
            let held_bytes = manifest.bytes_of(&(held & &wanted));
            progress.bytes_done += held_bytes;
            progress.files_done += match held_bytes == bytes {
                true => files.len() as u64,
                false => files.iter().filter(|blocks| held.contains_range((*blocks).clone())).count() as u64,
            };
            if held_bytes == bytes {
                progress.nodes_done += usize::from(version.reported_by(id));
            } else {
                let measured =
                    node.session.as_ref().and_then(|session| session.status.origin_bytes_per_second);
                progress.rate += measured.unwrap_or(0);
            }
        }
        Some(progress)
    }

    fn live(&self, name: &str, now: Millis) -> Option<(NodeId, &super::Node)> {
        let id = self.nodes.id(name)?;
        let node = self.nodes.get(id)?;
        self.is_live(node, now).then_some((id, node))
    }
}
