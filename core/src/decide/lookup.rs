//! Finds the few nodes that matter among all candidates.

use hashbrown::HashMap;

const BITS: usize = 4096;

/// A map by name of node that is mostly asked for names that it has not.
///
/// Of 5,000 candidates a hundred may be warm: hashing every name would cost more
/// than all else in a decision, so a look at its ends comes first.
pub(super) struct ByNode<'a, T> {
    entries: HashMap<&'a str, T>,
    marks: [u64; BITS / 64],
}

impl<'a, T> FromIterator<(&'a str, T)> for ByNode<'a, T> {
    fn from_iter<I: IntoIterator<Item = (&'a str, T)>>(entries: I) -> Self {
        let mut marks = [0; BITS / 64];
        let mark = |(name, value)| {
            let bit = mark_of(name);
            marks[bit / 64] |= 1 << (bit % 64);
            (name, value)
        };
        Self { entries: entries.into_iter().map(mark).collect(), marks }
    }
}

impl<T> ByNode<'_, T> {
    pub(super) fn get(&self, name: &str) -> Option<&T> {
        let bit = mark_of(name);
        if self.marks[bit / 64] & (1 << (bit % 64)) == 0 {
            return None;
        }
        self.entries.get(name)
    }
}

/// Names of nodes differ near their beginning (`ip-10-0-3-7.eu-central-1…`) or at
/// their end (`gke-training-pool-1a2b-x7f9`).
fn mark_of(name: &str) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let bytes = name.as_bytes();
    let mixed =
        match (bytes.first_chunk(), bytes.get(8..16).and_then(<[u8]>::first_chunk), bytes.last_chunk()) {
            (Some(first), Some(second), Some(last)) => {
                let [first, second, last] = [first, second, last].map(|part| u64::from_le_bytes(*part));
                (first.wrapping_mul(ODD) ^ second).wrapping_mul(ODD).rotate_left(32) ^ last
            }
            _ => bytes
                .iter()
                .fold(0, |mixed, byte| (mixed ^ u64::from(*byte)).wrapping_mul(ODD).rotate_left(5)),
        };
    // The highest bits of a product depend on all bits of its factor.
    (mixed.wrapping_mul(ODD) >> (64 - BITS.ilog2())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn finds_what_a_map_finds(
            entries in prop::collection::btree_map("[a-c0-9.-]{0,40}", any::<u8>(), 0..200),
            asked in prop::collection::vec("[a-c0-9.-]{0,40}", 0..50),
        ) {
            let by_node: ByNode<'_, u8> = entries.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            for name in entries.keys().chain(&asked) {
                prop_assert_eq!(by_node.get(name), entries.get(name));
            }
        }
    }

    #[test]
    fn names_as_clouds_give_them_are_told_apart_without_hashing() {
        for name_of in [
            |n: usize| format!("ip-10-0-{}-{}.eu-central-1.compute.internal", n / 256, n % 256),
            |n: usize| format!("gke-training-a100-pool-1a2b3c4d-{:04x}", n * 7919 % 65_536),
            |n: usize| format!("node-{n}"),
        ] {
            let mut marks: BTreeMap<usize, usize> = BTreeMap::new();
            for n in 0..5_000 {
                *marks.entry(mark_of(&name_of(n))).or_default() += 1;
            }
            let worst = marks.values().max().copied().unwrap_or(0);
            assert!(
                marks.len() > 2_500 && worst < 16,
                "{} marks, {worst} at one: {}",
                marks.len(),
                name_of(1)
            );
        }
    }
}
