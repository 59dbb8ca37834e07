//! Which blocks of a new version are already held by a holder of an old one.

use super::{File, Manifest, path_order};
use crate::block::BlockNumber;
use roaring::RoaringBitmap;
use std::cmp::Ordering;
use std::ops::Range;

/// The blocks that two versions share: those of files of the same path, size and
/// validator from the same place.
///
/// So a refresh keeps the warmth of what did not change, before any node has reported
/// the new version. Finding them looks at every path of both, so it is done once for
/// all holders, and outside of locks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unchanged {
    /// In rising order, of both versions' numbers.
    runs: Vec<Run>,
}

/// Adjacent blocks that are adjacent in the new version too.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    old: Range<BlockNumber>,
    new_start: BlockNumber,
}

impl Unchanged {
    /// Finds what `new` has of `old`.
    pub fn between(old: &Manifest, new: &Manifest) -> Self {
        let mut unchanged = Self::default();
        let same_place = |was: &File<'_>, is: &File<'_>| {
            let (was, is) = (&old.origins[usize::from(was.origin)], &new.origins[usize::from(is.origin)]);
            was.domain == is.domain && was.uri == is.uri
        };
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
                    // Of what is unlisted nobody holds anything.
                    let same = !was.unlisted
                        && !is.unlisted
                        && was.size == is.size
                        && was.validator == is.validator
                        && same_place(was, is)
                        && old.key(was) == new.key(is);
                    if same {
                        unchanged.push(was.blocks(), is.first_block);
                    }
                    olds.next();
                    news.next();
                }
            }
        }
        unchanged
    }

    fn push(&mut self, old: Range<BlockNumber>, new_start: BlockNumber) {
        match self.runs.last_mut() {
            Some(run)
                if run.old.end == old.start && run.new_start + (run.old.end - run.old.start) == new_start =>
            {
                run.old.end = old.end;
            }
            _ if old.is_empty() => {}
            _ => self.runs.push(Run { old, new_start }),
        }
    }

    /// The new version's blocks that a holder of these old ones has.
    pub fn inherited(&self, held: &RoaringBitmap) -> RoaringBitmap {
        let mut inherited = RoaringBitmap::new();
        let mut blocks = held.iter();
        let mut held = blocks.next_range();
        let mut runs = self.runs.iter();
        let mut run = runs.next();
        while let (Some(Run { old, new_start }), Some(range)) = (run, &held) {
            // Blocks have numbers below the end of a run, so nothing overflows.
            let start = old.start.max(*range.start());
            let end = old.end.min(range.end().saturating_add(1));
            if start < end {
                inherited.insert_range(new_start + (start - old.start)..new_start + (end - old.start));
            }
            if *range.end() < old.end {
                held = blocks.next_range();
            } else {
                run = runs.next();
            }
        }
        inherited
    }
}
