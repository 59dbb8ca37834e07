//! Tests of the index, by applying and reading.

mod counted;
mod decisions;

use super::*;
use crate::block::BLOCK_SIZE;
use crate::decide::{self, Now};
use crate::manifest::{ListedObject, ManifestBuilder, ManifestOrigin};
use crate::object::{AccessDomain, Validator};
use crate::pod::{Asked, PodFacts};
use crate::selection::Selection;
use crate::wire::report::*;
use crate::wire::scheduler::{parse_call, parse_preempt};
use proptest::prelude::*;
use roaring::RoaringBitmap;
use std::collections::BTreeMap;

const HALF: u64 = BLOCK_SIZE / 2;

/// `train/0`, `train/1`, … and `val/0`, …, each a block and a half, with these tags.
pub(super) fn manifest(train: &[&str], val: &[&str]) -> (ManifestHash, Arc<Manifest>) {
    let origin = ManifestOrigin::whole(AccessDomain::new("ns", None), "s3://b");
    let mut builder = ManifestBuilder::new(vec![origin]);
    for (directory, tags) in [("train", train), ("val", val)] {
        for (number, tag) in tags.iter().enumerate() {
            builder.push(ListedObject {
                origin: 0,
                path: format!("{directory}/{number}"),
                size: BLOCK_SIZE + HALF,
                modified: 0,
                validator: Validator::etag(tag),
                unlisted: false,
            });
        }
    }
    let manifest = builder.finish().unwrap().0;
    (ManifestHash::of(&manifest.encode()), Arc::new(manifest))
}

fn speaker(node: &str) -> Speaker {
    Speaker { node: node.into(), node_uid: format!("uid-{node}"), store: uuid::Uuid::from_u128(7), boot: 1 }
}

fn report(node: &str, sequence: u64, inventory: Inventory) -> Report {
    Report {
        protocol: PROTOCOL,
        speaker: speaker(node),
        sequence,
        inventory,
        status: NodeStatus::default(),
        orders_seen: 0,
        hold_millis: 0,
    }
}

pub(super) fn snapshot(node: &str, holdings: &[(ManifestHash, &[u32])]) -> Report {
    let holdings = holdings.iter().map(|(manifest, blocks)| Holding {
        manifest: *manifest,
        dataset: "ns/set".into(),
        blocks: Blocks(blocks.iter().copied().collect()),
    });
    report(node, 0, Inventory::Snapshot(holdings.collect()))
}

pub(super) fn delta(
    node: &str,
    sequence: u64,
    manifest: ManifestHash,
    added: &[u32],
    removed: &[u32],
) -> Report {
    let change = Change::Blocks {
        manifest,
        dataset: "ns/set".into(),
        added: Blocks(added.iter().copied().collect()),
        removed: Blocks(removed.iter().copied().collect()),
    };
    report(node, sequence, Inventory::Delta(vec![change]))
}

pub(super) fn dataset(manifest: ManifestHash) -> DatasetFacts {
    DatasetFacts { uid: "d".into(), generation: 1, manifest: Some(manifest), ..DatasetFacts::default() }
}

pub(super) fn name() -> DatasetName {
    DatasetName::new("ns", "set")
}

fn demand(globs: &[&str]) -> Demand {
    let annotation = match globs {
        [] => "set".to_owned(),
        globs => globs.iter().map(|glob| format!("set/{glob}")).collect::<Vec<_>>().join(","),
    };
    let pod: PodFacts = serde_json::from_value(serde_json::json!({
        "metadata": {"namespace": "ns", "annotations": {"hearth.dev/datasets": annotation}}
    }))
    .unwrap();
    pod.demand(DatasetName::clone).unwrap()
}

fn prepare(index: &mut ClusterIndex, demand: &Demand) {
    for unprepared in index.unprepared(demand) {
        index.keep(unprepared.find());
    }
    index.touch(demand);
}

pub(super) fn cluster(nodes: &[&str]) -> (ClusterIndex, ManifestHash, Arc<Manifest>) {
    let (hash, manifest) = manifest(&["1", "2", "3"], &["4"]);
    let mut index = ClusterIndex::new(Settings::default());
    index.set_dataset(&name(), dataset(hash));
    index.add_manifest(hash, manifest.clone());
    for node in nodes {
        let facts = NodeFacts { uid: format!("uid-{node}"), schedulable: true, ..NodeFacts::default() };
        index.set_node(node, facts);
    }
    (index, hash, manifest)
}

pub(super) fn held(index: &ClusterIndex, now: u64, demand: &Demand) -> Vec<(String, u64)> {
    let weighing = index.weigh(Millis(now), demand);
    weighing.ranked().iter().map(|node| (node.node.to_string(), node.held)).collect()
}

#[test]
fn a_claim_is_of_the_namespaces_own_dataset_or_of_the_first_that_is_shared_with_it() {
    let mut index = ClusterIndex::new(Settings::default());
    let claimed = |index: &ClusterIndex| index.claimed(&DatasetName::new("m", "d")).to_string();
    let shared = DatasetFacts { share_with: vec!["m".into()], ..DatasetFacts::default() };
    assert_eq!(claimed(&index), "m/d", "nobody's is nobody else's either");
    index.set_dataset(&DatasetName::new("z", "d"), shared.clone());
    assert_eq!(claimed(&index), "z/d");
    index.set_dataset(&DatasetName::new("n", "d"), shared.clone());
    index.set_dataset(&DatasetName::new("a", "d"), DatasetFacts::default());
    assert_eq!(claimed(&index), "n/d");
    index.set_dataset(&DatasetName::new("m", "d"), DatasetFacts::default());
    assert_eq!(claimed(&index), "m/d");
    index.remove_dataset(&DatasetName::new("m", "d"));
    index.set_dataset(&DatasetName::new("n", "d"), DatasetFacts::default());
    assert_eq!(claimed(&index), "z/d");
    index.remove_dataset(&DatasetName::new("z", "d"));
    assert_eq!(claimed(&index), "m/d");
}

#[test]
fn the_part_asked_for_decides() {
    let (mut index, hash, _) = cluster(&["a", "b"]);
    index.apply(Millis(0), snapshot("a", &[(hash, &[0, 1, 2, 3, 4])]));
    index.apply(Millis(0), snapshot("b", &[(hash, &[6, 7])]));
    let whole = BLOCK_SIZE + HALF;
    assert_eq!(held(&index, 0, &demand(&["val"])), [("b".to_owned(), whole)]);
    assert_eq!(held(&index, 0, &demand(&["train/**"])), [("a".to_owned(), 2 * whole + BLOCK_SIZE)]);
    assert_eq!(index.weigh(Millis(0), &demand(&["val"])).requested, whole);
    assert_eq!(index.weigh(Millis(0), &demand(&[])).requested, 4 * whole);
}

#[test]
fn a_silent_node_is_cold_and_warm_again_when_it_returns() {
    let (mut index, hash, _) = cluster(&["a"]);
    index.apply(Millis(0), snapshot("a", &[(hash, &[0])]));
    assert_eq!(held(&index, 9_999, &demand(&[])).len(), 1);
    assert_eq!(held(&index, 10_000, &demand(&[])).len(), 0);
    assert_eq!(index.silent_nodes(Millis(10_000)), 1);
    assert_eq!(index.apply(Millis(20_000), delta("a", 1, hash, &[1], &[])), Verdict::Applied);
    assert_eq!(held(&index, 20_000, &demand(&[])), [("a".to_owned(), BLOCK_SIZE + HALF)]);
}

#[test]
fn what_cannot_be_applied_asks_for_a_resync_and_changes_nothing() {
    let (mut index, hash, _) = cluster(&["a"]);
    let resync = |verdict| assert!(matches!(verdict, Verdict::Resync { .. }), "{verdict:?}");
    resync(index.apply(Millis(0), delta("a", 1, hash, &[0], &[])));
    index.apply(Millis(0), snapshot("a", &[(hash, &[0])]));
    resync(index.apply(Millis(0), delta("a", 2, hash, &[1], &[])));
    let mut other = delta("a", 1, hash, &[1], &[]);
    other.speaker.boot = 2;
    resync(index.apply(Millis(0), other));
    let mut reimaged = delta("a", 1, hash, &[1], &[]);
    reimaged.speaker.store = uuid::Uuid::from_u128(8);
    resync(index.apply(Millis(0), reimaged));
    assert_eq!(held(&index, 0, &demand(&[])), [("a".to_owned(), BLOCK_SIZE)]);
    let mut late = snapshot("a", &[]);
    late.speaker.boot = 0;
    resync(index.apply(Millis(0), late));
    assert_eq!(held(&index, 0, &demand(&[])), [("a".to_owned(), BLOCK_SIZE)]);
}

#[test]
fn a_node_made_again_inherits_nothing() {
    let (mut index, hash, _) = cluster(&["a"]);
    index.apply(Millis(0), snapshot("a", &[(hash, &[0])]));
    index.set_node("a", NodeFacts { uid: "another".into(), schedulable: true, ..NodeFacts::default() });
    assert_eq!(held(&index, 0, &demand(&[])), []);
    index.remove_node("a");
    index.set_node("a", NodeFacts { uid: "uid-a".into(), schedulable: true, ..NodeFacts::default() });
    assert_eq!(held(&index, 0, &demand(&[])), []);
}

#[test]
fn a_refresh_keeps_its_warmth_until_the_node_says_better() {
    let (mut index, old, _) = cluster(&["a"]);
    index.apply(Millis(0), snapshot("a", &[(old, &[0, 1, 2, 3, 4, 5])]));
    let (new, manifest) = manifest(&["1", "changed", "3"], &["4"]);
    index.set_datasets_synced();
    index.set_dataset(&name(), dataset(new));
    assert_eq!(index.missing_manifests(), [new]);
    index.add_manifest(new, manifest);
    let whole = BLOCK_SIZE + HALF;
    assert_eq!(held(&index, 0, &demand(&[])), [("a".to_owned(), 2 * whole)]);
    // The node is told to learn the new version first, and only then to forget the old one.
    let (orders, _) = index.orders(Millis(0), "a");
    assert_eq!((orders.adopt.len(), orders.retire.len()), (1, 0));
    index.apply(Millis(0), delta("a", 1, new, &[0, 1], &[]));
    assert_eq!(held(&index, 0, &demand(&[])), [("a".to_owned(), whole)]);
    let (orders, _) = index.orders(Millis(60_000), "a");
    assert_eq!((orders.adopt.len(), orders.retire.clone()), (0, vec![old]));
}

#[test]
fn what_was_foreseen_is_what_is_inherited() {
    let (new, to) = manifest(&["0", "1", "changed", "3"], &["4"]);
    let refreshed = |foresees: bool| {
        let (mut index, old, _) = cluster(&["a", "b", "gone"]);
        index.apply(Millis(0), snapshot("a", &[(old, &[0, 1, 2, 3, 4, 5])]));
        index.apply(Millis(0), snapshot("b", &[(old, &[1, 4, 7])]));
        index.apply(Millis(0), snapshot("gone", &[(old, &[0, 1])]));
        if foresees {
            let succession = index.unsucceeded(&name(), new, to.clone()).unwrap().find();
            index.foresee(succession);
            assert!(index.unsucceeded(&name(), new, to.clone()).is_none(), "it is worked out once");
        }
        index.remove_node("gone");
        index.set_dataset(&name(), dataset(new));
        index.add_manifest(new, to.clone());
        assert!(index.foreseen.is_empty(), "what was taken in is not kept");
        held(&index, 0, &demand(&[]))
    };
    assert!(!refreshed(true).is_empty());
    assert_eq!(refreshed(true), refreshed(false));
}

#[test]
fn a_list_of_files_that_is_on_its_way_is_no_fault_of_the_pods() {
    let (mut index, ..) = cluster(&["warm"]);
    let body = br#"{"Pod":{"metadata":{"namespace":"ns","annotations":{"hearth.dev/datasets":"set",
        "hearth.dev/locality":"required"}}},"Nodes":null,"NodeNames":["warm"]}"#;
    let call = parse_call(body).unwrap();
    let now = Now { monotonic: Millis(0), unix_seconds: 0 };
    let reason = |index: &ClusterIndex| {
        let reply = decide::filter(index, now, &call, call.pod.demand(DatasetName::clone)).reply;
        let reply: serde_json::Value = serde_json::from_slice(&reply).unwrap();
        reply["FailedAndUnresolvableNodes"]["warm"].clone()
    };
    index.set_dataset(&name(), dataset(manifest(&["another"], &[]).0));
    assert_eq!(reason(&index), decide::REASON_NOT_YET);
    index.remove_dataset(&name());
    assert_eq!(reason(&index), decide::REASON_PROBLEM);
}

#[test]
fn nothing_is_retired_before_all_datasets_were_seen() {
    let (mut index, hash, _) = cluster(&["a"]);
    let (unknown, _) = manifest(&["9"], &[]);
    index.apply(Millis(0), snapshot("a", &[(hash, &[0]), (unknown, &[0])]));
    assert_eq!(index.orders(Millis(60_000), "a").0.retire, []);
    index.set_datasets_synced();
    assert_eq!(index.orders(Millis(59_999), "a").0.retire, [], "the one who lists may know it before we do");
    assert_eq!(index.orders(Millis(60_000), "a").0.retire, [unknown]);
    index.remove_dataset(&name());
    let mut expected = vec![hash, unknown];
    expected.sort_unstable();
    assert_eq!(index.orders(Millis(60_000), "a").0.retire, expected);
}

#[test]
fn bound_pods_and_warmups_become_orders_and_count_as_in_flight() {
    let (mut index, hash, manifest) = cluster(&["a", "b"]);
    index.apply(Millis(0), snapshot("a", &[(hash, &[0])]));
    index.apply(Millis(0), snapshot("b", &[]));
    let before = index.orders(Millis(0), "a").1;
    index.bind_pod("p", "a", demand(&["train"]));
    let (orders, digest) = index.orders(Millis(0), "a");
    assert_ne!(before, digest);
    assert_eq!(orders.wants.len(), 1);
    assert_eq!(
        (orders.wants[0].globs.clone(), orders.wants[0].priority),
        (vec!["train".to_owned()], POD_PRIORITY)
    );
    let weighing = index.weigh(Millis(0), &demand(&["train"]));
    assert_eq!((weighing.of("a").held, weighing.of("a").in_flight), (BLOCK_SIZE, 3 * HALF * 3 - BLOCK_SIZE));
    index.set_warmup(
        "w",
        WarmupFacts {
            subject: "w".to_owned(),
            dataset: name(),
            selection: Some(Selection::all()),
            node_selector: BTreeMap::new(),
            replicas: None,
            pending_pods: false,
            priority: 5,
        },
    );
    assert_eq!(index.orders(Millis(0), "b").0.wants[0].priority, 5);
    assert_eq!(index.weigh(Millis(0), &demand(&["val"])).of("b").in_flight, BLOCK_SIZE + HALF);
    // A node that says that it cannot fetch has nothing in flight.
    let mut stuck = delta("b", 1, hash, &[], &[]);
    stuck.status.capacity_bytes = manifest.bytes() - 1;
    stuck.status.troubles = vec![Trouble {
        dataset: "ns/set".into(),
        manifest: hash,
        kind: TroubleKind::NoSpace,
        message: "full".into(),
    }];
    index.apply(Millis(0), stuck);
    assert_eq!(index.weigh(Millis(0), &demand(&["val"])).of("b").in_flight, 0);
    let progress = index.warmup_progress(Millis(0), "w").unwrap();
    assert_eq!((progress.nodes_wanted, progress.nodes_done, progress.files_total), (2, 0, 8));
    assert_eq!((progress.bytes_done, progress.bytes_total), (BLOCK_SIZE, 2 * manifest.bytes()));
    assert_eq!(progress.troubles.len(), 1);
    let too_small = progress.too_small.unwrap();
    assert_eq!((&*too_small.node, too_small.nodes), ("b", 1));
    assert_eq!((too_small.capacity, too_small.asked), (manifest.bytes() - 1, manifest.bytes()));
    index.unbind_pod("p");
    index.remove_warmup("w");
    assert_eq!(index.orders(Millis(0), "a").1, before);
    assert_eq!(index.weigh(Millis(0), &demand(&["train"])).of("a").in_flight, 0);
}

#[test]
fn datasets_of_other_namespaces_are_unknown_unless_shared() {
    let (mut index, hash, _) = cluster(&["a"]);
    index.apply(Millis(0), snapshot("a", &[(hash, &[0])]));
    let mut stranger = demand(&[]);
    stranger.namespace = "other".into();
    let weighing = index.weigh(Millis(0), &stranger);
    assert_eq!((weighing.nodes.len(), weighing.problems), (0, vec![Problem::Unknown(name())]));
    index.set_dataset(&name(), DatasetFacts { share_with: vec!["other".into()], ..dataset(hash) });
    assert_eq!(index.weigh(Millis(0), &stranger).nodes.len(), 1);
}

/// What a node said last: holdings, sequence, time.
type Said = (BTreeMap<ManifestHash, RoaringBitmap>, u64, u64);
