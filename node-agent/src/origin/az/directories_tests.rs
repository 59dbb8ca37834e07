use super::*;
use hearth_core::object::Validator;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Entries of a page of the store below.
const PAGE: usize = 600;

fn key(path: &str) -> Key {
    Key { path: Ok(path.to_owned()), size: 1, modified: 1, validator: Validator::Modified(1) }
}

/// A store with these keys, in this order; markers are numbers.
struct Fake<'a> {
    keys: &'a [String],
    /// Before each page there is one with nothing in it, as Azure may answer.
    hesitates: bool,
}

impl Fake<'_> {
    fn answer(&self, listing: &Listing) -> (Page, Option<Vec<String>>) {
        let below = self.keys.iter().filter(|key| key.starts_with(&listing.prefix));
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
        let marker = listing.marker.as_deref().unwrap_or("0");
        if self.hesitates && !marker.ends_with('!') {
            return (
                Page { next: Some(format!("{marker}!")), is_empty: true, ..Page::default() },
                Some(Vec::new()),
            );
        }
        let start: usize = marker.trim_end_matches('!').parse().unwrap();
        let end = entries.len().min(start + PAGE);
        let (directories, blobs): (Vec<&str>, Vec<&str>) =
            entries[start..end].iter().partition(|entry| listing.is_of_directories() && entry.ends_with('/'));
        let next = (end < entries.len()).then(|| end.to_string());
        let page = Page { is_empty: start == end, keys: blobs.into_iter().map(key).collect(), next };
        (page, Some(directories.into_iter().map(str::to_owned).collect()))
    }

    /// All that is listed, and by how many requests; answers to so many come in the order in which they were asked for.
    fn list(&self, prefix: &str, width: usize) -> (Vec<String>, usize) {
        let (mut listings, mut found, mut requests) = (Listings::new(prefix), Vec::new(), 0);
        let mut under_way = std::collections::VecDeque::new();
        loop {
            while under_way.len() < width
                && let Some(listing) = listings.next()
            {
                under_way.push_back(listing);
            }
            let Some(listing) = under_way.pop_front() else { return (found, requests) };
            let (page, directories) = self.answer(&listing);
            let certain = listings.page("the store", listing, page, directories).unwrap();
            found.extend(certain.into_iter().map(|key| key.path.unwrap()));
            requests += 1;
        }
    }
}

/// Likewise, sorted, and one request after the other.
fn list(keys: &[String]) -> (Vec<String>, usize) {
    let (mut found, requests) = Fake { keys, hesitates: false }.list("", 1);
    found.sort();
    (found, requests)
}

fn files(directory: &str, count: usize) -> impl Iterator<Item = String> + use<> {
    let directory = directory.to_owned();
    (0..count).map(move |number| format!("{directory}{number:05}"))
}

#[test]
fn a_listing_of_few_pages_is_not_made_anew() {
    let keys: Vec<String> = files("a/", PAGE * SHORT).collect();
    assert_eq!(list(&keys), (keys.clone(), SHORT));
}

#[test]
fn directories_that_hold_enough_are_listed_by_themselves() {
    let keys: Vec<String> =
        files("beside", 3).chain((0..4).flat_map(|n| files(&format!("d{n}/"), 1_000))).collect();
    // Two that are thrown away, one of the directories, and two of each.
    assert_eq!(list(&keys), (keys.clone(), 2 + 1 + 4 * 2));
}

#[test]
fn large_directories_stay_worth_it_though_each_has_an_end() {
    let keys: Vec<String> = (0..100).flat_map(|n| files(&format!("d{n:02}/"), PAGE + 1)).collect();
    assert_eq!(list(&keys), (keys.clone(), 2 + 1 + 100 * 2));
}

#[test]
fn small_directories_are_not_asked_for_one_by_one() {
    let keys: Vec<String> = (0..1_000).flat_map(|n| files(&format!("d{n:03}/"), 3)).collect();
    assert_eq!(list(&keys), (keys.clone(), 3_000_usize.div_ceil(PAGE)));
}

#[test]
fn small_directories_behind_large_ones_are_listed_together_once_they_are_seen() {
    let small = (0..4_900).flat_map(|n| files(&format!("d{n:04}/"), 1));
    let mut keys: Vec<String> =
        files("a/", 2_000).chain(small).chain(files("A", 1)).chain(files("a", 1)).collect();
    keys.sort();
    let (found, requests) = list(&keys);
    assert_eq!(found, keys);
    let pages = keys.len().div_ceil(PAGE);
    let of_directories = 4_901_usize.div_ceil(PAGE);
    assert!(requests <= pages + of_directories + VAIN + 2, "{requests}");
}

#[test]
fn more_directories_than_are_listed_by_themselves_are_listed_together() {
    let small = (0..MOST_BESIDE).flat_map(|n| files(&format!("d{n:04}/"), 1));
    let keys: Vec<String> = files("a/", 2_000).chain(small).collect();
    let requests = keys.len().div_ceil(PAGE) + MOST_BESIDE.div_ceil(PAGE);
    assert_eq!(list(&keys), (keys.clone(), requests));
}

#[test]
fn a_directory_that_cannot_be_asked_for_leaves_the_listing_as_it_was() {
    let keys: Vec<String> = files("a/b/", 2_000).collect();
    for odd in ["a/", "a/b", "c/", "a/b/c/"] {
        let (mut listings, mut found) = (Listings::new("a/"), Vec::new());
        while let Some(listing) = listings.next() {
            let (page, _) = Fake { keys: &keys, hesitates: false }.answer(&listing);
            let certain = listings.page("the store", listing, page, Some(vec![odd.to_owned()])).unwrap();
            found.extend(certain.into_iter().map(|key| key.path.unwrap()));
        }
        assert_eq!(found, keys);
    }
}

#[test]
fn keys_that_were_not_asked_for_end_the_listing() {
    let mut listings = Listings::new("a/");
    let listing = listings.next().unwrap();
    let page = Page { keys: vec![key("b")], ..Page::default() };
    let error = listings.page("the store", listing, page, Some(Vec::new())).unwrap_err().to_string();
    assert!(error.ends_with("it has keys that do not begin as was asked for"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn every_key_is_taken_once_in_whatever_order_they_come(
        shape in prop::collection::vec(("[ab]/([ab]/){0,3}", 1..1_500_usize), 1..8),
        small in prop::option::of(1..60_usize),
        order in 0..3,
        hesitates in any::<bool>(),
        width in 1..5_usize,
        prefix in prop::sample::select(vec!["", "a", "a/", "a/b/"]),
    ) {
        let small = (0..small.unwrap_or(0)).flat_map(|n| files(&format!("a/small{n}/"), 2));
        let keys: BTreeSet<String> =
            shape.iter().flat_map(|(directory, count)| files(directory, *count)).chain(small).collect();
        let mut keys: Vec<String> = keys.into_iter().collect();
        match order {
            0 => {}
            1 => keys.reverse(),
            // As with a hierarchical namespace, where a slash comes before everything.
            _ => keys.sort_by_key(|key| key.replace('/', "\0")),
        }
        let wanted: BTreeSet<String> = keys.iter().filter(|key| key.starts_with(prefix)).cloned().collect();
        let (found, _) = Fake { keys: &keys, hesitates }.list(prefix, width);
        prop_assert_eq!(found.len(), wanted.len());
        prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), wanted);
    }
}
