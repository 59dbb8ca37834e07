//! How many nodes keep a dataset as its spec wants, pods or not: a warm-up that nobody wrote.
//!
//! The data comes to its new place before it may go from the old one: nodes that have all of it
//! and are not chosen keep it while too few of the chosen ones are done.

use super::datasets::Dataset;
use super::warmups::selects;
use super::{ClusterIndex, DatasetName, Millis, Node, NodeId, WarmupFacts};
use crate::placement;
use crate::selection::Selection;
use hashbrown::{HashMap, HashSet};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How often it is looked at whether a node is to stand in for others that hold less, milliseconds.
pub(super) const STAND_IN_FOR: u64 = 5_000;

/// Below what any Warmup can ask for: somebody waits for those.
pub(super) const PRIORITY: i32 = -1_001;

/// How far the replicas of a dataset are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replicas {
    /// Nodes that are to hold all of it: as many as wanted, or as there are.
    pub chosen: usize,
    /// Of those, nodes that do.
    pub whole: usize,
}

/// By what the warm-up of a dataset's replicas is known; no UID has a slash.
fn key(name: &DatasetName) -> String {
    name.to_string()
}

impl ClusterIndex {
    /// How many replicas a dataset is to have may have changed.
    pub(super) fn want_replicas(&mut self, name: &DatasetName) {
        let wanted = self.datasets.get(name).and_then(|dataset| dataset.facts.replicas);
        let Some(replicas) = wanted else { return self.remove_warmup(&key(name)) };
        let facts = WarmupFacts {
            subject: key(name),
            dataset: name.clone(),
            selection: Some(Selection::all()),
            node_selector: BTreeMap::new(),
            replicas: Some(replicas),
            pending_pods: false,
            priority: PRIORITY,
        };
        self.set_warmup(&key(name), facts);
    }

    /// How far the replicas of a dataset are; `None` when it is to have none, or has no version here.
    pub fn replicas(&self, now: Millis, name: &DatasetName) -> Option<Replicas> {
        let chosen = &self.warmups.get(&key(name))?.chosen;
        let is_whole = self.wholeness(self.datasets.get(name)?)?;
        let there = chosen.iter().filter_map(|node| self.live(node, now));
        Some(Replicas { chosen: chosen.len(), whole: there.filter(|(id, _)| is_whole(*id)).count() })
    }

    /// The datasets that are to have replicas, and not on `node`, which has something of them.
    pub(super) fn replicated_beside(&self, node: &str) -> impl Iterator<Item = (DatasetName, &Dataset)> {
        let reported = self.nodes.by_name(node).into_iter().flat_map(|node| &node.reported);
        reported.filter_map(move |(hash, reported)| {
            let name = DatasetName::parse(&reported.dataset)?;
            let dataset = self.datasets.get(&name).filter(|dataset| dataset.facts.manifest == Some(*hash))?;
            let chosen = &self.warmups.get(&key(&name))?.chosen;
            (!chosen.contains(node)).then_some((name, dataset))
        })
    }

    /// Whether `node` is to keep a dataset that it has all of, since too few of the nodes that are
    /// to have it do.
    pub(super) fn stands_in(&self, now: Millis, node: &str, name: &DatasetName, dataset: &Dataset) -> bool {
        let stands_in = || {
            let is_whole = self.wholeness(dataset)?;
            self.live(node, now).filter(|(id, node)| is_whole(*id) && may_hold(dataset, node))?;
            // Nearly always there is nothing to stand in for.
            let missing = dataset.facts.replicas?.checked_sub(self.replicas(now, name)?.whole)?;
            let chosen = &self.warmups.get(&key(name))?.chosen;
            let holders = self.versions.get(&dataset.facts.manifest?)?.holders();
            let whole = holders.filter(|(id, _)| is_whole(*id)).filter_map(|(id, _)| self.nodes.get(id));
            let others = whole.filter(|node| {
                self.is_live(node, now) && !chosen.contains(&node.name) && may_hold(dataset, node)
            });
            let others = others.map(|node| &*node.name);
            Some(missing > 0 && placement::choose(&key(name), others, Some(missing)).contains(&node))
        };
        stands_in().unwrap_or(false)
    }

    /// Tells nodes that hold all of a dataset's current version, live or not.
    fn wholeness(&self, dataset: &Dataset) -> Option<impl Fn(NodeId) -> bool> {
        let version = self.versions.get(&dataset.facts.manifest?)?;
        let counted = version.counted(&Selection::all())?;
        Some(move |id| version.is_whole(counted, id))
    }

    /// On how many nodes there are pods that ask for each dataset.
    pub fn reading_nodes(&self) -> HashMap<DatasetName, usize> {
        let mut nodes: HashMap<DatasetName, HashSet<&Arc<str>>> = HashMap::new();
        for pod in self.pods.values() {
            for asked in &pod.demand.asked {
                if let Ok((name, _)) = self.resolve(&pod.demand.namespace, asked) {
                    nodes.entry(name).or_default().insert(&pod.node);
                }
            }
        }
        nodes.into_iter().map(|(name, nodes)| (name, nodes.len())).collect()
    }
}

/// Whether a node has the labels that a dataset asks for, cordoned or not.
fn may_hold(dataset: &Dataset, node: &Node) -> bool {
    node.facts.as_ref().is_some_and(|facts| selects(&dataset.facts.node_selector, &facts.labels))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cluster, dataset, delta, name, snapshot};
    use super::*;
    use crate::index::{DatasetFacts, NodeFacts};
    use crate::wire::report::Orders;

    /// All blocks of its four files.
    const WHOLE: [u32; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

    /// The nodes that are to hold the dataset, by their orders.
    fn keepers(index: &mut ClusterIndex, now: u64) -> Vec<&'static str> {
        let mut keeps = |node: &&str| {
            let orders: Arc<Orders> = index.orders(Millis(now), node).0;
            orders.wants.iter().any(|want| want.priority == PRIORITY)
        };
        ["a", "b", "c"].into_iter().filter(|node| keeps(node)).collect()
    }

    fn facts(node: &str, schedulable: bool) -> NodeFacts {
        NodeFacts { uid: format!("uid-{node}"), schedulable, ..NodeFacts::default() }
    }

    #[test]
    fn data_is_in_its_new_place_before_it_may_go_from_the_old() {
        let (mut index, hash, _) = cluster(&["a", "b", "c"]);
        index.set_datasets_synced();
        for node in ["a", "b", "c"] {
            index.apply(Millis(0), snapshot(node, &[(hash, &[])]));
        }
        let replicas = |count| DatasetFacts { replicas: count, ..dataset(hash) };
        assert_eq!(keepers(&mut index, 0), [""; 0]);
        index.set_dataset(&name(), replicas(Some(1)));
        let chosen = keepers(&mut index, 0);
        let [first] = chosen[..] else { panic!("{chosen:?}") };
        assert_eq!(index.replicas(Millis(0), &name()), Some(Replicas { chosen: 1, whole: 0 }));
        index.apply(Millis(0), delta(first, 1, hash, &WHOLE, &[]));
        assert_eq!(index.replicas(Millis(0), &name()), Some(Replicas { chosen: 1, whole: 1 }));

        // It is cordoned: another takes its place, and it stays until that is done.
        index.set_node(first, facts(first, false));
        let both = keepers(&mut index, 1);
        let second = *both.iter().find(|node| **node != first).unwrap();
        assert_eq!(both.len(), 2);
        index.apply(Millis(2), delta(second, 1, hash, &WHOLE, &[]));
        assert_eq!(keepers(&mut index, 2 + STAND_IN_FOR), [second]);
        // The old place has come back, and still has it all.
        index.set_node(first, facts(first, true));
        assert_eq!(keepers(&mut index, 8_000), [first]);
        index.set_dataset(&name(), replicas(None));
        assert_eq!(keepers(&mut index, 8_000), [""; 0]);
        assert_eq!(index.replicas(Millis(0), &name()), None);
    }

    #[test]
    fn a_node_without_the_labels_keeps_nothing_for_others() {
        let (mut index, hash, _) = cluster(&["a", "b"]);
        index.apply(Millis(0), snapshot("a", &[(hash, &WHOLE)]));
        let labels = BTreeMap::from([("disk".to_owned(), "nvme".to_owned())]);
        let facts = |labels| NodeFacts { labels, ..facts("b", true) };
        index.set_node("b", facts(labels.clone()));
        index
            .set_dataset(&name(), DatasetFacts { replicas: Some(2), node_selector: labels, ..dataset(hash) });
        assert_eq!(keepers(&mut index, 0), ["b"]);
    }

    #[test]
    fn warm_ups_come_first_and_a_dataset_that_goes_wants_nothing() {
        let (mut index, hash, _) = cluster(&["a"]);
        index.apply(Millis(0), snapshot("a", &[]));
        index.set_dataset(&name(), DatasetFacts { replicas: Some(9), ..dataset(hash) });
        assert_eq!(index.orders(Millis(0), "a").0.wants[0].priority, PRIORITY);
        assert_eq!(index.replicas(Millis(0), &name()), Some(Replicas { chosen: 1, whole: 0 }));
        index.remove_dataset(&name());
        assert_eq!(index.orders(Millis(0), "a").0.wants, []);
        assert!(index.warmups.is_empty());
    }
}
