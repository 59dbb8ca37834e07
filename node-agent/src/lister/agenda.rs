//! When each Dataset is listed next. Pure.

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use hearth_api::Dataset;
use kube::ResourceExt;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often a Dataset that is never listed again is seen to: that its manifest is
/// still to be had.
const NEVER: Duration = Duration::from_secs(600);

/// `namespace/name`.
pub(super) type Name = String;

struct Entry {
    dataset: Arc<Dataset>,
    due: Instant,
    running: bool,
    /// The spec changed while it was being listed.
    stale: bool,
    backoff: ExponentialBackoff,
}

/// All Datasets, each with its time.
#[derive(Default)]
pub(super) struct Agenda {
    entries: HashMap<Name, Entry>,
    /// While the first list of a watch comes in: what it had so far.
    initial: Option<HashMap<Name, Arc<Dataset>>>,
}

/// 2 seconds to 5 minutes, with jitter, without end.
fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_secs(2))
        .with_max_delay(Duration::from_secs(300))
        .without_max_times()
        .build()
}

pub(super) fn name_of(dataset: &Dataset) -> Name {
    format!("{}/{}", dataset.namespace().unwrap_or_default(), dataset.name_any())
}

impl Agenda {
    /// A list of all Datasets begins.
    pub(super) fn begin(&mut self) {
        self.initial = Some(HashMap::new());
    }

    /// One of the list.
    pub(super) fn listed(&mut self, dataset: Dataset) {
        if let Some(initial) = &mut self.initial {
            initial.insert(name_of(&dataset), Arc::new(dataset));
        }
    }

    /// The list is whole: what is not on it is gone.
    pub(super) fn end(&mut self, now: Instant) {
        let Some(initial) = self.initial.take() else { return };
        self.entries.retain(|name, _| initial.contains_key(name));
        for dataset in initial.into_values() {
            self.insert(dataset, now);
        }
    }

    /// One is new or another than before.
    pub(super) fn applied(&mut self, dataset: Dataset, now: Instant) {
        self.insert(Arc::new(dataset), now);
    }

    pub(super) fn deleted(&mut self, dataset: &Dataset) {
        self.entries.remove(&name_of(dataset));
    }

    fn insert(&mut self, dataset: Arc<Dataset>, now: Instant) {
        if dataset.metadata.deletion_timestamp.is_some() {
            return;
        }
        let name = name_of(&dataset);
        match self.entries.get_mut(&name) {
            Some(entry) => {
                let same = entry.dataset.uid() == dataset.uid()
                    && entry.dataset.metadata.generation == dataset.metadata.generation;
                // Its own writes come back by the watch: only a new spec is a reason to list.
                if !same {
                    entry.due = now;
                    entry.stale = entry.running;
                    entry.backoff = backoff();
                }
                entry.dataset = dataset;
            }
            None => {
                let entry = Entry { dataset, due: now, running: false, stale: false, backoff: backoff() };
                self.entries.insert(name, entry);
            }
        }
    }

    /// The Dataset that is due longest, which is then taken as being listed.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(Name, Arc<Dataset>)> {
        let waiting = self.entries.iter_mut().filter(|(_, entry)| !entry.running && entry.due <= now);
        let (name, entry) = waiting.min_by_key(|(_, entry)| entry.due)?;
        entry.running = true;
        entry.stale = false;
        Some((name.clone(), entry.dataset.clone()))
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.entries.values().filter(|entry| !entry.running).map(|entry| entry.due).min()
    }

    /// A listing has ended; `written` is the Dataset as the API server has it since.
    pub(super) fn ended(&mut self, name: &str, written: Option<Dataset>, succeeded: bool, now: Instant) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        entry.running = false;
        if let Some(written) = written
            && written.uid() == entry.dataset.uid()
            && written.metadata.generation == entry.dataset.metadata.generation
        {
            entry.dataset = Arc::new(written);
        }
        let interval = entry.dataset.refresh_interval().unwrap_or(None);
        entry.due = match (entry.stale, succeeded) {
            (true, _) => now,
            (false, true) => {
                entry.backoff = backoff();
                now + interval.unwrap_or(NEVER)
            }
            (false, false) => now + entry.backoff.next().unwrap_or(NEVER),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_api::DatasetSpec;

    fn dataset(name: &str, generation: i64, refresh: &str) -> Dataset {
        let spec = serde_json::json!({"origins": [{"uri": "s3://bucket"}], "refresh": refresh});
        let mut dataset = Dataset::new(name, serde_json::from_value::<DatasetSpec>(spec).unwrap());
        dataset.metadata.namespace = Some("ns".into());
        dataset.metadata.uid = Some(format!("uid-{name}"));
        dataset.metadata.generation = Some(generation);
        dataset
    }

    #[tokio::test(start_paused = true)]
    async fn datasets_come_at_once_and_then_at_their_interval() {
        let now = Instant::now();
        let mut agenda = Agenda::default();
        agenda.begin();
        agenda.listed(dataset("a", 1, "10m"));
        assert!(agenda.take_due(now).is_none(), "an unfinished list is none");
        agenda.end(now);
        assert_eq!(agenda.take_due(now).unwrap().0, "ns/a");
        assert!(agenda.take_due(now).is_none(), "it is being listed");
        agenda.ended("ns/a", None, true, now);
        assert_eq!(agenda.next_due(), Some(now + Duration::from_secs(600)));
        agenda.applied(dataset("a", 1, "10m"), now);
        assert!(agenda.take_due(now).is_none(), "its own status is no reason");
        agenda.applied(dataset("a", 2, "10m"), now);
        assert!(agenda.take_due(now).is_some(), "a new spec is");
    }

    #[tokio::test(start_paused = true)]
    async fn a_spec_that_changes_meanwhile_is_listed_again() {
        let now = Instant::now();
        let mut agenda = Agenda::default();
        agenda.applied(dataset("a", 1, "Never"), now);
        agenda.take_due(now).unwrap();
        agenda.applied(dataset("a", 2, "Never"), now);
        agenda.ended("ns/a", Some(dataset("a", 1, "Never")), true, now);
        assert_eq!(agenda.take_due(now).unwrap().1.metadata.generation, Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_come_again_later_and_later() {
        let mut now = Instant::now();
        let mut agenda = Agenda::default();
        agenda.applied(dataset("a", 1, "Never"), now);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            agenda.take_due(now).unwrap();
            agenda.ended("ns/a", None, false, now);
            let due = agenda.next_due().unwrap();
            pauses.push(due - now);
            now = due;
        }
        assert!(pauses[0] <= Duration::from_secs(4) && pauses[11] >= Duration::from_secs(300), "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_new_list_lacks_is_gone() {
        let now = Instant::now();
        let mut agenda = Agenda::default();
        agenda.applied(dataset("a", 1, "Never"), now);
        agenda.begin();
        agenda.end(now);
        assert_eq!(agenda.next_due(), None);
        agenda.applied(dataset("b", 1, "Never"), now);
        agenda.deleted(&dataset("b", 1, "Never"));
        assert_eq!(agenda.next_due(), None);
        agenda.ended("ns/b", None, true, now);
    }
}
