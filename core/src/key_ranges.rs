//! How a listing that comes in the order of its keys, a page at a time, is fetched in several
//! places at once.
//!
//! Nobody knows beforehand where the keys lie. A listing begins as one range of keys; while it
//! goes on, the part that is still to come is split, by what the keys seen so far look like. A
//! part that turns out to be empty has cost one request, so there is a budget for those. A
//! listing of a few pages is never split.

use crate::prefix::shared_prefix;
use std::collections::BTreeSet;

/// Pages that a listing has when it is first split.
const SHORT: usize = 3;
/// Of so many pages with keys, one part may turn out to be empty.
const PAGES_A_VAIN_ONE: usize = 8;
/// Pages of a range that was split before it is split again: as many are behind it then, as far as is known, and a part
/// costs a request or two at its ends.
const LEFT_ALONE: usize = 10;
/// Characters that are remembered.
const MOST_CHARACTERS: usize = 256;

/// Keys of a listing that has been split come in another order than that of their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfOrder;

/// The ranges of one listing.
#[derive(Debug)]
pub struct KeyRanges {
    /// Pages that are asked for at one time.
    width: usize,
    ranges: Vec<Range>,
    characters: BTreeSet<char>,
    pages: usize,
}

/// Keys that are greater than `after` and not greater than `end`.
#[derive(Debug)]
struct Range {
    after: String,
    end: Option<String>,
    /// First and last key of its newest page.
    newest: Option<(String, String)>,
    state: State,
    /// Pages so far, and how many there are to be before it is split again.
    pages: usize,
    whole_until: usize,
    /// The last page had keys behind the end.
    again: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Asked,
    Done,
}

/// A page to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextPage {
    /// Of which range; the next page of a range follows the one before.
    pub range: usize,
    /// When it is the range's first one: the key after which it begins; empty for the beginning.
    pub after: Option<String>,
}

impl KeyRanges {
    /// A listing of which at most `width` pages are asked for at one time.
    pub fn new(width: usize) -> Self {
        let first = Range::new(String::new(), None);
        Self { width: width.max(1), ranges: vec![first], characters: BTreeSet::new(), pages: 0 }
    }

    /// The next page to ask for; `None` while enough are under way, and when all have been.
    pub fn next_page(&mut self) -> Option<NextPage> {
        let idle = self.width.checked_sub(self.asked()).filter(|idle| *idle > 0)?;
        if !self.ranges.iter().any(|range| range.state == State::Ready) {
            self.split(idle);
        }
        let range = self.ranges.iter().position(|range| range.state == State::Ready)?;
        let asked = &mut self.ranges[range];
        asked.state = State::Asked;
        Some(NextPage { range, after: (asked.pages == 0).then(|| asked.after.clone()) })
    }

    /// Takes a page: its keys as they came, and whether the listing goes on behind it. Gives which
    /// of the keys are new and of this range; the others are listed by another, or were before.
    ///
    /// The page that a range asks for next is the one behind this, unless some of the last keys
    /// are not its own: then it is this one again, if it is asked for any more.
    pub fn page(
        &mut self,
        range: usize,
        keys: &[&str],
        more: bool,
    ) -> Result<std::ops::Range<usize>, OutOfOrder> {
        let taken = &mut self.ranges[range];
        let last = taken.newest.as_ref().map(|(_, last)| last.as_str());
        let before = last.unwrap_or(&taken.after);
        // An empty one is the beginning, and no key.
        let is_behind = |key: &&str| before.is_empty() || *key > before;
        if taken.pages == 0 && !keys.first().is_none_or(is_behind) {
            self.whole_again();
            return Ok(0..0);
        }
        let begin = if taken.again { keys.partition_point(|key| !is_behind(key)) } else { 0 };
        if !keys.is_sorted() || !keys.get(begin).is_none_or(is_behind) {
            let others = self.ranges.iter().enumerate().filter(|(index, _)| *index != range);
            if others.clone().any(|(_, other)| other.pages > 0 || other.state != State::Done) {
                return Err(OutOfOrder);
            }
            // One page behind the other is right in any order.
            self.width = 1;
        }
        let taken = &mut self.ranges[range];
        let end = match &taken.end {
            Some(end) => keys.partition_point(|key| *key <= end.as_str()).max(begin),
            None => keys.len(),
        };
        taken.pages += 1;
        taken.again = end < keys.len();
        taken.state = if more && !taken.again { State::Ready } else { State::Done };
        if let [first, .., last] | [first @ last] = &keys[begin..end] {
            taken.newest = Some(((*first).to_owned(), (*last).to_owned()));
            self.pages += 1;
            if self.characters.len() < MOST_CHARACTERS {
                self.characters.extend(first.chars().chain(last.chars()));
            }
        }
        Ok(begin..end)
    }

    /// The store does not begin where it is asked to: the first range is all of the listing, and
    /// no other has got anything.
    fn whole_again(&mut self) {
        self.width = 1;
        let [first, parts @ ..] = self.ranges.as_mut_slice() else { return };
        first.end = None;
        if first.again && first.state == State::Done {
            first.state = State::Ready;
        }
        for part in parts {
            part.state = State::Done;
        }
    }

    /// Whether all has been listed.
    pub fn is_done(&self) -> bool {
        self.ranges.iter().all(|range| range.state == State::Done)
    }

    fn asked(&self) -> usize {
        self.ranges.iter().filter(|range| range.state == State::Asked).count()
    }

    /// Splits what is still to come of one range, for `idle` who have nothing to do.
    fn split(&mut self, idle: usize) {
        // Parts that have shown no key, or have not yet.
        let vain = self.ranges.iter().skip(1).filter(|range| range.newest.is_none()).count();
        let budget = (self.pages / PAGES_A_VAIN_ONE + 2 * self.width).saturating_sub(vain);
        if self.pages < SHORT || budget == 0 {
            return;
        }
        let can_be = |range: &&Range| {
            range.state == State::Asked && range.newest.is_some() && range.pages >= range.whole_until
        };
        let splittable = self.ranges.iter().enumerate().filter(|(_, range)| can_be(range));
        // The one that has come farthest since it was split has most behind it, as far as is known.
        let Some((index, _)) = splittable.max_by_key(|(_, range)| range.pages - range.whole_until) else {
            return;
        };
        let boundaries = self.ranges[index].boundaries(&self.characters, idle.min(budget));
        let split = &mut self.ranges[index];
        split.whole_until = 2 * split.pages;
        let Some(first) = boundaries.first() else { return };
        split.whole_until = split.pages + LEFT_ALONE;
        let last = split.end.replace(first.clone());
        let ends = boundaries.iter().skip(1).cloned().map(Some).chain([last]);
        let parts: Vec<Range> =
            boundaries.iter().cloned().zip(ends).map(|(after, end)| Range::new(after, end)).collect();
        self.ranges.extend(parts);
    }
}

impl Range {
    fn new(after: String, end: Option<String>) -> Self {
        Self { after, end, newest: None, state: State::Ready, pages: 0, whole_until: 0, again: false }
    }

    /// At most `most` keys, in rising order, at which what is still to come may be split.
    ///
    /// Where the keys that were seen first differ, others will: there each character that keys
    /// have is a boundary. Above that, one behind each part of the key says whether there is more.
    fn boundaries(&self, characters: &BTreeSet<char>, most: usize) -> Vec<String> {
        let Some((first, last)) = &self.newest else { return Vec::new() };
        let top = self.end.as_ref().map_or(0, |end| shared_prefix(last, end));
        // A boundary differs in its last character from the key that it was made of.
        let boundary =
            self.after.char_indices().next_back().map(|(at, _)| shared_prefix(&self.after[..at], last));
        let levels = [boundary, Some(shared_prefix(first, last))].into_iter().flatten();
        levels
            .filter(|level| (top..last.len()).contains(level))
            .map(|level| self.boundaries_at(top, level, last, characters, most))
            .find(|boundaries| !boundaries.is_empty())
            .unwrap_or_default()
    }

    fn boundaries_at(
        &self,
        top: usize,
        level: usize,
        last: &str,
        characters: &BTreeSet<char>,
        most: usize,
    ) -> Vec<String> {
        let inside = |key: &String| key.as_str() > last && self.end.as_ref().is_none_or(|end| key < end);
        let behind = last[top..]
            .char_indices()
            .map(|(at, character)| (top + at, character))
            .take_while(|(at, _)| *at <= level)
            .filter_map(|(at, character)| Some(format!("{}{}", &last[..at], successor(character)?)))
            .filter(inside)
            .collect();
        let here = last[level..].chars().next();
        let beside = characters
            .iter()
            .filter(|character| {
                here.is_some_and(|here| **character > here && kind(**character) == kind(here))
            })
            .map(|character| format!("{}{character}", &last[..level]))
            .filter(inside)
            .collect();
        let beside = thinned(beside, most.div_ceil(2));
        let mut boundaries = thinned(behind, most - beside.len());
        boundaries.extend(beside);
        boundaries.sort();
        boundaries.dedup();
        boundaries
    }
}

/// Where keys differ they mostly do in characters of one kind.
fn kind(character: char) -> u8 {
    match character {
        '0'..='9' => 0,
        'a'..='z' => 1,
        'A'..='Z' => 2,
        _ => 3,
    }
}

/// The next character in the order of UTF-8.
fn successor(character: char) -> Option<char> {
    char::from_u32(u32::from(character) + 1).or((character == '\u{d7ff}').then_some('\u{e000}'))
}

/// At most `most` of them, evenly.
fn thinned(all: Vec<String>, most: usize) -> Vec<String> {
    let count = all.len();
    if count <= most {
        return all;
    }
    let is_kept = |index: usize| index * most / count != (index + 1) * most / count;
    all.into_iter().enumerate().filter_map(|(index, key)| is_kept(index).then_some(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: usize = 10;

    /// What a listing cost: requests, and steps in which all requests of one step go side by side.
    #[derive(Debug, PartialEq, Eq)]
    struct Cost {
        requests: usize,
        steps: usize,
    }

    /// Lists from a store of these keys, each page of which takes one step.
    fn list(keys: &BTreeSet<String>, width: usize, knows_after: bool) -> (Vec<String>, Cost) {
        let mut ranges = KeyRanges::new(width);
        let mut listed: Vec<String> = Vec::new();
        let mut positions: Vec<String> = Vec::new();
        let mut cost = Cost { requests: 0, steps: 0 };
        while !ranges.is_done() {
            let mut step = Vec::new();
            while let Some(page) = ranges.next_page() {
                step.push(page);
            }
            assert!(!step.is_empty() && step.len() <= width);
            cost.requests += step.len();
            cost.steps += 1;
            for NextPage { range, after } in step {
                positions.resize(positions.len().max(range + 1), String::new());
                let from = match after.filter(|_| knows_after) {
                    Some(after) => after,
                    None => positions[range].clone(),
                };
                let rest = || keys.iter().filter(|key| **key > from || from.is_empty());
                let page: Vec<&str> = rest().take(PAGE).map(String::as_str).collect();
                let own = ranges.page(range, &page, rest().count() > PAGE).unwrap();
                listed.extend(page[own.clone()].iter().map(|key| (*key).to_owned()));
                positions[range] = match page.last().filter(|_| own.end == page.len()) {
                    Some(last) => (*last).to_owned(),
                    None => from,
                };
            }
        }
        listed.sort();
        (listed, cost)
    }

    fn check(name: &str, keys: impl Iterator<Item = String>) {
        const WIDTH: usize = 10;
        let keys: BTreeSet<String> = keys.collect();
        let pages = keys.len().div_ceil(PAGE);
        let (listed, cost) = list(&keys, WIDTH, true);
        assert!(listed.iter().eq(&keys), "{name}");
        let ideal = pages.div_ceil(WIDTH);
        // A tenth for the search, and what it takes to begin and to end.
        assert!(cost.requests * 10 <= pages * 11 + 10 * 6 * WIDTH, "{name}: {cost:?} for {pages} pages");
        assert!(cost.steps * 10 <= ideal * 11 + 10 * 25, "{name}: {cost:?}, ideally {ideal} steps");
    }

    #[test]
    fn listings_of_many_shapes_take_little_more_than_their_pages() {
        check("numbered", (0..10_000).map(|n| format!("img_{n:07}.jpg")));
        check("numbered without padding", (0..10_000).map(|n| format!("{n}")));
        check(
            "classes",
            (0..10_000).map(|n| format!("train/n{:08}/{:05}.jpg", n / 13 * 7919 % 100_000_000, n)),
        );
        check("shards", (0..10_000).map(|n| format!("data/part-{:04}/shard-{n:06}-of-010000.tar", n / 100)));
        check("hashes", (0..10_000_u32).map(|n| blake3::hash(&n.to_le_bytes()).to_hex().to_string()));
        check(
            "hashes below folders",
            (0..10_000_u32).map(|n| {
                let hash = blake3::hash(&n.to_le_bytes()).to_hex();
                format!("objects/{}/{}", &hash[..2], &hash[2..])
            }),
        );
        check(
            "dates",
            (0..10_000).map(|n| format!("logs/2026/{:02}/{:02}/{:04}.json", n % 12 + 1, n % 28 + 1, n)),
        );
        check("a page each", (0..10_000).map(|n| format!("n{:08}/n{:08}_{n:08}.jpg", n / PAGE, n / PAGE)));
        check(
            "one large and some small",
            (0..10_000).map(|n| match n {
                0..50 => format!("a{n}/readme"),
                _ => format!("train/images/{n:06}"),
            }),
        );
    }

    #[test]
    fn a_short_listing_is_not_split() {
        let keys = (0..SHORT * PAGE).map(|n| format!("{n:03}")).collect();
        assert_eq!(list(&keys, 16, true).1, Cost { requests: SHORT, steps: SHORT });
        assert_eq!(list(&BTreeSet::new(), 16, true).1, Cost { requests: 1, steps: 1 });
    }

    #[test]
    fn what_is_not_in_order_is_listed_page_by_page_or_said() {
        let mut ranges = KeyRanges::new(4);
        for keys in [["b", "d"], ["a", "c"], ["f", "e"], ["x", "y"]] {
            assert_eq!(ranges.next_page().map(|page| page.range), Some(0));
            assert_eq!(ranges.next_page(), None);
            assert_eq!(ranges.page(0, &keys, keys[0] != "x"), Ok(0..2));
        }
        assert!(ranges.is_done());

        let mut ranges = KeyRanges::new(4);
        for keys in [["a", "b"], ["c", "d"], ["e", "f"]] {
            ranges.next_page().unwrap();
            ranges.page(0, &keys, true).unwrap();
        }
        while let Some(page) = ranges.next_page() {
            let behind = page.after.map_or_else(|| "g".to_owned(), |after| format!("{after}x"));
            if page.range > 0 {
                assert_eq!(ranges.page(page.range, &["zz", &behind], true), Err(OutOfOrder));
                return;
            }
        }
        panic!("it was not split");
    }

    proptest! {
        #[test]
        fn every_key_is_listed_once(
            keys in prop::collection::btree_set("[ab/é~😀]{1,5}", 0..300),
            width in 1_usize..20,
            knows_after: bool,
        ) {
            let (listed, _) = list(&keys, width, knows_after);
            prop_assert!(listed.iter().eq(&keys));
        }
    }
}
