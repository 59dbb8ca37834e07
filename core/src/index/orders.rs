//! What each node is to do: fetch for its pods and warm-ups, learn of newer
//! versions, forget what nobody names.

use super::datasets::Dataset;
use super::{ClusterIndex, DatasetName};
use crate::manifest::ManifestHash;
use crate::selection::Selection;
use crate::wire::report::{Adoption, Orders, POD_PRIORITY, Want};
use hashbrown::{HashMap, HashSet};
use std::sync::Arc;

impl ClusterIndex {
    /// The orders of `node` with their digest.
    pub fn orders(&mut self, node: &str) -> (Arc<Orders>, u64) {
        let Some(id) = self.nodes.id(node) else { return with_digest(Orders::default()) };
        if let Some(cached) = self.nodes.get(id).and_then(|node| node.orders.clone()) {
            return cached;
        }
        let orders = with_digest(self.make_orders(node));
        if let Some(node) = self.nodes.get_mut(id) {
            node.orders = Some(orders.clone());
        }
        orders
    }

    fn make_orders(&self, node: &str) -> Orders {
        // The same part for a pod and a warm-up is one want, of the higher priority.
        let mut wants: HashMap<(DatasetName, Vec<String>), Want> = HashMap::new();
        let mut add = |name: DatasetName, dataset: &Dataset, selection: &Selection, priority: i32| {
            let Some(manifest) = dataset.facts.manifest else { return };
            let want = wants.entry((name.clone(), selection.globs().to_vec())).or_insert_with(|| Want {
                namespace: name.namespace,
                dataset: name.name,
                uid: dataset.facts.uid.clone(),
                generation: dataset.facts.generation,
                manifest,
                globs: selection.globs().to_vec(),
                priority,
            });
            want.priority = want.priority.max(priority);
        };
        for pod in self.pods_by_node.get(node).into_iter().flatten().filter_map(|uid| self.pods.get(uid)) {
            for asked in &pod.demand.asked {
                if let Ok((name, dataset)) = self.resolve(&pod.demand.namespace, asked) {
                    add(name, dataset, &asked.selection, POD_PRIORITY);
                }
            }
        }
        for warmup in self.warmups.values().filter(|warmup| warmup.chosen.contains(node)) {
            if let Some(dataset) = self.datasets.get(&warmup.facts.dataset) {
                let priority = warmup.facts.priority.min(POD_PRIORITY - 1);
                add(warmup.facts.dataset.clone(), dataset, &warmup.facts.selection, priority);
            }
        }
        let mut wants: Vec<Want> = wants.into_values().collect();
        // One order of one set: the digest must not depend on a hash map's mood.
        wants.sort_by(|a, b| {
            (b.priority, &a.namespace, &a.dataset, &a.globs).cmp(&(
                a.priority,
                &b.namespace,
                &b.dataset,
                &b.globs,
            ))
        });
        let (adopt, retire) = self.successions(node);
        Orders { wants, adopt, retire }
    }

    /// Versions that `node` should know besides, and those that it may forget.
    fn successions(&self, node: &str) -> (Vec<Adoption>, Vec<ManifestHash>) {
        let (mut adopt, mut retire) = (Vec::new(), Vec::new());
        let Some(node) = self.nodes.by_name(node) else { return (adopt, retire) };
        if !self.datasets_synced {
            return (adopt, retire);
        }
        let current: HashSet<ManifestHash> =
            self.datasets.values().filter_map(|dataset| dataset.facts.manifest).collect();
        for (hash, dataset) in node.reported.iter().filter(|(hash, _)| !current.contains(*hash)) {
            let newer = DatasetName::parse(dataset)
                .and_then(|name| self.datasets.get(&name))
                .and_then(|dataset| dataset.facts.manifest);
            match newer {
                // Forgetting first would throw away what the newer one inherits.
                Some(newer) if !node.reported.contains_key(&newer) => {
                    adopt.push(Adoption { manifest: newer, dataset: dataset.clone() });
                }
                _ => retire.push(*hash),
            }
        }
        adopt.sort_by(|a, b| (&a.dataset, a.manifest).cmp(&(&b.dataset, b.manifest)));
        adopt.dedup();
        retire.sort_unstable();
        (adopt, retire)
    }
}

fn with_digest(orders: Orders) -> (Arc<Orders>, u64) {
    let digest = orders.digest();
    (Arc::new(orders), digest)
}
