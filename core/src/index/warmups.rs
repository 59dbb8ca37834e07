//! Warm-ups as the API server has them, and the nodes that they choose.

use super::datasets::{Dataset, DatasetName};
use super::pending::{Pending, Place};
use super::{ClusterIndex, Node};
use crate::placement;
use crate::selection::Selection;
use hashbrown::HashSet;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the API server says of a Warmup that is to be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmupFacts {
    /// By what its nodes are chosen: warm-ups of one subject choose the same ones.
    pub subject: String,
    /// Which Dataset.
    pub dataset: DatasetName,
    /// The files whose bytes are wanted; only the list of all files when `None`.
    pub selection: Option<Selection>,
    /// Nodes that may be chosen; all when empty.
    pub node_selector: BTreeMap<String, String>,
    /// How many of them; all when `None`.
    pub replicas: Option<usize>,
    /// Only those on which pods that want the dataset are pending, or may come to be.
    pub pending_pods: bool,
    /// Higher first; below what bound pods read.
    pub priority: i32,
}

pub(super) struct Warmup {
    pub(super) facts: WarmupFacts,
    /// Names of the nodes that are to get warm.
    pub(super) chosen: HashSet<Arc<str>>,
}

impl ClusterIndex {
    /// Takes in what the API server says of a Warmup.
    pub fn set_warmup(&mut self, uid: &str, facts: WarmupFacts) {
        if self.warmups.get(uid).is_some_and(|warmup| warmup.facts == facts) {
            return;
        }
        self.remove_warmup(uid);
        self.warmups.insert(uid.to_owned(), Warmup { facts, chosen: HashSet::new() });
        self.choose(uid);
    }

    /// The Warmup is gone, or asks for nothing any more.
    pub fn remove_warmup(&mut self, uid: &str) {
        self.put_choice(uid, HashSet::new());
        self.warmups.remove(uid);
    }

    /// A dataset's node selector may have changed.
    pub(super) fn rechoose_warmups_of(&mut self, dataset: &DatasetName) {
        let of_dataset = self.warmups.iter().filter(|(_, warmup)| warmup.facts.dataset == *dataset);
        let uids: Vec<String> = of_dataset.map(|(uid, _)| uid.clone()).collect();
        for uid in uids {
            self.choose(&uid);
        }
    }

    /// Pods that want a dataset are pending in a place where none were before, or the other way
    /// round. The nodes whose orders may be others now.
    pub(super) fn pending_changed(&mut self, dataset: &DatasetName, place: &Place) -> Vec<Arc<str>> {
        let is_meant = |warmup: &Warmup| warmup.facts.pending_pods && warmup.facts.dataset == *dataset;
        let meant = self.warmups.iter().filter(|(_, warmup)| is_meant(warmup));
        let uids: Vec<String> = meant.map(|(uid, _)| uid.clone()).collect();
        let mut changed = Vec::new();
        for uid in uids {
            changed.extend(match place {
                // Jobs bind thousands of pods one by one: not a reason to look at every node each time.
                Place::Node(node) => self.choose_one(&uid, node),
                Place::Admitted(_) => self.choose(&uid),
            });
        }
        changed
    }

    /// Looks at one node only, where the others do not depend on it.
    fn choose_one(&mut self, uid: &str, node: &str) -> Vec<Arc<str>> {
        let Some(warmup) = self.warmups.get(uid) else { return Vec::new() };
        if warmup.facts.replicas.is_some() {
            return self.choose(uid);
        }
        let dataset = self.datasets.get(&warmup.facts.dataset);
        let node = self.nodes.by_name(node);
        let Some(node) = node else { return Vec::new() };
        let allowed = allows(&warmup.facts, dataset, &self.pending, node);
        if allowed == warmup.chosen.contains(&node.name) {
            return Vec::new();
        }
        let mut chosen = warmup.chosen.clone();
        match allowed {
            true => chosen.insert(node.name.clone()),
            false => chosen.remove(&node.name),
        };
        self.put_choice(uid, chosen)
    }

    /// A node came, changed or went. Looks at the other nodes only where one has to
    /// take its place: thousands of nodes come at once when an extender starts.
    pub(super) fn reconsider(&mut self, name: &str) {
        let node = self.nodes.by_name(name);
        let mut choose_anew = Vec::new();
        let mut join = Vec::new();
        for (uid, warmup) in &self.warmups {
            let dataset = self.datasets.get(&warmup.facts.dataset);
            let allowed = node.is_some_and(|node| allows(&warmup.facts, dataset, &self.pending, node));
            match (warmup.chosen.contains(name), allowed) {
                (true, false) => choose_anew.push(uid.clone()),
                (false, true) => join.push(uid.clone()),
                (true, true) | (false, false) => {}
            }
        }
        for uid in choose_anew {
            self.choose(&uid);
        }
        for uid in join {
            let Some(warmup) = self.warmups.get(&uid) else { continue };
            // Whoever was not among the first before is not among them now.
            let rivals = warmup.chosen.iter().map(|node| &**node).chain([name]);
            let chosen = chosen(&warmup.facts.subject, rivals, warmup.facts.replicas);
            self.put_choice(&uid, chosen);
        }
    }

    /// Chooses among all nodes that the warm-up's own selector and its dataset's
    /// allow, by rendezvous hashing: every replica chooses alike. Those that are chosen now and
    /// were not, or the other way round.
    fn choose(&mut self, uid: &str) -> Vec<Arc<str>> {
        let Some(warmup) = self.warmups.get(uid) else { return Vec::new() };
        let dataset = self.datasets.get(&warmup.facts.dataset);
        let allowed =
            self.nodes.iter().filter(|(_, node)| allows(&warmup.facts, dataset, &self.pending, node));
        let names = allowed.map(|(_, node)| &*node.name);
        let chosen = chosen(&warmup.facts.subject, names, warmup.facts.replicas);
        self.put_choice(uid, chosen)
    }

    fn put_choice(&mut self, uid: &str, chosen: HashSet<Arc<str>>) -> Vec<Arc<str>> {
        let Some(warmup) = self.warmups.get_mut(uid) else { return Vec::new() };
        let (dataset, selection) = (&warmup.facts.dataset, warmup.facts.selection.as_ref());
        for node in warmup.chosen.difference(&chosen) {
            selection.inspect(|selection| self.fetching.remove(dataset, selection, node));
            self.nodes.invalidate_orders(node);
            if let Some(uids) = self.warmups_by_node.get_mut(node) {
                uids.remove(uid);
                if uids.is_empty() {
                    self.warmups_by_node.remove(node);
                }
            }
        }
        for node in chosen.difference(&warmup.chosen) {
            selection.inspect(|selection| self.fetching.add(dataset.clone(), selection, node));
            self.nodes.invalidate_orders(node);
            self.warmups_by_node.entry(node.clone()).or_default().insert(uid.to_owned());
        }
        let changed = chosen.symmetric_difference(&warmup.chosen).cloned().collect();
        warmup.chosen = chosen;
        changed
    }
}

fn chosen<'a>(
    subject: &str,
    names: impl Iterator<Item = &'a str>,
    replicas: Option<usize>,
) -> HashSet<Arc<str>> {
    placement::choose(subject, names, replicas).into_iter().map(Arc::from).collect()
}

fn allows(warmup: &WarmupFacts, dataset: Option<&Dataset>, pending: &Pending, node: &Node) -> bool {
    let is_waited_on = || dataset.is_some_and(|dataset| pending.are_on(&warmup.dataset, dataset, node));
    node.facts.as_ref().is_some_and(|facts| {
        facts.schedulable
            // The list of files is kept all the same.
            && !(node.keeps_nothing && warmup.selection.is_some())
            && selects(&warmup.node_selector, &facts.labels)
            && dataset.is_none_or(|dataset| selects(&dataset.facts.node_selector, &facts.labels))
            && (!warmup.pending_pods || is_waited_on())
    })
}

/// Whether labels have all that a selector names.
pub(super) fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cluster, delta, name, snapshot};
    use super::*;
    use crate::index::{DatasetFacts, Millis, NodeFacts, PendingPod, Settings};
    use crate::node_rules::NodeRules;
    use crate::wire::report::Adoption;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Clone, Debug)]
    enum Step {
        Set { node: u8, labelled: bool, schedulable: bool },
        Remove(u8),
        DatasetWants(bool),
        Pod { pod: u8, place: Option<u8>, labelled: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0u8..8, any::<bool>(), any::<bool>())
                .prop_map(|(node, labelled, schedulable)| Step::Set { node, labelled, schedulable }),
            2 => (0u8..8).prop_map(Step::Remove),
            1 => any::<bool>().prop_map(Step::DatasetWants),
            3 => (0u8..3, prop::option::of(0u8..10), any::<bool>())
                .prop_map(|(pod, place, labelled)| Step::Pod { pod, place, labelled }),
        ]
    }

    fn facts(replicas: Option<usize>, labelled: bool) -> WarmupFacts {
        WarmupFacts {
            subject: "w".to_owned(),
            dataset: DatasetName::new("n", "d"),
            selection: Some(Selection::all()),
            node_selector: selector(labelled),
            replicas,
            pending_pods: false,
            priority: 0,
        }
    }

    fn selector(labelled: bool) -> BTreeMap<String, String> {
        labelled.then(|| ("gpu".to_owned(), "yes".to_owned())).into_iter().collect()
    }

    #[test]
    fn a_warm_up_of_metadata_brings_the_list_and_no_bytes() {
        let (mut index, hash, manifest) = cluster(&["a", "b"]);
        index.apply(Millis(0), snapshot("a", &[]));
        index.apply(Millis(0), snapshot("b", &[(hash, &[])]));
        index.set_warmup(
            "w",
            WarmupFacts {
                subject: "w".to_owned(),
                dataset: name(),
                selection: None,
                node_selector: BTreeMap::new(),
                replicas: None,
                pending_pods: false,
                priority: 5,
            },
        );
        let orders = index.orders(Millis(0), "a").0;
        assert_eq!(orders.adopt, [Adoption { manifest: hash, dataset: "ns/set".to_owned() }]);
        assert_eq!(orders.wants, []);
        assert_eq!(index.orders(Millis(0), "b").0.adopt, [], "it has it");
        let progress = index.warmup_progress(Millis(0), "w").unwrap();
        assert_eq!((progress.nodes_wanted, progress.nodes_done, progress.files_done), (2, 1, 4));
        assert_eq!(index.warmup_done(Millis(0), "w"), None);
        index.apply(Millis(0), delta("a", 1, hash, &[], &[]));
        assert_eq!(index.orders(Millis(0), "a").0.adopt, []);
        let progress = index.warmup_progress(Millis(0), "w").unwrap();
        assert_eq!((progress.nodes_done, progress.files_done, progress.files_total), (2, 8, 8));
        assert_eq!((progress.bytes_total, manifest.file_count()), (0, 4));
        assert_eq!(index.warmup_done(Millis(0), "w"), Some((2, 0)));
    }

    #[test]
    fn a_node_that_keeps_nothing_is_not_chosen_and_another_takes_its_place() {
        let (mut index, _, _) = cluster(&["a", "b", "c"]);
        index.set_warmup("w", WarmupFacts { dataset: name(), ..facts(Some(2), false) });
        index.set_warmup("list", WarmupFacts { dataset: name(), selection: None, ..facts(None, false) });
        let chosen = |index: &ClusterIndex, uid: &str| -> BTreeSet<String> {
            index.warmups[uid].chosen.iter().map(ToString::to_string).collect()
        };
        let first = chosen(&index, "w");
        let full = first.iter().next().unwrap().clone();
        let says = |keeps_nothing| {
            let mut report = snapshot(&full, &[]);
            report.status.keeps_nothing = keeps_nothing;
            report
        };
        index.apply(Millis(0), says(true));
        assert_eq!(chosen(&index, "w").len(), 2);
        assert!(!chosen(&index, "w").contains(&full));
        assert_eq!(chosen(&index, "list").len(), 3);
        index.apply(Millis(0), says(false));
        assert_eq!(chosen(&index, "w"), first);
    }

    proptest! {
        /// Whatever came before, the choice is the one that a fresh look makes.
        #[test]
        fn choices_do_not_depend_on_history(steps in prop::collection::vec(step(), 0..40)) {
            let mut index = ClusterIndex::new(Settings::default());
            let pending = |labelled| WarmupFacts { pending_pods: true, ..facts(None, labelled) };
            let warmups = [facts(None, false), facts(Some(1), false), facts(Some(3), true), facts(Some(0), false), pending(false), pending(true)];
            for (number, facts) in warmups.iter().enumerate() {
                index.set_warmup(&number.to_string(), facts.clone());
            }
            let name = DatasetName::new("n", "d");
            for step in steps {
                match step {
                    Step::Set { node, labelled, schedulable } => {
                        let facts = NodeFacts { uid: "u".into(), labels: selector(labelled), schedulable, taints: vec![] };
                        index.set_node(&node.to_string(), facts);
                    }
                    Step::Remove(node) => index.remove_node(&node.to_string()),
                    Step::DatasetWants(labelled) => {
                        let facts = DatasetFacts { node_selector: selector(labelled), ..DatasetFacts::default() };
                        index.set_dataset(&name, facts);
                    }
                    Step::Pod { pod, place, labelled } => {
                        let place = place.map(|node| match node {
                            8.. => Place::Admitted(NodeRules { labels: selector(labelled), ..NodeRules::default() }),
                            node => Place::Node(node.to_string()),
                        });
                        let datasets = BTreeSet::from([name.clone()]);
                        let of = |place| PendingPod { namespace: "n".into(), datasets, place };
                        index.set_pending(&pod.to_string(), place.map(of));
                    }
                }
                for uid in ["0", "1", "2", "3", "4", "5"] {
                    let found = index.warmups[uid].chosen.clone();
                    index.choose(uid);
                    prop_assert_eq!(&found, &index.warmups[uid].chosen, "warm-up {}", uid);
                    for node in 0..8 {
                        let node = node.to_string();
                        let fetches = index.warmups.values().any(|warmup| warmup.chosen.contains(node.as_str()));
                        let counted = index.fetching.nodes(&name, &Selection::all());
                        let uids = index.warmups_by_node.get(node.as_str());
                        let of_node = index.warmups.iter().filter(|(_, warmup)| warmup.chosen.contains(node.as_str()));
                        prop_assert_eq!(of_node.count(), uids.map_or(0, HashSet::len));
                        prop_assert_eq!(fetches, counted.contains(&Arc::from(node)));
                    }
                }
            }
        }
    }
}
