//! What kube-scheduler is answered.

use super::*;

#[test]
fn a_decision_knows_only_nodes_that_could_be_chosen() {
    let (mut index, hash, manifest) = cluster(&["chosen", "full", "other"]);
    let all: Vec<u32> = (0..manifest.blocks()).collect();
    for node in ["chosen", "full"] {
        index.apply(Millis(0), snapshot(node, &[(hash, &all)]));
    }
    index.apply(Millis(0), snapshot("other", &[(hash, &[0])]));
    let body = br#"{"Pod":{"metadata":{"namespace":"ns","annotations":{"hearth.dev/datasets":"set"}}},
        "Nodes":null,"NodeNames":["chosen","other"]}"#;
    let call = parse_call(body).unwrap();
    let now = Now { monotonic: Millis(0), unix_seconds: 0 };
    let decision =
        decide::prioritize(&index, now, &call, call.pod.demand(DatasetName::clone)).decision.unwrap();
    assert!(crate::explain::placed(&decision, "chosen").contains("runner-up other"));
}

#[test]
fn replies_are_sparse_and_rejections_constant() {
    let (mut index, hash, manifest) = cluster(&["cold", "half", "silent", "warm"]);
    let all: Vec<u32> = (0..manifest.blocks()).collect();
    index.apply(Millis(0), snapshot("silent", &[(hash, &all)]));
    index.apply(Millis(10_000), snapshot("warm", &[(hash, &all)]));
    index.apply(Millis(10_000), snapshot("half", &[(hash, &all[..4])]));
    index.apply(Millis(10_000), snapshot("cold", &[]));
    let body = br#"{"Pod":{"metadata":{"namespace":"ns","annotations":{"hearth.dev/datasets":"set",
        "hearth.dev/locality":"required","hearth.dev/min-warm":"60%"}}},"Nodes":null,
        "NodeNames":["cold","half","silent","unheard","warm"]}"#;
    let call = parse_call(body).unwrap();
    let now = Now { monotonic: Millis(10_000), unix_seconds: 0 };
    let scores = decide::prioritize(&index, now, &call, call.pod.demand(DatasetName::clone));
    assert_eq!(
        String::from_utf8(scores.reply).unwrap(),
        r#"[{"Host":"half","Score":5},{"Host":"warm","Score":10}]"#
    );
    let filtered = decide::filter(&index, now, &call, call.pod.demand(DatasetName::clone));
    let reply: serde_json::Value = serde_json::from_slice(&filtered.reply).unwrap();
    assert_eq!(reply["NodeNames"], serde_json::json!(["warm"]));
    assert_eq!(
        reply["FailedAndUnresolvableNodes"],
        serde_json::json!({"cold": decide::REASON_COLD, "half": decide::REASON_COLD,
            "silent": decide::REASON_SILENT, "unheard": decide::REASON_SILENT})
    );
}

#[test]
fn preemption_keeps_only_nodes_that_filter_would_take() {
    let (mut index, hash, manifest) = cluster(&["cold", "warm"]);
    let all: Vec<u32> = (0..manifest.blocks()).collect();
    index.apply(Millis(0), snapshot("warm", &[(hash, &all)]));
    index.apply(Millis(0), snapshot("cold", &[]));
    let preempt = |index: &ClusterIndex, locality: &str| {
        let body = serde_json::json!({
            "Pod": {"metadata": {"namespace": "ns", "annotations": {"hearth.dev/datasets": "set", "hearth.dev/locality": locality}}},
            "NodeNameToVictims": null,
            "NodeNameToMetaVictims": {
                "cold": {"Pods": [{"UID": "a"}], "NumPDBViolations": 0},
                "silent": {"Pods": [{"UID": "b"}], "NumPDBViolations": 0},
                "warm": {"Pods": [{"UID": "c"}], "NumPDBViolations": 1}},
        });
        let body = serde_json::to_vec(&body).unwrap();
        let call = parse_preempt(&body).unwrap();
        let now = Now { monotonic: Millis(0), unix_seconds: 0 };
        let reply = decide::preempt(index, now, &call, call.pod.demand(DatasetName::clone)).reply;
        serde_json::from_slice::<serde_json::Value>(&reply).unwrap()["NodeNameToMetaVictims"].clone()
    };
    assert_eq!(
        preempt(&index, "required"),
        serde_json::json!({"warm": {"Pods": [{"UID": "c"}], "NumPDBViolations": 1}})
    );
    assert_eq!(preempt(&index, "preferred").as_object().map(serde_json::Map::len), Some(3));
}

#[test]
fn all_equally_warm_is_silence() {
    let (mut index, hash, _) = cluster(&["a", "b"]);
    index.apply(Millis(0), snapshot("a", &[(hash, &[0, 1])]));
    index.apply(Millis(0), snapshot("b", &[(hash, &[0, 1])]));
    let body = br#"{"Pod":{"metadata":{"namespace":"ns","annotations":{"hearth.dev/datasets":"set"}}},"Nodes":null,"NodeNames":["a","b"]}"#;
    let call = parse_call(body).unwrap();
    let now = Now { monotonic: Millis(0), unix_seconds: 0 };
    assert_eq!(decide::prioritize(&index, now, &call, call.pod.demand(DatasetName::clone)).reply, b"[]");
}

#[test]
fn what_is_only_shown_counts_nothing_and_is_as_warm_everywhere() {
    let (mut index, ..) = cluster(&["a"]);
    let mut builder =
        ManifestBuilder::new(vec![ManifestOrigin::whole(AccessDomain::new("ns", None), "s3://b")]);
    for (path, unlisted) in [("a/0", true), ("train/0", false), ("val/0", true)] {
        builder.push(ListedObject {
            origin: 0,
            path: path.to_owned(),
            size: 5,
            modified: 0,
            validator: Validator::etag("1"),
            unlisted,
        });
    }
    let manifest = Arc::new(builder.finish().unwrap().0);
    let hash = ManifestHash::of(&manifest.encode());
    index.set_dataset(&name(), dataset(hash));
    index.add_manifest(hash, manifest);
    index.apply(Millis(0), snapshot("a", &[(hash, &[0])]));
    let all = index.weigh(Millis(0), &demand(&[]));
    assert_eq!((all.requested, all.of("a").held), (5, 5));
    let warmth = index.dataset_warmth(Millis(0), &name()).unwrap();
    assert_eq!((warmth.bytes, warmth.whole), (5, 1));
    let shown = index.weigh(Millis(0), &demand(&["val"]));
    assert_eq!((shown.requested, shown.problems), (0, vec![]));
    assert_eq!(index.weigh(Millis(0), &demand(&["none"])).problems.len(), 1);
}
