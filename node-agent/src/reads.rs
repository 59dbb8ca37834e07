//! How datasets are read on this node, as long as the agent runs: what that says of the
//! worth of their objects. It costs nothing but some hits to learn it anew.

use hearth_core::evict::{Heat, Readings};
use hearth_core::index::Millis;
use hearth_core::object::ObjectId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// Milliseconds in which a mount comes to count half: what was trained on yesterday may be
/// again today.
const HALF_LIFE: u64 = 24 * 60 * 60 * 1000;

/// What is known of all datasets. Clones are the same.
#[derive(Clone, Debug)]
pub struct Reads(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
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
    began: Instant,
    known: Arc<Mutex<Known>>,
}

impl Default for Reads {
    fn default() -> Self {
        Self(Arc::new(Inner { began: Instant::now(), datasets: Mutex::default() }))
    }
}

impl Reads {
    /// How a dataset, `namespace/name`, is read.
    pub fn of(&self, dataset: &str) -> Habit {
        let new = || Arc::new(Mutex::new(Known { readings: None, mounts: Heat::new(HALF_LIFE) }));
        let known = self.0.datasets.lock().entry(dataset.to_owned()).or_insert_with(new).clone();
        Habit { began: self.0.began, known }
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
        Millis(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
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
