//! Which blocks of a new version are already held by a holder of an old one.

use super::{Manifest, path_order};
use roaring::RoaringBitmap;
use std::cmp::Ordering;

/// Translates blocks held of `old` into the blocks of `new` that have the same
/// content: files of the same path, size and validator from the same place.
///
/// So a refresh keeps the warmth of what did not change, before any node has
/// reported the new version.
pub fn inherit(old: &Manifest, new: &Manifest, held: &RoaringBitmap) -> RoaringBitmap {
    let mut inherited = RoaringBitmap::new();
    if old.domain != new.domain {
        return inherited;
    }
    let (mut olds, mut news) = (old.files().peekable(), new.files().peekable());
    while let (Some(was), Some(is)) = (olds.peek(), news.peek()) {
        match path_order(was.path, is.path) {
            Ordering::Less => {
                olds.next();
            }
            Ordering::Greater => {
                news.next();
            }
            Ordering::Equal => {
                let same = was.size == is.size
                    && was.validator == is.validator
                    && old.origins[usize::from(was.origin)].uri == new.origins[usize::from(is.origin)].uri
                    && old.key(was) == new.key(is);
                if same {
                    for number in was.blocks() {
                        if held.contains(number) {
                            inherited.insert(is.first_block + (number - was.first_block));
                        }
                    }
                }
                olds.next();
                news.next();
            }
        }
    }
    inherited
}
