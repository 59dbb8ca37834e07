//! Tells kube-scheduler when a pod that it gave up on is worth another try.
//!
//! kube-scheduler tries a pod that an extender's filter rejected again only on an
//! event of some object that it watches, and a cache that gets warm is none. A
//! CSIStorageCapacity is: any update of one moves all pods that an extender rejected
//! to the backoff queue (read in 1.36: the fake plugin `Extender` registers for every
//! event, without a hint function). Ours names a storage class that nobody has, lies
//! in our own namespace, and means nothing to anybody else.

use super::{Duties, FIELD_MANAGER};
use crate::answer::answer;
use crate::watch::WaitingPod;
use hearth_core::decide::{self, Now};
use hearth_core::index::ClusterIndex;
use hearth_core::pod::{Asked, Demand};
use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use kube::Api;
use kube::api::{Patch, PatchParams};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
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

/// Which nodes would take a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Takers {
    /// These; pods that ask for the same share one set.
    Nodes(Arc<HashSet<String>>),
    /// Any: the pod insists no more.
    Any,
}

impl Takers {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Nodes(nodes) if nodes.is_empty())
    }

    /// Whether there is one that was not there `before`.
    fn has_new(&self, before: &Self) -> bool {
        match (before, self) {
            (Self::Nodes(before), Self::Nodes(now)) => !Arc::ptr_eq(before, now) && !now.is_subset(before),
            (Self::Nodes(_), Self::Any) => true,
            (Self::Any, _) => false,
        }
    }
}

/// What decides which nodes take a pod that insists; many pods have it in common.
#[derive(PartialEq, Eq, Hash)]
struct Question<'a> {
    namespace: &'a str,
    asked: Vec<(&'a str, &'a str, &'a [String])>,
    min_warm_percent: u8,
    understood: bool,
}

impl<'a> Question<'a> {
    fn of(demand: &'a Demand) -> Self {
        let part =
            |asked: &'a Asked| (asked.namespace.as_str(), asked.dataset.as_str(), asked.selection.globs());
        Self {
            namespace: &demand.namespace,
            asked: demand.asked.iter().map(part).collect(),
            min_warm_percent: demand.min_warm_percent,
            understood: demand.problems.is_empty(),
        }
    }
}

/// What is remembered of a waiting pod.
#[derive(Clone, Debug)]
struct Memory {
    takers: Takers,
    next: Instant,
    pause: Duration,
}

/// Decides when to nudge.
#[derive(Debug, Default)]
struct Nudger {
    pods: HashMap<String, Memory>,
}

impl Nudger {
    /// Takes a look at the waiting pods, each with the nodes that would take it;
    /// whether kube-scheduler should be told.
    fn look(&mut self, now: Instant, pods: impl IntoIterator<Item = (String, Takers)>) -> bool {
        let mut before = std::mem::take(&mut self.pods);
        let mut nudge = false;
        for (uid, takers) in pods {
            let (next, pause) = match before.remove(&uid) {
                _ if takers.is_empty() => (now, AGAIN),
                // It could go somewhere from the start: the scheduler is probably at it.
                None => (now + AGAIN, AGAIN),
                // The nodes before may have no room for it: each new one is a new chance.
                Some(memory) if takers.has_new(&memory.takers) => {
                    nudge = true;
                    (now + AGAIN, AGAIN)
                }
                // The replica that the scheduler asks may have heard of it a moment too late.
                Some(memory) if now >= memory.next => {
                    nudge = true;
                    let pause = (memory.pause * 2).min(AGAIN_AT_MOST);
                    (now + pause, pause)
                }
                Some(memory) => (memory.next, memory.pause),
            };
            self.pods.insert(uid, Memory { takers, next, pause });
        }
        nudge
    }

    /// The pods were looked at, and the scheduler could not be told: all that could
    /// go somewhere are as good as not told.
    fn failed(&mut self, now: Instant) {
        for memory in self.pods.values_mut() {
            memory.next = memory.next.min(now + APART);
        }
    }
}

/// The live, schedulable nodes that would take a pod that insists.
fn takers(index: &ClusterIndex, now: Now, demand: &Demand) -> HashSet<String> {
    let weighing = index.weigh(now.monotonic, demand);
    decide::passing(index, now, demand, &weighing)
        .filter(|node| index.node_facts(node).is_some_and(|facts| facts.schedulable))
        .map(str::to_owned)
        .collect()
}

impl Duties {
    pub(super) async fn nudge(&self) {
        let api: Api<CSIStorageCapacity> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut nudger = Nudger::default();
        loop {
            let waiting = self.known.waiting();
            let pods = self.takers_of(&waiting).await;
            if nudger.look(Instant::now(), pods) {
                match answer(touch(&api)).await {
                    Ok(_) => {
                        self.state.metrics.nudges.inc();
                        tracing::debug!("kube-scheduler was told to try rejected pods again");
                    }
                    Err(answer) => {
                        nudger.failed(Instant::now());
                        tracing::warn!("kube-scheduler could not be told to try again: {answer}");
                    }
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

impl Duties {
    /// The nodes that would take each of the waiting pods. Pods of one owner ask for
    /// the same, and are weighed once.
    async fn takers_of(&self, waiting: &[(String, WaitingPod)]) -> Vec<(String, Takers)> {
        let now = self.state.now();
        let demands: Vec<Arc<Demand>> = waiting.iter().map(|(_, pod)| self.demand_of(pod)).collect();
        let mut weighed: HashMap<Question<'_>, Arc<HashSet<String>>> = HashMap::new();
        let mut pods = Vec::with_capacity(waiting.len());
        for ((uid, _), demand) in waiting.iter().zip(&demands) {
            if !demand.insists(now.unix_seconds) {
                pods.push((uid.clone(), Takers::Any));
                continue;
            }
            let question = Question::of(demand);
            let nodes = match weighed.get(&question) {
                Some(nodes) => nodes.clone(),
                None => {
                    // A refresh since the pod was seen makes all its files to be found anew.
                    self.state.prepare(demand);
                    let nodes = Arc::new(self.state.read(|index| takers(index, now, demand)));
                    weighed.insert(question, nodes.clone());
                    // Many different demands must not hold up what else this thread does.
                    tokio::task::yield_now().await;
                    nodes
                }
            };
            pods.push((uid.clone(), Takers::Nodes(nodes)));
        }
        pods
    }

    fn demand_of(&self, pod: &WaitingPod) -> Arc<Demand> {
        let anew = pod.claimant.as_ref().and_then(|facts| self.state.demand(facts));
        anew.map_or_else(|| pod.demand.clone(), Arc::new)
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

    fn pod(takers: &[&str]) -> [(String, Takers); 1] {
        let nodes = takers.iter().map(|node| (*node).to_owned()).collect();
        [("p".to_owned(), Takers::Nodes(Arc::new(nodes)))]
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_begins_to_pass_is_nudged_for_at_once_and_then_ever_more_rarely() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut nudger = Nudger::default();
        assert!(!nudger.look(at(0), pod(&[])));
        assert!(nudger.look(at(500), pod(&["a"])));
        assert!(!nudger.look(at(2_400), pod(&["a"])));
        assert!(nudger.look(at(2_500), pod(&["a"])));
        assert!(!nudger.look(at(6_400), pod(&["a"])));
        assert!(nudger.look(at(6_500), pod(&["a"])));
        assert!(!nudger.look(at(6_600), pod(&[])));
        assert!(nudger.look(at(6_700), pod(&["a"])));
        assert!(!nudger.look(at(6_800), []));
        assert!(nudger.pods.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_passes_from_the_start_is_left_to_the_scheduler_for_a_while() {
        let start = Instant::now();
        let mut nudger = Nudger::default();
        assert!(!nudger.look(start, pod(&["a"])));
        assert!(!nudger.look(start + Duration::from_millis(1_900), pod(&["a"])));
        assert!(nudger.look(start + AGAIN, pod(&["a"])));
    }

    #[tokio::test(start_paused = true)]
    async fn another_node_that_gets_warm_is_a_new_chance_and_one_that_goes_is_none() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut nudger = Nudger::default();
        assert!(!nudger.look(at(0), pod(&[])));
        assert!(nudger.look(at(100), pod(&["full"])));
        assert!(nudger.look(at(200), pod(&["full", "free"])));
        assert!(!nudger.look(at(300), pod(&["full"])));
        let insists_no_more = [("p".to_owned(), Takers::Any)];
        assert!(nudger.look(at(400), insists_no_more.clone()));
        assert!(!nudger.look(at(500), insists_no_more));
    }

    #[tokio::test(start_paused = true)]
    async fn a_nudge_that_failed_is_tried_again_soon() {
        let start = Instant::now();
        let mut nudger = Nudger::default();
        assert!(!nudger.look(start, pod(&[])));
        assert!(nudger.look(start, pod(&["a"])));
        nudger.failed(start);
        assert!(nudger.look(start + APART, pod(&["a"])));
    }
}
