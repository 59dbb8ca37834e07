//! Where keys may lie behind those that were seen, when nothing is known of them.

use crate::prefix::shared_prefix;
use std::collections::BTreeSet;

/// Keys of a range, some of which are still to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    /// The key behind which the range begins.
    pub(super) after: &'a str,
    /// First and last key of its newest page.
    pub(super) newest: (&'a str, &'a str),
    pub(super) end: Option<&'a str>,
    /// Those of keys anywhere.
    pub(super) characters: &'a BTreeSet<char>,
}

impl Seen<'_> {
    /// At most `most` keys, in rising order, at which what is still to come may be split.
    ///
    /// Where the keys that were seen first differ, others will: there each character that keys
    /// have is a boundary. Above that, one behind each part of the key says whether there is more.
    pub(super) fn boundaries(&self, most: usize) -> Vec<String> {
        let (first, last) = self.newest;
        let top = self.end.map_or(0, |end| shared_prefix(last, end));
        // A boundary differs in its last character from the key that it was made of.
        let boundary =
            self.after.char_indices().next_back().map(|(at, _)| shared_prefix(&self.after[..at], last));
        let levels = [boundary, Some(shared_prefix(first, last))].into_iter().flatten();
        levels
            .filter(|level| (top..last.len()).contains(level))
            .map(|level| self.boundaries_at(top, level, most))
            .find(|boundaries| !boundaries.is_empty())
            .unwrap_or_default()
    }

    fn boundaries_at(&self, top: usize, level: usize, most: usize) -> Vec<String> {
        let (_, last) = self.newest;
        let inside = |key: &String| key.as_str() > last && self.end.is_none_or(|end| key.as_str() < end);
        let behind = last[top..]
            .char_indices()
            .map(|(at, character)| (top + at, character))
            .take_while(|(at, _)| *at <= level)
            .filter_map(|(at, character)| Some(format!("{}{}", &last[..at], successor(character)?)))
            .filter(inside)
            .collect();
        let here = last[level..].chars().next();
        let beside = self
            .characters
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
pub(super) fn kind(character: char) -> u8 {
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
