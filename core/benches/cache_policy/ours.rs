//! Hearth's decisions, on the node of pods that read one dataset or two. The tests of the
//! policy use them, too.

use crate::cache::{Cache, Object};
use fastrand::Rng;
use hearth_core::evict::{Held, Readings, SAMPLE, displaced};
use hearth_core::index::Millis;
use hearth_core::object::ObjectId;
use std::collections::HashMap;

/// Between two requests.
const MILLIS: u64 = 10;

pub(crate) struct Ours {
    space: usize,
    readings: [Readings; 2],
    /// The first object of the second dataset.
    second: Object,
    pub(crate) held: Vec<Object>,
    places: HashMap<Object, usize>,
    now: Millis,
    rng: Rng,
}

impl Ours {
    /// For datasets of the objects up to `second`, and from there to `end`.
    pub(crate) fn new(space: usize, second: Object, end: Object) -> Self {
        Self {
            space,
            readings: [Readings::new(second.into()), Readings::new((end - second).into())],
            second,
            held: Vec::new(),
            places: HashMap::new(),
            now: Millis(0),
            rng: Rng::with_seed(1),
        }
    }

    fn worth(&self, object: Object) -> f64 {
        self.readings[usize::from(object >= self.second)].worth(&id(object), self.now)
    }
}

impl Cache for Ours {
    fn read(&mut self, object: Object) -> bool {
        self.now.0 += MILLIS;
        self.readings[usize::from(object >= self.second)].read(&id(object), self.now);
        if self.places.contains_key(&object) {
            return true;
        }
        if self.held.len() < self.space {
            self.places.insert(object, self.held.len());
            self.held.push(object);
            return false;
        }
        let drawn: [usize; SAMPLE] = std::array::from_fn(|_| self.rng.usize(0..self.held.len()));
        let sample = drawn.map(|at| Held { bytes: 1, worth: self.worth(self.held[at]), native: false });
        if let Some(chosen) = displaced(1, 1, self.worth(object), &sample) {
            let at = drawn[chosen[0]];
            self.places.remove(&self.held[at]);
            self.places.insert(object, at);
            self.held[at] = object;
        }
        false
    }
}

/// Names are hashes.
pub(crate) fn id(object: Object) -> ObjectId {
    let mut rng = Rng::with_seed(object.into());
    let mut bytes = [0; 16];
    rng.fill(&mut bytes);
    ObjectId(bytes)
}
