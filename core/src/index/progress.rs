//! How far datasets and warm-ups are, for their statuses.

use super::failed::Failed;
use super::node::Node;
use super::version::Version;
use super::warmups::Warmup;
use super::{ClusterIndex, DatasetName, Millis, NodeId};
use crate::manifest::{Manifest, ManifestHash};
use crate::selection::Selection;
use crate::wire::report::Trouble;
use roaring::RoaringBitmap;
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
    /// Live nodes that do not hold all of it, or have not said so themselves.
    pub unfinished: Vec<Arc<str>>,
    /// Bytes per second that the fetching nodes reach together.
    pub rate: u64,
    /// What keeps nodes from fetching it, at most a few.
    pub troubles: Vec<(Arc<str>, Trouble)>,
    /// Files of it that nodes could not fetch.
    pub failed: Failed,
    /// The node with the least room of those that never have enough, and how many there are.
    pub too_small: Option<TooSmall>,
    /// Why nothing can be done, as one sentence.
    pub problem: Option<String>,
}

/// Nodes that cannot hold what a warm-up asks for, whatever makes room there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooSmall {
    /// The one with the least room.
    pub node: Arc<str>,
    /// Bytes that its store may take.
    pub capacity: u64,
    /// Bytes that it is to hold.
    pub asked: u64,
    /// How many nodes there are like it, itself included.
    pub nodes: usize,
}

/// What one node lacks of a warm-up.
#[derive(Clone, Debug)]
pub struct WarmupMissing {
    manifest: Arc<Manifest>,
    blocks: RoaringBitmap,
    files: u64,
}

impl WarmupMissing {
    /// Files that the node holds wholly. Looks at every missing file: not to be
    /// done under a lock.
    pub fn files_done(&self) -> u64 {
        self.files - self.manifest.files_with(&self.blocks).count() as u64
    }
}

/// Enough for a status message to name one and count the others.
const TROUBLES_SHOWN: usize = 8;

impl ClusterIndex {
    /// How warm a dataset's current version is; `None` before it has one here.
    pub fn dataset_warmth(&self, now: Millis, name: &DatasetName) -> Option<DatasetWarmth> {
        let hash = self.datasets.get(name)?.facts.manifest?;
        let version = self.versions.get(&hash)?;
        let counted = version.counted(&Selection::all())?;
        let mut warmth = DatasetWarmth { bytes: counted.selected.bytes, ..DatasetWarmth::default() };
        let live = |id| self.nodes.get(id).filter(|node| self.is_live(node, now));
        // Not every node: of thousands, few have heard of it.
        for (id, _) in version.holders().filter(|(id, _)| live(*id).is_some()) {
            let held = counted.by_node.get(&id).copied().unwrap_or(0);
            warmth.whole += usize::from(version.is_whole(counted, id));
            warmth.some += usize::from(held > 0);
            warmth.most = warmth.most.max(held);
        }
        warmth.troubles = troubles_with(self.troubled.iter().filter_map(|id| live(*id)), hash);
        Some(warmth)
    }

    /// How far the warm-up `uid` is; `None` when it is not known, or not
    /// [prepared](Self::unprepared_warmup). What its unfinished nodes hold adds no files yet.
    pub fn warmup_progress(&self, now: Millis, uid: &str) -> Option<WarmupProgress> {
        let warmup = self.warmups.get(uid)?;
        let mut progress = WarmupProgress { nodes_wanted: warmup.chosen.len(), ..WarmupProgress::default() };
        let name = &warmup.facts.dataset;
        let dataset = self.datasets.get(name);
        let hash = dataset.and_then(|dataset| dataset.facts.manifest);
        let version = hash.and_then(|hash| self.versions.get(&hash));
        let (Some(hash), Some(version)) = (hash, version.filter(|version| version.manifest.is_some())) else {
            progress.problem = Some(match dataset {
                None => format!("Dataset {name} does not exist: create it, or name another"),
                Some(dataset) if dataset.facts.ending.is_some() => {
                    format!("Dataset {name} is being deleted: nothing more is fetched of it")
                }
                Some(_) => format!("Dataset {name} has not been listed yet: see its conditions"),
            });
            return Some(progress);
        };
        let Some(selection) = &warmup.facts.selection else {
            self.add_lists(now, warmup, version, &mut progress);
            return Some(progress);
        };
        let counted = version.counted(selection)?;
        let (bytes, files) = (counted.selected.bytes, counted.selected.files);
        if files == 0 {
            progress.problem = Some(match (counted.selected.unlisted, selection.is_all()) {
                (0, true) => format!("Dataset {name} has no files"),
                (0, false) => format!("no file of Dataset {name} matches {}", selection.globs().join(", ")),
                _ => format!(
                    "Dataset {name} takes none of these files, and so no node keeps them: see its spec.files"
                ),
            });
        }
        progress.bytes_total = bytes * warmup.chosen.len() as u64;
        progress.files_total = files * warmup.chosen.len() as u64;
        for (id, node) in warmup.chosen.iter().filter_map(|name| self.live(name, now)) {
            let held = counted.by_node.get(&id).copied().unwrap_or(0);
            progress.bytes_done += held;
            if held < bytes {
                let capacity = node.session.as_ref().map_or(0, |session| session.status.capacity_bytes);
                // 0 before the first report.
                if (1..bytes).contains(&capacity) {
                    let known = progress.too_small.take();
                    let nodes = 1 + known.as_ref().map_or(0, |known| known.nodes);
                    let this = TooSmall { node: node.name.clone(), capacity, asked: bytes, nodes };
                    let least = known.filter(|known| known.capacity <= capacity);
                    progress.too_small = Some(least.map_or(this, |known| TooSmall { nodes, ..known }));
                }
                let measured =
                    node.session.as_ref().and_then(|session| session.status.origin_bytes_per_second);
                progress.rate += measured.unwrap_or(0);
            }
            if held < bytes || !version.reported_by(id) {
                progress.unfinished.push(node.name.clone());
            } else {
                progress.nodes_done += 1;
                progress.files_done += files;
            }
        }
        let nodes = || warmup.chosen.iter().filter_map(|name| self.live(name, now)).map(|(_, node)| node);
        progress.troubles = troubles_with(nodes(), hash);
        progress.failed = Failed::on(nodes(), hash, selection);
        Some(progress)
    }

    /// How many nodes the warm-up `uid` has chosen, and how many bytes they hold, when each of them
    /// holds all of it: as [`Self::warmup_progress`] would say, for next to nothing.
    pub fn warmup_done(&self, now: Millis, uid: &str) -> Option<(usize, u64)> {
        let warmup = self.warmups.get(uid)?;
        let hash = self.datasets.get(&warmup.facts.dataset)?.facts.manifest?;
        let version = self.versions.get(&hash)?;
        let nodes = warmup.chosen.len();
        let all_hold = |holds: &dyn Fn(NodeId) -> bool| {
            let mut chosen = warmup.chosen.iter();
            nodes > 0 && chosen.all(|name| self.live(name, now).is_some_and(|(id, _)| holds(id)))
        };
        let Some(selection) = &warmup.facts.selection else {
            return all_hold(&|id| version.reported_by(id)).then_some((nodes, 0));
        };
        let counted = version.counted(selection)?;
        let selected = &counted.selected;
        (selected.files > 0 && all_hold(&|id| version.is_whole(counted, id)))
            .then_some((nodes, selected.bytes * nodes as u64))
    }

    /// How far a warm-up is that wants the list of files only.
    fn add_lists(&self, now: Millis, warmup: &Warmup, version: &Version, progress: &mut WarmupProgress) {
        let files = version.manifest.as_ref().map_or(0, |manifest| manifest.listed_count() as u64);
        let live = warmup.chosen.iter().filter_map(|name| self.live(name, now));
        progress.nodes_done = live.filter(|(id, _)| version.reported_by(*id)).count();
        progress.files_total = files * progress.nodes_wanted as u64;
        progress.files_done = files * progress.nodes_done as u64;
    }

    /// What `node` lacks of the warm-up `uid`.
    pub fn warmup_missing(&self, uid: &str, node: &str) -> Option<WarmupMissing> {
        let facts = &self.warmups.get(uid)?.facts;
        let version = self.versions.get(&self.datasets.get(&facts.dataset)?.facts.manifest?)?;
        let manifest = version.manifest.clone()?;
        let selected = &version.counted(facts.selection.as_ref()?)?.selected;
        let held = version.held_by(self.nodes.id(node)?)?;
        let blocks = selected.missing(&manifest, held);
        Some(WarmupMissing { blocks, files: selected.files, manifest })
    }

    pub(super) fn live(&self, name: &str, now: Millis) -> Option<(NodeId, &super::Node)> {
        let id = self.nodes.id(name)?;
        let node = self.nodes.get(id)?;
        self.is_live(node, now).then_some((id, node))
    }
}

/// Troubles of nodes with a version, as many as are shown: the same ones each time, or a status
/// would change with a hash map's mood.
fn troubles_with<'a>(
    nodes: impl Iterator<Item = &'a Node>,
    version: ManifestHash,
) -> Vec<(Arc<str>, Trouble)> {
    let of_node = |node: &'a Node| {
        let troubles = node.session.iter().flat_map(|session| &session.status.troubles);
        troubles.map(move |trouble| (&node.name, trouble))
    };
    let mut found: Vec<_> =
        nodes.flat_map(of_node).filter(|(_, trouble)| trouble.manifest == version).collect();
    found.sort_by(|a, b| a.0.cmp(b.0));
    found.truncate(TROUBLES_SHOWN);
    found.into_iter().map(|(node, trouble)| (node.clone(), trouble.clone())).collect()
}
