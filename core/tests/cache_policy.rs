//! What a node holds that is filled and emptied by what the policy decides.

#[path = "../benches/cache_policy/cache.rs"]
mod cache;
#[path = "../benches/cache_policy/ours.rs"]
mod ours;

use cache::Cache;
use fastrand::Rng;
use hearth_core::evict::Readings;
use hearth_core::index::Millis;
use ours::{Ours, id};
use proptest::prelude::*;

/// Of one dataset of so many objects, with room for some of them.
fn node(objects: u32, space: usize) -> Ours {
    Ours::new(space, objects, objects)
}

/// The share of these readings that find their object held.
fn rate(cache: &mut Ours, objects: impl IntoIterator<Item = u32>) -> f64 {
    let (mut hits, mut all) = (0, 0);
    for object in objects {
        hits += u32::from(cache.read(object));
        all += 1;
    }
    f64::from(hits) / f64::from(all)
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
                let mut cache = node(objects, space);
                let mut rng = Rng::with_seed(seed as u64);
                (0..2).for_each(|_| _ = rate(&mut cache, epoch(&mut rng, objects, jobs)));
                let rate =
                    (0..5).map(|_| rate(&mut cache, epoch(&mut rng, objects, jobs))).sum::<f64>() / 5.0;
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
    let mut cache = node(20_000, 2_000);
    let mut rng = Rng::with_seed(3);
    let hot = |rng: &mut Rng| rng.u32(0..1_800);
    // The cache is full of others when it begins.
    rate(&mut cache, 10_000..12_000);
    rate(&mut cache, (0..40_000).map(|_| hot(&mut rng)));
    assert!(rate(&mut cache, (0..10_000).map(|_| hot(&mut rng))) > 0.98);
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
    let mut cache = node(objects as u32, 2_500);
    let order = shuffled(&mut Rng::with_seed(5), objects as u32);
    let mut found = 0.0;
    for step in 0..objects * 8 {
        let (first, second) = (order[(step + lag) % objects], order[step % objects]);
        let share = rate(&mut cache, [first, second]);
        if step >= objects * 4 {
            found += share / (objects * 4) as f64;
        }
    }
    // All readings of the second, and some of the first: by share it would be a quarter.
    assert!(found > 0.5, "{found}");
}
