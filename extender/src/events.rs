//! Events: on pods, why one went where it went and what is wrong with what it asks; on
//! Datasets, what is wrong with their claims.

use crate::http::scheduler::Warnings;
use crate::state::State;
use backon::{ExponentialBuilder, Retryable};
use futures::StreamExt;
use hearth_api::Dataset;
use hearth_core::decide::Decision;
use hearth_core::explain;
use hearth_core::index::DatasetName;
use hearth_core::pod::PodFacts;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Resource};
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::time::DelayQueue;

/// Events that wait to be written; further ones are dropped and counted.
const QUEUE: usize = 1_024;
/// Warnings that are remembered, so that each is written once.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
/// Longest time that one Event may take.
const WRITE: Duration = Duration::from_secs(5);
/// How often a write is tried again, with growing pauses.
const RETRIES: usize = 3;
/// Longest text of an Event that the API server takes, bytes.
const MAX_NOTE: usize = 1_024;
/// Longest name of an instance that it takes, bytes.
const MAX_INSTANCE: usize = 128;
/// Most warnings that one call may give a pod: an annotation can be wrong in many places.
const MAX_WARNINGS: usize = 8;
/// So long the replica that leads waits for another to tell why a pod was placed, before
/// it tells what it knows itself.
const OTHERS: Duration = Duration::from_secs(2);
/// Who writes the Events.
const CONTROLLER: &str = "hearth-extender";

/// Reason of the Event on a placed pod.
pub const PLACED: &str = "PlacedByWarmth";
/// Reason of the Event on a pod whose datasets cannot be found or understood.
pub const PROBLEM: &str = "DatasetProblem";
/// Reason of the Event on a Dataset that has not all the claims that it should.
pub const CLAIM: &str = "ClaimProblem";
/// Reason of the Event on a Dataset that was deleted while nodes had not let go of it.
pub const LEFT: &str = "CachedDataLeft";
/// Reason of the Event on a Dataset that was deleted while pods read it.
pub const READ: &str = "StillRead";

struct Written {
    /// Not to be written before so much time has passed.
    after: Duration,
    reason: &'static str,
    kind: &'static str,
    about: ObjectReference,
    note: String,
}

impl Written {
    /// The Event. Its name comes from what it says, so that the second of two replicas
    /// that say the same, or of one that was restarted, says nothing new. A pod is placed
    /// once, whatever is said of it.
    fn event(&self, instance: &str, now: Timestamp) -> Event {
        let about = self.about.name.as_deref().unwrap_or_default();
        let mut says = blake3::Hasher::new();
        let note = if self.reason == PLACED { "" } else { self.note.as_str() };
        for part in [self.about.uid.as_deref().unwrap_or_default(), self.reason, note] {
            says.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        let name =
            format!("{}.{}", cut(about, 200).trim_end_matches(['-', '.']), &says.finalize().to_hex()[..16]);
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: self.about.namespace.clone(),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            type_: Some(self.kind.to_owned()),
            reason: Some(self.reason.to_owned()),
            action: Some(action(self.reason).to_owned()),
            note: Some(self.note.clone()),
            regarding: Some(self.about.clone()),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(cut(instance, MAX_INSTANCE).to_owned()),
            ..Event::default()
        }
    }
}

fn action(reason: &str) -> &'static str {
    match reason {
        CLAIM => "Claiming",
        LEFT | READ => "Removing",
        _ => "Scheduling",
    }
}

/// The first bytes of a text, at most `most` of them, cut between characters.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// Takes Events; cheap to clone, and never waits.
#[derive(Clone)]
pub struct Recorder {
    queue: Option<mpsc::Sender<Written>>,
    warned: Arc<Mutex<LruCache<(String, String), ()>>>,
    state: Arc<State>,
}

/// Writes the Events that recorders take.
pub struct Writer {
    queue: mpsc::Receiver<Written>,
    state: Arc<State>,
}

/// A recorder and its writer; a recorder that takes nothing unless `enabled`.
pub fn channel(enabled: bool, state: Arc<State>) -> (Recorder, Writer) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    for reason in [PLACED, PROBLEM, CLAIM, LEFT, READ] {
        for outcome in ["written", "known", "failed", "dropped"] {
            // From the start, so that a rate over them is 0 and not absent.
            state.metrics.events.with_label_values(&[reason, outcome]);
        }
    }
    let warned = Arc::new(Mutex::new(LruCache::new(REMEMBERED)));
    let recorder = Recorder { queue: enabled.then_some(sender), warned, state: state.clone() };
    (recorder, Writer { queue: receiver, state })
}

impl Recorder {
    /// The pod was placed on `node`, after this was decided.
    pub fn placed(&self, pod: &PodFacts, decision: &Decision, node: &str) {
        // Without bytes there is no warmth to speak of; what is wrong was said in a warning.
        if decision.weighing.requested > 0 {
            self.send(PLACED, "Normal", pod_reference(pod), explain::placed(decision, node), Duration::ZERO);
        }
    }

    /// The pod was placed on `node` without this replica being asked: kube-scheduler asks
    /// nobody when one node is left, and else another replica, which tells more.
    pub fn placed_unasked(&self, pod: &PodFacts, decision: &Decision, node: &str) {
        if decision.weighing.requested > 0 {
            self.send(PLACED, "Normal", pod_reference(pod), explain::holds(decision, node), OTHERS);
        }
    }

    /// Something about the claims of a Dataset is wrong; each sentence becomes an Event once.
    pub fn claim_problem(&self, dataset: &DatasetName, uid: &str, problem: String) {
        self.warn_once(CLAIM, dataset_reference(dataset, uid), problem);
    }

    /// A Dataset that was deleted goes while nodes have not let go of it.
    pub fn left(&self, dataset: &DatasetName, uid: &str, which: String) {
        self.warn_once(LEFT, dataset_reference(dataset, uid), which);
    }

    /// A Dataset that was deleted goes while pods read it.
    pub fn still_read(&self, dataset: &DatasetName, uid: &str, by: String) {
        self.send(READ, "Normal", dataset_reference(dataset, uid), by, Duration::ZERO);
    }

    fn warn_once(&self, reason: &'static str, about: ObjectReference, problem: String) {
        let key = (about.uid.clone().unwrap_or_default(), problem.clone());
        if self.warned.lock().put(key, ()).is_none() {
            self.send(reason, "Warning", about, problem, Duration::ZERO);
        }
    }

    fn send(
        &self,
        reason: &'static str,
        kind: &'static str,
        about: ObjectReference,
        note: String,
        after: Duration,
    ) {
        let Some(queue) = &self.queue else { return };
        let note = match note.len() > MAX_NOTE {
            true => format!("{}…", cut(&note, MAX_NOTE - '…'.len_utf8())),
            false => note,
        };
        if queue.try_send(Written { after, reason, kind, about, note }).is_err() {
            self.state.metrics.events.with_label_values(&[reason, "dropped"]).inc();
        }
    }
}

fn dataset_reference(dataset: &DatasetName, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(Dataset::api_version(&()).into_owned()),
        kind: Some(Dataset::kind(&()).into_owned()),
        namespace: Some(dataset.namespace.clone()),
        name: Some(dataset.name.clone()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

fn pod_reference(pod: &PodFacts) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.metadata.namespace.clone()),
        name: Some(pod.metadata.name.clone()),
        uid: Some(pod.metadata.uid.clone()),
        ..ObjectReference::default()
    }
}

impl Warnings for Recorder {
    fn warn(&self, pod: &PodFacts, problems: Vec<String>) {
        for problem in problems.into_iter().take(MAX_WARNINGS) {
            self.warn_once(PROBLEM, pod_reference(pod), problem);
        }
    }
}

impl Writer {
    /// Writes until `shutdown`, one after the other: a burst waits, and the API server does not.
    pub async fn run(
        mut self,
        client: kube::Client,
        identity: String,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut late: DelayQueue<Written> = DelayQueue::new();
        loop {
            let written = tokio::select! {
                // The bound of the queue is that of what waits.
                Some(written) = self.queue.recv(), if late.len() < QUEUE => written,
                Some(due) = late.next(), if !late.is_empty() => Written { after: Duration::ZERO, ..due.into_inner() },
                () = shutdown.cancelled() => return Ok(()),
            };
            if !written.after.is_zero() {
                let after = written.after;
                late.insert(written, after);
                continue;
            }
            let event = written.event(&identity, Timestamp::now());
            let api: Api<Event> =
                Api::namespaced(client.clone(), written.about.namespace.as_deref().unwrap_or_default());
            let outcome = tokio::select! {
                outcome = write(&api, &event) => outcome,
                () = shutdown.cancelled() => return Ok(()),
            };
            self.state.metrics.events.with_label_values(&[written.reason, outcome]).inc();
        }
    }
}

/// Writes one Event and gives the outcome as its label.
async fn write(api: &Api<Event>, event: &Event) -> &'static str {
    let attempt = || async {
        let created = tokio::time::timeout(WRITE, api.create(&PostParams::default(), event)).await;
        match created {
            Ok(Ok(_)) => Ok("written"),
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok("known"),
            Ok(Err(error)) => Err(Some(error)),
            Err(_) => Err(None),
        }
    };
    let transient = |error: &Option<kube::Error>| match error {
        Some(kube::Error::Api(status)) => status.code == 429 || status.code >= 500,
        _ => true,
    };
    let pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_times(RETRIES)
        .with_jitter();
    attempt.retry(pauses).when(transient).await.unwrap_or_else(|error| {
        let why = error.map_or_else(|| "no answer in time".to_owned(), |error| error.to_string());
        tracing::warn!(reason = event.reason, "an Event was not written: {why}");
        "failed"
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use hearth_core::index::Settings;
    use hearth_core::pod::Metadata;

    #[test]
    fn a_warning_is_sent_once_a_pod_and_a_full_queue_drops() {
        let state = Arc::new(State::new(Settings::default(), Metrics::new().unwrap()));
        let (recorder, mut writer) = channel(true, state.clone());
        let pod = |uid: usize| PodFacts {
            metadata: Metadata { uid: uid.to_string(), ..Metadata::default() },
            ..PodFacts::default()
        };
        recorder.warn(&pod(0), vec!["a".into(), "a".into(), "b".into()]);
        recorder.warn(&pod(0), vec!["a".into()]);
        recorder.warn(&pod(1), vec!["a".repeat(5_000)]);
        assert_eq!(writer.queue.len(), 3);
        for uid in 2..2 + QUEUE {
            recorder.warn(&pod(uid), vec!["a".into()]);
        }
        assert_eq!(state.metrics.events.with_label_values(&[PROBLEM, "dropped"]).get(), 3);
        let notes: Vec<String> = (0..3).map(|_| writer.queue.try_recv().unwrap().note).collect();
        assert!(notes[2].len() <= MAX_NOTE && notes[2].ends_with('…'));
    }

    #[test]
    fn an_event_is_named_by_what_it_says() {
        let written = |note: &str| Written {
            after: Duration::ZERO,
            reason: PROBLEM,
            kind: "Warning",
            about: ObjectReference {
                name: Some(format!("{}-x", "p".repeat(199))),
                namespace: Some("n".into()),
                uid: Some("u".into()),
                ..ObjectReference::default()
            },
            note: note.to_owned(),
        };
        let name = |note: &str| written(note).event("replica", Timestamp::UNIX_EPOCH).metadata.name.unwrap();
        assert_eq!(name("a"), name("a"));
        assert_ne!(name("a"), name("b"), "two problems of one pod are two Events");
        assert!(name("a").starts_with("ppp") && name("a").contains("p.") && name("a").len() <= 253);
        let placed = |note: &str| Written { reason: PLACED, ..written(note) };
        let name = |note: &str| placed(note).event("replica", Timestamp::UNIX_EPOCH).metadata.name.unwrap();
        assert_eq!(name("a"), name("b"), "a pod is placed once, whichever replica tells it first");
        let event = written("a").event(&"ä".repeat(100), Timestamp::UNIX_EPOCH);
        assert!(event.reporting_instance.unwrap().len() <= MAX_INSTANCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_is_tried_again_and_what_is_there_already_is_no_failure() {
        for (answers, expected, tries) in [
            (vec![503, 201], "written", 2),
            (vec![409], "known", 1),
            (vec![403], "failed", 1),
            (vec![500; 9], "failed", 1 + RETRIES),
        ] {
            let asked = Arc::new(Mutex::new(0));
            let count = asked.clone();
            let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
                let mut asked = count.lock();
                let code = answers[*asked];
                *asked += 1;
                let body = match code {
                    201 => serde_json::json!({"metadata": {}, "eventTime": null}),
                    code => serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
                        "status": "Failure", "message": "no", "reason": "Because", "code": code}),
                };
                let body = kube::client::Body::from(body.to_string().into_bytes());
                std::future::ready(Ok::<_, std::convert::Infallible>(
                    http::Response::builder().status(code).body(body).unwrap(),
                ))
            });
            let api: Api<Event> = Api::namespaced(kube::Client::new(service, "n"), "n");
            assert_eq!(write(&api, &Event::default()).await, expected);
            assert_eq!(*asked.lock(), tries);
        }
    }
}
