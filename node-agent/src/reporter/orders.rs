//! What all replicas together ask of this node. Pure.

use crate::versions::Told;
use hearth_core::manifest::ManifestHash;
use hearth_core::wire::eviction::EvictionOrder;
use hearth_core::wire::report::{Adoption, Orders, Want};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Orders of a replica that has been silent for longer count only when no other
/// replica speaks: pods go on without an extender.
const SILENT: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Entry {
    heard: Instant,
    sequence: u64,
    orders: Orders,
}

/// The orders of each replica.
#[derive(Debug, Default)]
pub(super) struct Desk(BTreeMap<SocketAddr, Entry>);

/// What to do, each thing once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Union {
    pub(super) wants: Vec<Want>,
    pub(super) adopt: Vec<Adoption>,
    pub(super) retire: Vec<ManifestHash>,
    pub(super) evictions: Vec<EvictionOrder>,
}

impl Desk {
    /// A replica answered the report of that sequence number; new orders replace its old ones.
    pub(super) fn heard(&mut self, replica: SocketAddr, now: Instant, sequence: u64, orders: Option<Orders>) {
        let entry = self.0.entry(replica).or_insert_with(|| Entry {
            heard: now,
            sequence,
            orders: Orders::default(),
        });
        entry.heard = now;
        // Replies to two reports may overtake each other.
        if let Some(orders) = orders
            && sequence >= entry.sequence
        {
            entry.sequence = sequence;
            entry.orders = orders;
        }
    }

    /// Drops the replicas that are not there any more, unless nobody is.
    pub(super) fn keep_only(&mut self, replicas: &BTreeSet<SocketAddr>) {
        if !replicas.is_empty() {
            self.0.retain(|replica, _| replicas.contains(replica));
        }
    }

    /// When anything was heard last.
    pub(super) fn last_heard(&self) -> Option<Instant> {
        self.0.values().map(|entry| entry.heard).max()
    }

    /// The orders of the replicas that speak; of all when none does.
    fn heeded(&self, now: Instant) -> Vec<&Orders> {
        let any = self.0.values().any(|entry| speaks(entry, now));
        self.0.values().filter(|entry| !any || speaks(entry, now)).map(|entry| &entry.orders).collect()
    }

    /// What is to be given up, as those replicas say that speak: one that does not may
    /// not know what is finished.
    fn evictions(&self, now: Instant) -> Vec<EvictionOrder> {
        let speaking = self.0.values().filter(|entry| speaks(entry, now));
        let orders: BTreeMap<&str, &EvictionOrder> = speaking
            .flat_map(|entry| &entry.orders.evictions)
            .map(|order| (order.id.as_str(), order))
            .collect();
        orders.into_values().cloned().collect()
    }

    /// Which versions pods get.
    pub(super) fn told(&self, now: Instant) -> Told {
        Told::together(&self.heeded(now))
    }

    /// What is asked for.
    pub(super) fn union(&self, now: Instant) -> Union {
        let heeded = self.heeded(now);
        let mut wants: BTreeMap<(ManifestHash, Vec<String>), Want> = BTreeMap::new();
        for want in heeded.iter().flat_map(|orders| &orders.wants) {
            let key = (want.manifest, want.globs.clone());
            let kept = wants.entry(key).or_insert_with(|| want.clone());
            // The later spec is the true one, the higher priority the one that somebody waits for.
            let priority = kept.priority.max(want.priority);
            if want.generation > kept.generation {
                *kept = want.clone();
            }
            kept.priority = priority;
        }
        let wants: Vec<Want> = wants.into_values().collect();
        let adopt: BTreeMap<ManifestHash, &Adoption> = heeded
            .iter()
            .flat_map(|orders| &orders.adopt)
            .map(|adoption| (adoption.manifest, adoption))
            .collect();
        // A replica that lags behind may not make us forget what another needs: all
        // must say so, and nobody ask for it.
        let needed: BTreeSet<ManifestHash> =
            wants.iter().map(|want| want.manifest).chain(adopt.keys().copied()).collect();
        let retire: BTreeSet<ManifestHash> = heeded
            .iter()
            .flat_map(|orders| &orders.retire)
            .copied()
            .filter(|hash| !needed.contains(hash) && heeded.iter().all(|orders| orders.retire.contains(hash)))
            .collect();
        Union {
            wants,
            adopt: adopt.into_values().cloned().collect(),
            retire: retire.into_iter().collect(),
            evictions: self.evictions(now),
        }
    }
}

fn speaks(entry: &Entry, now: Instant) -> bool {
    now.saturating_duration_since(entry.heard) <= SILENT
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::wire::eviction::Evicts;

    fn want(manifest: u8, priority: i32, generation: i64) -> Want {
        Want {
            namespace: "ns".into(),
            dataset: "d".into(),
            uid: "u".into(),
            generation,
            manifest: ManifestHash([manifest; 32]),
            globs: vec![],
            priority,
        }
    }

    fn replica(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[tokio::test(start_paused = true)]
    async fn orders_add_up() {
        let now = Instant::now();
        let mut desk = Desk::default();
        let (a, b) = (ManifestHash([1; 32]), ManifestHash([2; 32]));
        let adopt = |manifest| Adoption { manifest, dataset: "ns/d".into() };
        let (c, d) = (ManifestHash([3; 32]), ManifestHash([4; 32]));
        desk.heard(
            replica(1),
            now,
            1,
            Some(Orders {
                wants: vec![want(1, 5, 2)],
                adopt: vec![adopt(b)],
                retire: vec![a, c],
                ..Orders::default()
            }),
        );
        desk.heard(
            replica(2),
            now,
            1,
            Some(Orders {
                wants: vec![want(1, 9, 1)],
                adopt: vec![adopt(b)],
                retire: vec![a, b, c, d],
                ..Orders::default()
            }),
        );
        let union = desk.union(now);
        assert_eq!(union.wants, [want(1, 9, 2)]);
        assert_eq!(union.adopt, [adopt(b)]);
        assert_eq!(union.retire, [c]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_replica_counts_only_while_all_are_silent() {
        let start = Instant::now();
        let mut desk = Desk::default();
        desk.heard(replica(1), start, 1, Some(Orders { wants: vec![want(1, 1, 1)], ..Orders::default() }));
        let later = start + SILENT * 2;
        assert_eq!(desk.union(later).wants.len(), 1);
        desk.heard(replica(2), later, 1, Some(Orders::default()));
        assert_eq!(desk.union(later).wants.len(), 0);
        desk.heard(replica(1), later, 2, None);
        assert_eq!(desk.union(later).wants.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_to_be_given_up_is_asked_for_by_those_who_speak_and_once() {
        let start = Instant::now();
        let mut desk = Desk::default();
        let order = EvictionOrder {
            id: "e".into(),
            dataset: "ns/d".into(),
            versions: vec![],
            globs: vec![],
            what: Evicts::Data,
        };
        let orders = Orders { evictions: vec![order.clone()], ..Orders::default() };
        desk.heard(replica(1), start, 1, Some(orders.clone()));
        desk.heard(replica(2), start, 1, Some(orders));
        assert_eq!(desk.union(start).evictions, [order]);
        assert!(desk.union(start + SILENT * 2).evictions.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reply_that_was_overtaken_does_not_count() {
        let now = Instant::now();
        let mut desk = Desk::default();
        desk.heard(replica(1), now, 7, Some(Orders { wants: vec![want(1, 1, 1)], ..Orders::default() }));
        desk.heard(replica(1), now, 6, Some(Orders::default()));
        assert_eq!(desk.union(now).wants.len(), 1);
        desk.keep_only(&BTreeSet::new());
        assert_eq!(desk.union(now).wants.len(), 1);
        desk.keep_only(&BTreeSet::from([replica(2)]));
        assert_eq!(desk.union(now), Union::default());
    }
}
