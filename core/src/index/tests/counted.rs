//! Sums that are kept up to date, against those that are worked out anew.

use super::*;

/// One step of a cluster's life; nodes are 0 to 3.
#[derive(Clone, Debug)]
enum Step {
    Snapshot(u8, Vec<u32>),
    Delta(u8, Vec<u32>, Vec<u32>),
    LostDelta(u8),
    Refresh(u8),
    Prepare(u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let blocks = || prop::collection::vec(0u32..8, 0..6);
    prop_oneof![
        1 => (0u8..4, blocks()).prop_map(|(node, held)| Step::Snapshot(node, held)),
        4 => (0u8..4, blocks(), blocks()).prop_map(|(node, added, removed)| Step::Delta(node, added, removed)),
        1 => (0u8..4).prop_map(Step::LostDelta),
        1 => (0u8..3).prop_map(Step::Refresh),
        2 => (0u8..4).prop_map(Step::Prepare),
        1 => (0u64..6_000).prop_map(Step::Wait),
    ]
}

fn demands() -> [Demand; 4] {
    [demand(&[]), demand(&["train"]), demand(&["**/0"]), demand(&["val", "train/1"])]
}

proptest! {
    /// Whatever happens, counted sums equal sums made afresh, and no node is
    /// warm that did not say so of late.
    #[test]
    fn counted_sums_are_true(steps in prop::collection::vec(step(), 0..60)) {
        let versions = [manifest(&["1", "2", "3"], &["4"]), manifest(&["1", "x", "3"], &["4"]), manifest(&["1", "2", "3"], &["y"])];
        let (mut index, _, _) = cluster(&["0", "1", "2", "3"]);
        let mut current = versions[0].clone();
        let mut now = 0;
        // Naive model: what each node said last, in which state its session is.
        let mut model: [Option<Said>; 4] = Default::default();
        for step in steps {
            match step {
                Step::Snapshot(node, held) => {
                    let held: RoaringBitmap = held.into_iter().collect();
                    let blocks: Vec<u32> = held.iter().collect();
                    index.apply(Millis(now), snapshot(&node.to_string(), &[(current.0, &blocks)]));
                    model[usize::from(node)] = Some((BTreeMap::from([(current.0, held)]), 0, now));
                }
                Step::Delta(node, added, mut removed) => {
                    removed.retain(|block| !added.contains(block));
                    let entry = &mut model[usize::from(node)];
                    let sequence = entry.as_ref().map_or(1, |(_, sequence, _)| sequence + 1);
                    let verdict = index.apply(Millis(now), delta(&node.to_string(), sequence, current.0, &added, &removed));
                    prop_assert_eq!(verdict == Verdict::Applied, entry.is_some());
                    if let Some((held, last, heard)) = entry {
                        let held = held.entry(current.0).or_default();
                        held.extend(added);
                        removed.into_iter().for_each(|block| { held.remove(block); });
                        (*last, *heard) = (sequence, now);
                    }
                }
                Step::LostDelta(node) => {
                    if let Some((_, sequence, _)) = &mut model[usize::from(node)] {
                        let verdict = index.apply(Millis(now), delta(&node.to_string(), *sequence + 2, current.0, &[1], &[]));
                        prop_assert!(matches!(verdict, Verdict::Resync { .. }), "a gap must ask for a resync");
                    }
                }
                Step::Refresh(version) => {
                    current = versions[usize::from(version)].clone();
                    index.set_dataset(&name(), dataset(current.0));
                    index.add_manifest(current.0, current.1.clone());
                }
                Step::Prepare(which) => prepare(&mut index, &demands()[usize::from(which)]),
                Step::Wait(millis) => now += millis,
            }
            for demand in demands() {
                let selection = &demand.asked[0].selection;
                let wanted: RoaringBitmap = current.1.select(selection).flat_map(|file| file.blocks()).collect();
                let weighing = index.weigh(Millis(now), &demand);
                prop_assert_eq!(weighing.requested, current.1.bytes_of(&wanted));
                for (node, said) in model.iter().enumerate() {
                    let weighed = weighing.of(&node.to_string()).held;
                    let Some((held, _, heard)) = said else { prop_assert_eq!(weighed, 0); continue };
                    if now - heard >= 10_000 {
                        prop_assert_eq!(weighed, 0);
                    } else if let Some(held) = held.get(&current.0) {
                        prop_assert_eq!(weighed, current.1.bytes_of(&(held & &wanted)));
                    } else {
                        // Concluded from an older version: never more than the node holds of any.
                        let most: RoaringBitmap = (0..current.1.blocks()).collect();
                        prop_assert!(weighed <= current.1.bytes_of(&(most & &wanted)));
                    }
                }
            }
        }
    }

    #[test]
    fn two_replicas_that_hear_the_same_answer_the_same(
        warm in prop::collection::vec((0u8..4, prop::collection::vec(0u32..8, 0..8)), 0..8),
        order: prop::sample::Index,
    ) {
        let (mut one, hash, _) = cluster(&["0", "1", "2", "3"]);
        let (mut two, ..) = cluster(&["3", "2", "1", "0"]);
        let mut last: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
        for (node, blocks) in warm {
            one.apply(Millis(0), snapshot(&node.to_string(), &[(hash, &blocks)]));
            last.insert(node, blocks);
        }
        let mut heard: Vec<_> = last.into_iter().collect();
        if !heard.is_empty() {
            let middle = order.index(heard.len());
            heard.rotate_left(middle);
        }
        for (node, blocks) in heard {
            two.apply(Millis(0), snapshot(&node.to_string(), &[(hash, &blocks)]));
        }
        let body = br#"{"Pod":{"metadata":{"namespace":"ns","annotations":{"hearth.dev/datasets":"set"}}},"Nodes":null,"NodeNames":["0","1","2","3"]}"#;
        let call = parse_call(body).unwrap();
        let now = Now { monotonic: Millis(0), unix_seconds: 0 };
        prop_assert_eq!(
            decide::prioritize(&one, now, &call, call.pod.demand(DatasetName::clone)).reply,
            decide::prioritize(&two, now, &call, call.pod.demand(DatasetName::clone)).reply
        );
    }
}

#[test]
fn superfluous_selections_are_dropped_oldest_first() {
    let (mut index, ..) = cluster(&["a"]);
    index.settings.selections_kept = 2;
    for glob in ["train/0", "train/1", "train/0", "train/2"] {
        prepare(&mut index, &demand(&[glob]));
    }
    let is_prepared = |globs: &[&str]| index.unprepared(&demand(globs)).is_empty();
    assert!(is_prepared(&["train/0"]) && is_prepared(&["train/2"]));
    assert!(!is_prepared(&["train/1"]));
    assert!(is_prepared(&[]), "the whole stays counted");
}

#[test]
fn asked_twice_is_counted_once() {
    let asked = |glob| Asked {
        namespace: "ns".into(),
        dataset: "set".into(),
        selection: Selection::new([glob]).unwrap(),
    };
    assert_eq!(asked("a").name(), asked("b").name());
    let demand = demand(&["train/0", "train/*"]);
    let (index, ..) = cluster(&[]);
    assert_eq!(index.weigh(Millis(0), &demand).requested, 3 * (BLOCK_SIZE + HALF));
}
