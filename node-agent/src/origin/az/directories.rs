//! How a long listing is made in several places at once, where it can begin at any prefix, and not behind any key.
//!
//! A listing goes page by page. One that has more than a few is made anew, a directory at a time, if its directories
//! hold enough to be worth a request each; what came before that is put aside, so that nothing is taken twice. When too
//! many turn out to hold little, the rest is listed page by page after all, without those that were begun. In which order
//! a store lists is of no matter: with a hierarchical namespace it is not that of the keys' bytes.

use crate::origin::OriginError;
use crate::origin::web::ranges::{Key, Page};
use crate::origin::web::{Pages, unreadable};
use std::collections::HashSet;

/// Pages with keys after which a listing may be made anew by directories.
const SHORT: usize = 2;
/// Keys that make a directory worth a listing of its own: a tenth of a page.
const WORTH: usize = 500;
/// Directories with less that are put up with, beside one for so many listings that were worth it.
const VAIN: usize = 16;
const WORTHY_A_VAIN_ONE: usize = 8;
/// Directories and keys beside them that are made a listing each; with more they are listed page by page.
const MOST_BESIDE: usize = 5_000;
/// Directories that may wait.
const MOST_WAITING: usize = 50_000;

/// A listing that has a page to come.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// With what its paths begin.
    pub(super) prefix: String,
    /// Where its next page begins; at the beginning without one.
    pub(super) marker: Option<String>,
    kind: Kind,
    /// Which of the splits it comes from.
    split: Option<usize>,
    pages: Pages,
}

#[derive(Debug)]
enum Kind {
    /// Of all below the prefix: what was put aside, and of how many pages with keys.
    Begun { aside: Vec<Key>, pages: usize },
    /// Of all below the prefix to its end, but for what this split has.
    Whole { without: Option<usize> },
    /// Of the directories at the prefix and of what lies beside them, so far.
    Directories { directories: Vec<String>, beside: Vec<Key>, instead: Instead },
}

impl Default for Kind {
    fn default() -> Self {
        Self::Begun { aside: Vec::new(), pages: 0 }
    }
}

/// What is taken and how it goes on without a split.
#[derive(Debug)]
struct Instead {
    aside: Vec<Key>,
    marker: String,
    pages: Pages,
}

/// A listing that is made anew by directories.
#[derive(Debug)]
struct Split {
    prefix: String,
    /// Those that are not begun.
    waiting: Vec<String>,
    /// Those that are, without the prefix and the slash.
    begun: HashSet<String>,
    /// None when all are begun, or those that are not are listed by it.
    instead: Option<Instead>,
    worthy: usize,
    vain: usize,
}

impl Split {
    /// Whether this is in a directory that is begun, or beside the directories, and so taken.
    fn has(&self, key: &Key) -> bool {
        directory(key, &self.prefix).is_none_or(|directory| self.begun.contains(directory))
    }
}

impl Listing {
    /// Whether it is of directories, and of what lies beside them.
    pub(super) fn is_of_directories(&self) -> bool {
        matches!(self.kind, Kind::Directories { .. })
    }
}

/// The listings that one has become.
#[derive(Debug)]
pub(super) struct Listings {
    ready: Vec<Listing>,
    splits: Vec<Split>,
}

impl Listings {
    /// Of what begins with `prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        let first = Listing { prefix: prefix.to_owned(), ..Listing::default() };
        Self { ready: vec![first], splits: Vec::new() }
    }

    /// The one to go on with; the newest first, so that few are begun.
    pub(super) fn next(&mut self) -> Option<Listing> {
        if let Some(listing) = self.ready.pop() {
            return Some(listing);
        }
        let number = self.splits.iter().rposition(|split| !split.waiting.is_empty())?;
        let split = self.splits.get_mut(number)?;
        let prefix = split.waiting.pop()?;
        let name = prefix[split.prefix.len()..].trim_end_matches('/');
        split.begun.insert(name.to_owned());
        if split.waiting.is_empty() {
            split.instead = None;
        }
        Some(Listing { prefix, split: Some(number), ..Listing::default() })
    }

    /// Takes the next page of a listing of a store called `name`, and gives the keys that are certain now. `directories`
    /// are the page's; none when one of them cannot be asked for.
    pub(super) fn page(
        &mut self,
        name: &str,
        listing: Listing,
        page: Page,
        directories: Option<Vec<String>>,
    ) -> Result<Vec<Key>, OriginError> {
        let Listing { prefix, kind, split, mut pages, .. } = listing;
        let Page { keys, is_empty, next } = page;
        if keys.iter().any(|key| key.path.as_deref().is_ok_and(|path| !path.starts_with(&prefix))) {
            return Err(unreadable(name, "it has keys that do not begin as was asked for"));
        }
        let marker = next.map(|next| pages.next(name, is_empty, next)).transpose()?;
        let mut certain = match kind {
            _ if marker.is_some() || keys.len() >= WORTH => self.count(split, true),
            Kind::Begun { pages: 0, .. } => self.count(split, false),
            // The end of a directory that goes on further than a page.
            _ => Vec::new(),
        };
        let kind = match kind {
            Kind::Directories { directories: mut all, mut beside, instead } => {
                let is_whole = directories.is_some_and(|directories| {
                    all.extend(directories);
                    all.iter().all(|directory| is_below(directory, &prefix))
                });
                beside.extend(keys);
                if !is_whole || all.len() + beside.len() > MOST_BESIDE || self.waiting() > MOST_WAITING {
                    certain.extend(self.whole(prefix, instead, None));
                    return Ok(certain);
                }
                if marker.is_none() {
                    self.split(prefix, all, instead);
                    certain.extend(beside);
                    return Ok(certain);
                }
                Kind::Directories { directories: all, beside, instead }
            }
            Kind::Begun { mut aside, pages: before } => {
                let so_far = before + usize::from(!keys.is_empty());
                aside.extend(keys);
                match marker {
                    Some(marker) if so_far >= SHORT && is_worth_it(&aside, &prefix) => {
                        let instead = Instead { aside, marker, pages };
                        let kind = Kind::Directories { directories: Vec::new(), beside: Vec::new(), instead };
                        self.ready.push(Listing { prefix, kind, ..Listing::default() });
                        return Ok(certain);
                    }
                    Some(_) if so_far < SHORT => Kind::Begun { aside, pages: so_far },
                    _ => {
                        certain.extend(aside);
                        Kind::Whole { without: None }
                    }
                }
            }
            Kind::Whole { without } => {
                let split = without.and_then(|number| self.splits.get(number));
                certain.extend(keys.into_iter().filter(|key| split.is_none_or(|split| !split.has(key))));
                Kind::Whole { without }
            }
        };
        if marker.is_some() {
            self.ready.push(Listing { prefix, marker, kind, split, pages });
        }
        Ok(certain)
    }

    fn waiting(&self) -> usize {
        self.splits.iter().map(|split| split.waiting.len()).sum()
    }

    /// Goes on with a listing of each directory.
    fn split(&mut self, prefix: String, mut waiting: Vec<String>, instead: Instead) {
        waiting.sort_unstable();
        waiting.dedup();
        let instead = Some(instead).filter(|_| !waiting.is_empty());
        self.splits.push(Split { prefix, waiting, begun: HashSet::new(), instead, worthy: 0, vain: 0 });
    }

    /// Goes on page by page; gives what was put aside, without what that split has.
    fn whole(&mut self, prefix: String, instead: Instead, without: Option<usize>) -> Vec<Key> {
        let Instead { mut aside, marker, pages } = instead;
        if let Some(split) = without.and_then(|number| self.splits.get(number)) {
            aside.retain(|key| !split.has(key));
        }
        let kind = Kind::Whole { without };
        self.ready.push(Listing { prefix, marker: Some(marker), kind, split: None, pages });
        aside
    }

    /// Counts a page of one of a split's directories, which was worth its request or not. A split whose directories hold
    /// too little is given up: gives what was put aside for that.
    fn count(&mut self, split: Option<usize>, is_worthy: bool) -> Vec<Key> {
        let Some((number, counted)) = split.and_then(|number| Some((number, self.splits.get_mut(number)?)))
        else {
            return Vec::new();
        };
        counted.worthy += usize::from(is_worthy);
        counted.vain += usize::from(!is_worthy);
        if counted.vain <= VAIN + counted.worthy / WORTHY_A_VAIN_ONE {
            return Vec::new();
        }
        let Some(instead) = counted.instead.take() else { return Vec::new() };
        counted.waiting.clear();
        let prefix = counted.prefix.clone();
        self.whole(prefix, instead, Some(number))
    }
}

fn is_below(directory: &str, prefix: &str) -> bool {
    directory
        .strip_prefix(prefix)
        .and_then(|name| name.strip_suffix('/'))
        .is_some_and(|name| !name.contains('/'))
}

/// The directory at this prefix that a key lies in.
fn directory<'a>(key: &'a Key, prefix: &str) -> Option<&'a str> {
    let (Ok(path) | Err(path)) = &key.path;
    path.strip_prefix(prefix)?.split_once('/').map(|(directory, _)| directory)
}

/// Whether these keys lie in directories that hold enough.
fn is_worth_it(keys: &[Key], prefix: &str) -> bool {
    let inside: Vec<&str> = keys.iter().filter_map(|key| directory(key, prefix)).collect();
    let directories = inside.iter().collect::<HashSet<_>>().len();
    inside.len().checked_div(directories).is_some_and(|average| average >= WORTH)
}

#[cfg(test)]
#[path = "directories_tests.rs"]
mod tests;
