//! How warm each node is for what a pod asks.

use super::{ClusterIndex, Dataset, DatasetName, Millis, Node, NodeId};
use crate::annotation;
use crate::manifest::{ManifestHash, Selected};
use crate::pod::{Asked, Demand};
use hashbrown::HashMap;
use std::borrow::Cow;
use std::sync::Arc;

/// Bytes per second that a fetch is taken to reach where no node has measured it:
/// a tenth of a 10 Gbit/s link.
pub const ASSUMED_BYTES_PER_SECOND: u64 = 125_000_000;

/// What is wrong with a part that a pod asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Problem {
    /// No such Dataset, or it is not shared with the pod's namespace: the same
    /// words for both, so that nobody learns what other namespaces have.
    #[error("Dataset {0} does not exist, or is not shared with the pod's namespace")]
    Unknown(DatasetName),
    /// Its end has been asked for.
    #[error("Dataset {0} is being deleted: nothing more is fetched or mounted of it")]
    Ending(DatasetName),
    /// Not listed yet.
    #[error("Dataset {0} has not been listed yet: see its conditions")]
    NotListed(DatasetName),
    /// Its manifest is on its way to this replica.
    #[error("the manifest of Dataset {0} has not reached this extender yet")]
    NoManifest(DatasetName),
    /// Neither current nor held, so nobody keeps it.
    #[error(
        "annotation {} names version {version} of Dataset {dataset}, which is neither its current version nor one that its status holds: see status.version.manifest and status.held",
        annotation::VERSION
    )]
    UnknownVersion {
        /// Which Dataset.
        dataset: DatasetName,
        /// The version that the pod names.
        version: ManifestHash,
    },
    /// No file matches.
    #[error("no file of Dataset {dataset} matches {globs}")]
    SelectsNothing {
        /// Which Dataset.
        dataset: DatasetName,
        /// What was asked for.
        globs: String,
    },
}

/// How warm one node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighed {
    /// The node.
    pub node: Arc<str>,
    /// Bytes that it holds of what is asked.
    pub held: u64,
    /// Bytes that it does not hold yet and has been told to fetch.
    pub in_flight: u64,
    /// Bytes per second that its fills reach, measured or assumed.
    pub rate: u64,
}

/// How warm the nodes are; a node that holds nothing and awaits nothing is not named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weighing {
    /// Bytes asked for.
    pub requested: u64,
    /// The warm nodes, in no order.
    pub nodes: Vec<Weighed>,
    /// What could not be weighed.
    pub problems: Vec<Problem>,
}

impl ClusterIndex {
    /// The Dataset that a pod of `namespace` means, if it may.
    pub(super) fn resolve(&self, namespace: &str, asked: &Asked) -> Result<(DatasetName, &Dataset), Problem> {
        let name = asked.name();
        match self.datasets.get(&name) {
            Some(dataset)
                if asked.namespace == namespace
                    || dataset.facts.share_with.iter().any(|shared| shared == namespace) =>
            {
                Ok((name, dataset))
            }
            _ => Err(Problem::Unknown(name)),
        }
    }

    /// Weighs the live nodes for what a pod asks.
    pub fn weigh(&self, now: Millis, demand: &Demand) -> Weighing {
        let mut weighing = Weighing::default();
        let mut sums: HashMap<NodeId, (u64, u64)> = HashMap::new();
        for asked in &demand.asked {
            if let Err(problem) = self.weigh_part(demand, asked, &mut weighing.requested, &mut sums) {
                weighing.problems.push(problem);
            }
        }
        let warm = sums.into_iter().filter_map(|(id, (held, in_flight))| {
            let node = self.nodes.get(id)?;
            self.is_live(node, now).then(|| Weighed {
                node: node.name.clone(),
                held,
                in_flight,
                rate: rate(node),
            })
        });
        weighing.nodes = warm.collect();
        weighing
    }

    fn weigh_part(
        &self,
        demand: &Demand,
        asked: &Asked,
        requested: &mut u64,
        sums: &mut HashMap<NodeId, (u64, u64)>,
    ) -> Result<(), Problem> {
        let (name, dataset) = self.resolve(&demand.namespace, asked)?;
        let hash = dataset.version(demand, &name)?;
        let no_manifest = || Problem::NoManifest(name.clone());
        let version = self.versions.get(&hash).ok_or_else(no_manifest)?;
        let manifest = version.manifest.as_ref().ok_or_else(no_manifest)?;
        let found_now;
        let (selected, by_node) = match version.counted(&asked.selection) {
            Some(counted) => (&counted.selected, Cow::Borrowed(&counted.by_node)),
            // Only when a new version came since it was prepared.
            None => {
                found_now = Selected::find(manifest, &asked.selection);
                (&found_now, Cow::Owned(version.bytes_by_node(manifest, &found_now)))
            }
        };
        // What is only shown is there, and as warm everywhere.
        if selected.files + selected.unlisted == 0 && !asked.selection.is_all() {
            return Err(Problem::SelectsNothing { dataset: name, globs: asked.selection.globs().join(", ") });
        }
        *requested += selected.bytes;
        for (id, held) in &*by_node {
            sums.entry(*id).or_default().0 += held;
        }
        // Of whichever version: most of two versions is the same.
        for node in self.fetching.nodes(&name, &asked.selection) {
            let Some(id) = self.nodes.id(node) else { continue };
            let held = by_node.get(&id).copied().unwrap_or(0);
            let stuck = self.nodes.get(id).is_none_or(|node| node.is_stuck_on(&hash));
            if held < selected.bytes && !stuck {
                sums.entry(id).or_default().1 += selected.bytes - held;
            }
        }
        Ok(())
    }
}

fn rate(node: &Node) -> u64 {
    let measured = node.session.as_ref().and_then(|session| session.status.origin_bytes_per_second);
    measured.filter(|rate| *rate > 0).unwrap_or(ASSUMED_BYTES_PER_SECOND)
}

impl Weighing {
    /// The weighed nodes, warmest first; equal ones by name.
    pub fn ranked(&self) -> Vec<&Weighed> {
        let mut ranked: Vec<&Weighed> = self.nodes.iter().collect();
        ranked.sort_by(|a, b| (b.held, b.in_flight, &a.node).cmp(&(a.held, a.in_flight, &b.node)));
        ranked
    }

    /// What is known of `node`: a cold one when nothing is.
    pub fn of(&self, node: &str) -> Cow<'_, Weighed> {
        match self.nodes.iter().find(|weighed| &*weighed.node == node) {
            Some(weighed) => Cow::Borrowed(weighed),
            None => Cow::Owned(Weighed {
                node: node.into(),
                held: 0,
                in_flight: 0,
                rate: ASSUMED_BYTES_PER_SECOND,
            }),
        }
    }
}
