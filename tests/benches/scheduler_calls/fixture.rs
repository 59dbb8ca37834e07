//! A cluster of 5,000 nodes and 100 datasets of 100,000 files, each held at
//! random by 2 % of the nodes.

use hearth_core::index::{ClusterIndex, DatasetFacts, DatasetName, Millis, NodeFacts, Settings};
use hearth_core::manifest::{ListedObject, Manifest, ManifestBuilder, ManifestHash, ManifestOrigin};
use hearth_core::object::{AccessDomain, Validator};
use hearth_core::wire::report::{Blocks, Holding, Inventory, NodeStatus, PROTOCOL, Report, Speaker, Verdict};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) const NODES: usize = 5_000;
pub(crate) const DATASETS: usize = 100;
const FILES: usize = 100_000;
const HOLDERS: usize = NODES / 50;
const FILE_SIZE: u64 = 100_000;

/// A small generator of numbers that look random and are the same at every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

pub(crate) fn node_name(number: usize) -> String {
    format!("ip-10-{}-{}-{}.eu-central-1.compute.internal", number / 65_536, number / 256 % 256, number % 256)
}

/// The dataset `number`: a tenth of its files in each of ten directories.
fn manifest(number: usize) -> Manifest {
    let origin = ManifestOrigin {
        domain: AccessDomain::new("bench", None),
        uri: format!("s3://bucket/set-{number}"),
        key_prefix: format!("set-{number}/"),
        mount: String::new(),
    };
    let mut builder = ManifestBuilder::new(vec![origin]);
    for file in 0..FILES {
        builder.push(ListedObject {
            origin: 0,
            path: format!("part-{}/{file:06}.jpg", file % 10),
            size: FILE_SIZE,
            modified: 0,
            validator: Validator::HexETag((file as u128).to_le_bytes()),
            unlisted: false,
        });
    }
    builder.finish().expect("a listing of this size has few blocks").0
}

pub(crate) fn cluster(now: Millis) -> ClusterIndex {
    let mut index = ClusterIndex::new(Settings { silent_after_millis: u64::MAX, ..Settings::default() });
    let mut holdings: BTreeMap<usize, Vec<Holding>> = (0..NODES).map(|node| (node, Vec::new())).collect();
    let mut random = Random::new(1);
    for dataset in 0..DATASETS {
        let manifest = manifest(dataset);
        let hash = ManifestHash::of(&manifest.encode());
        let name = DatasetName::new("bench", format!("set-{dataset}"));
        let facts = DatasetFacts { manifest: Some(hash), ..DatasetFacts::default() };
        index.set_dataset(&name, facts);
        for _ in 0..HOLDERS {
            // Each file with the same chance, and another chance on every node.
            let chance = random.next();
            let blocks = (0..manifest.blocks()).filter(|_| random.next() < chance).collect();
            let holding = Holding { manifest: hash, dataset: name.to_string(), blocks: Blocks(blocks) };
            holdings.entry(random.below(NODES)).or_default().push(holding);
        }
        index.add_manifest(hash, Arc::new(manifest));
    }
    for (node, holdings) in holdings {
        let name = node_name(node);
        index.set_node(&name, NodeFacts { uid: name.clone(), schedulable: true, ..NodeFacts::default() });
        let report = Report {
            protocol: PROTOCOL,
            speaker: Speaker { node: name.clone(), node_uid: name, store: uuid::Uuid::nil(), boot: 1 },
            sequence: 0,
            inventory: Inventory::Snapshot(holdings),
            status: NodeStatus::default(),
            orders_seen: 0,
            hold_millis: 0,
        };
        assert_eq!(index.apply(now, report), Verdict::Applied);
    }
    index
}

/// The annotation of a pod: every other one asks for a glob.
pub(crate) fn asks(random: &mut Random) -> String {
    let dataset = random.below(DATASETS);
    match random.below(2) {
        0 => format!("set-{dataset}"),
        _ => format!("set-{dataset}/part-{}/**", random.below(10)),
    }
}

/// A call's body with a Pod of about 4 KiB, as a real one has after defaulting.
pub(crate) fn body(asks: &str, locality: &str, names: &[String]) -> Vec<u8> {
    let environment: Vec<_> = (0..40)
        .map(|n| serde_json::json!({"name": format!("VARIABLE_{n}"), "value": format!("the value of variable {n}")}))
        .collect();
    let pod = serde_json::json!({
        "metadata": {"name": "trainer-0", "namespace": "bench", "uid": "0b1e9d0e-1f0c-4a3c-8a53-5b1c9f1b2a10",
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "trainer", "job": "resnet"},
            "annotations": {"hearth.dev/datasets": asks, "hearth.dev/locality": locality, "hearth.dev/min-warm": "1%"}},
        "spec": {"volumes": [{"name": "data", "csi": {"driver": "hearth.dev", "readOnly": true,
                "volumeAttributes": {"dataset": asks.split('/').next()}}}],
            "containers": [{"name": "main", "image": "example/trainer:1", "env": environment,
                "resources": {"requests": {"cpu": "8", "memory": "64Gi", "hearth.dev/dataset": "0"}}}],
            "restartPolicy": "Never", "schedulerName": "default-scheduler"},
        "status": {"phase": "Pending"}
    });
    serde_json::to_vec(&serde_json::json!({"Pod": pod, "Nodes": null, "NodeNames": names}))
        .expect("plain data always serialises")
}
