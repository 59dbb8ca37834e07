//! How many are listed at one time, and of what origins: one that does not answer leaves room for the others. Pure.

use super::agenda::Name;
use hearth_api::{Dataset, Origin};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Listings of one lane at one time, but for slow ones.
const OF_A_LANE: usize = 8;
/// Of these, of one origin that has not answered yet, or not lately.
const OF_A_DOUBTFUL_ORIGIN: usize = 2;
/// A listing that takes longer leaves its place to another: a large one takes minutes.
const SLOW_AFTER: Duration = Duration::from_secs(5);
/// So many may, where origins have answered: large ones take memory.
const SLOW: usize = 8;
/// And where nobody has asked them yet: most are waited for in vain, which takes next to nothing.
const SLOW_UNKNOWN: usize = 56;

/// Who waits for whom: nobody for those of another lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    /// The origin has answered lately.
    Answering,
    /// Nobody has asked it yet.
    Unknown,
    /// It has not answered lately, or there was something else about this Dataset.
    Failing,
}

struct Running {
    lane: Lane,
    origin: String,
    since: Instant,
}

/// What is being listed, and what is known of origins.
#[derive(Default)]
pub(super) struct Slots {
    running: HashMap<Name, Running>,
    /// Whether they answered when they were last asked.
    answered: HashMap<String, bool>,
}

impl Slots {
    /// Takes a place for a Dataset of this origin ([`origin_of`]), if there is one; `failed` says that it was not listed last time.
    pub(super) fn begin(&mut self, name: &Name, origin: &str, failed: bool, now: Instant) -> bool {
        if self.running.contains_key(name) {
            // Of one that was deleted and made again meanwhile.
            return false;
        }
        let lane = match (failed, self.answered.get(origin)) {
            (false, Some(true)) => Lane::Answering,
            (false, None) => Lane::Unknown,
            (true, _) | (_, Some(false)) => Lane::Failing,
        };
        let is_slow = |one: &&Running| now.duration_since(one.since) >= SLOW_AFTER;
        let of_lane = || self.running.values().filter(|one| one.lane == lane);
        let may_leave = match lane {
            Lane::Answering => SLOW,
            Lane::Unknown => SLOW_UNKNOWN,
            Lane::Failing => 0,
        };
        let leave = of_lane().filter(is_slow).count().min(may_leave);
        if of_lane().count() - leave >= OF_A_LANE {
            return false;
        }
        let of_origin = of_lane().filter(|one| one.origin == origin).count();
        if lane != Lane::Answering && of_origin >= OF_A_DOUBTFUL_ORIGIN {
            return false;
        }
        self.running.insert(name.clone(), Running { lane, origin: origin.to_owned(), since: now });
        true
    }

    /// A listing has ended; whether its origin answered, if it was asked.
    pub(super) fn end(&mut self, name: &Name, answered: Option<bool>) {
        let Some(Running { origin, .. }) = self.running.remove(name) else { return };
        if let Some(answered) = answered {
            self.answered.insert(origin, answered);
        }
    }

    /// When the next of them gets slow.
    pub(super) fn next_slow(&self, now: Instant) -> Option<Instant> {
        self.running.values().map(|one| one.since + SLOW_AFTER).filter(|slow| *slow > now).min()
    }

    /// Forgets origins that no Dataset names any more.
    pub(super) fn retain<'a>(&mut self, datasets: impl Iterator<Item = &'a Dataset>) {
        let mut before = std::mem::take(&mut self.answered);
        self.answered = datasets.filter_map(|dataset| before.remove_entry(&origin_of(dataset))).collect();
    }
}

/// What fails together: the store's address, or the upper folders of a directory, which are a mount of their own.
pub(super) fn origin_of(dataset: &Dataset) -> String {
    const FOLDERS: usize = 2;
    let of = |origin: &Origin| {
        let endpoint = origin.options.as_ref().and_then(|options| options.endpoint.clone());
        endpoint.unwrap_or_else(|| {
            let (scheme, rest) = origin.uri.split_once("://").unwrap_or(("", &origin.uri));
            let segments = if scheme == "file" { 1 + FOLDERS } else { 1 };
            let place: Vec<&str> = rest.split('/').take(segments).collect();
            format!("{scheme}://{}", place.join("/"))
        })
    };
    dataset.spec.origins.iter().map(of).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_api::DatasetSpec;

    fn dataset(host: &str) -> Dataset {
        let origin =
            serde_json::json!({"uri": "s3://bucket/x", "options": {"endpoint": format!("https://{host}")}});
        let spec: DatasetSpec = serde_json::from_value(serde_json::json!({"origins": [origin]})).unwrap();
        Dataset::new("d", spec)
    }

    #[derive(Default)]
    struct World {
        slots: Slots,
        begun: usize,
    }

    impl World {
        /// The names of as many as get a place.
        fn begin(&mut self, host: &str, failed: bool, count: usize, now: Instant) -> Vec<Name> {
            let dataset = dataset(host);
            let mut names = Vec::new();
            for _ in 0..count {
                self.begun += 1;
                let name = self.begun.to_string();
                if self.slots.begin(&name, &origin_of(&dataset), failed, now) {
                    names.push(name);
                }
            }
            names
        }

        fn knows(&mut self, host: &str, answered: bool, now: Instant) {
            let name = self.begin(host, false, 1, now).remove(0);
            self.slots.end(&name, Some(answered));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn origins_that_do_not_answer_leave_room() {
        let now = Instant::now();
        let mut world = World::default();
        world.knows("good", true, now);
        assert_eq!(world.begin("silent", false, 50, now).len(), OF_A_DOUBTFUL_ORIGIN);
        for number in 0..50 {
            world.begin(&format!("silent-{number}"), false, 1, now);
        }
        assert_eq!(world.begin("good", false, 50, now).len(), OF_A_LANE, "as if there were no others");
        // An origin that nobody knows waits for those that nobody knew before, and not for long.
        assert!(world.begin("new", false, 1, now).is_empty());
        let later = now + SLOW_AFTER;
        assert_eq!(world.slots.next_slow(now), Some(later));
        assert_eq!(world.begin("new", false, 1, later).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_failed_has_a_lane_of_its_own() {
        let mut now = Instant::now();
        let mut world = World::default();
        world.knows("bad", false, now);
        world.knows("good", true, now);
        assert_eq!(world.begin("bad", false, 9, now).len(), OF_A_DOUBTFUL_ORIGIN, "also when it is new");
        let failed: Vec<Name> = (0..9).flat_map(|n| world.begin(&format!("bad-{n}"), true, 1, now)).collect();
        assert_eq!(failed.len(), OF_A_LANE - OF_A_DOUBTFUL_ORIGIN);
        assert!(world.begin("good", true, 1, now).is_empty());
        assert_eq!(world.begin("good", false, 9, now).len(), OF_A_LANE);
        // However slow they are, there are no more of them.
        now += SLOW_AFTER * 10;
        assert!(world.begin("bad-10", true, 1, now).is_empty());
        world.slots.end(&failed[0], Some(true));
        assert_eq!(world.begin("bad-10", true, 1, now).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn large_listings_leave_their_places_but_not_without_end() {
        let mut now = Instant::now();
        let mut world = World::default();
        world.knows("good", true, now);
        let mut begun = 0;
        for _ in 0..10 {
            begun += world.begin("good", false, 20, now).len();
            now += SLOW_AFTER;
        }
        assert_eq!(begun, OF_A_LANE + SLOW);
    }

    #[test]
    fn what_fails_together_is_one_origin() {
        let of = |uri: &str| {
            let spec = serde_json::json!({"origins": [{"uri": uri}]});
            origin_of(&Dataset::new("d", serde_json::from_value::<DatasetSpec>(spec).unwrap()))
        };
        assert_eq!(of("s3://bucket/a/b"), "s3://bucket");
        assert_eq!(of("file:///mnt/nfs/a/b"), "file:///mnt/nfs");
        assert_eq!(origin_of(&dataset("minio")), "https://minio");
        let mut slots = Slots::default();
        for host in ["kept", "gone"] {
            slots.answered.insert(format!("https://{host}"), true);
        }
        slots.retain([dataset("kept")].iter());
        assert_eq!(slots.answered.keys().collect::<Vec<_>>(), ["https://kept"]);
    }
}
