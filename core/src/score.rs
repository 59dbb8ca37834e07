//! Scores: how much sooner a pod's data would be local on a node than on a cold one.
//!
//! ```text
//! seconds(node) = bytes neither held nor in flight ÷ rate(node) + bytes in flight ÷ (2 × rate(node))
//! score(node)   = ⌊10 × (seconds(cold node) − seconds(node)) ÷ seconds(cold node)⌋, within 1 to 10
//! ```
//!
//! A cold node fetches everything at the median rate of the nodes weighed. A node
//! that saves nothing has no score, which kube-scheduler takes for 0. Bytes in
//! flight count half: a transfer that has begun is, on average, half done.

use crate::index::{ASSUMED_BYTES_PER_SECOND, Weighed, Weighing};

/// The highest score that an extender may give.
pub const MAX_SCORE: u8 = 10;

/// Seconds until all that is asked would be on this node.
pub fn seconds(requested: u64, node: &Weighed) -> f64 {
    let missing = requested.saturating_sub(node.held).saturating_sub(node.in_flight);
    let rate = node.rate.max(1) as f64;
    missing as f64 / rate + node.in_flight as f64 / (2.0 * rate)
}

/// Seconds until all that is asked would be on a node that holds nothing.
pub fn cold_seconds(weighing: &Weighing) -> f64 {
    let mut rates: Vec<u64> = weighing.nodes.iter().map(|node| node.rate.max(1)).collect();
    let middle = rates.len() / 2;
    let median = match rates.is_empty() {
        true => ASSUMED_BYTES_PER_SECOND,
        false => *rates.select_nth_unstable(middle).1,
    };
    weighing.requested as f64 / median as f64
}

/// The score of a node, 0 to [`MAX_SCORE`].
pub fn score(requested: u64, cold_seconds: f64, node: &Weighed) -> u8 {
    let saved = cold_seconds - seconds(requested, node);
    if cold_seconds <= 0.0 || saved <= 0.0 {
        return 0;
    }
    let parts = (f64::from(MAX_SCORE) * saved / cold_seconds).floor();
    parts.clamp(1.0, f64::from(MAX_SCORE)) as u8
}

/// Whole percent that `part` is of `whole`, rounded down so that 100 means all.
pub fn percent(part: u64, whole: u64) -> u8 {
    match whole {
        0 => 100,
        whole => (u128::from(part.min(whole)) * 100 / u128::from(whole)) as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(held: u64, in_flight: u64, rate: u64) -> Weighed {
        Weighed { node: "n".into(), held, in_flight, rate }
    }

    fn scores(requested: u64, nodes: Vec<Weighed>) -> Vec<u8> {
        let weighing = Weighing { requested, nodes, problems: vec![] };
        let cold = cold_seconds(&weighing);
        weighing.nodes.iter().map(|node| score(requested, cold, node)).collect()
    }

    #[test]
    fn warmer_is_higher_and_in_flight_is_half() {
        let nodes = [(100, 0), (99, 0), (50, 0), (50, 50), (0, 100), (1, 0), (0, 0)];
        let nodes = nodes.map(|(held, in_flight)| node(held, in_flight, 10)).to_vec();
        assert_eq!(scores(100, nodes), [10, 9, 5, 7, 5, 1, 0]);
    }

    #[test]
    fn a_slow_node_saves_less() {
        assert_eq!(scores(100, vec![node(50, 0, 10), node(50, 0, 10), node(50, 0, 5)]), [5, 5, 0]);
    }

    #[test]
    fn nothing_asked_nothing_scored() {
        assert_eq!(scores(0, vec![node(0, 0, 10)]), [0]);
        assert_eq!(percent(0, 0), 100);
        assert_eq!(percent(999, 1000), 99);
    }

    proptest! {
        #[test]
        fn scores_stay_in_range_and_rise_with_bytes(
            requested: u64, held: u64, more: u64, in_flight: u64, rate: u64, other: u64,
        ) {
            let held = held.min(requested);
            let more = held.saturating_add(more).min(requested);
            let nodes = vec![node(held, 0, rate), node(more, 0, rate), node(held, in_flight.min(requested - held), rate), node(0, 0, other)];
            let scores = scores(requested, nodes);
            prop_assert!(scores.iter().all(|score| *score <= MAX_SCORE));
            prop_assert!(scores[1] >= scores[0]);
            prop_assert!(scores[2] >= scores[0]);
            prop_assert!(percent(held, requested) <= 100);
        }
    }
}
