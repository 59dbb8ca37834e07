//! Who was read least often goes, and of those who was read the longest ago.

use crate::cache::{Cache, Object};
use std::collections::{BTreeSet, HashMap};

pub(crate) struct Lfu {
    space: usize,
    /// Counts outlast their objects.
    remembers: bool,
    time: u64,
    counts: HashMap<Object, u64>,
    held: HashMap<Object, (u64, u64)>,
    order: BTreeSet<(u64, u64, Object)>,
}

impl Lfu {
    pub(crate) fn new(space: usize, remembers: bool) -> Self {
        let (counts, held) = (HashMap::new(), HashMap::new());
        Self { space, remembers, time: 0, counts, held, order: BTreeSet::new() }
    }
}

impl Cache for Lfu {
    fn read(&mut self, object: Object) -> bool {
        self.time += 1;
        let count = self.counts.entry(object).or_default();
        *count += 1;
        let now = (*count, self.time);
        let before = self.held.insert(object, now);
        if let Some((count, time)) = before {
            self.order.remove(&(count, time, object));
        } else if self.order.len() == self.space
            && let Some((_, _, least)) = self.order.pop_first()
        {
            self.held.remove(&least);
            if !self.remembers {
                self.counts.remove(&least);
            }
        }
        self.order.insert((now.0, now.1, object));
        before.is_some()
    }
}
