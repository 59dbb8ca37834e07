//! What knowing the future would give: who is read last goes, and who would be read
//! later than all that are held is not taken in.

use crate::cache::Object;
use std::collections::{BTreeSet, HashMap};

/// The hits among the requests after the first `uncounted`.
pub(crate) fn hits(requests: &[Object], uncounted: usize, space: usize) -> usize {
    let mut next = vec![usize::MAX; requests.len()];
    let mut seen = HashMap::new();
    for (at, object) in requests.iter().enumerate().rev() {
        next[at] = seen.insert(object, at).unwrap_or(usize::MAX);
    }
    // By when they are read next: nothing else is read then. Who never is needs no room.
    let mut held = BTreeSet::new();
    let mut hits = 0;
    for (at, next) in next.into_iter().enumerate() {
        hits += usize::from(held.remove(&at) && at >= uncounted);
        if next < usize::MAX {
            held.insert(next);
        }
        if held.len() > space {
            held.pop_last();
        }
    }
    hits
}
