//! Pods: the pending ones are prepared for, the bound ones become orders, and the
//! agents' own say who should report.

use super::follow::Follower;
use super::known::{Known, WaitingPod};
use crate::events::Recorder;
use crate::state::State;
use hearth_core::annotation::{self, Locality};
use hearth_core::pod::{
    Annotations, ClaimVolume, CsiVolume, Demand, Metadata, PodFacts, Spec, Volume, VolumeAttributes,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Label that the agents' pods have, and its value.
const AGENT_LABEL: (&str, &str) = ("app.kubernetes.io/name", "hearth-node-agent");

pub(super) struct Pods {
    namespace: String,
    state: Arc<State>,
    recorder: Recorder,
    known: Arc<Known>,
    /// Nodes of the agents' pods, by UID.
    agents: HashMap<String, String>,
    /// Nodes of the bound pods, by UID.
    bound: HashMap<String, String>,
}

impl Pods {
    pub(super) fn new(namespace: String, state: Arc<State>, recorder: Recorder, known: Arc<Known>) -> Self {
        Self { namespace, state, recorder, known, agents: HashMap::new(), bound: HashMap::new() }
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
        let Some(demand) = facts.demand() else { return };
        match node {
            Some(node) => self.bound(&facts, &uid, &node, demand),
            None => self.pending(&facts, &uid, demand),
        }
        self.count_waiting();
    }

    fn delete(&mut self, pod: Pod) {
        self.forget(&pod.uid().unwrap_or_default());
    }

    fn retain(&mut self, uids: &HashSet<String>) {
        let gone: Vec<String> =
            self.bound.keys().chain(self.agents.keys()).filter(|uid| !uids.contains(*uid)).cloned().collect();
        for uid in gone {
            self.forget(&uid);
        }
        self.known.retain_waiting(|uid| uids.contains(uid));
        self.count_waiting();
    }
}

impl Pods {
    fn pending(&self, facts: &PodFacts, uid: &str, demand: Demand) {
        // The scheduler's call will come in a moment and must not count then.
        self.state.write(|index| index.prepare(&demand));
        let waits = demand.locality != Locality::Preferred;
        let name = format!("{}/{}", facts.metadata.namespace, facts.metadata.name);
        self.known.set_waiting(uid, waits.then(|| WaitingPod { name, demand: Arc::new(demand) }));
    }

    fn bound(&mut self, facts: &PodFacts, uid: &str, node: &str, demand: Demand) {
        self.known.set_waiting(uid, None);
        if self.bound.insert(uid.to_owned(), node.to_owned()).is_some() {
            return;
        }
        if let Some(decision) = self.state.take_decision(uid) {
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

    fn note_agent(&mut self, pod: &Pod, uid: &str, node: Option<&str>) {
        let (label, value) = AGENT_LABEL;
        let ours = pod.namespace().as_deref() == Some(&self.namespace)
            && pod.labels().get(label).is_some_and(|found| found == value);
        let Some(node) = node.filter(|_| ours) else { return };
        if self.agents.insert(uid.to_owned(), node.to_owned()).is_none() {
            self.publish_agents();
        }
    }

    fn forget(&mut self, uid: &str) {
        self.known.set_waiting(uid, None);
        if self.agents.remove(uid).is_some() {
            self.publish_agents();
        }
        if let Some(node) = self.bound.remove(uid) {
            self.state.write(|index| index.unbind_pod(uid));
            self.state.wake(&node);
        }
        self.count_waiting();
    }

    fn publish_agents(&self) {
        self.state.set_agents(|agents| {
            agents.uids = self.agents.keys().cloned().collect();
            agents.nodes = self.agents.values().cloned().collect();
        });
    }

    fn count_waiting(&self) {
        let waiting = i64::try_from(self.known.waiting_count()).unwrap_or(i64::MAX);
        self.state.metrics.waiting_pods.set(waiting);
    }
}

/// The few fields that matter here.
fn facts_of(pod: &Pod) -> PodFacts {
    let annotation = |key: &str| pod.annotations().get(key).cloned();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).map(|volume| Volume {
        csi: volume.csi.as_ref().map(|csi| CsiVolume {
            driver: csi.driver.clone(),
            volume_attributes: csi.volume_attributes.as_ref().map(|attributes| VolumeAttributes {
                dataset: attributes.get("dataset").cloned(),
                path: attributes.get("path").cloned(),
                files: attributes.get("files").cloned(),
            }),
        }),
        persistent_volume_claim: volume
            .persistent_volume_claim
            .as_ref()
            .map(|claim| ClaimVolume { claim_name: claim.claim_name.clone() }),
    });
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
            }),
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

    #[test]
    fn a_watched_pod_and_a_sent_one_ask_for_the_same() {
        let json = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {"hearth.dev/datasets": "a/train/**", "hearth.dev/locality": "wait=1m", "other": "x"}},
            "spec": {"containers": [], "volumes": [
                {"name": "v", "csi": {"driver": "hearth.dev", "volumeAttributes": {"dataset": "b", "path": "x"}}},
                {"name": "w", "persistentVolumeClaim": {"claimName": "hearth-c"}}]}
        });
        let sent: PodFacts = serde_json::from_value(json.clone()).unwrap();
        let watched = facts_of(&serde_json::from_value::<Pod>(json).unwrap());
        assert_eq!(watched.demand(), sent.demand());
        assert_eq!(watched.demand().unwrap().asked.len(), 3);
        assert!(watched.demand().unwrap().gives_in_at().is_some());
    }
}
