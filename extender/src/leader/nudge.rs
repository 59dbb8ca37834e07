//! Tells kube-scheduler when a pod that it gave up on is worth another try.
//!
//! kube-scheduler tries a pod that an extender's filter rejected again only on an
//! event of some object that it watches, and a cache that gets warm is none. A
//! CSIStorageCapacity is: any update of one moves all pods that an extender rejected
//! to the backoff queue (read in 1.36: the fake plugin `Extender` registers for every
//! event, without a hint function). Ours names a storage class that nobody has, lies
//! in our own namespace, and means nothing to anybody else.

use super::{Duties, FIELD_MANAGER, WRITE};
use hearth_core::decide::{self, Now};
use hearth_core::index::ClusterIndex;
use hearth_core::pod::Demand;
use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use kube::Api;
use kube::api::{Patch, PatchParams};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Name of the object, and of the storage class that it names.
const NAME: &str = "hearth-warmth";
/// Annotation that changes with every nudge.
const ANNOTATION: &str = "hearth.dev/nudged-at";
/// Changes of the index within so long are looked at together.
const COALESCE: Duration = Duration::from_millis(250);
/// Looked at even without a change: a `wait` that ends is none.
const AT_LEAST_EVERY: Duration = Duration::from_secs(1);
/// Nudges are at least so far apart.
const APART: Duration = Duration::from_secs(1);
/// A pod that could go somewhere and does not is nudged again after so long, doubling.
const AGAIN: Duration = Duration::from_secs(2);
/// Longest pause between nudges for one pod.
const AGAIN_AT_MOST: Duration = Duration::from_secs(30);

/// What is remembered of a waiting pod.
#[derive(Clone, Copy, Debug)]
struct Memory {
    passed: bool,
    next: Instant,
    pause: Duration,
}

/// Decides when to nudge.
#[derive(Debug, Default)]
struct Nudger {
    pods: HashMap<String, Memory>,
}

impl Nudger {
    /// Takes a look at the waiting pods, each with whether some node would take it;
    /// whether kube-scheduler should be told.
    fn look(&mut self, now: Instant, pods: impl IntoIterator<Item = (String, bool)>) -> bool {
        let mut before = std::mem::take(&mut self.pods);
        let mut nudge = false;
        for (uid, passes) in pods {
            let memory = match (before.remove(&uid), passes) {
                (_, false) => Memory { passed: false, next: now, pause: AGAIN },
                // It could go somewhere from the start: the scheduler is probably at it.
                (None, true) => Memory { passed: true, next: now + AGAIN, pause: AGAIN },
                (Some(memory), true) if !memory.passed || now >= memory.next => {
                    nudge = true;
                    let pause = if memory.passed { (memory.pause * 2).min(AGAIN_AT_MOST) } else { AGAIN };
                    Memory { passed: true, next: now + pause, pause }
                }
                (Some(memory), true) => memory,
            };
            self.pods.insert(uid, memory);
        }
        nudge
    }
}

/// Whether some live node would take a pod with this demand.
fn passes_somewhere(index: &ClusterIndex, now: Now, demand: &Demand) -> bool {
    if !demand.insists(now.unix_seconds) {
        return true;
    }
    let weighing = index.weigh(now.monotonic, demand);
    let schedulable = |node: &str| index.node_facts(node).is_some_and(|facts| facts.schedulable);
    let takes =
        |node: &str| schedulable(node) && decide::rejection(index, now, demand, &weighing, node).is_none();
    match weighing.requested {
        0 => index.live_nodes(now.monotonic).any(takes),
        _ => weighing.nodes.iter().any(|node| takes(&node.node)),
    }
}

impl Duties {
    pub(super) async fn nudge(&self) {
        let api: Api<CSIStorageCapacity> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut nudger = Nudger::default();
        loop {
            let now = self.state.now();
            let waiting = self.known.waiting();
            let pods = waiting.into_iter().map(|(uid, pod)| {
                let passes = self.state.read(|index| passes_somewhere(index, now, &pod.demand));
                (uid, passes)
            });
            if nudger.look(Instant::now(), pods) {
                match tokio::time::timeout(WRITE, touch(&api)).await {
                    Ok(Ok(_)) => {
                        self.state.metrics.nudges.inc();
                        tracing::debug!("kube-scheduler was told to try rejected pods again");
                    }
                    Ok(Err(error)) => {
                        tracing::warn!("kube-scheduler could not be told to try again: {error}")
                    }
                    Err(_) => tracing::warn!("kube-scheduler could not be told to try again in time"),
                }
                tokio::time::sleep(APART).await;
            }
            let changed = async {
                self.state.changed().await;
                tokio::time::sleep(COALESCE).await;
            };
            // A timeout is as good a reason to look.
            let _ = tokio::time::timeout(AT_LEAST_EVERY, changed).await;
        }
    }
}

async fn touch(api: &Api<CSIStorageCapacity>) -> kube::Result<CSIStorageCapacity> {
    let object = serde_json::json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSIStorageCapacity",
        "metadata": {
            "name": NAME,
            "annotations": {ANNOTATION: k8s_openapi::jiff::Timestamp::now().to_string()},
        },
        "storageClassName": NAME,
        "capacity": "0",
    });
    api.patch(NAME, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&object)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_begins_to_pass_is_nudged_for_at_once_and_then_ever_more_rarely() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut nudger = Nudger::default();
        let pod = |passes| [("p".to_owned(), passes)];
        assert!(!nudger.look(at(0), pod(false)));
        assert!(nudger.look(at(500), pod(true)));
        assert!(!nudger.look(at(2_400), pod(true)));
        assert!(nudger.look(at(2_500), pod(true)));
        assert!(!nudger.look(at(6_400), pod(true)));
        assert!(nudger.look(at(6_500), pod(true)));
        assert!(!nudger.look(at(6_600), pod(false)));
        assert!(nudger.look(at(6_700), pod(true)));
        assert!(!nudger.look(at(6_800), []));
        assert!(nudger.pods.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_passes_from_the_start_is_left_to_the_scheduler_for_a_while() {
        let start = Instant::now();
        let mut nudger = Nudger::default();
        assert!(!nudger.look(start, [("p".to_owned(), true)]));
        assert!(!nudger.look(start + Duration::from_millis(1_900), [("p".to_owned(), true)]));
        assert!(nudger.look(start + AGAIN, [("p".to_owned(), true)]));
    }
}
