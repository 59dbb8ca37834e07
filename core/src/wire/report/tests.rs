//! What agents and extenders say to each other is pinned, and older ones are understood.

use super::*;
use crate::wire::eviction::{Evicts, Kept, KeptWhy};
use crate::wire::failed_files::{self, FailedFile};
use proptest::prelude::*;

fn report() -> Report {
    Report {
        protocol: PROTOCOL,
        speaker: Speaker { node: "n".into(), node_uid: "u".into(), store: uuid::Uuid::from_u128(1), boot: 3 },
        sequence: 4,
        inventory: Inventory::Delta(vec![
            Change::Blocks {
                manifest: ManifestHash([7; 32]),
                dataset: "ns/d".into(),
                added: Blocks((0..3).collect()),
                removed: Blocks::default(),
            },
            Change::Forgotten(ManifestHash([8; 32])),
        ]),
        status: NodeStatus {
            capacity_bytes: 100,
            used_bytes: 50,
            origin_bytes_per_second: Some(9),
            troubles: vec![],
            in_use: vec![ManifestHash([9; 32])],
            evictions: vec![EvictionDone {
                id: "e".into(),
                files: 2,
                bytes: 9,
                kept: vec![Kept { why: KeptWhy::Mounted, files: 1, bytes: 3 }],
                again: true,
                error: None,
            }],
            failed_files: vec![],
            keeps_nothing: false,
        },
        orders_seen: 5,
        hold_millis: 2000,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// A changed encoding cuts off the release before: raise `PROTOCOL` with it.
#[test]
fn protocol_4_is_pinned() {
    assert_eq!(hex(&encode(&report())), include_str!("../golden/report-4.hex").trim());
    assert_eq!(decode_report(&unhex(include_str!("../golden/report-4.hex").trim())).unwrap(), report());
}

fn snapshot() -> Report {
    let holding = |manifest, dataset: &str, blocks| Holding { manifest, dataset: dataset.into(), blocks };
    let trouble = Trouble {
        dataset: "ns/d".into(),
        manifest: ManifestHash([7; 32]),
        kind: TroubleKind::NoSpace,
        message: "full".into(),
    };
    Report {
        sequence: 0,
        inventory: Inventory::Snapshot(vec![
            holding(ManifestHash([7; 32]), "ns/d", Blocks((0..3).collect())),
            holding(ManifestHash([8; 32]), "ns/e", Blocks::default()),
        ]),
        status: NodeStatus { troubles: vec![trouble], ..report().status },
        orders_seen: 0,
        ..report()
    }
}

#[test]
fn the_snapshot_of_protocol_4_is_pinned() {
    let golden = include_str!("../golden/snapshot-4.hex").trim();
    assert_eq!(hex(&encode(&snapshot())), golden);
    assert_eq!(decode_report(&unhex(golden)).unwrap(), snapshot());
}

#[test]
fn files_that_failed_are_pinned_and_nobody_has_to_know_them() {
    let failed = FailedFiles {
        manifest: ManifestHash([7; 32]),
        part: failed_files::part(&["train/**".into()]),
        count: 2,
        files: vec![FailedFile::new("train/a", "Gone", "it is no longer there")],
    };
    let status = NodeStatus { failed_files: vec![failed], ..report().status };
    let mut said = Report { status, ..report() };
    let golden = include_str!("../golden/failed-files-4.hex").trim();
    assert_eq!(hex(&encode(&said)), golden);
    assert_eq!(decode_report(&unhex(golden)).unwrap(), said);
    // Likewise what is said of a node that keeps nothing.
    said.status.keeps_nothing = true;
    assert_eq!(decode_report(&encode(&said)).unwrap(), said);
}

/// What both protocols can say.
fn orders() -> Orders {
    Orders {
        wants: vec![Want {
            namespace: "ns".into(),
            dataset: "d".into(),
            uid: "u".into(),
            generation: 3,
            manifest: ManifestHash([7; 32]),
            globs: vec!["train/**".into()],
            priority: POD_PRIORITY,
        }],
        adopt: vec![Adoption { manifest: ManifestHash([8; 32]), dataset: "ns/e".into() }],
        retire: vec![ManifestHash([9; 32])],
        versions: None,
        evictions: vec![],
    }
}

fn applied(protocol: u16, orders: Orders) -> Reply {
    let need_manifests = vec![ManifestHash([8; 32])];
    Reply { protocol, verdict: Verdict::Applied, orders: Some(orders), need_manifests }
}

/// A reply with all that orders can say.
fn all_said() -> Reply {
    let of = |pod: &str, choice| PodVersion { pod: pod.into(), dataset: "ns/d".into(), choice };
    let versions = vec![
        of("a", Choice::Current),
        of("b", Choice::Held("owner".into())),
        of("c", Choice::Named(ManifestHash([7; 32]))),
        of("d", Choice::Undecided),
        of("e", Choice::Refused("why".into())),
    ];
    let evictions = vec![EvictionOrder {
        id: "e".into(),
        dataset: "ns/d".into(),
        versions: vec![ManifestHash([7; 32])],
        globs: vec!["train/**".into()],
        what: Evicts::Data,
    }];
    applied(4, Orders { versions: Some(versions), evictions, ..orders() })
}

#[test]
fn the_replies_of_protocol_4_are_pinned() {
    let resync = Reply {
        protocol: 4,
        verdict: Verdict::Resync { reason: "why".into() },
        orders: None,
        need_manifests: vec![],
    };
    for (reply, golden) in [
        (all_said(), include_str!("../golden/reply-4.hex")),
        (resync, include_str!("../golden/resync-4.hex")),
    ] {
        assert_eq!(hex(&encode(&reply)), golden.trim());
        assert_eq!(decode_reply(&unhex(golden.trim())).unwrap(), reply);
    }
}

/// An agent and an extender of two releases must give the same orders one name, or
/// each reply would be news.
#[test]
fn protocols_2_and_3_are_spoken_and_understood() {
    let golden = include_str!("../golden/reply-2.hex").trim();
    let ours = Orders { versions: Some(vec![]), ..orders() };
    let spoken = ours.spoken(2).into_owned();
    assert_eq!((&spoken, ours.spoken(3).into_owned()), (&orders(), ours));
    assert_eq!(hex(&encode(&applied(2, spoken))), golden);
    assert_eq!(decode_reply(&unhex(golden)).unwrap(), applied(2, orders()));
    let third = unhex(include_str!("../golden/reply-3.hex").trim());
    let said = all_said().orders.unwrap().spoken(3).into_owned();
    assert!(said.versions.is_some() && said.evictions.is_empty());
    assert_eq!(decode_reply(&third).unwrap(), applied(3, said));
    let reports = [
        (2, report(), include_str!("../golden/report-2.hex")),
        (3, report(), include_str!("../golden/report-3.hex")),
        (3, snapshot(), include_str!("../golden/snapshot-3.hex")),
    ];
    for (protocol, ours, golden) in reports {
        let mut expected = Report { protocol, ..ours };
        (expected.status.in_use, expected.status.evictions) = (vec![], vec![]);
        assert_eq!(decode_report(&unhex(golden.trim())).unwrap(), expected);
    }
}

#[test]
fn protocol_1_is_understood() {
    let mut expected = report();
    expected.protocol = 1;
    expected.status.origin_bytes_per_second = None;
    (expected.status.in_use, expected.status.evictions) = (vec![], vec![]);
    assert_eq!(decode_report(&unhex(include_str!("../golden/report-1.hex").trim())).unwrap(), expected);
}

#[test]
fn other_protocols_are_refused_in_one_sentence() {
    for found in [0, PROTOCOL + 1] {
        let error = decode_report(&encode(&Report { protocol: found, ..report() })).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the report speaks protocol {found}, and 1 to 4 are understood here")
        );
    }
}

#[test]
fn fields_of_the_future_are_left_alone() {
    #[derive(Serialize)]
    struct Future {
        #[serde(flatten)]
        report: Report,
        invented_later: Vec<u8>,
    }
    let bytes = encode(&Future { report: report(), invented_later: vec![1] });
    assert_eq!(decode_report(&bytes).unwrap(), report());
}

#[test]
fn orders_have_one_digest() {
    let empty = Orders::default();
    assert_ne!(empty.digest(), 0);
    assert_ne!(empty.digest(), Orders { retire: vec![ManifestHash([1; 32])], ..Orders::default() }.digest());
}

proptest! {
    #[test]
    fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_report(&bytes);
        let _ = decode_reply(&bytes);
    }

    #[test]
    fn damaged_reports_never_panic(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut bytes = encode(&report());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len()) + 1);
        let _ = decode_report(&bytes);
    }

    #[test]
    fn block_sets_survive_the_wire(blocks in prop::collection::btree_set(any::<u32>(), 0..200)) {
        let blocks = Blocks(blocks.into_iter().collect());
        let bytes = rmp_serde::to_vec_named(&blocks).unwrap();
        prop_assert_eq!(rmp_serde::from_slice::<Blocks>(&bytes).unwrap(), blocks);
    }
}
