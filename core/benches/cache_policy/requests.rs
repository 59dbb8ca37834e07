//! What is read, in which order. Every number is drawn from a seed.

use crate::cache::Object;
use fastrand::Rng;

/// Requests, and how many of them come before hits are counted.
pub(crate) struct Requests {
    pub(crate) name: String,
    pub(crate) objects: Vec<Object>,
    pub(crate) uncounted: usize,
    /// Objects that a cache has room for.
    pub(crate) space: usize,
    /// The first object of the second dataset.
    pub(crate) second: Object,
    /// One more than the last object of all.
    pub(crate) end: Object,
}

impl Requests {
    /// What share of the counted requests so many are.
    pub(crate) fn percent(&self, hits: usize) -> f64 {
        100.0 * hits as f64 / (self.objects.len() - self.uncounted) as f64
    }
}

/// Objects of the dataset.
const DATASET: u32 = 30_000;
const EPOCHS: usize = 12;
/// Epochs that only warm the cache up.
const UNCOUNTED: usize = 2;

/// All rows of the table.
pub(crate) fn all() -> Vec<Requests> {
    let mut rows = Vec::new();
    for (times, space) in [("1.5", DATASET * 2 / 3), ("2", DATASET / 2), ("4", DATASET / 4)] {
        rows.push(one(format!("shuffled epochs, {times} × the space"), space, shuffled(1)));
    }
    for (exponent, part) in [(0.7, 10), (0.9, 10), (0.9, 4), (1.1, 10)] {
        let requests = zipf(exponent, EPOCHS * DATASET as usize, 2);
        rows.push(one(format!("Zipf {exponent}, {part} × the space"), DATASET / part, requests));
    }
    rows.push(one("Zipf 0.9 of which the popular change".into(), DATASET / 10, drifting()));
    for part in [2, 4] {
        let own = interleaved(&shuffled(3), &shuffled(4), DATASET as usize / 2);
        rows.push(one(
            format!("two jobs half an epoch apart, shuffled differently, {part} × the space"),
            DATASET / part,
            own,
        ));
    }
    for (lag, part) in [(2, 2), (4, 2), (8, 4)] {
        let order = shuffled(5);
        let requests = interleaved(&order, &order, DATASET as usize / lag);
        rows.push(one(
            format!("two jobs 1/{lag} epoch apart, one seed, {part} × the space"),
            DATASET / part,
            requests,
        ));
    }
    rows.push(one("sequential epochs, 2 × the space".into(), DATASET / 2, sequential()));
    rows.push(scan_across());
    rows.push(scan_within());
    rows
}

fn one(name: String, space: u32, objects: Vec<Object>) -> Requests {
    let uncounted = objects.len() * UNCOUNTED / EPOCHS;
    Requests { name, objects, uncounted, space: space as usize, second: DATASET, end: DATASET }
}

fn shuffled(seed: u64) -> Vec<Object> {
    let mut rng = Rng::with_seed(seed);
    let mut epoch: Vec<Object> = (0..DATASET).collect();
    let epochs = (0..EPOCHS).flat_map(|_| {
        rng.shuffle(&mut epoch);
        epoch.clone()
    });
    epochs.collect()
}

fn sequential() -> Vec<Object> {
    (0..EPOCHS).flat_map(|_| 0..DATASET).collect()
}

/// Popularity falls with a power of the rank, and ranks stand in no order.
fn zipf(exponent: f64, count: usize, seed: u64) -> Vec<Object> {
    let mut rng = Rng::with_seed(seed);
    let mut by_rank: Vec<Object> = (0..DATASET).collect();
    rng.shuffle(&mut by_rank);
    let mut sums = Vec::with_capacity(by_rank.len());
    let mut sum = 0.0;
    for rank in 1..=DATASET {
        sum += f64::from(rank).powf(-exponent);
        sums.push(sum);
    }
    let mut draw = || {
        let at = rng.f64() * sum;
        by_rank[sums.partition_point(|sum| *sum <= at).min(by_rank.len() - 1)]
    };
    (0..count).map(|_| draw()).collect()
}

/// Every four datasets' worth of requests others are popular.
fn drifting() -> Vec<Object> {
    (0..3).flat_map(|seed| zipf(0.9, EPOCHS / 3 * DATASET as usize, 10 + seed)).collect()
}

/// Two jobs take turns; the second begins when the first has read `lag` objects.
fn interleaved(first: &[Object], second: &[Object], lag: usize) -> Vec<Object> {
    let mut requests = first[..lag].to_vec();
    for (one, other) in first[lag..].iter().zip(second) {
        requests.extend([*one, *other]);
    }
    requests
}

/// One dataset is hot, and a second one is read through once, beside it.
fn scan_across() -> Requests {
    let hot = zipf(0.9, EPOCHS * DATASET as usize, 6);
    let from = hot.len() / 3;
    let scanned = DATASET * 4;
    let requests = crossed(&hot, from, DATASET..DATASET + scanned);
    let row = one("a scan of another dataset across hot data".into(), DATASET / 4, requests);
    Requests { uncounted: from, end: DATASET + scanned, ..row }
}

/// A tenth of a dataset is hot, and the whole of it is read through now and then.
fn scan_within() -> Requests {
    let hot = DATASET / 10;
    let mut rng = Rng::with_seed(7);
    let mut requests = Vec::new();
    for _ in 0..6 {
        let hot: Vec<Object> = (0..DATASET * 2).map(|_| rng.u32(0..hot)).collect();
        requests.extend(crossed(&hot, hot.len() / 2, 0..DATASET));
    }
    // A sixth of them, as everywhere.
    one("scans of a dataset across its hot tenth".into(), DATASET / 8, requests)
}

/// A scan goes between requests from there on, one by one.
fn crossed(hot: &[Object], from: usize, scan: std::ops::Range<Object>) -> Vec<Object> {
    let mut scan = scan;
    let mut requests = Vec::new();
    for (at, object) in hot.iter().enumerate() {
        requests.push(*object);
        if at >= from {
            requests.extend(scan.next());
        }
    }
    requests
}
