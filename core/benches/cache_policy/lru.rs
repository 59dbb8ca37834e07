//! Who was read the longest ago goes.

use crate::cache::{Cache, Object};
use std::collections::{BTreeSet, HashMap};

pub(crate) struct Lru {
    space: usize,
    time: u64,
    last: HashMap<Object, u64>,
    order: BTreeSet<(u64, Object)>,
}

impl Lru {
    pub(crate) fn new(space: usize) -> Self {
        Self { space, time: 0, last: HashMap::new(), order: BTreeSet::new() }
    }
}

impl Cache for Lru {
    fn read(&mut self, object: Object) -> bool {
        self.time += 1;
        let before = self.last.insert(object, self.time);
        if let Some(before) = before {
            self.order.remove(&(before, object));
        } else if self.order.len() == self.space
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.last.remove(&oldest);
        }
        self.order.insert((self.time, object));
        before.is_some()
    }
}
