//! Evictions as the API server has them: which nodes carry them out, and how far they are.

use super::warmups::selects;
use super::{ClusterIndex, DatasetName};
use crate::eviction::Progress;
use crate::selection::Selection;
use crate::wire::eviction::{EvictionOrder, Evicts};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Evictions that a node is told of at one time: replies are bounded.
const MOST_ORDERED: usize = 64;

/// What the API server says of an Eviction that is to be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvictionFacts {
    /// Of which Dataset.
    pub dataset: DatasetName,
    /// Which part of it.
    pub selection: Selection,
    /// Where.
    pub nodes: EvictionNodes,
    /// What goes.
    pub what: Evicts,
}

/// Which nodes carry an Eviction out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvictionNodes {
    /// These.
    Named(BTreeSet<String>),
    /// All that have an agent and these labels.
    Labelled(BTreeMap<String, String>),
}

impl ClusterIndex {
    /// Takes in what the API server says of an Eviction that is not finished.
    pub fn set_eviction(&mut self, uid: &str, facts: EvictionFacts) {
        if self.evictions.get(uid) != Some(&facts) {
            self.evictions.insert(uid.to_owned(), facts);
            self.nodes.invalidate_all_orders();
        }
    }

    /// The Eviction is gone, or finished.
    pub fn remove_eviction(&mut self, uid: &str) {
        if self.evictions.remove(uid).is_some() {
            self.nodes.invalidate_all_orders();
        }
    }

    /// What `node` is to give up.
    pub(super) fn evictions_of(&self, node: &str) -> Vec<EvictionOrder> {
        let concern = |facts: &EvictionFacts| match &facts.nodes {
            EvictionNodes::Named(names) => names.contains(node),
            EvictionNodes::Labelled(labels) => self.has_labels(node, labels),
        };
        let evictions = self.evictions.iter().filter(|(_, facts)| concern(facts));
        // The others follow when these are done, in the same order for every replica.
        evictions.take(MOST_ORDERED).map(|(uid, facts)| self.order(uid, facts)).collect()
    }

    fn order(&self, uid: &str, facts: &EvictionFacts) -> EvictionOrder {
        let dataset = self.datasets.get(&facts.dataset).map(|dataset| &dataset.facts);
        let named: BTreeSet<_> =
            dataset.into_iter().flat_map(|facts| facts.manifest.iter().chain(facts.held.values())).collect();
        EvictionOrder {
            id: uid.to_owned(),
            dataset: facts.dataset.to_string(),
            versions: named.into_iter().copied().collect(),
            globs: facts.selection.globs().to_vec(),
            what: facts.what,
        }
    }

    fn has_labels(&self, node: &str, labels: &BTreeMap<String, String>) -> bool {
        self.node_facts(node).map_or(labels.is_empty(), |facts| selects(labels, &facts.labels))
    }

    /// How far an Eviction is, by what the nodes have reported since they were told of it;
    /// `None` when it is not known. `agents` are the nodes that have an agent.
    pub fn eviction_progress<'a>(
        &self,
        uid: &str,
        agents: impl IntoIterator<Item = &'a str>,
    ) -> Option<Progress> {
        let facts = self.evictions.get(uid)?;
        let nodes: BTreeSet<Arc<str>> = match &facts.nodes {
            EvictionNodes::Named(names) => names.iter().map(|name| Arc::from(name.as_str())).collect(),
            EvictionNodes::Labelled(labels) => {
                let reporting = self.nodes.iter().filter(|(_, node)| node.session.is_some());
                // One that has not reported since this replica started may hold anything.
                let named =
                    reporting.map(|(_, node)| node.name.clone()).chain(agents.into_iter().map(Arc::from));
                named.filter(|name| self.has_labels(name, labels)).collect()
            }
        };
        let mut progress =
            Progress { exists: self.datasets.contains_key(&facts.dataset), ..Progress::default() };
        for name in nodes {
            let session = self.nodes.by_name(&name).and_then(|node| node.session.as_ref());
            let done =
                session.and_then(|session| session.status.evictions.iter().find(|done| done.id == uid));
            match done {
                Some(done) => progress.add(&name, done),
                None => progress.waiting.push(name),
            }
        }
        Some(progress)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cluster, delta, name, snapshot};
    use super::*;
    use crate::index::Millis;
    use crate::wire::eviction::{EvictionDone, Kept, KeptWhy};

    fn facts(nodes: EvictionNodes) -> EvictionFacts {
        EvictionFacts {
            dataset: name(),
            selection: Selection::new(["train/**".to_owned()]).unwrap(),
            nodes,
            what: Evicts::Data,
        }
    }

    #[test]
    fn the_nodes_that_it_names_are_told_until_it_is_finished_and_what_they_say_adds_up() {
        let (mut index, hash, _) = cluster(&["a", "b", "c"]);
        for node in ["a", "b"] {
            index.apply(Millis(0), snapshot(node, &[(hash, &[0])]));
        }
        let named = ["a", "c"].map(str::to_owned);
        index.set_eviction("e", facts(EvictionNodes::Named(named.into())));
        let order = EvictionOrder {
            id: "e".into(),
            dataset: "ns/set".into(),
            versions: vec![hash],
            globs: vec!["train/**".into()],
            what: Evicts::Data,
        };
        assert_eq!(index.orders(Millis(0), "a").0.evictions, [order]);
        assert!(index.orders(Millis(0), "b").0.evictions.is_empty());
        let progress = index.eviction_progress("e", []).unwrap();
        assert_eq!((progress.waiting, progress.nodes_done), (vec!["a".into(), "c".into()], 0));

        let mut report = delta("a", 1, hash, &[], &[0]);
        let kept = vec![Kept { why: KeptWhy::Mounted, files: 1, bytes: 5 }];
        report.status.evictions =
            vec![EvictionDone { id: "e".into(), files: 2, bytes: 9, kept, again: true, error: None }];
        index.apply(Millis(0), report);
        let progress = index.eviction_progress("e", []).unwrap();
        assert_eq!((progress.nodes_done, progress.files, progress.bytes), (1, 2, 9));
        assert_eq!(progress.kept[&KeptWhy::Mounted], (1, 5));
        assert_eq!(progress.again, [Arc::<str>::from("a")]);

        index.remove_eviction("e");
        assert!(index.orders(Millis(0), "a").0.evictions.is_empty());
        assert_eq!(index.eviction_progress("e", []), None);
    }

    #[test]
    fn without_names_it_is_for_all_nodes_with_an_agent_and_the_labels() {
        let (mut index, hash, _) = cluster(&["a", "b"]);
        index.apply(Millis(0), snapshot("a", &[(hash, &[0])]));
        index.set_eviction("e", facts(EvictionNodes::Labelled(BTreeMap::new())));
        assert_eq!(index.eviction_progress("e", []).unwrap().nodes_wanted(), 1);
        let silent = index.eviction_progress("e", ["a", "silent"]).unwrap();
        assert_eq!(silent.waiting, ["a".into(), "silent".into()], "it may hold anything");
        let gpu = BTreeMap::from([("gpu".to_owned(), "yes".to_owned())]);
        index.set_eviction("e", facts(EvictionNodes::Labelled(gpu)));
        assert_eq!(index.eviction_progress("e", []).unwrap().nodes_wanted(), 0);
        assert!(index.orders(Millis(0), "a").0.evictions.is_empty());
    }
}
