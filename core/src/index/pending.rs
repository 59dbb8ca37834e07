//! Pods that want datasets and do not run yet, and where they are or may come to be.

use super::datasets::{Dataset, DatasetName};
use super::{ClusterIndex, Node};
use crate::node_rules::NodeRules;
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::hash::Hash;
use std::sync::Arc;

/// A pod that does not run yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingPod {
    /// Its namespace.
    pub namespace: String,
    /// What it wants some of.
    pub datasets: BTreeSet<DatasetName>,
    /// Where it is.
    pub place: Place,
}

/// Where a pod that does not run yet is, or may come to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// It is bound to this node, or means to be.
    Node(String),
    /// Nobody knows yet: any node that these admit.
    Admitted(NodeRules),
}

/// All of them, by what they want.
#[derive(Default)]
pub(super) struct Pending {
    pods: HashMap<String, Arc<PendingPod>>,
    places: HashMap<DatasetName, Places>,
}

/// Where the pods are that want one dataset. Those of one Job are in one place until they are bound:
/// a choice is a matter of places, not of pods.
#[derive(Default)]
struct Places {
    nodes: Counts<String>,
    admitted: Counts<NodeRules>,
}

/// How many pods there are, by namespace.
type Counts<K> = HashMap<K, HashMap<String, usize>>;

impl Pending {
    /// Counts a pod in; whether it is the first of its namespace in its place.
    fn add(&mut self, dataset: &DatasetName, pod: &PendingPod) -> bool {
        let places = self.places.entry(dataset.clone()).or_default();
        match &pod.place {
            Place::Node(node) => add(&mut places.nodes, node, &pod.namespace),
            Place::Admitted(rules) => add(&mut places.admitted, rules, &pod.namespace),
        }
    }

    /// Counts a pod out; whether it was the last of its namespace in its place.
    fn remove(&mut self, dataset: &DatasetName, pod: &PendingPod) -> bool {
        let Some(places) = self.places.get_mut(dataset) else { return false };
        let was_last = match &pod.place {
            Place::Node(node) => remove(&mut places.nodes, node, &pod.namespace),
            Place::Admitted(rules) => remove(&mut places.admitted, rules, &pod.namespace),
        };
        if places.nodes.is_empty() && places.admitted.is_empty() {
            self.places.remove(dataset);
        }
        was_last
    }

    /// Whether a pod that wants the dataset, and may have it, is on the node or may come there.
    pub(super) fn are_on(&self, name: &DatasetName, dataset: &Dataset, node: &Node) -> bool {
        let Some(places) = self.places.get(name) else { return false };
        let may = |namespaces: &HashMap<String, usize>| {
            namespaces
                .keys()
                .any(|namespace| *namespace == name.namespace || dataset.facts.share_with.contains(namespace))
        };
        let admitted = |(rules, namespaces): (&NodeRules, &HashMap<String, usize>)| {
            let facts = node.facts.as_ref();
            may(namespaces)
                && facts.is_some_and(|facts| rules.admit(&node.name, &facts.labels, &facts.taints))
        };
        places.nodes.get(&*node.name).is_some_and(may) || places.admitted.iter().any(admitted)
    }
}

fn add<K: Hash + Eq + Clone>(counts: &mut Counts<K>, key: &K, namespace: &str) -> bool {
    let count = counts.entry_ref(key).or_default().entry_ref(namespace).or_default();
    *count += 1;
    *count == 1
}

fn remove<K: Hash + Eq>(counts: &mut Counts<K>, key: &K, namespace: &str) -> bool {
    let Some(namespaces) = counts.get_mut(key) else { return false };
    let Some(count) = namespaces.get_mut(namespace) else { return false };
    *count -= 1;
    if *count > 0 {
        return false;
    }
    namespaces.remove(namespace);
    if namespaces.is_empty() {
        counts.remove(key);
    }
    true
}

impl ClusterIndex {
    /// The pod `uid` does not run yet; `None` when it does, or is gone. The nodes whose orders
    /// may be others now.
    pub fn set_pending(&mut self, uid: &str, pod: Option<PendingPod>) -> Vec<Arc<str>> {
        let before = self.pending.pods.get(uid).cloned();
        if before.as_deref() == pod.as_ref() {
            return Vec::new();
        }
        let pod = pod.map(Arc::new);
        match &pod {
            Some(pod) => self.pending.pods.insert(uid.to_owned(), pod.clone()),
            None => self.pending.pods.remove(uid),
        };
        // In before out: a pod that is bound stays where it was meant to be.
        let mut changed = Vec::new();
        for dataset in pod.iter().flat_map(|pod| &pod.datasets) {
            if let Some(pod) = &pod
                && self.pending.add(dataset, pod)
            {
                changed.push((dataset.clone(), pod.place.clone()));
            }
        }
        for dataset in before.iter().flat_map(|before| &before.datasets) {
            if let Some(before) = &before
                && self.pending.remove(dataset, before)
            {
                changed.push((dataset.clone(), before.place.clone()));
            }
        }
        let mut nodes = Vec::new();
        for (dataset, place) in changed {
            nodes.extend(self.pending_changed(&dataset, &place));
        }
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cluster, dataset, name};
    use super::*;
    use crate::index::{DatasetFacts, Millis, NodeFacts, WarmupFacts};
    use crate::node_rules::Taint;
    use crate::selection::Selection;
    use std::collections::BTreeMap;

    fn pod(namespace: &str, place: Place) -> Option<PendingPod> {
        Some(PendingPod { namespace: namespace.into(), datasets: BTreeSet::from([name()]), place })
    }

    fn on(node: &str) -> Option<PendingPod> {
        pod("ns", Place::Node(node.into()))
    }

    fn labelled(labels: &[(&str, &str)]) -> Place {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Place::Admitted(NodeRules { labels, ..NodeRules::default() })
    }

    fn warmed(index: &mut ClusterIndex) -> String {
        let mut wanted = String::new();
        for node in ["a", "b", "c"] {
            if !index.orders(Millis(0), node).0.wants.is_empty() {
                wanted.push_str(node);
            }
        }
        wanted
    }

    fn waiting_warmup() -> ClusterIndex {
        let (mut index, ..) = cluster(&["a", "b", "c"]);
        let facts = WarmupFacts {
            subject: "w".to_owned(),
            dataset: name(),
            selection: Some(Selection::all()),
            node_selector: BTreeMap::new(),
            replicas: None,
            pending_pods: true,
            priority: 5,
        };
        index.set_warmup("w", facts);
        index
    }

    fn node(uid: &str, labels: &[(&str, &str)], taints: &[(&str, &str)]) -> NodeFacts {
        let taint = |(key, effect): &(&str, &str)| Taint {
            key: (*key).into(),
            effect: (*effect).into(),
            ..Taint::default()
        };
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        NodeFacts { uid: uid.into(), labels, schedulable: true, taints: taints.iter().map(taint).collect() }
    }

    #[test]
    fn nodes_get_warm_on_which_pods_that_want_the_dataset_are_pending() {
        let mut index = waiting_warmup();
        assert_eq!(warmed(&mut index), "");
        assert_eq!(index.set_pending("p", on("b")), ["b".into()]);
        assert_eq!(index.set_pending("p", on("b")), []);
        assert_eq!(index.set_pending("q", on("b")), [], "it is warmed already");
        assert_eq!(warmed(&mut index), "b");
        // The first runs, the second is there still.
        assert_eq!(index.set_pending("p", None), []);
        assert_eq!(index.set_pending("q", on("c")), ["b".into(), "c".into()]);
        assert_eq!(warmed(&mut index), "c");
        let mut other = on("a");
        other.as_mut().unwrap().datasets = BTreeSet::from([DatasetName::new("ns", "other")]);
        assert_eq!(index.set_pending("r", other), []);
        index.set_pending("q", None);
        assert_eq!(warmed(&mut index), "");
        assert!(index.pending.pods.len() == 1 && index.pending.places.len() == 1);
    }

    #[test]
    fn a_pod_without_a_node_counts_wherever_it_may_be_put() {
        let mut index = waiting_warmup();
        index.set_node("a", node("uid-a", &[("pool", "gpu")], &[]));
        index.set_node("b", node("uid-b", &[("pool", "gpu")], &[("gpu", "NoSchedule")]));
        index.set_pending("p", pod("ns", labelled(&[("pool", "gpu")])));
        assert_eq!(warmed(&mut index), "a", "it does not tolerate the taint");
        index.set_node("c", node("uid-c", &[("pool", "gpu")], &[]));
        assert_eq!(warmed(&mut index), "ac");
        index.set_node("b", node("uid-b", &[("pool", "gpu")], &[]));
        index.remove_node("a");
        assert_eq!(warmed(&mut index), "bc");
        // It is bound: nobody else waits.
        assert_eq!(index.set_pending("p", on("c")), ["b".into()]);
        assert_eq!(warmed(&mut index), "c");
        let cordoned = NodeFacts { schedulable: false, ..node("uid-c", &[], &[]) };
        index.set_node("c", cordoned);
        assert_eq!(warmed(&mut index), "");
    }

    #[test]
    fn pods_that_may_not_use_the_dataset_do_not_count() {
        let mut index = waiting_warmup();
        index.set_pending("p", pod("other", Place::Node("a".into())));
        assert_eq!(warmed(&mut index), "");
        let hash = index.dataset(&name()).unwrap().manifest.unwrap();
        index.set_dataset(&name(), DatasetFacts { share_with: vec!["other".into()], ..dataset(hash) });
        assert_eq!(warmed(&mut index), "a");
        index.set_dataset(&name(), dataset(hash));
        assert_eq!(warmed(&mut index), "");
    }
}
