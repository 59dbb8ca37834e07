//! Whether an object that was just fetched for a reader takes the room of others of
//! the same standing.

use std::cmp::Ordering;

/// How many objects to show [`displaced`], drawn at random among those held of the same
/// standing, the object's own dataset and others. More choose better, at a price each.
pub const SAMPLE: usize = 32;

/// An object has to be worth more than those that it displaces by this factor: what is
/// learned is never exact, and each exchange costs a write. With 1.1, the errors take two of
/// a hundred hits in shuffled epochs.
const MARGIN: f64 = 1.5;

/// An object that is held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Held {
    /// Bytes that are held of it.
    pub bytes: u64,
    /// See [`Readings::worth`](super::Readings::worth).
    pub worth: f64,
    /// A native view shows it.
    pub native: bool,
}

/// Which of the `sample` an object of `bytes` and `worth` takes the room of, so that at
/// least `short` bytes come free: their places in the sample. `None` when it is worth no
/// more than they are: then it is read and not kept.
///
/// This is what ends all changes in a dataset that is larger than its space and read in
/// random order: what was just read is read again later than any other, so it is worth
/// the least.
pub fn displaced(short: u64, bytes: u64, worth: f64, sample: &[Held]) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = (0..sample.len()).filter(|at| !sample[*at].native).collect();
    order.sort_by(|one, other| by_worth(&sample[*one], &sample[*other]));
    let gain = worth * bytes as f64;
    let (mut chosen, mut freed, mut loss) = (Vec::new(), 0_u64, 0.0);
    for at in order {
        if freed >= short {
            break;
        }
        let held = &sample[at];
        freed = freed.saturating_add(held.bytes);
        loss += held.worth * held.bytes as f64;
        if held.worth * MARGIN >= worth || loss * MARGIN >= gain {
            return None;
        }
        chosen.push(at);
    }
    (freed >= short).then_some(chosen)
}

/// Of those that are worth the same the largest first: fewer have to go.
fn by_worth(one: &Held, other: &Held) -> Ordering {
    one.worth.total_cmp(&other.worth).then_with(|| other.bytes.cmp(&one.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn held(bytes: u64, worth: f64) -> Held {
        Held { bytes, worth, native: false }
    }

    #[test]
    fn the_worth_least_go_and_equals_stay() {
        let sample = [held(10, 2.0), held(10, 0.5), held(10, 1.0)];
        assert_eq!(displaced(10, 10, 3.0, &sample), Some(vec![1]));
        assert_eq!(displaced(20, 20, 3.0, &sample), Some(vec![1, 2]));
        assert_eq!(displaced(10, 10, 0.5, &sample), None);
        assert_eq!(displaced(10, 10, 0.7, &sample), None, "not by enough");
        assert_eq!(displaced(31, 31, 9.0, &sample), None, "there is not so much");
        assert_eq!(displaced(1, 1, 0.9, &[held(10, 0.5)]), None, "ten bytes for one");
        assert_eq!(displaced(1, 1, 0.0, &[held(1, 0.0)]), None, "nothing is known yet");
        assert_eq!(displaced(1, 1, 9.0, &[Held { native: true, ..held(1, 0.0) }]), None);
    }

    proptest! {
        #[test]
        fn an_exchange_is_never_a_loss(
            short in 1u64..50, bytes in 1u64..50, worth in 0.0..4.0f64,
            sample in prop::collection::vec((1u64..50, 0.0..4.0f64, any::<bool>()), 0..20),
        ) {
            let sample: Vec<Held> =
                sample.into_iter().map(|(bytes, worth, native)| Held { bytes, worth, native }).collect();
            if let Some(chosen) = displaced(short, bytes, worth, &sample) {
                let taken = || chosen.iter().map(|at| &sample[*at]);
                prop_assert!(taken().all(|held| !held.native && held.worth < worth));
                prop_assert!(taken().map(|held| held.bytes).sum::<u64>() >= short);
                let loss: f64 = taken().map(|held| held.worth * held.bytes as f64).sum();
                prop_assert!(loss < worth * bytes as f64);
                let most = taken().map(|held| held.worth).fold(0.0, f64::max);
                let spared = (0..sample.len()).filter(|at| !chosen.contains(at)).map(|at| &sample[at]);
                prop_assert!(spared.filter(|held| !held.native).all(|held| held.worth >= most));
            }
        }
    }
}
