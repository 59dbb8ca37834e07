//! How datasets are read on this node: what that says of the worth of their objects. How often
//! they are mounted is kept over restarts (`heat_file.rs`); how their files are opened costs
//! nothing but some hits to learn anew.

use hearth_core::evict::{Heat, Readings};
use hearth_core::index::Millis;
use hearth_core::object::ObjectId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Milliseconds in which a mount comes to count half: what was trained on yesterday may be
/// again today.
const HALF_LIFE: u64 = 24 * 60 * 60 * 1000;

/// Less of a mount than this is as good as none: a single one of two weeks ago.
const LEAST: f64 = 1.0 / (1 << 14) as f64;

/// What is known of all datasets. Clones are the same.
#[derive(Clone, Debug)]
pub struct Reads(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    /// Mounts since then, of whatever dataset.
    mounts: AtomicU64,
    datasets: Mutex<HashMap<String, Arc<Mutex<Known>>>>,
}

#[derive(Debug)]
struct Known {
    /// `None` before the first file is opened through the agent: native views are read
    /// without it.
    readings: Option<Readings>,
    mounts: Heat,
}

/// How one dataset is read.
#[derive(Clone, Debug)]
pub struct Habit {
    reads: Reads,
    known: Arc<Mutex<Known>>,
}

impl Default for Reads {
    fn default() -> Self {
        Self(Arc::new(Inner { began: Instant::now(), mounts: AtomicU64::new(0), datasets: Mutex::default() }))
    }
}

impl Reads {
    /// How a dataset, `namespace/name`, is read.
    pub fn of(&self, dataset: &str) -> Habit {
        let new = || Arc::new(Mutex::new(Known { readings: None, mounts: Heat::new(HALF_LIFE) }));
        let known = self.0.datasets.lock().entry(dataset.to_owned()).or_insert_with(new).clone();
        Habit { reads: self.clone(), known }
    }

    /// Mounts since the start: whether there has been one.
    pub fn mounts(&self) -> u64 {
        self.0.mounts.load(Ordering::Relaxed)
    }

    /// How often each dataset was mounted of late.
    pub fn heats(&self) -> Vec<(String, f64)> {
        let now = self.now();
        let datasets = self.0.datasets.lock();
        let heats = datasets.iter().map(|(dataset, known)| (dataset.clone(), known.lock().mounts.count(now)));
        // What is as good as nothing is not worth its line.
        heats.filter(|(_, heat)| *heat >= LEAST).collect()
    }

    /// What [`Self::heats`] said before the restart, so long ago.
    pub fn resume(&self, heats: impl IntoIterator<Item = (String, f64)>, ago: Duration) {
        let ago = Millis(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX));
        for (dataset, heat) in heats {
            let mut then = Heat::new(HALF_LIFE);
            then.add(Millis(0), heat);
            let left = then.count(ago);
            if left >= LEAST {
                self.of(&dataset).known.lock().mounts.add(self.now(), left);
            }
        }
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Forgets the datasets that `is_known` says no to and that nobody reads.
    pub fn retain(&self, is_known: impl Fn(&str) -> bool) {
        self.0.datasets.lock().retain(|dataset, known| Arc::strong_count(known) > 1 || is_known(dataset));
    }
}

impl Habit {
    /// A pod has mounted the dataset.
    pub fn mounted(&self) {
        let now = self.now();
        self.known.lock().mounts.add(now, 1.0);
        self.reads.0.mounts.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the dataset was mounted of late.
    pub fn heat(&self) -> f64 {
        self.known.lock().mounts.count(self.now())
    }

    /// A file has been opened, of a version of so many files.
    pub fn opened(&self, files: u64, object: &ObjectId) {
        let now = self.now();
        self.known.lock().readings.get_or_insert_with(|| Readings::new(files)).read(object, now);
    }

    /// Whether any file was opened: else all objects are worth the same.
    pub fn is_known(&self) -> bool {
        self.known.lock().readings.is_some()
    }

    /// See [`Readings::worth`].
    pub fn worth(&self, object: &ObjectId) -> f64 {
        self.known.lock().readings.as_ref().map_or(0.0, |readings| readings.worth(object, self.now()))
    }

    fn now(&self) -> Millis {
        self.reads.now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_stays_while_somebody_reads() {
        let reads = Reads::default();
        let habit = reads.of("ns/read");
        habit.mounted();
        reads.of("ns/known").mounted();
        reads.of("ns/gone").mounted();
        reads.retain(|dataset| dataset == "ns/known");
        let heat = |dataset| reads.of(dataset).heat();
        assert!(heat("ns/read") > 0.9 && heat("ns/known") > 0.9 && heat("ns/gone") == 0.0);
        drop(habit);
    }

    #[test]
    fn what_is_opened_has_some_worth_in_time() {
        let (reads, object) = (Reads::default(), ObjectId([1; 16]));
        assert_eq!(reads.of("ns/d").worth(&object), 0.0);
        (0..2_000).for_each(|_| reads.of("ns/d").opened(10, &object));
        assert!(reads.of("ns/d").worth(&object) > 0.0);
    }
}
