//! kube-scheduler's extender calls: its JSON read, and the replies written as it
//! reads them.
//!
//! The field names are Go's, without tags; nil is `null`. Names of nodes are
//! borrowed from the body: at 5,000 nodes copying them would cost more than the
//! decision.

use super::depth::{MAX_DEPTH, is_too_deep};
use crate::pod::PodFacts;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Why a body cannot be answered; the text is for the scheduler's log.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Not the JSON of such a call.
    #[error("the body is not kube-scheduler's {0}: {1}")]
    Malformed(&'static str, String),
    /// Full Node objects were sent.
    #[error(
        "the body has Nodes: set nodeCacheCapable to true for this extender in the KubeSchedulerConfiguration"
    )]
    NotCacheCapable,
    /// Nothing that a scheduler sends.
    #[error("the body nests deeper than {MAX_DEPTH} levels, which is more than is allowed")]
    TooDeep,
    /// No pod.
    #[error("the body has no Pod")]
    NoPod,
}

/// The body of a filter or prioritize call.
#[derive(Debug)]
pub struct Call<'a> {
    /// The pod to place.
    pub pod: PodFacts,
    /// The candidates.
    pub nodes: Vec<Name<'a>>,
}

/// The name of a node, borrowed from the body.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl Name<'_> {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ExtenderArgs<'a> {
    pod: Option<PodFacts>,
    #[serde(default)]
    nodes: Option<IgnoredAny>,
    #[serde(default, borrow)]
    node_names: Option<Vec<Name<'a>>>,
}

/// Reads the body of a filter or prioritize call.
pub fn parse_call(body: &[u8]) -> Result<Call<'_>, CallError> {
    if is_too_deep(body) {
        return Err(CallError::TooDeep);
    }
    let args: ExtenderArgs<'_> =
        sonic_rs::from_slice(body).map_err(|error| malformed("ExtenderArgs", &error))?;
    if args.nodes.is_some() {
        return Err(CallError::NotCacheCapable);
    }
    Ok(Call { pod: args.pod.ok_or(CallError::NoPod)?, nodes: args.node_names.unwrap_or_default() })
}

/// One sentence: the reader's own first line, without its drawing of the place.
fn malformed(what: &'static str, error: &dyn std::fmt::Display) -> CallError {
    let text = error.to_string();
    CallError::Malformed(what, text.lines().next().unwrap_or_default().to_owned())
}

/// The body of a preempt call.
#[derive(Debug)]
pub struct PreemptCall<'a> {
    /// The pod that would take the victims' place.
    pub pod: PodFacts,
    /// The victims by node, as they came.
    pub victims: BTreeMap<Cow<'a, str>, &'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ExtenderPreemptionArgs<'a> {
    pod: Option<PodFacts>,
    #[serde(default)]
    node_name_to_victims: Option<BTreeMap<String, IgnoredAny>>,
    #[serde(default, borrow)]
    node_name_to_meta_victims: Option<BTreeMap<Cow<'a, str>, &'a RawValue>>,
}

/// Reads the body of a preempt call.
pub fn parse_preempt(body: &[u8]) -> Result<PreemptCall<'_>, CallError> {
    let args: ExtenderPreemptionArgs<'_> =
        serde_json::from_slice(body).map_err(|error| malformed("ExtenderPreemptionArgs", &error))?;
    if args.node_name_to_victims.is_some_and(|victims| !victims.is_empty()) {
        return Err(CallError::NotCacheCapable);
    }
    Ok(PreemptCall {
        pod: args.pod.ok_or(CallError::NoPod)?,
        victims: args.node_name_to_meta_victims.unwrap_or_default(),
    })
}

/// Writes the reply to prioritize. Hosts left out score 0.
pub fn write_scores<'a>(scores: impl IntoIterator<Item = (&'a str, u8)>) -> Vec<u8> {
    let mut reply = vec![b'['];
    for (host, score) in scores {
        if reply.len() > 1 {
            reply.push(b',');
        }
        reply.extend_from_slice(b"{\"Host\":");
        push_string(&mut reply, host);
        // An integer without point or exponent: anything else loses the whole list, silently.
        reply.extend_from_slice(b",\"Score\":");
        reply.extend_from_slice(itoa::Buffer::new().format(score).as_bytes());
        reply.push(b'}');
    }
    reply.push(b']');
    reply
}

/// Writes the reply to filter: nodes that pass, and why the others do not.
///
/// All rejections are of the unresolvable kind: evicting pods makes no node
/// warm, and the other kind would invite kube-scheduler to try.
pub fn write_filter(passing: &[&str], rejected: &[(&str, &'static str)]) -> Vec<u8> {
    const AROUND: usize = 128;
    let names: usize = passing.iter().map(|node| node.len() + 3).sum();
    let reasons: usize = rejected.iter().map(|(node, why)| node.len() + why.len() + 6).sum();
    let mut reply = Vec::with_capacity(AROUND + names + reasons);
    reply.extend_from_slice(b"{\"Nodes\":null,\"NodeNames\":[");
    for (number, node) in passing.iter().enumerate() {
        if number > 0 {
            reply.push(b',');
        }
        push_string(&mut reply, node);
    }
    reply.extend_from_slice(b"],\"FailedNodes\":{},\"FailedAndUnresolvableNodes\":{");
    for (number, (node, why)) in rejected.iter().enumerate() {
        if number > 0 {
            reply.push(b',');
        }
        push_string(&mut reply, node);
        reply.push(b':');
        push_string(&mut reply, why);
    }
    reply.extend_from_slice(b"},\"Error\":\"\"}");
    reply
}

/// Writes the reply to preempt: the victims of the nodes that remain.
pub fn write_preempt<'a>(remaining: impl IntoIterator<Item = (&'a str, &'a RawValue)>) -> Vec<u8> {
    let mut reply = b"{\"NodeNameToMetaVictims\":{".to_vec();
    for (number, (node, victims)) in remaining.into_iter().enumerate() {
        if number > 0 {
            reply.push(b',');
        }
        push_string(&mut reply, node);
        reply.push(b':');
        reply.extend_from_slice(victims.get().as_bytes());
    }
    reply.extend_from_slice(b"}}");
    reply
}

fn push_string(reply: &mut Vec<u8>, text: &str) {
    // Nearly all names and reasons need no escape, and a look is cheaper than a
    // serialiser. Without an early exit the look takes many bytes at once.
    let needs_escape =
        text.bytes().fold(false, |needs, byte| needs | (byte < 0x20) | (byte == b'"') | (byte == b'\\'));
    if needs_escape {
        serde_json::to_writer(reply, text).expect("a string into memory always serialises");
    } else {
        reply.push(b'"');
        reply.extend_from_slice(text.as_bytes());
        reply.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::DatasetName;
    use proptest::prelude::*;

    #[test]
    fn bodies_as_go_writes_them() {
        let call = parse_call(br#"{"Pod":{"metadata":{"name":"p","annotations":null}},"Nodes":null,"NodeNames":["a","b\u0041"]}"#).unwrap();
        assert_eq!(call.nodes.iter().map(Name::as_str).collect::<Vec<_>>(), ["a", "bA"]);
        assert!(matches!(call.nodes[0].0, Cow::Borrowed(_)));
        assert!(parse_call(br#"{"Pod":{},"Nodes":null,"NodeNames":null}"#).unwrap().nodes.is_empty());
        assert!(matches!(
            parse_call(br#"{"Pod":{},"Nodes":{"items":[]},"NodeNames":null}"#),
            Err(CallError::NotCacheCapable)
        ));
        assert!(matches!(parse_call(br#"{"Pod":null,"Nodes":null,"NodeNames":[]}"#), Err(CallError::NoPod)));
        assert!(matches!(parse_call(b"{"), Err(CallError::Malformed(..))));
    }

    #[test]
    fn replies_as_go_reads_them() {
        assert_eq!(write_scores([]), b"[]");
        assert_eq!(
            write_scores([("a", 7), ("b\"", 10)]),
            br#"[{"Host":"a","Score":7},{"Host":"b\"","Score":10}]"#
        );
        assert_eq!(
            write_filter(&["a"], &[("b", "cold"), ("c", "cold")]),
            br#"{"Nodes":null,"NodeNames":["a"],"FailedNodes":{},"FailedAndUnresolvableNodes":{"b":"cold","c":"cold"},"Error":""}"#
        );
        let body = br#"{"Pod":{},"NodeNameToVictims":null,"NodeNameToMetaVictims":{"a":{"Pods":[{"UID":"u"}],"NumPDBViolations":0},"b":{}}}"#;
        let call = parse_preempt(body).unwrap();
        let remaining =
            call.victims.iter().filter(|(node, _)| *node == "a").map(|(node, victims)| (&**node, *victims));
        assert_eq!(
            write_preempt(remaining),
            br#"{"NodeNameToMetaVictims":{"a":{"Pods":[{"UID":"u"}],"NumPDBViolations":0}}}"#
        );
    }

    #[test]
    fn a_body_of_brackets_does_not_end_the_process() {
        for open in ["[", "{\"a\":"] {
            for place in
                [r#"{"Pod":{"spec":{"x":"#, r#"{"Pod":{},"X":"#, r#"{"Pod":{},"NodeNames":[],"Nodes":"#]
            {
                let body = format!("{place}{}", open.repeat(100_000));
                assert!(matches!(parse_call(body.as_bytes()), Err(CallError::TooDeep)));
                assert!(parse_preempt(body.as_bytes()).is_err());
            }
        }
        // Below what is counted exactly, and above what others read.
        let body = format!(r#"{{"Pod":{{}},"X":{}{}}}"#, "[".repeat(900), "]".repeat(900));
        let _ = parse_call(body.as_bytes());
    }

    /// A valid body of each kind, to be spoilt.
    fn bodies() -> [String; 2] {
        let pod = serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {"hearth.dev/datasets": "d/**,e", "hearth.dev/locality": "wait=9s", "other": "x"}},
            "spec": {"nodeName": "", "volumes": [
                {"name": "v", "csi": {"driver": "hearth.dev", "volumeAttributes": {"dataset": "d", "path": "a"}}},
                {"name": "w", "persistentVolumeClaim": {"claimName": "hearth-d"}}]},
            "status": {"conditions": [{"type": "x", "n": [1, 2.5, null, true]}]},
        });
        [
            serde_json::json!({"Pod": pod, "Nodes": null, "NodeNames": ["a", "b\"\u{1F600}"]}).to_string(),
            serde_json::json!({"Pod": pod, "NodeNameToVictims": null,
                "NodeNameToMetaVictims": {"a": {"Pods": [{"UID": "u"}], "NumPDBViolations": 0}}})
            .to_string(),
        ]
    }

    proptest! {
        #[test]
        fn a_spoilt_body_is_read_or_refused_in_one_sentence(
            spoils in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..6, any::<u8>()), 1..4),
        ) {
            const TOKENS: [&[u8]; 10] =
                [b"null", b"1e999", b"\"\"", b"[", b"{", b"}", b"\"\\ud800\"", b"-", b"[[[[[[[[", b"true"];
            for body in bodies() {
                let mut body = body.into_bytes();
                for (at, to, how, byte) in &spoils {
                    if body.is_empty() {
                        break;
                    }
                    let (at, to) = (at.index(body.len()), to.index(body.len()));
                    let token = TOKENS[usize::from(*byte) % TOKENS.len()];
                    match how {
                        0 => body.truncate(at),
                        1 => body[at] = *byte,
                        2 => drop(body.drain(at.min(to)..at.max(to))),
                        3 => drop(body.splice(at..at, token.iter().copied()).collect::<Vec<_>>()),
                        // A value gives way to one of another type.
                        4 => {
                            let end = body[at..].iter().position(|b| matches!(b, b',' | b'}' | b']')).map_or(body.len(), |n| at + n);
                            drop(body.splice(at..end, token.iter().copied()).collect::<Vec<_>>());
                        }
                        _ => {
                            let copy = body[at.min(to)..at.max(to)].to_vec();
                            drop(body.splice(at..at, copy).collect::<Vec<_>>());
                        }
                    }
                }
                let outcomes = [
                    parse_call(&body).map(|call| drop(call.pod.demand(DatasetName::clone))),
                    parse_preempt(&body).map(|call| drop(call.pod.demand(DatasetName::clone))),
                ];
                for error in outcomes.into_iter().filter_map(Result::err) {
                    prop_assert_eq!(error.to_string().lines().count(), 1, "{}", error);
                }
            }
        }

        #[test]
        fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[{}\\[\\]\":,a-zNP]{0,100}") {
            for body in [bytes.as_slice(), text.as_bytes()] {
                let _ = parse_call(body);
                let _ = parse_preempt(body);
            }
        }

        #[test]
        fn every_name_survives_the_way_back(names in prop::collection::vec("\\PC{0,12}|[\"\\\\\n\u{0}]{1,4}", 0..8)) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let rejected: Vec<_> = names.iter().map(|name| (*name, "why")).collect();
            let reply = write_filter(&names, &rejected);
            let read: serde_json::Value = serde_json::from_slice(&reply).unwrap();
            prop_assert_eq!(&read["NodeNames"], &serde_json::json!(names));
            let scores: Vec<serde_json::Value> = serde_json::from_slice(&write_scores(names.iter().map(|name| (*name, 3)))).unwrap();
            prop_assert_eq!(scores.len(), names.len());
            prop_assert!(scores.iter().all(|score| score["Score"].is_u64()));
        }
    }
}
