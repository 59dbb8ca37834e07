//! When each Dataset is listed next. Pure.

use super::slots::{self, Slots};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use hearth_api::Dataset;
use hearth_core::manifest::ManifestHash;
use kube::ResourceExt;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often a Dataset that is never listed again is seen to: that its manifest is
/// still to be had.
const NEVER: Duration = Duration::from_secs(600);
/// How long a store's notice waits for the next ones: uploads come in crowds.
const CROWD: Duration = Duration::from_secs(2);

/// All is listed again though only notices ask for it: one may have been lost.
const LOST: Duration = Duration::from_secs(24 * 3600);

/// `namespace/name`.
pub(super) type Name = String;

/// How much of a Dataset is to be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it.
    Whole,
    /// What its stores have told of, if that is known.
    Changes,
}

struct Entry {
    dataset: Arc<Dataset>,
    /// What it is listed from, as places are counted.
    origin: String,
    due: Instant,
    /// When it was last taken to be listed.
    begun: Instant,
    /// A notice makes it due no earlier: no Dataset is listed more than half of the time.
    rests_until: Instant,
    running: bool,
    /// Nothing but a notice has made it due.
    by_notice: bool,
    /// When all of it was listed here.
    whole_at: Option<Instant>,
    /// The manifest that was listed here last, of all or of changes since.
    listed: Option<ManifestHash>,
    /// It was asked for anew while it was being listed.
    stale: Option<Asked>,
    /// It was not listed when that was last tried.
    failed: bool,
    backoff: ExponentialBackoff,
}

/// Why a Dataset is to be listed before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    /// A store says that objects have changed.
    ByNotice,
    /// Somebody changed the spec, or the annotation that is there for this.
    ByHand,
}

impl Asked {
    /// What the later state of a Dataset asks for that the earlier one did not.
    fn between(before: &Dataset, after: &Dataset) -> Option<Self> {
        let is_same_spec =
            before.uid() == after.uid() && before.metadata.generation == after.metadata.generation;
        let (before, after) = (before.refresh_request(), after.refresh_request());
        match is_same_spec {
            true if before == after => None,
            true if before.and_then(|r| r.annotation) == after.and_then(|r| r.annotation) => {
                Some(Self::ByNotice)
            }
            _ => Some(Self::ByHand),
        }
    }
}

impl Entry {
    /// When all of it is to be listed again, whatever stores tell of.
    fn all_due(&self) -> Option<Instant> {
        let interval = self.dataset.refresh_interval().ok().flatten().unwrap_or(LOST);
        Some(self.whole_at? + interval.min(LOST))
    }

    fn after_notice(&self, now: Instant) -> Instant {
        self.rests_until.max(now + CROWD)
    }
}

/// What became of one listing.
pub(super) struct Ending {
    /// The Dataset as the API server has it since, if it was written.
    pub(super) written: Option<Dataset>,
    pub(super) succeeded: bool,
    /// Whether the origin answered, if it was asked.
    pub(super) answered: Option<bool>,
    /// The version that was listed and is named in the status, and how much was asked for that.
    pub(super) listed: Option<(ManifestHash, Extent)>,
}

/// All Datasets, each with its time.
#[derive(Default)]
pub(super) struct Agenda {
    entries: HashMap<Name, Entry>,
    /// Those that are not being listed, in the order in which they are due.
    queue: BTreeSet<(Instant, Name)>,
    slots: Slots,
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
        self.queue.retain(|(_, name)| initial.contains_key(name));
        self.slots.retain(initial.values().map(|dataset| &**dataset));
        for dataset in initial.into_values() {
            self.insert(dataset, now);
        }
    }

    /// One is new or another than before.
    pub(super) fn applied(&mut self, dataset: Dataset, now: Instant) {
        self.insert(Arc::new(dataset), now);
    }

    pub(super) fn deleted(&mut self, dataset: &Dataset) {
        self.remove(&name_of(dataset));
    }

    fn remove(&mut self, name: &Name) {
        if let Some(entry) = self.entries.remove(name) {
            self.queue.remove(&(entry.due, name.clone()));
        }
    }

    fn insert(&mut self, dataset: Arc<Dataset>, now: Instant) {
        let name = name_of(&dataset);
        if dataset.metadata.deletion_timestamp.is_some() {
            self.remove(&name);
            return;
        }
        match self.entries.get_mut(&name) {
            Some(entry) => {
                // Its own writes come back by the watch: they are no reason to list.
                let asked = Asked::between(&entry.dataset, &dataset);
                entry.origin = slots::origin_of(&dataset);
                entry.dataset = dataset;
                match asked {
                    Some(asked) if entry.running => entry.stale = entry.stale.max(Some(asked)),
                    Some(Asked::ByHand) => {
                        entry.failed = false;
                        entry.by_notice = false;
                        entry.backoff = backoff();
                        self.set_due(&name, now);
                    }
                    Some(Asked::ByNotice) if !entry.failed => {
                        let due = entry.after_notice(now);
                        if due < entry.due {
                            entry.by_notice = true;
                            self.set_due(&name, due);
                        }
                    }
                    // What failed is tried again soon enough.
                    Some(Asked::ByNotice) | None => {}
                }
            }
            None => {
                let entry = Entry {
                    origin: slots::origin_of(&dataset),
                    dataset,
                    due: now,
                    begun: now,
                    rests_until: now,
                    running: false,
                    by_notice: false,
                    whole_at: None,
                    listed: None,
                    stale: None,
                    failed: false,
                    backoff: backoff(),
                };
                self.entries.insert(name.clone(), entry);
                self.queue.insert((now, name));
            }
        }
    }

    fn set_due(&mut self, name: &Name, due: Instant) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        self.queue.remove(&(entry.due, name.clone()));
        entry.due = due;
        if !entry.running {
            self.queue.insert((due, name.clone()));
        }
    }

    /// The Dataset that is due longest of those that there is a place for, which is then
    /// taken as being listed.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(Name, Arc<Dataset>, Extent)> {
        let Self { entries, queue, slots, .. } = self;
        let due = queue.iter().take_while(|(due, _)| *due <= now);
        let found = due.map(|(_, name)| name).find(|name| {
            entries.get(*name).is_some_and(|entry| slots.begin(name, &entry.origin, entry.failed, now))
        });
        let name = found?.clone();
        let entry = entries.get_mut(&name)?;
        queue.remove(&(entry.due, name.clone()));
        entry.running = true;
        entry.begun = now;
        entry.stale = None;
        // Another lister may have written meanwhile, or the watch be behind: then nobody knows what changed since.
        let status = entry.dataset.status.as_ref();
        let current = status.and_then(|status| status.version.as_ref()).map(|version| &version.manifest);
        let is_known = entry.listed.is_some_and(|listed| current == Some(&listed.to_string()));
        let extent = match entry.by_notice && is_known && entry.all_due().is_some_and(|due| now < due) {
            true => Extent::Changes,
            false => Extent::Whole,
        };
        Some((name, entry.dataset.clone(), extent))
    }

    /// When time alone makes another due, or a place for one that is.
    pub(super) fn next_look(&self, now: Instant) -> Option<Instant> {
        let later = self.queue.range((now + Duration::from_nanos(1), Name::new())..).next();
        let later = later.map(|(due, _)| *due);
        let waits = self.queue.first().is_some_and(|(due, _)| *due <= now);
        later.into_iter().chain(self.slots.next_slow(now).filter(|_| waits)).min()
    }

    /// A listing has ended.
    pub(super) fn ended(&mut self, name: &Name, ending: Ending, now: Instant) {
        let Ending { written, succeeded, answered, listed } = ending;
        self.slots.end(name, answered);
        // One that was made again meanwhile is not the one that was listed.
        let Some(entry) = self.entries.get_mut(name).filter(|entry| entry.running) else { return };
        entry.running = false;
        entry.rests_until = now + (now - entry.begun);
        if let Some((manifest, extent)) = listed {
            entry.listed = Some(manifest);
            if extent == Extent::Whole {
                entry.whole_at = Some(now);
            }
        }
        // What the watch has brought meanwhile may be newer.
        if let Some(written) = written.filter(|_| entry.stale.is_none()) {
            // Whoever asked just now is in what was written: the watch's event will be no news.
            entry.stale = Asked::between(&entry.dataset, &written);
            entry.dataset = Arc::new(written);
        }
        let interval = entry.dataset.refresh_interval().unwrap_or(None);
        let due = match (entry.stale, succeeded) {
            (Some(Asked::ByHand), _) => now,
            (Some(Asked::ByNotice), true) => entry.after_notice(now),
            (None, true) => match (interval, entry.all_due()) {
                // What is listed in part puts off no listing of all.
                (Some(interval), Some(all)) => all.clamp(now, now + interval),
                (interval, _) => now + interval.unwrap_or(NEVER),
            },
            (Some(Asked::ByNotice) | None, false) => now + entry.backoff.next().unwrap_or(NEVER),
        };
        entry.by_notice = succeeded && entry.stale == Some(Asked::ByNotice);
        if succeeded {
            entry.backoff = backoff();
        }
        entry.failed = !succeeded && entry.stale != Some(Asked::ByHand);
        self.set_due(name, due);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_api::{DatasetSpec, VersionStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
    use k8s_openapi::jiff::Timestamp;

    fn dataset(name: &str, generation: i64, refresh: &str) -> Dataset {
        let spec = serde_json::json!({"origins": [{"uri": "s3://bucket"}], "refresh": refresh});
        let mut dataset = Dataset::new(name, serde_json::from_value::<DatasetSpec>(spec).unwrap());
        dataset.metadata.namespace = Some("ns".into());
        dataset.metadata.uid = Some(format!("uid-{name}"));
        dataset.metadata.generation = Some(generation);
        dataset
    }

    fn ending(written: Option<Dataset>, succeeded: bool) -> Ending {
        let listed = succeeded.then_some((ManifestHash([0; 32]), Extent::Whole));
        Ending { written, succeeded, answered: Some(succeeded), listed }
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
        agenda.ended(&"ns/a".into(), ending(None, true), now);
        assert_eq!(agenda.next_look(now), Some(now + Duration::from_secs(600)));
        agenda.applied(dataset("a", 1, "10m"), now);
        assert!(agenda.take_due(now).is_none(), "its own status is no reason");
        agenda.applied(dataset("a", 2, "10m"), now);
        assert!(agenda.take_due(now).is_some(), "a new spec is");
    }

    fn annotated(mut dataset: Dataset, value: &str) -> Dataset {
        dataset.annotations_mut().insert(hearth_api::REFRESH.to_owned(), value.to_owned());
        dataset
    }

    fn notified(mut dataset: Dataset, second: i64) -> Dataset {
        let at = Timestamp::from_second(second).unwrap();
        dataset.status.get_or_insert_default().notified_at = Some(MicroTime(at));
        dataset
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_is_heard_at_once_and_a_store_after_its_crowd() {
        let never = || dataset("a", 1, "Never");
        let (mut now, mut agenda) = (Instant::now(), Agenda::default());
        let list = |agenda: &mut Agenda, now| {
            assert!(agenda.take_due(now).is_some());
            agenda.ended(&"ns/a".into(), ending(None, true), now);
        };
        agenda.applied(never(), now);
        list(&mut agenda, now);
        agenda.applied(annotated(never(), "1"), now);
        list(&mut agenda, now);
        agenda.applied(annotated(never(), "1"), now);
        assert!(agenda.take_due(now).is_none(), "it was heard");
        agenda.applied(annotated(never(), "2"), now);
        list(&mut agenda, now);
        for second in [1, 2] {
            agenda.applied(notified(annotated(never(), "2"), second), now);
            assert_eq!(agenda.next_look(now), Some(now + CROWD));
        }
        now += CROWD;
        assert!(agenda.take_due(now).is_some());
        // Asked for while it is listed: it rests for as long as that took.
        agenda.applied(notified(annotated(never(), "2"), 3), now);
        now += Duration::from_secs(60);
        agenda.ended(&"ns/a".into(), ending(None, true), now);
        assert_eq!(agenda.next_look(now), Some(now + Duration::from_secs(60)));
        agenda.applied(notified(annotated(never(), "3"), 3), now);
        assert!(agenda.take_due(now).is_some(), "not so for people");
        // What its own write brings back may be news.
        agenda.ended(&"ns/a".into(), ending(Some(notified(annotated(never(), "4"), 3)), true), now);
        list(&mut agenda, now);
    }

    #[tokio::test(start_paused = true)]
    async fn only_after_notices_and_a_listing_of_all_the_changes_are_enough() {
        let (mut now, mut agenda) = (Instant::now(), Agenda::default());
        let version = |number: u8| ManifestHash([number; 32]);
        let told = |of: u8, second| {
            let mut dataset = notified(dataset("a", 1, "1h"), second);
            let manifest = version(of).to_string();
            let (size, listed_at) = (String::new(), Time(Timestamp::UNIX_EPOCH));
            let version =
                VersionStatus { manifest, files: 1, unlisted: None, bytes: 1, size, blocks: 1, listed_at };
            dataset.status.as_mut().unwrap().version = Some(version);
            dataset
        };
        let list = |agenda: &mut Agenda, now: &mut Instant, dataset: Dataset, gives: u8| {
            agenda.applied(dataset, *now);
            *now += CROWD;
            let extent = agenda.take_due(*now).unwrap().2;
            let listed = Some((version(gives), extent));
            agenda.ended(&"ns/a".into(), Ending { listed, ..ending(None, true) }, *now);
            extent
        };
        assert_eq!(list(&mut agenda, &mut now, dataset("a", 1, "1h"), 1), Extent::Whole);
        assert_eq!(list(&mut agenda, &mut now, told(1, 1), 2), Extent::Changes);
        assert_eq!(list(&mut agenda, &mut now, told(2, 2), 3), Extent::Changes);
        // What the status names was listed by somebody else, or before that.
        assert_eq!(list(&mut agenda, &mut now, told(2, 3), 4), Extent::Whole);
        let whole_at = now;
        assert_eq!(list(&mut agenda, &mut now, told(4, 4), 5), Extent::Changes);
        // All of it comes in its time.
        now = agenda.next_look(now).unwrap();
        assert_eq!(now, whole_at + Duration::from_secs(3600));
        assert_eq!(agenda.take_due(now).unwrap().2, Extent::Whole);
        agenda.ended(&"ns/a".into(), ending(None, false), now);
        // It failed, and comes again with all.
        agenda.applied(told(5, 5), now);
        now += Duration::from_secs(600);
        assert_eq!(agenda.take_due(now).unwrap().2, Extent::Whole);
        agenda.ended(
            &"ns/a".into(),
            Ending { listed: Some((version(6), Extent::Whole)), ..ending(None, true) },
            now,
        );
        agenda.applied(annotated(told(6, 6), "1"), now);
        assert_eq!(agenda.take_due(now).unwrap().2, Extent::Whole, "somebody asks for it");
    }

    #[tokio::test(start_paused = true)]
    async fn all_is_listed_once_a_day_where_only_notices_ask() {
        let (start, mut agenda) = (Instant::now(), Agenda::default());
        let mut dataset = dataset("a", 1, "Never");
        let version = serde_json::json!({"manifest": ManifestHash([0; 32]).to_string(), "files": 1, "bytes": 1,
            "size": "", "blocks": 1, "listedAt": "2026-01-01T00:00:00Z"});
        dataset.status.get_or_insert_default().version = serde_json::from_value(version).unwrap();
        agenda.applied(dataset.clone(), start);
        agenda.take_due(start).unwrap();
        agenda.ended(&"ns/a".into(), ending(None, true), start);
        let mut now = start;
        for (second, extent) in [(1, Extent::Changes), (2, Extent::Whole)] {
            agenda.applied(notified(dataset.clone(), second), now);
            now += CROWD;
            assert_eq!(agenda.take_due(now).unwrap().2, extent);
            let listed = Some((ManifestHash([0; 32]), extent));
            agenda.ended(&"ns/a".into(), Ending { listed, ..ending(None, true) }, now);
            // It is only seen to whether its manifest is to be had.
            now += LOST;
            agenda.take_due(now).unwrap();
            agenda.ended(&"ns/a".into(), Ending { listed: None, ..ending(None, true) }, now);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn notices_of_a_store_that_cannot_be_listed_do_not_hurry() {
        let (now, mut agenda) = (Instant::now(), Agenda::default());
        agenda.applied(dataset("a", 1, "Never"), now);
        agenda.take_due(now).unwrap();
        agenda.ended(&"ns/a".into(), ending(None, false), now);
        let due = agenda.next_look(now);
        agenda.applied(notified(dataset("a", 1, "Never"), 1), now);
        assert_eq!(agenda.next_look(now), due);
    }

    #[tokio::test(start_paused = true)]
    async fn a_spec_that_changes_meanwhile_is_listed_again() {
        let now = Instant::now();
        let mut agenda = Agenda::default();
        agenda.applied(dataset("a", 1, "Never"), now);
        agenda.take_due(now).unwrap();
        agenda.applied(dataset("a", 2, "Never"), now);
        agenda.ended(&"ns/a".into(), ending(Some(dataset("a", 1, "Never")), true), now);
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
            agenda.ended(&"ns/a".into(), ending(None, false), now);
            let due = agenda.next_look(now).unwrap();
            pauses.push(due - now);
            now = due;
        }
        assert!(pauses[0] <= Duration::from_secs(4) && pauses[11] >= Duration::from_secs(300), "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_a_place_is_looked_at_when_there_is_one() {
        let now = Instant::now();
        let mut agenda = Agenda::default();
        for name in ["a", "b", "c"] {
            agenda.applied(dataset(name, 1, "Never"), now);
        }
        // Nobody knows their origin yet: two are tried.
        let taken: Vec<Name> = std::iter::from_fn(|| agenda.take_due(now)).map(|(name, ..)| name).collect();
        assert_eq!(taken, ["ns/a", "ns/b"]);
        let slow = agenda.next_look(now).unwrap();
        assert!(
            slow > now && agenda.take_due(slow).is_none(),
            "they may be slow, and there are no more of them"
        );
        agenda.ended(&taken[0], ending(None, true), now);
        assert_eq!(agenda.take_due(now).unwrap().0, "ns/c");
        // One that is made again while it is listed is listed afterwards.
        agenda.deleted(&dataset("c", 1, "Never"));
        agenda.applied(dataset("c", 1, "Never"), now);
        assert!(agenda.take_due(now).is_none());
        agenda.ended(&"ns/c".into(), ending(None, true), now);
        assert_eq!(agenda.take_due(now).unwrap().0, "ns/c");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_new_list_lacks_is_gone() {
        let now = Instant::now();
        let mut agenda = Agenda::default();
        agenda.applied(dataset("a", 1, "Never"), now);
        agenda.begin();
        agenda.end(now);
        assert_eq!(agenda.next_look(now), None);
        agenda.applied(dataset("b", 1, "Never"), now);
        agenda.deleted(&dataset("b", 1, "Never"));
        assert_eq!(agenda.next_look(now), None);
        agenda.applied(dataset("b", 1, "Never"), now);
        let mut leaving = dataset("b", 2, "Never");
        leaving.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        agenda.applied(leaving, now);
        assert_eq!(agenda.next_look(now), None, "it is being deleted");
        agenda.ended(&"ns/b".into(), ending(None, true), now);
    }
}
