//! How a long listing is made in several places at once, where it can begin at any prefix, and not behind any key.
//!
//! A listing goes page by page. One that has more than a few is made anew, a directory at a time, if its directories
//! hold enough to be worth a request each; what came before that is put aside, so that nothing is taken twice.
//! In which order a store lists is of no matter: with a hierarchical namespace it is not that of the keys' bytes.

use crate::origin::web::ranges::{Key, Page};
use crate::origin::web::{Pages, unreadable};
use crate::origin::{OriginError, shown};
use std::collections::HashSet;

/// Pages after which a listing is made anew by directories.
const SHORT: usize = 2;
/// Keys that a directory holds on average when a listing of its own is worth it: a tenth of a page.
const WORTH: usize = 500;

/// A listing that has a page to come.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// With what its paths begin.
    pub(super) prefix: String,
    /// Where its next page begins; at the beginning without one.
    pub(super) marker: Option<String>,
    kind: Kind,
    pages: Pages,
}

#[derive(Debug)]
enum Kind {
    /// Of all below the prefix: keys that were put aside, and of how many pages.
    Begun { aside: Vec<Key>, pages: usize },
    /// Of all below the prefix, to its end.
    Whole,
    /// Of the directories at the prefix and of what lies beside them. When they are too many, `aside` is taken and
    /// `instead` goes on.
    Directories { aside: Vec<Key>, instead: Box<Listing> },
}

impl Default for Kind {
    fn default() -> Self {
        Self::Begun { aside: Vec::new(), pages: 0 }
    }
}

impl Listing {
    fn of(prefix: String) -> Self {
        Self { prefix, ..Self::default() }
    }

    /// Whether it is of directories, and of what lies beside them.
    pub(super) fn is_of_directories(&self) -> bool {
        matches!(self.kind, Kind::Directories { .. })
    }
}

/// The listings that one has become.
#[derive(Debug)]
pub(super) struct Listings(Vec<Listing>);

impl Listings {
    /// Of what begins with `prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        Self(vec![Listing::of(prefix.to_owned())])
    }

    /// The one to go on with; the newest first, so that few are begun.
    pub(super) fn next(&mut self) -> Option<Listing> {
        self.0.pop()
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
        let Listing { prefix, kind, mut pages, .. } = listing;
        let Page { keys, is_empty, next } = page;
        let marker = next.map(|next| pages.next(name, is_empty, next)).transpose()?;
        let (certain, kind) = match kind {
            Kind::Directories { aside, instead } => match directories.filter(|_| marker.is_none()) {
                Some(directories) => {
                    self.split(name, &prefix, directories)?;
                    return Ok(keys);
                }
                None => {
                    self.0.push(*instead);
                    return Ok(aside);
                }
            },
            Kind::Begun { mut aside, pages: before } => {
                aside.extend(keys);
                let is_short = before + 1 < SHORT;
                match marker.is_some() {
                    true if is_short => (Vec::new(), Kind::Begun { aside, pages: before + 1 }),
                    true if is_worth_it(&aside, &prefix) => {
                        let rest = Listing { prefix: prefix.clone(), marker, kind: Kind::Whole, pages };
                        let kind = Kind::Directories { aside, instead: Box::new(rest) };
                        self.0.push(Listing { prefix, kind, ..Listing::default() });
                        return Ok(Vec::new());
                    }
                    _ => (aside, Kind::Whole),
                }
            }
            Kind::Whole => (keys, Kind::Whole),
        };
        if marker.is_some() {
            self.0.push(Listing { prefix, marker, kind, pages });
        }
        Ok(certain)
    }

    /// Goes on with a listing of each directory.
    fn split(&mut self, name: &str, prefix: &str, directories: Vec<String>) -> Result<(), OriginError> {
        if let Some(other) = directories.iter().find(|directory| !is_below(directory, prefix)) {
            return Err(unreadable(
                name,
                &format!("{} is no directory below {}", shown(other), shown(prefix)),
            ));
        }
        self.0.extend(directories.into_iter().map(Listing::of));
        Ok(())
    }
}

fn is_below(directory: &str, prefix: &str) -> bool {
    directory.len() > prefix.len() && directory.starts_with(prefix)
}

/// Whether these keys lie in directories that hold enough.
fn is_worth_it(keys: &[Key], prefix: &str) -> bool {
    let mut directories = HashSet::new();
    let mut inside = 0;
    for key in keys {
        let path = key.path.as_deref().ok().and_then(|path| path.strip_prefix(prefix));
        if let Some((directory, _)) = path.and_then(|path| path.split_once('/')) {
            directories.insert(directory);
            inside += 1;
        }
    }
    inside > 0 && inside / directories.len() >= WORTH
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::object::Validator;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Keys of a page of the store below.
    const PAGE: usize = 600;

    fn key(path: &str) -> Key {
        Key { path: Ok(path.to_owned()), size: 1, modified: 1, validator: Validator::Modified(1) }
    }

    /// A page as a store with these keys, in this order, answers; markers are numbers.
    fn answer(keys: &[String], listing: &Listing) -> (Page, Option<Vec<String>>) {
        let below = keys.iter().filter(|key| key.starts_with(&listing.prefix));
        let (mut entries, mut seen): (Vec<&str>, BTreeSet<&str>) = Default::default();
        for key in below {
            let end = match key[listing.prefix.len()..].find('/') {
                Some(slash) if listing.is_of_directories() => listing.prefix.len() + slash + 1,
                _ => key.len(),
            };
            // Directories stand where the first of their keys does.
            if seen.insert(&key[..end]) {
                entries.push(&key[..end]);
            }
        }
        let start = listing.marker.as_ref().map_or(0, |marker| marker.parse().unwrap());
        let end = entries.len().min(start + PAGE);
        let (directories, blobs): (Vec<&str>, Vec<&str>) =
            entries[start..end].iter().partition(|entry| listing.is_of_directories() && entry.ends_with('/'));
        let next = (end < entries.len()).then(|| end.to_string());
        let page = Page { is_empty: blobs.is_empty(), keys: blobs.into_iter().map(key).collect(), next };
        (page, Some(directories.into_iter().map(str::to_owned).collect()))
    }

    /// All that is listed, and by how many requests.
    fn list(keys: &[String], prefix: &str) -> (Vec<String>, usize) {
        let (mut listings, mut found, mut requests) = (Listings::new(prefix), Vec::new(), 0);
        while let Some(listing) = listings.next() {
            let (page, directories) = answer(keys, &listing);
            let certain = listings.page("the store", listing, page, directories).unwrap();
            found.extend(certain.into_iter().map(|key| key.path.unwrap()));
            requests += 1;
        }
        (found, requests)
    }

    fn files(directory: &str, count: usize) -> impl Iterator<Item = String> + use<> {
        let directory = directory.to_owned();
        (0..count).map(move |number| format!("{directory}{number:05}"))
    }

    #[test]
    fn a_listing_of_few_pages_is_not_made_anew() {
        let keys: Vec<String> = files("a/", PAGE * SHORT).collect();
        assert_eq!(list(&keys, ""), (keys.clone(), SHORT));
    }

    #[test]
    fn directories_that_hold_enough_are_listed_by_themselves() {
        let keys: Vec<String> =
            files("beside", 3).chain((0..4).flat_map(|n| files(&format!("d{n}/"), 1_000))).collect();
        let (mut found, requests) = list(&keys, "");
        found.sort();
        let mut wanted = keys;
        wanted.sort();
        assert_eq!(found, wanted);
        // Two that are thrown away, one of the directories, and two of each.
        assert_eq!(requests, 2 + 1 + 4 * 2);
    }

    #[test]
    fn small_directories_are_not_asked_for_one_by_one() {
        let keys: Vec<String> = (0..1_000).flat_map(|n| files(&format!("d{n:03}/"), 3)).collect();
        assert_eq!(list(&keys, ""), (keys.clone(), 3_000_usize.div_ceil(PAGE)));
    }

    #[test]
    fn more_directories_than_a_page_has_are_listed_together() {
        let keys: Vec<String> =
            files("a/", 2_000).chain((0..PAGE).flat_map(|n| files(&format!("d{n:03}/"), 1))).collect();
        assert_eq!(list(&keys, ""), (keys.clone(), 2_600_usize.div_ceil(PAGE) + 1));
    }

    #[test]
    fn a_directory_that_is_not_below_what_was_asked_for_ends_the_listing() {
        let mut listings = Listings::new("a/");
        let kind = Kind::Directories { aside: Vec::new(), instead: Box::default() };
        let listing = Listing { prefix: "a/".to_owned(), kind, ..Listing::default() };
        let error = listings.page("the store", listing, Page::default(), Some(vec!["a/".to_owned()]));
        assert!(error.unwrap_err().to_string().ends_with("a/ is no directory below a/"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_key_is_taken_once_in_whatever_order_they_come(
            shape in prop::collection::vec(("[ab]/([ab]/){0,3}", 1..900_usize), 1..8),
            turned in any::<bool>(),
            prefix in prop::sample::select(vec!["", "a", "a/", "a/b/"]),
        ) {
            let keys: BTreeSet<String> = shape.iter().flat_map(|(directory, count)| files(directory, *count)).collect();
            let mut keys: Vec<String> = keys.into_iter().collect();
            if turned {
                keys.reverse();
            }
            let wanted: BTreeSet<String> = keys.iter().filter(|key| key.starts_with(prefix)).cloned().collect();
            let (found, _) = list(&keys, prefix);
            prop_assert_eq!(found.len(), wanted.len());
            prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), wanted);
        }
    }
}
