//! Pods: the pending ones are prepared for, the bound ones become orders, those that start
//! have versions held, and the agents' own say who should report.

use super::follow::Follower;
use super::known::{Known, WaitingPod};
use super::pending::pending_of;
use crate::events::Recorder;
use crate::state::State;
use hearth_core::annotation::{self, Locality};
use hearth_core::decide::Decision;
use hearth_core::index::PendingPod;
use hearth_core::pod::{
    Annotations, ClaimVolume, CsiVolume, Demand, Labels, Metadata, OwnerReference, PodFacts, Spec, Volume,
};
use hearth_core::volume::VolumeAttributes;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::watch::Receiver;

/// Label that the agents' pods have, and its value.
const AGENT_LABEL: (&str, &str) = ("app.kubernetes.io/name", "hearth-node-agent");

/// Label that says which of its controller's templates a pod was made of.
const REVISION_LABEL: &str = "controller-revision-hash";

/// A pod that was bound longer ago is nothing new.
const FRESH_SECONDS: i64 = 10;

pub(super) struct Pods {
    namespace: String,
    state: Arc<State>,
    recorder: Recorder,
    known: Arc<Known>,
    leads: Receiver<bool>,
    /// Nodes of the agents' pods, by UID.
    agents: HashMap<String, String>,
    /// Nodes of the bound pods, by UID.
    bound: HashMap<String, String>,
    /// Those that do not run yet, by UID.
    pending: HashMap<String, PendingPod>,
}

impl Pods {
    pub(super) fn new(
        namespace: String,
        state: Arc<State>,
        recorder: Recorder,
        known: Arc<Known>,
        leads: Receiver<bool>,
    ) -> Self {
        let (agents, bound, pending) = Default::default();
        Self { namespace, state, recorder, known, leads, agents, bound, pending }
    }
}

impl Follower<Pod> for Pods {
    const KIND: &'static str = "Pod";

    fn apply(&mut self, pod: Pod) {
        let uid = pod.uid().unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            return self.forget(&uid);
        }
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty());
        self.note_agent(&pod, &uid, node.as_deref());
        let facts = facts_of(&pod);
        let Some(demand) = self.state.demand(&facts) else {
            // Annotations can be taken away again.
            self.forget_demand(&uid);
            return;
        };
        self.known.set_holding(&uid, &demand, holding_of(&pod, &demand));
        let pending = pending_of(&pod, &demand);
        match node {
            Some(node) => self.bound(&facts, &uid, &node, demand, is_fresh(&pod)),
            None => self.wait(&facts, &uid, demand),
        }
        self.set_pending(&uid, pending);
        self.count_waiting();
    }

    fn delete(&mut self, pod: Pod) {
        self.forget(&pod.uid().unwrap_or_default());
    }

    fn retain(&mut self, uids: &HashSet<String>) {
        let known = self.bound.keys().chain(self.agents.keys()).chain(self.pending.keys());
        let gone: Vec<String> = known.filter(|uid| !uids.contains(*uid)).cloned().collect();
        for uid in gone {
            self.forget(&uid);
        }
        self.known.retain_pods(|uid| uids.contains(uid));
        self.count_waiting();
    }
}

impl Pods {
    fn wait(&self, facts: &PodFacts, uid: &str, demand: Demand) {
        // The scheduler's call will come in a moment and must not count then.
        self.state.prepare(&demand);
        let waits = demand.locality != Locality::Preferred;
        let name = format!("{}/{}", facts.metadata.namespace, facts.metadata.name);
        let claimant = facts.claims().then(|| Arc::new(facts.clone()));
        self.known.set_waiting(uid, waits.then(|| WaitingPod { name, demand: Arc::new(demand), claimant }));
    }

    fn bound(&mut self, facts: &PodFacts, uid: &str, node: &str, demand: Demand, is_fresh: bool) {
        self.known.set_waiting(uid, None);
        let news = self.bound.insert(uid.to_owned(), node.to_owned()).is_none();
        let decision = news.then(|| self.state.take_decision(uid)).flatten();
        if news && is_fresh && decision.is_none() && *self.leads.borrow() {
            // Before the pod's own orders count for the node.
            self.state.prepare(&demand);
            let now = self.state.now().monotonic;
            let weighing = self.state.read(|index| index.weigh(now, &demand));
            let decision = Decision { demand: demand.clone(), weighing };
            self.recorder.placed_unasked(facts, &decision, node);
        }
        if let Some(decision) = decision {
            let metrics = &self.state.metrics;
            let requested = decision.weighing.requested;
            let held = decision.weighing.of(node).held.min(requested);
            metrics.requested_bytes.inc_by(requested);
            metrics.local_bytes.inc_by(held);
            if requested > 0 {
                metrics.bound_warmth.observe(held as f64 / requested as f64);
            }
            self.recorder.placed(facts, &decision, node);
        }
        self.state.write(|index| index.bind_pod(uid, node, demand));
        self.state.wake(node);
    }

    /// For the warm-ups that go where pods are pending.
    fn set_pending(&mut self, uid: &str, pod: Option<PendingPod>) {
        // Most changes of a pod are of something else: not a reason to hold up who reads the index.
        if self.pending.get(uid) == pod.as_ref() {
            return;
        }
        match &pod {
            Some(pod) => self.pending.insert(uid.to_owned(), pod.clone()),
            None => self.pending.remove(uid),
        };
        let nodes = self.state.write(|index| index.set_pending(uid, pod));
        nodes.iter().for_each(|node| self.state.wake(node));
    }

    fn note_agent(&mut self, pod: &Pod, uid: &str, node: Option<&str>) {
        let (label, value) = AGENT_LABEL;
        let ours = pod.namespace().as_deref() == Some(&self.namespace)
            && pod.labels().get(label).is_some_and(|found| found == value);
        let Some(node) = node.filter(|_| ours) else { return };
        if self.agents.insert(uid.to_owned(), node.to_owned()).is_none() {
            self.state.set_agents(|agents| {
                agents.uids.insert(uid.to_owned());
                agents.nodes.insert(node.to_owned());
            });
        }
    }

    fn forget(&mut self, uid: &str) {
        if let Some(node) = self.agents.remove(uid) {
            // While an agent is replaced there can be two on a node.
            let another = self.agents.values().any(|other| *other == node);
            self.state.set_agents(|agents| {
                agents.uids.remove(uid);
                if !another {
                    agents.nodes.remove(&node);
                }
            });
        }
        self.forget_demand(uid);
    }

    fn forget_demand(&mut self, uid: &str) {
        self.known.set_waiting(uid, None);
        self.known.unset_holding(uid);
        self.set_pending(uid, None);
        if let Some(node) = self.bound.remove(uid) {
            self.state.write(|index| index.unbind_pod(uid));
            self.state.wake(&node);
        }
        self.count_waiting();
    }

    fn count_waiting(&self) {
        let waiting = i64::try_from(self.known.waiting_count()).unwrap_or(i64::MAX);
        self.state.metrics.waiting_pods.set(waiting);
    }
}

/// Whether the pod has been put on its node just now, and not before this replica began to look.
fn is_fresh(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut scheduled = conditions.filter(|condition| condition.type_ == "PodScheduled");
    let since = scheduled.find_map(|condition| condition.last_transition_time.as_ref());
    since.is_some_and(|since| Timestamp::now().duration_since(since.0).as_secs() < FRESH_SECONDS)
}

/// Whether a pod that has not ended needs the versions held that it reads, and if so,
/// whether it has still to start.
fn holding_of(pod: &Pod, demand: &Demand) -> Option<bool> {
    let names = demand.pins.as_ref().is_ok_and(|pins| !pins.is_empty());
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let starts = matches!(phase, None | Some("Pending"));
    let holds = names || (demand.owner.is_some() && (starts || runs_to_completion(pod) || !is_ready(pod)));
    holds.then_some(starts)
}

/// Controllers of pods that run for ever allow no other policy than Always, and those of
/// pods that end do not allow that one.
fn runs_to_completion(pod: &Pod) -> bool {
    let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    matches!(policy, Some("OnFailure" | "Never"))
}

fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The few fields that matter here.
fn facts_of(pod: &Pod) -> PodFacts {
    let annotation = |key: &str| pod.annotations().get(key).cloned();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).map(|volume| Volume {
        csi: volume.csi.as_ref().map(|csi| CsiVolume {
            driver: csi.driver.clone(),
            volume_attributes: csi
                .volume_attributes
                .as_ref()
                .map(|attributes| VolumeAttributes::of(|name| attributes.get(name).cloned())),
        }),
        persistent_volume_claim: volume
            .persistent_volume_claim
            .as_ref()
            .map(|claim| ClaimVolume { claim_name: claim.claim_name.clone() }),
    });
    let owners = pod
        .owner_references()
        .iter()
        .map(|owner| OwnerReference { uid: owner.uid.clone(), controller: owner.controller });
    PodFacts {
        metadata: Metadata {
            name: pod.name_any(),
            namespace: pod.namespace().unwrap_or_default(),
            uid: pod.uid().unwrap_or_default(),
            creation_timestamp: pod.creation_timestamp().map(|time| time.0.to_string()),
            annotations: Some(Annotations {
                datasets: annotation(annotation::DATASETS),
                locality: annotation(annotation::LOCALITY),
                min_warm: annotation(annotation::MIN_WARM),
                version: annotation(annotation::VERSION),
            }),
            labels: Some(Labels { revision: pod.labels().get(REVISION_LABEL).cloned() }),
            owner_references: Some(owners.collect()),
        },
        spec: Spec {
            node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            volumes: Some(volumes.collect()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events;
    use crate::metrics::Metrics;
    use hearth_core::index::{DatasetFacts, DatasetName, NodeFacts, Settings};
    use hearth_core::manifest::ManifestHash;

    fn pods() -> Pods {
        let state = Arc::new(State::new(Settings::default(), Metrics::new().unwrap()));
        let (recorder, _) = events::channel(false, state.clone());
        let leads = tokio::sync::watch::channel(true).1;
        Pods::new("hearth-system".into(), state, recorder, Arc::default(), leads)
    }

    fn pod(uid: &str, change: &serde_json::Value) -> Pod {
        let mut json = serde_json::json!({
            "metadata": {"name": uid, "namespace": "n", "uid": uid, "annotations":
                {"hearth.dev/datasets": "d", "hearth.dev/locality": "required"}},
            "spec": {"containers": []}, "status": {"phase": "Pending"},
        });
        merge(&mut json, change);
        serde_json::from_value(json).unwrap()
    }

    fn merge(json: &mut serde_json::Value, change: &serde_json::Value) {
        match change.as_object() {
            Some(fields) => fields.iter().for_each(|(key, value)| merge(&mut json[key], value)),
            None => *json = change.clone(),
        }
    }

    fn wants_of(pods: &Pods, node: &str) -> usize {
        let name = DatasetName::new("n", "d");
        let facts = DatasetFacts { manifest: Some(ManifestHash([1; 32])), ..DatasetFacts::default() };
        pods.state.write(|index| {
            index.set_dataset(&name, facts);
            index.set_node(node, NodeFacts::default());
        });
        pods.state.orders(node).0.wants.len()
    }

    #[test]
    fn only_a_pod_that_was_bound_just_now_is_news() {
        let scheduled = |seconds_ago: i64| {
            let at = Timestamp::from_second(Timestamp::now().as_second() - seconds_ago).unwrap();
            let condition = serde_json::json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": at.to_string()});
            pod("p", &serde_json::json!({"status": {"conditions": [condition]}}))
        };
        assert!(is_fresh(&scheduled(1)));
        assert!(!is_fresh(&scheduled(60)) && !is_fresh(&pod("p", &serde_json::json!({}))));
    }

    #[test]
    fn a_pod_waits_is_bound_and_ends() {
        let mut pods = pods();
        let waiting = |pods: &Pods| pods.state.metrics.waiting_pods.get();
        pods.apply(pod("p", &serde_json::json!({})));
        pods.apply(pod(
            "patient",
            &serde_json::json!({"metadata": {"annotations": {"hearth.dev/locality": "preferred"}}}),
        ));
        assert_eq!(waiting(&pods), 1, "only a pod that insists waits for a warm node");
        pods.apply(pod("p", &serde_json::json!({"spec": {"nodeName": "a"}})));
        assert_eq!((waiting(&pods), wants_of(&pods, "a")), (0, 1));
        pods.apply(pod(
            "p",
            &serde_json::json!({"spec": {"nodeName": "a"}, "status": {"phase": "Succeeded"}}),
        ));
        assert_eq!(wants_of(&pods, "a"), 0);
    }

    #[test]
    fn pods_that_went_unseen_or_lost_their_annotations_want_nothing() {
        let mut pods = pods();
        for uid in ["p", "q"] {
            pods.apply(pod(uid, &serde_json::json!({"spec": {"nodeName": uid}})));
        }
        pods.apply(pod("r", &serde_json::json!({})));
        pods.retain(&HashSet::from(["q".to_owned()]));
        assert_eq!((wants_of(&pods, "p"), wants_of(&pods, "q")), (0, 1));
        assert!(pods.known.waiting().is_empty());
        pods.apply(pod(
            "q",
            &serde_json::json!({"spec": {"nodeName": "q"}, "metadata": {"annotations": null}}),
        ));
        assert_eq!(wants_of(&pods, "q"), 0);
    }

    #[test]
    fn agents_are_expected_on_their_nodes_until_the_last_of_a_node_is_gone() {
        let mut pods = pods();
        let agent = |uid: &str| {
            pod(
                uid,
                &serde_json::json!({"spec": {"nodeName": "a"}, "metadata": {"namespace": "hearth-system",
                "labels": {"app.kubernetes.io/name": "hearth-node-agent"}}}),
            )
        };
        let seen = |pods: &Pods| pods.state.agents(|agents| (agents.uids.len(), agents.nodes.len()));
        pods.apply(agent("old"));
        pods.apply(agent("new"));
        assert_eq!(seen(&pods), (2, 1));
        pods.delete(agent("old"));
        assert_eq!(seen(&pods), (1, 1));
        pods.delete(agent("new"));
        assert_eq!(seen(&pods), (0, 0));
        let elsewhere = serde_json::json!({"spec": {"nodeName": "a"},
            "metadata": {"labels": {"app.kubernetes.io/name": "hearth-node-agent"}}});
        pods.apply(pod("forged", &elsewhere));
        assert_eq!(seen(&pods), (0, 0), "a pod of another namespace is no agent");
    }

    #[test]
    fn versions_are_held_for_pods_that_start_and_for_all_of_a_job() {
        let mut pods = pods();
        let mut holding = |uid: &str, policy: &str, owned: bool, status: serde_json::Value| {
            let owners = owned.then(|| serde_json::json!([{"apiVersion": "v1", "kind": "K", "name": "o", "uid": "o", "controller": true}]));
            let change = serde_json::json!({"spec": {"restartPolicy": policy}, "status": status,
                "metadata": {"ownerReferences": owners}});
            pods.apply(pod(uid, &change));
            pods.known.holding().iter().map(|pod| pod.starts).collect::<Vec<_>>()
        };
        let ready =
            || serde_json::json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        let (pending, running) =
            (|| serde_json::json!({"phase": "Pending"}), || serde_json::json!({"phase": "Running"}));
        assert!(holding("alone", "Never", false, pending()).is_empty());
        assert_eq!(holding("server", "Always", true, pending()), [true]);
        assert_eq!(
            holding("server", "Always", true, running()),
            [false],
            "the next one comes when it is ready"
        );
        assert!(holding("server", "Always", true, ready()).is_empty());
        assert_eq!(holding("worker", "Never", true, ready()), [false]);
        assert!(holding("worker", "Never", true, serde_json::json!({"phase": "Succeeded"})).is_empty());
    }

    #[test]
    fn a_watched_pod_and_a_sent_one_ask_for_the_same() {
        let json = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {"hearth.dev/datasets": "a/train/**", "hearth.dev/locality": "wait=1m", "hearth.dev/version": format!("b={}", "01".repeat(32)), "other": "x"},
                "labels": {"controller-revision-hash": "r", "app": "x"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "s", "uid": "s", "controller": true}]},
            "spec": {"containers": [], "volumes": [
                {"name": "v", "csi": {"driver": "hearth.dev", "volumeAttributes": {"dataset": "b", "path": "x"}}},
                {"name": "w", "persistentVolumeClaim": {"claimName": "hearth-c"}}]}
        });
        let sent: PodFacts = serde_json::from_value(json.clone()).unwrap();
        let watched = facts_of(&serde_json::from_value::<Pod>(json).unwrap());
        let demand = |facts: &PodFacts| facts.demand(DatasetName::clone).unwrap();
        assert_eq!(demand(&watched), demand(&sent));
        assert_eq!(demand(&watched).asked.len(), 3);
        assert!(demand(&watched).gives_in_at().is_some());
        assert_eq!(demand(&watched).owner.as_deref(), Some("s/r"));
        assert_eq!(demand(&watched).pins.unwrap().len(), 1);
    }
}
