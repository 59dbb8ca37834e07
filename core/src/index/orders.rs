//! What each node is to do: fetch for its pods and warm-ups, learn of newer
//! versions, forget what nobody names, give up what Evictions name.

use super::datasets::Dataset;
use super::node::CachedOrders;
use super::removal::Endings;
use super::{ClusterIndex, DatasetName, Millis, replicas};
use crate::manifest::ManifestHash;
use crate::selection::Selection;
use crate::wire::report::{Adoption, Orders, POD_PRIORITY, PodVersion, Want};
use hashbrown::{HashMap, HashSet};
use std::cell::LazyCell;
use std::sync::Arc;

/// A version that a node has reported for less than this, milliseconds, is never retired.
const RETIRE_AFTER: u64 = 60_000;

impl ClusterIndex {
    /// The orders of `node` with their digest.
    pub fn orders(&mut self, now: Millis, node: &str) -> (Arc<Orders>, u64) {
        let Some(id) = self.nodes.id(node) else {
            let none = Orders { versions: Some(Vec::new()), ..Orders::default() };
            let digest = none.digest();
            return (Arc::new(none), digest);
        };
        let cached = self.nodes.get(id).and_then(|node| node.orders.as_ref());
        if let Some(cached) = cached.filter(|cached| cached.until.is_none_or(|until| now < until)) {
            return (cached.orders.clone(), cached.digest);
        }
        let (orders, until) = self.make_orders(now, node);
        let digest = orders.digest();
        let orders = Arc::new(orders);
        if let Some(node) = self.nodes.get_mut(id) {
            node.orders = Some(CachedOrders { orders: orders.clone(), digest, until });
        }
        (orders, digest)
    }

    fn make_orders(&self, now: Millis, node: &str) -> (Orders, Option<Millis>) {
        // The same part for a pod and a warm-up is one want, of the higher priority.
        let mut wants: HashMap<(DatasetName, ManifestHash, Vec<String>), Want> = HashMap::new();
        let mut add =
            |name: DatasetName, dataset: &Dataset, manifest, selection: &Selection, priority: i32| {
                let key = (name.clone(), manifest, selection.globs().to_vec());
                let want = wants.entry(key).or_insert_with(|| Want {
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
        let mut versions = Vec::new();
        for uid in self.pods_by_node.get(node).into_iter().flatten() {
            let Some(pod) = self.pods.get(uid) else { continue };
            for asked in &pod.demand.asked {
                let Ok((name, dataset)) = self.resolve(&pod.demand.namespace, asked) else { continue };
                let choice = dataset.choice(&pod.demand, &name);
                versions.push(PodVersion { pod: uid.clone(), dataset: name.to_string(), choice });
                if let Ok(version) = dataset.version(&pod.demand, &name) {
                    add(name, dataset, version, &asked.selection, POD_PRIORITY);
                }
            }
        }
        // Versions of which the node is to know the list.
        let mut lists = Vec::new();
        let chosen_by = self.warmups_by_node.get(node).into_iter().flatten();
        for warmup in chosen_by.filter_map(|uid| self.warmups.get(uid)) {
            if let Some(dataset) = self.datasets.get(&warmup.facts.dataset)
                && let Some(current) = dataset.facts.manifest
            {
                let priority = warmup.facts.priority.min(POD_PRIORITY - 1);
                let name = warmup.facts.dataset.clone();
                match &warmup.facts.selection {
                    Some(selection) => add(name, dataset, current, selection, priority),
                    None => lists.push(Adoption { manifest: current, dataset: name.to_string() }),
                }
            }
        }
        let mut until: Option<Millis> = None;
        for (name, dataset) in self.replicated_beside(node) {
            until = Some(Millis(now.0 + replicas::STAND_IN_FOR));
            if let Some(current) = dataset.facts.manifest
                && self.stands_in(now, node, &name, dataset)
            {
                add(name, dataset, current, &Selection::all(), replicas::PRIORITY);
            }
        }
        let mut wants: Vec<Want> = wants.into_values().collect();
        // One order of one set: the digest must not depend on a hash map's mood.
        wants.sort_by(|a, b| {
            (b.priority, &a.namespace, &a.dataset, a.manifest, &a.globs).cmp(&(
                a.priority,
                &b.namespace,
                &b.dataset,
                b.manifest,
                &b.globs,
            ))
        });
        versions.sort_by(|a, b| (&a.pod, &a.dataset).cmp(&(&b.pod, &b.dataset)));
        let evictions = self.evictions_of(node);
        let reports = |list: &Adoption| {
            self.nodes.by_name(node).is_some_and(|node| node.reported.contains_key(&list.manifest))
        };
        lists.retain(|list| !reports(list));
        let mut orders =
            Orders { wants, versions: Some(versions), evictions, adopt: lists, ..Orders::default() };
        let succeeds = self.add_successions(now, node, &mut orders);
        (orders, succeeds.into_iter().chain(until).min())
    }

    /// Adds the versions that `node` should know besides, and those that it may
    /// forget; when time alone adds more of the latter.
    fn add_successions(&self, now: Millis, node: &str, orders: &mut Orders) -> Option<Millis> {
        let node = self.nodes.by_name(node).filter(|_| self.datasets_synced)?;
        let (adopt, retire) = (&mut orders.adopt, &mut orders.retire);
        let mut until: Option<Millis> = None;
        // Nearly all that a node has is current: not a reason to look at every Dataset.
        let current = LazyCell::new(|| -> HashSet<ManifestHash> {
            self.datasets.values().filter_map(|dataset| dataset.facts.manifest).collect()
        });
        let held = LazyCell::new(|| -> HashSet<ManifestHash> { self.held_versions().collect() });
        let endings = LazyCell::new(|| Endings::of(&self.datasets));
        for (hash, reported) in &node.reported {
            let newer = DatasetName::parse(&reported.dataset)
                .and_then(|name| self.datasets.get(&name))
                .and_then(|dataset| dataset.facts.manifest);
            match newer {
                // It is current, of this dataset or of another with the same content.
                _ if newer == Some(*hash) || current.contains(hash) => {}
                // Forgetting first would throw away what the newer one inherits.
                Some(newer) if !node.reported.contains_key(&newer) => {
                    adopt.push(Adoption { manifest: newer, dataset: reported.dataset.clone() });
                }
                // The next pod of the owner for whom it is held may come here.
                _ if held.contains(hash) => {}
                _ if endings.end(hash, &reported.dataset) => retire.push(*hash),
                // The one who lists knows a version before its status names it, and
                // before our watch has seen that.
                _ if now.since(reported.since) < RETIRE_AFTER => {
                    let then = Millis(reported.since.0 + RETIRE_AFTER);
                    until = Some(until.map_or(then, |until| until.min(then)));
                }
                _ => retire.push(*hash),
            }
        }
        adopt.sort_by(|a, b| (&a.dataset, a.manifest).cmp(&(&b.dataset, b.manifest)));
        adopt.dedup();
        retire.sort_unstable();
        until
    }
}
