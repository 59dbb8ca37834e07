//! Caches of objects of one size, filled and emptied by what is decided here.

use super::{Held, Readings, SAMPLE, displaced};
use crate::index::Millis;
use crate::object::ObjectId;
use fastrand::Rng;
use proptest::prelude::*;
use std::collections::HashMap;

/// The name of an object, as good as random.
fn id(number: u32) -> ObjectId {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&blake3::hash(&number.to_le_bytes()).as_bytes()[..16]);
    ObjectId(bytes)
}

struct Cache {
    readings: Readings,
    space: usize,
    held: Vec<u32>,
    places: HashMap<u32, usize>,
    now: Millis,
    rng: Rng,
}

impl Cache {
    fn new(objects: u32, space: usize) -> Self {
        let (held, places) = (Vec::new(), HashMap::new());
        let readings = Readings::new(objects.into());
        Self { readings, space, held, places, now: Millis(0), rng: Rng::with_seed(1) }
    }

    /// Whether it was held.
    fn read(&mut self, object: u32) -> bool {
        self.now.0 += 10;
        self.readings.read(&id(object), self.now);
        if self.places.contains_key(&object) {
            return true;
        }
        if self.held.len() < self.space {
            self.places.insert(object, self.held.len());
            self.held.push(object);
            return false;
        }
        let drawn: Vec<usize> = (0..SAMPLE).map(|_| self.rng.usize(0..self.held.len())).collect();
        let worth = |object: u32| self.readings.worth(&id(object), self.now);
        let held = |at: &usize| Held { bytes: 1, worth: worth(self.held[*at]), native: false };
        let sample: Vec<Held> = drawn.iter().map(held).collect();
        if let Some(chosen) = displaced(1, 1, worth(object), &sample) {
            let at = drawn[chosen[0]];
            self.places.remove(&self.held[at]);
            self.places.insert(object, at);
            self.held[at] = object;
        }
        false
    }

    /// The share of these readings that find their object held.
    fn rate(&mut self, objects: impl IntoIterator<Item = u32>) -> f64 {
        let (mut hits, mut all) = (0, 0);
        for object in objects {
            hits += u32::from(self.read(object));
            all += 1;
        }
        f64::from(hits) / f64::from(all)
    }
}

fn shuffled(rng: &mut Rng, objects: u32) -> Vec<u32> {
    let mut epoch: Vec<u32> = (0..objects).collect();
    rng.shuffle(&mut epoch);
    epoch
}

/// Jobs that share a dataset, each reading it in an order of its own and all in step.
fn epoch(rng: &mut Rng, objects: u32, jobs: usize) -> Vec<u32> {
    let orders: Vec<Vec<u32>> = (0..jobs).map(|_| shuffled(rng, objects)).collect();
    (0..objects as usize).flat_map(|at| orders.iter().map(move |order| order[at])).collect()
}

#[test]
fn shuffled_epochs_find_as_much_as_there_is_room_for() {
    for (seed, objects) in [1_000, 4_000].into_iter().enumerate() {
        for percent in [20, 50, 67, 90] {
            for jobs in 1..4 {
                let space = objects as usize * percent / 100;
                let mut cache = Cache::new(objects, space);
                let mut rng = Rng::with_seed(seed as u64);
                (0..2).for_each(|_| _ = cache.rate(epoch(&mut rng, objects, jobs)));
                let rate = (0..5).map(|_| cache.rate(epoch(&mut rng, objects, jobs))).sum::<f64>() / 5.0;
                let share = percent as f64 / 100.0;
                assert!(rate > share - 0.02, "{jobs} jobs find {rate} of {objects} objects");
                assert_eq!(cache.held.len(), space);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn worth_is_a_number_whatever_is_read_when(
        readings in prop::collection::vec((0u32..50, any::<u64>()), 0..3000), objects: u64,
    ) {
        let mut memory = Readings::new(objects % 5000);
        for (object, now) in &readings {
            memory.read(&id(*object), Millis(*now));
        }
        for (object, now) in readings.iter().take(50) {
            let worth = memory.worth(&id(*object), Millis(*now));
            prop_assert!(worth.is_finite() && worth >= 0.0, "{worth}");
        }
    }
}

#[test]
fn what_is_hot_stays_while_all_is_read_through() {
    let mut cache = Cache::new(20_000, 2_000);
    let mut rng = Rng::with_seed(3);
    let hot = |rng: &mut Rng| rng.u32(0..1_800);
    // The cache is full of others when it begins.
    cache.rate(10_000..12_000);
    cache.rate((0..40_000).map(|_| hot(&mut rng)));
    assert!(cache.rate((0..10_000).map(|_| hot(&mut rng))) > 0.98);
    let mut hits = 0;
    for object in 2_000..20_000 {
        cache.read(object);
        hits += u32::from(cache.read(hot(&mut rng)));
    }
    assert!(hits > 17_600, "{hits} of 18000");
}

#[test]
fn one_who_follows_in_the_same_order_finds_what_the_first_left() {
    let (objects, lag) = (10_000, 1_250);
    let mut cache = Cache::new(objects as u32, 2_500);
    let order = shuffled(&mut Rng::with_seed(5), objects as u32);
    let mut rate = 0.0;
    for step in 0..objects * 8 {
        let (first, second) = (order[(step + lag) % objects], order[step % objects]);
        let found = cache.rate([first, second]);
        if step >= objects * 4 {
            rate += found / (objects * 4) as f64;
        }
    }
    // All readings of the second, and some of the first: by share it would be a quarter.
    assert!(rate > 0.5, "{rate}");
}
