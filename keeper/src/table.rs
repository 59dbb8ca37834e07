//! What is kept, and until when. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Mounts of one node that are kept at most: kubelet runs a few hundred pods.
pub const MOST: usize = 4096;

/// What is kept by name; `T` is a mount's descriptors.
#[derive(Debug)]
pub(crate) struct Table<T> {
    entries: BTreeMap<String, Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    kept: T,
    /// Since when nobody answers for it.
    unserved: Option<Instant>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new() }
    }
}

impl<T> Table<T> {
    /// Keeps what an agent serves, in place of what had the name. False when it is full.
    pub(crate) fn keep(&mut self, name: String, kept: T) -> bool {
        if self.entries.len() >= MOST && !self.entries.contains_key(&name) {
            return false;
        }
        self.entries.insert(name, Entry { kept, unserved: None });
        true
    }

    pub(crate) fn forget(&mut self, name: &str) {
        self.entries.remove(name);
    }

    /// The agent has gone at `now`.
    pub(crate) fn unserved(&mut self, now: Instant) {
        for entry in self.entries.values_mut() {
            entry.unserved.get_or_insert(now);
        }
    }

    /// Lets go what nobody has served for longer than `limit`; how many that were.
    pub(crate) fn expire(&mut self, now: Instant, limit: Duration) -> usize {
        let before = self.entries.len();
        let is_overdue = |since: Instant| now.saturating_duration_since(since) > limit;
        self.entries.retain(|_, entry| !entry.unserved.is_some_and(is_overdue));
        before - self.entries.len()
    }

    /// Lets go what `is_over` says; how many that were.
    pub(crate) fn drop_if(&mut self, mut is_over: impl FnMut(&T) -> bool) -> usize {
        let before = self.entries.len();
        self.entries.retain(|_, entry| !is_over(&entry.kept));
        before - self.entries.len()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &T)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), &entry.kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_serves_is_let_go_in_time() {
        let (start, limit) = (Instant::now(), Duration::from_secs(300));
        let mut table = Table::default();
        assert!(table.keep("a".to_owned(), 1) && table.keep("b".to_owned(), 2));
        assert_eq!(table.expire(start + limit * 9, limit), 0, "an agent serves both");
        table.unserved(start);
        table.unserved(start + limit / 2);
        // An agent came and took up only one of them.
        assert!(table.keep("a".to_owned(), 3));
        assert_eq!(table.expire(start + limit, limit), 0);
        assert_eq!(table.expire(start + limit + Duration::from_secs(1), limit), 1);
        assert_eq!(table.all().collect::<Vec<_>>(), [("a", &3)]);
        assert_eq!(table.drop_if(|kept| *kept == 3), 1);
    }

    #[test]
    fn it_holds_no_more_than_it_says() {
        let mut table = Table::default();
        for name in 0..MOST {
            assert!(table.keep(name.to_string(), ()));
        }
        assert!(!table.keep("more".to_owned(), ()) && table.keep("7".to_owned(), ()));
        table.forget("8");
        assert!(table.keep("more".to_owned(), ()));
    }
}
