//! Pods that do not run yet: where they are or may come to be.

use hearth_core::index::{PendingPod, Place};
use hearth_core::node_rules::{self, NodeRules, Rule, Term};
use hearth_core::pod::{Asked, Demand};
use k8s_openapi::api::core::v1::{
    NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, PodStatus, Toleration,
};

/// Where a pod that wants datasets is pending; `None` when it runs.
pub(super) fn pending_of(pod: &Pod, demand: &Demand) -> Option<PendingPod> {
    let status = pod.status.as_ref();
    if !matches!(status.and_then(|status| status.phase.as_deref()), None | Some("Pending")) {
        return None;
    }
    Some(PendingPod {
        namespace: demand.namespace.clone(),
        datasets: demand.asked.iter().map(Asked::name).collect(),
        place: place_of(pod.spec.as_ref()?, status),
    })
}

fn place_of(spec: &PodSpec, status: Option<&PodStatus>) -> Place {
    let bound = spec.node_name.as_ref();
    let nominated = status.and_then(|status| status.nominated_node_name.as_ref());
    if let Some(node) = bound.into_iter().chain(nominated).find(|node| !node.is_empty()) {
        return Place::Node(node.clone());
    }
    let rules = rules_of(spec);
    match rules.only_node() {
        // Each pod of a DaemonSet has rules of its own: a name is looked up sooner.
        Some(node) => Place::Node(node.to_owned()),
        None => Place::Admitted(rules),
    }
}

fn rules_of(spec: &PodSpec) -> NodeRules {
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required =
        affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    NodeRules {
        labels: spec.node_selector.clone().unwrap_or_default(),
        terms: required.map(|required| required.node_selector_terms.iter().map(term_of).collect()),
        tolerations: spec.tolerations.iter().flatten().map(toleration_of).collect(),
    }
}

fn term_of(term: &NodeSelectorTerm) -> Term {
    Term {
        labels: term.match_expressions.iter().flatten().map(rule_of).collect(),
        fields: term.match_fields.iter().flatten().map(rule_of).collect(),
    }
}

fn rule_of(rule: &NodeSelectorRequirement) -> Rule {
    Rule {
        key: rule.key.clone(),
        operator: rule.operator.clone(),
        values: rule.values.clone().unwrap_or_default(),
    }
}

fn toleration_of(toleration: &Toleration) -> node_rules::Toleration {
    node_rules::Toleration {
        key: toleration.key.clone().unwrap_or_default(),
        operator: toleration.operator.clone().unwrap_or_default(),
        value: toleration.value.clone().unwrap_or_default(),
        effect: toleration.effect.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::index::DatasetName;
    use hearth_core::pod::PodFacts;
    use serde_json::{Value, json};

    fn place(spec: &Value, status: &Value) -> Option<Place> {
        let facts = json!({"metadata": {"namespace": "n", "annotations": {"hearth.dev/datasets": "d,m:e"}}});
        let facts: PodFacts = serde_json::from_value(facts).unwrap();
        let demand = facts.demand(DatasetName::clone).unwrap();
        let pod = json!({"metadata": {}, "spec": spec, "status": status});
        let pending = pending_of(&serde_json::from_value(pod).unwrap(), &demand)?;
        assert_eq!(pending.namespace, "n");
        assert!(pending.datasets.into_iter().eq([DatasetName::new("m", "e"), DatasetName::new("n", "d")]));
        Some(pending.place)
    }

    #[test]
    fn a_pod_is_where_it_is_bound_to_or_nominated_for() {
        let node = |name: &str| Some(Place::Node(name.to_owned()));
        let pending = json!({"phase": "Pending"});
        assert_eq!(place(&json!({"containers": [], "nodeName": "a"}), &pending), node("a"));
        assert_eq!(place(&json!({"containers": [], "nodeName": "a"}), &json!({"phase": "Running"})), None);
        let nominated = json!({"phase": "Pending", "nominatedNodeName": "b"});
        assert_eq!(place(&json!({"containers": [], "nodeName": ""}), &nominated), node("b"));
        let fields = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["c"]}]}]);
        let required =
            json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": fields}});
        assert_eq!(
            place(&json!({"containers": [], "affinity": {"nodeAffinity": required}}), &pending),
            node("c")
        );
    }

    #[test]
    fn a_pod_without_a_node_may_come_where_its_rules_admit_it() {
        let anywhere = place(&json!({"containers": []}), &json!({}));
        assert_eq!(anywhere, Some(Place::Admitted(NodeRules::default())));
        let terms = json!([{"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}]);
        let required =
            json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
        let place = place(
            &json!({"containers": [], "nodeSelector": {"zone": "x"}, "affinity": {"nodeAffinity": required},
                "tolerations": [{"key": "gpu", "operator": "Exists"}]}),
            &json!({"phase": "Pending"}),
        );
        let Some(Place::Admitted(rules)) = place else { panic!("{place:?}") };
        let labels = |pairs: &[&str]| pairs.iter().map(|key| ((*key).to_owned(), "x".to_owned())).collect();
        let taint = |key: &str| node_rules::Taint {
            key: key.into(),
            effect: "NoSchedule".into(),
            ..node_rules::Taint::default()
        };
        assert!(rules.admit("n", &labels(&["zone", "gpu"]), &[taint("gpu")]));
        assert!(!rules.admit("n", &labels(&["zone"]), &[]) && !rules.admit("n", &labels(&["gpu"]), &[]));
        assert!(!rules.admit("n", &labels(&["zone", "gpu"]), &[taint("other")]));
    }
}
