//! Nodes: labels that selectors choose by, and whether pods may go there.

use super::follow::Follower;
use crate::state::State;
use hearth_core::index::NodeFacts;
use hearth_core::node_rules;
use k8s_openapi::api::core::v1::{Node, Taint};
use kube::ResourceExt;
use std::collections::HashSet;
use std::sync::Arc;

/// Marks of control planes: pods that read data do not run there, nor do agents.
const CONTROL_PLANE_TAINTS: [&str; 2] =
    ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

/// Marks of nodes that are lost: what is on them is not to be had.
const LOST_TAINTS: [&str; 2] = ["node.kubernetes.io/unreachable", "node.kubernetes.io/out-of-service"];

pub(super) struct Nodes {
    state: Arc<State>,
}

impl Nodes {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    fn remove(&self, name: &str) {
        self.state.write(|index| index.remove_node(name));
        self.state.forget_node(name);
        self.state.wake_all();
    }
}

impl Follower<Node> for Nodes {
    const KIND: &'static str = "Node";

    fn apply(&mut self, node: Node) {
        let name = node.name_any();
        let facts = facts_of(node);
        // Kubelet's heartbeats change nothing here.
        if self.state.read(|index| index.node_facts(&name) != Some(&facts)) {
            self.state.write(|index| index.set_node(&name, facts));
            self.state.wake_all();
        }
    }

    fn delete(&mut self, node: Node) {
        self.remove(&node.name_any());
    }

    fn retain(&mut self, uids: &HashSet<String>) {
        let gone: Vec<String> = self.state.read(|index| {
            // Nodes that so far only their agents speak of are not the API server's to take away.
            let told = index.nodes().filter_map(|(name, facts)| Some((name, facts?)));
            told.filter(|(_, facts)| !uids.contains(&facts.uid)).map(|(name, _)| name.to_owned()).collect()
        });
        for name in gone {
            self.remove(&name);
        }
    }
}

fn facts_of(node: Node) -> NodeFacts {
    let spec = node.spec.unwrap_or_default();
    let closed = spec.taints.iter().flatten().any(|taint| {
        let key = taint.key.as_str();
        (CONTROL_PLANE_TAINTS.contains(&key) || LOST_TAINTS.contains(&key))
            && taint.effect != "PreferNoSchedule"
    });
    let taint = |taint: Taint| node_rules::Taint {
        key: taint.key,
        value: taint.value.unwrap_or_default(),
        effect: taint.effect,
    };
    NodeFacts {
        uid: node.metadata.uid.unwrap_or_default(),
        labels: node.metadata.labels.unwrap_or_default(),
        schedulable: !closed && !spec.unschedulable.unwrap_or(false),
        taints: spec.taints.unwrap_or_default().into_iter().map(taint).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use hearth_core::index::Settings;

    fn node(name: &str, spec: &serde_json::Value) -> Node {
        let metadata =
            serde_json::json!({"name": name, "uid": format!("uid-{name}"), "labels": {"gpu": "yes"}});
        serde_json::from_value(serde_json::json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    #[test]
    fn cordoned_and_lost_nodes_and_control_planes_take_no_data_and_tainted_workers_do() {
        let taint = |key: &str| serde_json::json!({"taints": [{"key": key, "effect": "NoSchedule"}]});
        for (spec, schedulable) in [
            (serde_json::json!({}), true),
            (serde_json::json!({"unschedulable": true}), false),
            (taint("node-role.kubernetes.io/control-plane"), false),
            (taint("node.kubernetes.io/unreachable"), false),
            (taint("node.kubernetes.io/not-ready"), true),
            (taint("nvidia.com/gpu"), true),
        ] {
            assert_eq!(facts_of(node("n", &spec)).schedulable, schedulable, "{spec}");
        }
    }

    #[test]
    fn nodes_come_and_go() {
        let state = Arc::new(State::new(Settings::default(), Metrics::new().unwrap()));
        let mut nodes = Nodes::new(state.clone());
        let known = || {
            let mut names: Vec<String> =
                state.read(|index| index.nodes().map(|(name, _)| name.to_owned()).collect());
            names.sort();
            names.join(" ")
        };
        for name in ["a", "b", "c"] {
            nodes.apply(node(name, &serde_json::json!({})));
        }
        assert_eq!(known(), "a b c");
        nodes.delete(node("a", &serde_json::json!({})));
        nodes.retain(&HashSet::from(["uid-b".to_owned()]));
        assert_eq!(known(), "b");
    }
}
