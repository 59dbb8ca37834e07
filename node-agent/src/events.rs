//! Events on pods whose reads fail: whoever looks at the pod learns which file it was.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use lru::LruCache;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Events that wait to be written; further ones are dropped: the log has all.
const QUEUE: usize = 64;
/// One pod gets no more than one Event in this time.
const PAUSE: Duration = Duration::from_secs(60);
/// Pods that are remembered for that.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// Longest time that one Event may take.
const WRITE: Duration = Duration::from_secs(5);
/// Longest text that the API server takes is 1,024 bytes.
const MOST_NOTE: usize = 1000;
/// Who writes.
const CONTROLLER: &str = "hearth-node-agent";

/// A pod, as kubelet names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodReference {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// Takes what is to be told; cheap to clone, and never waits.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<(PodReference, String)>,
    told: Arc<Mutex<LruCache<PodReference, Instant>>>,
}

/// Writes what is taken.
pub struct Writer(mpsc::Receiver<(PodReference, String)>);

/// Whoever has something to tell, and who writes it.
pub fn channel() -> (Events, Writer) {
    let (queue, written) = mpsc::channel(QUEUE);
    (Events { queue, told: Arc::new(Mutex::new(LruCache::new(REMEMBERED))) }, Writer(written))
}

impl Events {
    /// A read of this pod has failed.
    pub fn read_failed(&self, pod: &PodReference, note: &str) {
        let now = Instant::now();
        let mut told = self.told.lock();
        if told.get(pod).is_none_or(|last| now - *last >= PAUSE) {
            told.put(pod.clone(), now);
            let _ = self.queue.try_send((pod.clone(), note.to_owned()));
        }
    }
}

impl Writer {
    /// Writes until `shutdown`; what cannot be written is in the log.
    pub async fn run(
        mut self,
        client: Client,
        node: String,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let reporter = Reporter { controller: CONTROLLER.to_owned(), instance: Some(node) };
        let recorder = Recorder::new(client, reporter);
        while let Some(Some((pod, note))) = shutdown.run_until_cancelled(self.0.recv()).await {
            let event = Event {
                type_: EventType::Warning,
                reason: "ReadFailed".to_owned(),
                note: Some(note[..note.floor_char_boundary(MOST_NOTE)].to_owned()),
                action: "Reading".to_owned(),
                secondary: None,
            };
            let regarding = ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: Some(pod.namespace.clone()),
                name: Some(pod.name.clone()),
                uid: Some(pod.uid.clone()),
                ..ObjectReference::default()
            };
            match timeout(WRITE, recorder.publish(&event, &regarding)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(pod = pod.name, "an Event cannot be written: {error}"),
                Err(_) => tracing::warn!(pod = pod.name, "an Event cannot be written in time"),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pod_is_told_once_a_minute() {
        let (events, mut writer) = channel();
        let pod = |name: &str| PodReference { namespace: "n".into(), name: name.into(), uid: "u".into() };
        for _ in 0..1000 {
            events.read_failed(&pod("a"), "it failed");
        }
        events.read_failed(&pod("b"), "it failed");
        tokio::time::advance(PAUSE).await;
        events.read_failed(&pod("a"), "again");
        let mut told = Vec::new();
        while let Ok((pod, note)) = writer.0.try_recv() {
            told.push((pod.name, note));
        }
        let expected = [("a", "it failed"), ("b", "it failed"), ("a", "again")];
        assert_eq!(told, expected.map(|(pod, note)| (pod.to_owned(), note.to_owned())));
    }
}
