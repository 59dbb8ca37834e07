//! What lies between two keys, where they differ in a number.

use super::guess::kind;
use crate::prefix::shared_prefix;
use std::collections::BTreeSet;

/// Characters of a number that are looked at: enough to tell ten million keys apart.
const LONGEST: usize = 9;
/// Parts of a step to which a boundary is exact: a shorter key says as much.
const EXACT: f64 = 8.0;

/// What is still to come of a range whose first key and whose end differ in a number.
///
/// Keys count as fractions of the numbers that begin where they first differ: 0.17 for `img_17` of all that begin with
/// `img_`. A number may be of letters, too, as a hash is.
#[derive(Debug)]
pub(super) struct Span<'a> {
    /// What the keys begin with.
    prefix: &'a str,
    /// In their order.
    digits: Vec<char>,
    /// Digits that the last key has.
    length: usize,
    last: (&'a str, f64),
    end: (&'a str, f64),
    /// Pages still to come, if keys lie as close as until here.
    pub(super) pages: f64,
}

impl<'a> Span<'a> {
    /// Of a range that has had `pages` pages, from its first key to its last so far; `characters` are
    /// those of keys anywhere.
    pub(super) fn new(
        (first, last, end): (&str, &'a str, &'a str),
        pages: usize,
        characters: &BTreeSet<char>,
    ) -> Option<Self> {
        let at = shared_prefix(first, end);
        let [begin, here, stop] = [first, last, end].map(|key| number(&key[at..]));
        if begin.is_empty() || here.is_empty() || stop.is_empty() {
            return None;
        }
        let digits = digits(&[here, stop], characters);
        if digits.len() < 2 {
            return None;
        }
        let [begin, low, high] = [begin, here, stop].map(|number| fraction(number, &digits));
        let one = (digits.len() as f64).powi(-(here.len() as i32));
        // Words are no numbers: nobody knows what lies between two, unless some were passed already.
        let is_known = low > begin || here.bytes().all(|byte| byte.is_ascii_digit());
        // From one number to the next there is nothing but what the last key is itself part of.
        if !is_known || high - low < 1.5 * one {
            return None;
        }
        let pages = pages as f64 * (high - low) / (low - begin).max(one);
        let prefix = &last[..at];
        Some(Self { prefix, digits, length: here.len(), last: (last, low), end: (end, high), pages })
    }

    /// Boundaries, in rising order, that cut it into `parts` of like size, or into fewer.
    pub(super) fn cut(&self, parts: usize) -> Vec<String> {
        let ((last, low), (end, high)) = (self.last, self.end);
        let step = (high - low) / parts as f64;
        let base = self.digits.len() as f64;
        let unit = |length: usize| base.powi(-(length as i32));
        let length = (1..self.length).find(|length| unit(*length) * EXACT <= step).unwrap_or(self.length);
        let mut boundaries: Vec<String> = (1..parts)
            .map(|part| self.key(low + step * part as f64 + unit(length) / 2.0, length))
            .filter(|key| key.as_str() > last && key.as_str() < end)
            .collect();
        boundaries.dedup();
        boundaries
    }

    /// The key of so many digits at a fraction.
    fn key(&self, fraction: f64, length: usize) -> String {
        let mut rest = fraction;
        let number = (0..length).map(|_| {
            rest *= self.digits.len() as f64;
            let digit = (rest as usize).min(self.digits.len() - 1);
            rest -= digit as f64;
            self.digits[digit]
        });
        self.prefix.chars().chain(number).collect()
    }
}

/// What a text begins with, as far as it can be a number.
fn number(text: &str) -> &str {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric();
    &text[..text.bytes().take(LONGEST).take_while(is_part).count()]
}

/// The digits of such numbers, in their order: letters are, when keys have them.
fn digits(numbers: &[&str], characters: &BTreeSet<char>) -> Vec<char> {
    let letters = characters.iter().copied().filter(char::is_ascii_alphabetic);
    let has = |of: u8| numbers.iter().flat_map(|number| number.chars()).any(|digit| kind(digit) == of);
    ('0'..='9').chain(letters).filter(|digit| has(kind(*digit))).collect()
}

fn fraction(number: &str, digits: &[char]) -> f64 {
    let rank = |character| digits.partition_point(|digit| *digit < character) as f64;
    number.chars().rev().fold(0.0, |behind, character| (behind + rank(character)) / digits.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span<'a>(first: &str, last: &'a str, end: &'a str, pages: usize) -> Option<Span<'a>> {
        Span::new((first, last, end), pages, &"0123456789abcdef".chars().collect())
    }

    #[test]
    fn numbers_are_cut_into_like_parts() {
        let span = span("img_0100.jpg", "img_0200.jpg", "img_05", 4).unwrap();
        assert_eq!((span.pages * 1e6).round(), 12e6);
        assert_eq!(span.cut(3), ["img_030", "img_040"]);
        assert_eq!(span.cut(1), [""; 0]);
    }

    #[test]
    fn hashes_are_numbers() {
        let span = span("objects/10", "objects/40", "objects/c0", 3).unwrap();
        assert_eq!((span.pages * 1e6).round(), 8e6);
        assert_eq!(span.cut(2), ["objects/80"]);
    }

    #[test]
    fn where_nothing_is_between_nothing_is_cut() {
        for (first, last, end) in
            [("n0099/1", "n0099/2", "n01"), ("a/1", "a/2", "b"), ("a/1", "a/2", "a0"), ("é1", "é2", "ê")]
        {
            assert!(span(first, last, end, 1).is_none(), "{first} {last} {end}");
        }
    }

    proptest! {
        #[test]
        fn boundaries_are_inside_and_rise(
            keys in prop::collection::btree_set("[0-9a-c/é]{1,12}", 3),
            parts in 1_usize..20,
        ) {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            if let Some(span) = span(keys[0], keys[1], keys[2], 1) {
                let boundaries = span.cut(parts);
                prop_assert!(boundaries.len() < parts);
                prop_assert!(boundaries.is_sorted_by(|a, b| a < b));
                prop_assert!(boundaries.iter().all(|key| key.as_str() > keys[1] && key.as_str() < keys[2]));
            }
        }
    }
}
