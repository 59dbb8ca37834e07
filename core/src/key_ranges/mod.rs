//! How a listing that comes in the order of its keys, a page at a time, is fetched in several
//! places at once.
//!
//! Nobody knows beforehand where the keys lie. A listing begins as one range of keys; while it
//! goes on, the part that is still to come is split: into like parts where it lies between two
//! numbers (`span`), else by what the keys seen so far look like (`guess`). A part costs a request
//! or two at its ends, and one that turns out to be empty has cost one, so there is a budget for
//! those. A listing of a few pages is never split.

mod guess;
mod span;

use guess::Seen;
use span::Span;
use std::collections::BTreeSet;

/// Pages that a listing has when it is first split.
const SHORT: usize = 3;
/// Of so many pages with keys, one part may turn out to be empty.
const PAGES_A_VAIN_ONE: usize = 8;
/// Pages that a part is to have, as far as is known.
const WORTH: f64 = 3.0;
/// Parts into which the last keys are split: nobody knows yet whether keys reach to where that range ends.
const LAST: usize = 3;
/// Pages of a range that was split before it is split again by guess: as many are behind it then, as far as is known.
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
    /// Its first key.
    first: Option<String>,
    /// First and last key of its newest page.
    newest: Option<(String, String)>,
    state: State,
    /// Pages so far, and how many there are to be before it is split again by guess.
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
        if taken.state != State::Asked {
            // The first range lists its keys, too, since another part began before its own.
            return Ok(0..0);
        }
        let last = taken.newest.as_ref().map(|(_, last)| last.as_str());
        let before = last.unwrap_or(&taken.after);
        // An empty one is the beginning, and no key.
        let is_behind = |key: &&str| before.is_empty() || *key > before;
        if taken.pages == 0 && !keys.first().is_none_or(is_behind) {
            return self.whole_again().map(|()| 0..0);
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
            taken.first.get_or_insert_with(|| (*first).to_owned());
            taken.newest = Some(((*first).to_owned(), (*last).to_owned()));
            self.pages += 1;
            if self.characters.len() < MOST_CHARACTERS {
                self.characters.extend(first.chars().chain(last.chars()));
            }
        }
        Ok(begin..end)
    }

    /// The store does not begin where it is asked to: the first range is all of the listing. If another has got
    /// something, it does begin there, in an order of its own.
    fn whole_again(&mut self) -> Result<(), OutOfOrder> {
        let [first, parts @ ..] = self.ranges.as_mut_slice() else { return Ok(()) };
        if parts.iter().any(|part| part.newest.is_some()) {
            return Err(OutOfOrder);
        }
        self.width = 1;
        first.end = None;
        if first.again && first.state == State::Done {
            first.state = State::Ready;
        }
        for part in parts {
            part.state = State::Done;
        }
        Ok(())
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
        let boundaries = self.between(idle.min(budget)).or_else(|| self.guessed(idle.min(budget)));
        let Some((index, boundaries)) = boundaries else { return };
        let split = &mut self.ranges[index];
        let Some(first) = boundaries.first() else { return };
        split.whole_until = split.pages + LEFT_ALONE;
        let last = split.end.replace(first.clone());
        let ends = boundaries.iter().skip(1).cloned().map(Some).chain([last]);
        let parts: Vec<Range> =
            boundaries.iter().cloned().zip(ends).map(|(after, end)| Range::new(after, end)).collect();
        self.ranges.extend(parts);
    }

    /// At most `most` boundaries in the range that has most pages behind it, of those where that can be told.
    fn between(&self, most: usize) -> Option<(usize, Vec<String>)> {
        let asked = self.ranges.iter().enumerate().filter(|(_, range)| range.state == State::Asked);
        let spans = asked.filter_map(|(index, range)| Some((index, range.span(&self.characters)?)));
        let (index, span) = spans.max_by(|(_, a), (_, b)| a.pages.total_cmp(&b.pages))?;
        let at_most = if self.is_last(index) { LAST.min(most + 1) } else { most + 1 };
        let boundaries = span.cut(((span.pages / WORTH) as usize).min(at_most));
        (!boundaries.is_empty()).then_some((index, boundaries))
    }

    /// At most `most` guessed boundaries in the range that has come farthest since it was split: it has most behind
    /// it, as far as is known.
    fn guessed(&mut self, most: usize) -> Option<(usize, Vec<String>)> {
        let can_be = |range: &&mut Range| {
            range.state == State::Asked && range.newest.is_some() && range.pages >= range.whole_until
        };
        let splittable = self.ranges.iter_mut().enumerate().filter(|(_, range)| can_be(range));
        let (index, range) = splittable.max_by_key(|(_, range)| range.pages - range.whole_until)?;
        range.whole_until = 2 * range.pages;
        Some((index, range.seen(&self.characters)?.boundaries(most)))
    }

    /// Whether no key is known behind a range.
    fn is_last(&self, index: usize) -> bool {
        let end = self.ranges[index].end.as_ref();
        !self.ranges.iter().any(|range| range.newest.is_some() && end.is_some_and(|end| range.after >= *end))
    }
}

impl Range {
    fn new(after: String, end: Option<String>) -> Self {
        Self {
            after,
            end,
            first: None,
            newest: None,
            state: State::Ready,
            pages: 0,
            whole_until: 0,
            again: false,
        }
    }

    fn span(&self, characters: &BTreeSet<char>) -> Option<Span<'_>> {
        let (_, last) = self.newest.as_ref()?;
        Span::new((self.first.as_ref()?, last, self.end.as_ref()?), self.pages, characters)
    }

    fn seen<'a>(&'a self, characters: &'a BTreeSet<char>) -> Option<Seen<'a>> {
        let (first, last) = self.newest.as_ref()?;
        Some(Seen { after: &self.after, newest: (first, last), end: self.end.as_deref(), characters })
    }
}

#[cfg(test)]
mod tests;
