//! Which nodes are to hold what: rendezvous hashing, so that every replica
//! chooses the same nodes and a node that comes or goes moves only its own share.

/// The first `count` of `nodes` for `subject` by rendezvous hashing, best first;
/// all of them when `count` is `None`.
pub fn choose<'a>(
    subject: &str,
    nodes: impl IntoIterator<Item = &'a str>,
    count: Option<usize>,
) -> Vec<&'a str> {
    let mut ranked: Vec<([u8; 32], &str)> =
        nodes.into_iter().map(|node| (weight(subject, node), node)).collect();
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    ranked.truncate(count.unwrap_or(usize::MAX));
    ranked.into_iter().map(|(_, node)| node).collect()
}

fn weight(subject: &str, node: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(subject.len() as u64).to_le_bytes());
    hasher.update(subject.as_bytes()).update(node.as_bytes());
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_node_that_leaves_moves_only_its_own_share(
            nodes in prop::collection::btree_set("[a-z]{1,6}", 2..30),
            count in 1usize..10,
            gone: prop::sample::Index,
        ) {
            let all: Vec<&str> = nodes.iter().map(String::as_str).collect();
            let gone = all[gone.index(all.len())];
            let before = choose("warm-up", all.iter().copied(), Some(count));
            let after = choose("warm-up", all.iter().copied().filter(|node| *node != gone), Some(count));
            let stayed: Vec<&str> = before.iter().copied().filter(|node| *node != gone).collect();
            prop_assert_eq!(&after[..stayed.len()], &stayed[..]);
            prop_assert_eq!(before.len(), count.min(all.len()));
        }

        #[test]
        fn order_of_arrival_does_not_matter(nodes in prop::collection::vec("[a-z]{1,6}", 0..20)) {
            let forward = choose("s", nodes.iter().map(String::as_str), Some(3));
            let backward = choose("s", nodes.iter().rev().map(String::as_str), Some(3));
            prop_assert_eq!(forward, backward);
        }
    }
}
