//! Which nodes still hold something of a Dataset that is being deleted.

use super::datasets::Dataset;
use super::node::Node;
use super::{ClusterIndex, DatasetName, Millis, NodeId};
use crate::manifest::ManifestHash;
use crate::removal::Holders;
use crate::selection::Selection;
use hashbrown::{HashMap, HashSet};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The Datasets that are being deleted, as far as versions are concerned.
pub(super) struct Endings<'a> {
    names: HashSet<String>,
    versions: HashSet<&'a ManifestHash>,
}

impl<'a> Endings<'a> {
    pub(super) fn of(datasets: &'a HashMap<DatasetName, Dataset>) -> Self {
        let ending = |(name, dataset): (&'a DatasetName, &'a Dataset)| {
            dataset.facts.ending.as_ref().map(|versions| (name, versions))
        };
        let mut endings = Self { names: HashSet::new(), versions: HashSet::new() };
        for (name, versions) in datasets.iter().filter_map(ending) {
            endings.names.insert(name.to_string());
            endings.versions.extend(versions);
        }
        endings
    }

    /// Whether a version that no Dataset names any more was one of theirs.
    pub(super) fn end(&self, version: &ManifestHash, dataset: &str) -> bool {
        self.names.contains(dataset) || self.versions.contains(version)
    }
}

impl ClusterIndex {
    /// Who holds something of the Datasets that are being deleted, for each of them. What
    /// others name, too, is theirs and does not count. `agents` are the nodes that have an
    /// agent: one that has not reported may hold anything.
    pub fn holders<'a>(
        &self,
        now: Millis,
        agents: impl IntoIterator<Item = &'a str>,
    ) -> HashMap<DatasetName, Holders> {
        let ending: Vec<(&DatasetName, &BTreeSet<ManifestHash>)> = self
            .datasets
            .iter()
            .filter_map(|(name, dataset)| Some((name, dataset.facts.ending.as_ref()?)))
            .collect();
        if ending.is_empty() {
            return HashMap::new();
        }
        let current = self.datasets.values().filter_map(|dataset| dataset.facts.manifest);
        let named: HashSet<ManifestHash> = current.chain(self.held_versions()).collect();
        // Which of them a version is of: by the name under which a node has it, or by itself.
        let by_name: HashMap<String, usize> =
            ending.iter().enumerate().map(|(at, (name, _))| (name.to_string(), at)).collect();
        let mut by_version: HashMap<&ManifestHash, Vec<usize>> = HashMap::new();
        for (at, (_, versions)) in ending.iter().enumerate() {
            versions.iter().for_each(|hash| by_version.entry(hash).or_default().push(at));
        }
        let mut all = vec![Holders::default(); ending.len()];
        for (id, node) in self.nodes.iter() {
            let mut held: HashMap<usize, Vec<&ManifestHash>> = HashMap::new();
            for (hash, reported) in node.reported.iter().filter(|(hash, _)| !named.contains(*hash)) {
                let of_name = by_name.get(&reported.dataset);
                let of: BTreeSet<usize> =
                    of_name.into_iter().chain(by_version.get(hash).into_iter().flatten()).copied().collect();
                of.into_iter().for_each(|at| held.entry(at).or_default().push(hash));
            }
            for (at, held) in held {
                self.count(&mut all[at], now, id, node, &held);
            }
        }
        let unheard = agents.into_iter().filter(|node| self.heard(node).is_none());
        let unheard: Vec<Arc<str>> = unheard.map(Arc::from).collect();
        let ended = ending.into_iter().zip(all).map(|((name, _), mut holders)| {
            holders.silent.extend(unheard.iter().cloned());
            holders.sort();
            (name.clone(), holders)
        });
        ended.collect()
    }

    /// A node holds these versions of one that is being deleted.
    fn count(&self, holders: &mut Holders, now: Millis, id: NodeId, node: &Node, held: &[&ManifestHash]) {
        match self.is_live(node, now) {
            false => holders.silent.push(node.name.clone()),
            true if held.iter().all(|hash| node.reads(hash)) => holders.reading.push(node.name.clone()),
            true => {
                let bytes = held.iter().map(|hash| self.bytes_held(hash, id)).fold(0, u64::saturating_add);
                holders.letting_go.push((node.name.clone(), bytes));
            }
        }
    }

    /// Bytes that a node holds of a version; 0 as long as its manifest is not here.
    fn bytes_held(&self, version: &ManifestHash, node: NodeId) -> u64 {
        let counted = self.versions.get(version).and_then(|version| version.counted(&Selection::all()));
        counted.and_then(|counted| counted.by_node.get(&node)).copied().unwrap_or(0)
    }
}

impl Node {
    /// Whether it said that pods there read this version.
    fn reads(&self, version: &ManifestHash) -> bool {
        self.session.as_ref().is_some_and(|session| session.status.in_use.contains(version))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cluster, dataset, delta, manifest, name, snapshot};
    use super::*;
    use crate::block::BLOCK_SIZE;
    use crate::index::{DatasetFacts, WarmupFacts};
    use std::collections::BTreeMap;

    fn ending(versions: &[ManifestHash]) -> DatasetFacts {
        let ending = Some(versions.iter().copied().collect::<BTreeSet<_>>());
        DatasetFacts { uid: "d".into(), generation: 2, ending, ..DatasetFacts::default() }
    }

    fn holders(index: &ClusterIndex, now: u64, agents: &[&str]) -> Holders {
        index.holders(Millis(now), agents.iter().copied()).remove(&name()).unwrap()
    }

    #[test]
    fn nodes_are_told_at_once_to_forget_what_is_being_deleted_and_to_fetch_no_more() {
        let (mut index, hash, _) = cluster(&["a", "b"]);
        index.set_datasets_synced();
        index.set_warmup(
            "w",
            WarmupFacts {
                subject: "w".to_owned(),
                dataset: name(),
                selection: Some(Selection::all()),
                node_selector: BTreeMap::new(),
                replicas: None,
                pending_pods: false,
                priority: 0,
            },
        );
        index.apply(Millis(0), snapshot("a", &[(hash, &[0])]));
        index.apply(Millis(0), snapshot("b", &[]));
        assert!(index.holders(Millis(0), []).is_empty(), "nobody asked for its end");
        assert_eq!(index.orders(Millis(0), "b").0.wants.len(), 1);
        index.set_dataset(&name(), ending(&[hash]));
        let orders = index.orders(Millis(0), "a").0;
        assert_eq!((orders.wants.len(), orders.retire.as_slice()), (0, [hash].as_slice()));
        assert!(index.orders(Millis(0), "b").0.wants.is_empty());
        let problem = index.warmup_progress(Millis(0), "w").unwrap().problem.unwrap();
        assert!(problem.starts_with("Dataset ns/set is being deleted"), "{problem}");
        assert_eq!(holders(&index, 0, &["a", "b"]).letting_go, [("a".into(), BLOCK_SIZE)]);
        // Gone, and made again.
        index.apply(Millis(0), snapshot("a", &[]));
        assert_eq!(holders(&index, 0, &["a", "b"]), Holders::default());
        index.remove_dataset(&name());
        index.set_dataset(&name(), DatasetFacts { uid: "another".into(), ..dataset(hash) });
        assert!(index.holders(Millis(0), []).is_empty());
    }

    #[test]
    fn older_versions_count_and_what_others_name_does_not() {
        let (mut index, hash, _) = cluster(&["a"]);
        index.set_datasets_synced();
        let (older, _) = manifest(&["9"], &[]);
        index.apply(Millis(0), snapshot("a", &[(hash, &[0]), (older, &[0])]));
        let other = DatasetName::new("ns", "other");
        index.set_dataset(&other, DatasetFacts { uid: "o".into(), ..dataset(hash) });
        index.set_dataset(&name(), ending(&[hash]));
        assert_eq!(index.orders(Millis(0), "a").0.retire, [older]);
        assert_eq!(holders(&index, 0, &[]).letting_go.len(), 1);
        index.apply(Millis(0), snapshot("a", &[(hash, &[0])]));
        assert_eq!(holders(&index, 0, &[]), Holders::default(), "the rest is the other one's");
        index.remove_dataset(&other);
        assert_eq!(holders(&index, 0, &[]).letting_go.len(), 1);
    }

    #[test]
    fn who_reads_keeps_it_and_who_is_silent_is_told_apart() {
        let (mut index, hash, _) = cluster(&["a", "b"]);
        let mut reading = snapshot("a", &[(hash, &[0])]);
        reading.status.in_use = vec![hash];
        index.apply(Millis(0), reading);
        index.apply(Millis(0), snapshot("b", &[(hash, &[0])]));
        index.set_dataset(&name(), ending(&[hash]));
        index.apply(Millis(20_000), {
            let mut report = delta("a", 1, hash, &[], &[]);
            report.status.in_use = vec![hash];
            report
        });
        let seen = holders(&index, 20_000, &["a", "b", "c"]);
        assert_eq!((seen.reading, seen.silent), (vec!["a".into()], vec!["b".into(), "c".into()]));
        assert!(seen.letting_go.is_empty());
        // Its pod has ended.
        index.apply(Millis(20_000), delta("a", 2, hash, &[], &[]));
        assert_eq!(holders(&index, 20_000, &[]).letting_go.len(), 1);
        index.remove_node("b");
        assert!(holders(&index, 20_000, &[]).silent.is_empty(), "a node that is gone holds nothing");
    }
}
