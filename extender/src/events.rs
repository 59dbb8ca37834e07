//! Events on pods: why a pod went where it went, and what is wrong with what it asks.

use crate::http::scheduler::Warnings;
use crate::state::State;
use hearth_core::decide::Decision;
use hearth_core::explain;
use hearth_core::pod::PodFacts;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Reporter};
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events that wait to be written; further ones are dropped and counted.
const QUEUE: usize = 1_024;
/// Warnings that are remembered, so that each is written once.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
/// Longest time that one Event may take.
const WRITE: Duration = Duration::from_secs(5);
/// Longest text of an Event, as the API server has it.
const MAX_NOTE: usize = 1_024;

/// Reason of the Event on a placed pod.
pub const PLACED: &str = "PlacedByWarmth";
/// Reason of the Event on a pod whose datasets cannot be found or understood.
pub const PROBLEM: &str = "DatasetProblem";

struct Written {
    reason: &'static str,
    type_: EventType,
    pod: ObjectReference,
    note: String,
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
    let warned = Arc::new(Mutex::new(LruCache::new(REMEMBERED)));
    let recorder = Recorder { queue: enabled.then_some(sender), warned, state: state.clone() };
    (recorder, Writer { queue: receiver, state })
}

impl Recorder {
    /// The pod was placed on `node`, after this was decided.
    pub fn placed(&self, pod: &PodFacts, decision: &Decision, node: &str) {
        // Without bytes there is no warmth to speak of; what is wrong was said in a warning.
        if decision.weighing.requested > 0 {
            self.send(PLACED, EventType::Normal, pod, explain::placed(decision, node));
        }
    }

    fn send(&self, reason: &'static str, type_: EventType, pod: &PodFacts, note: String) {
        let Some(queue) = &self.queue else { return };
        let note = match note.char_indices().nth(MAX_NOTE - 4) {
            Some((end, _)) => format!("{}…", &note[..end]),
            None => note,
        };
        let pod = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.metadata.namespace.clone()),
            name: Some(pod.metadata.name.clone()),
            uid: Some(pod.metadata.uid.clone()),
            ..ObjectReference::default()
        };
        if queue.try_send(Written { reason, type_, pod, note }).is_err() {
            self.state.metrics.events.with_label_values(&[reason, "dropped"]).inc();
        }
    }
}

impl Warnings for Recorder {
    fn warn(&self, pod: &PodFacts, problems: Vec<String>) {
        for problem in problems {
            let key = (pod.metadata.uid.clone(), problem.clone());
            if self.warned.lock().put(key, ()).is_none() {
                self.send(PROBLEM, EventType::Warning, pod, problem);
            }
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
        let reporter = Reporter { controller: "hearth-extender".to_owned(), instance: Some(identity) };
        let recorder = kube::runtime::events::Recorder::new(client, reporter);
        loop {
            let written = tokio::select! {
                Some(written) = self.queue.recv() => written,
                () = shutdown.cancelled() => return Ok(()),
            };
            let event = Event {
                type_: written.type_,
                reason: written.reason.to_owned(),
                note: Some(written.note),
                action: "Scheduling".to_owned(),
                secondary: None,
            };
            let outcome = match tokio::time::timeout(WRITE, recorder.publish(&event, &written.pod)).await {
                Ok(Ok(())) => "written",
                Ok(Err(error)) => {
                    tracing::warn!(reason = written.reason, "an Event was not written: {error}");
                    "failed"
                }
                Err(_) => "failed",
            };
            self.state.metrics.events.with_label_values(&[written.reason, outcome]).inc();
        }
    }
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
        assert!(notes[2].chars().count() <= MAX_NOTE && notes[2].ends_with('…'));
    }
}
