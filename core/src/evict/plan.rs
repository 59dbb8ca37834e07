//! Which objects are given up, so that there is enough room and not much more.

use super::room::{Amount, Shortage};
use super::standing::{Claim, Standing};
use crate::explain;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fmt;

/// An object that could be given up. A file goes as a whole: one that ever was whole may
/// be open somewhere, and is never written or punched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate<T> {
    /// By what it is given up. Of equals the lesser goes first.
    pub object: T,
    /// Bytes that are held of it.
    pub bytes: u64,
    /// See [`Readings::worth`](super::Readings::worth).
    pub worth: f64,
    /// A native view shows it.
    pub native: bool,
}

/// Chooses among candidates, which are offered version by version, the
/// [least valuable first](super::least_valuable_first).
///
/// An object is offered once, with the most valuable of the versions that list it. The
/// candidates of one version are all offered, in any order: those that are worth least
/// are chosen. No more of them are remembered than are chosen.
#[derive(Debug)]
pub struct Plan<T> {
    claim: Claim,
    shortage: Shortage,
    /// Chosen from the versions that are done with.
    done: Vec<T>,
    done_amount: Amount,
    /// Chosen from the version that is being offered, the most valuable on top.
    chosen: BinaryHeap<ByWorth<T>>,
    chosen_amount: Amount,
    /// The version that is being offered yields.
    offers: bool,
}

/// Why there is not enough room. What could be given up for a version is left alone: it
/// would not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct NotEnough {
    /// What was asked for at least.
    pub least: Amount,
    /// What there was to give up.
    pub found: Amount,
}

impl fmt::Display for NotEnough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, found) = (self.least, self.found);
        match least.bytes > found.bytes {
            true => write!(
                f,
                "{} more have to go, and {} can",
                explain::bytes(least.bytes),
                explain::bytes(found.bytes)
            )?,
            false => write!(f, "{} more files have to go, and {} can", least.objects, found.objects)?,
        }
        f.write_str(": what else is here is pinned, mounted natively by pods, or of no less value")
    }
}

impl<T: Ord> Plan<T> {
    /// Nothing is chosen yet.
    pub fn new(claim: Claim, shortage: Shortage) -> Self {
        Self {
            claim,
            shortage,
            done: Vec::new(),
            done_amount: Amount::default(),
            chosen: BinaryHeap::new(),
            chosen_amount: Amount::default(),
            offers: false,
        }
    }

    /// The candidates from here on are of a version of that standing. Whether there is any
    /// use in offering them.
    pub fn begin(&mut self, standing: &Standing) -> bool {
        self.end_version();
        self.offers = !self.is_enough() && self.claim.takes_from(standing);
        self.offers
    }

    /// Chooses the candidate, or not.
    pub fn offer(&mut self, candidate: Candidate<T>) {
        let Candidate { object, bytes, worth, native } = candidate;
        if native || !self.offers {
            return;
        }
        let by_worth = ByWorth { worth, object, bytes };
        // It is worth more than all that are chosen, and they are enough.
        if self.is_enough() && self.chosen.peek().is_none_or(|top| by_worth >= *top) {
            return;
        }
        self.chosen_amount = self.chosen_amount.plus(Amount { bytes, objects: 1 });
        self.chosen.push(by_worth);
        self.spare();
    }

    /// What is to be given up, in this order: at least as much as was asked for. To keep
    /// a limit, whatever there is: the less it is exceeded the better.
    pub fn finish(mut self) -> Result<Vec<T>, NotEnough> {
        self.end_version();
        let is_of_use = match self.claim {
            Claim::Limit => !self.done.is_empty(),
            Claim::Version(_) => false,
        };
        match self.done_amount.covers(self.shortage.least) || is_of_use {
            true => Ok(self.done),
            false => Err(NotEnough { least: self.shortage.least, found: self.done_amount }),
        }
    }

    /// Whether enough is chosen: versions of more value need not be offered.
    pub fn is_enough(&self) -> bool {
        self.amount().covers(self.shortage.wanted)
    }

    fn end_version(&mut self) {
        let chosen = std::mem::take(&mut self.chosen).into_sorted_vec();
        self.done.extend(chosen.into_iter().map(|by_worth| by_worth.object));
        self.done_amount = self.amount();
        self.chosen_amount = Amount::default();
        self.offers = false;
    }

    fn amount(&self) -> Amount {
        self.done_amount.plus(self.chosen_amount)
    }

    /// Spares what is worth most for as long as the rest is enough.
    fn spare(&mut self) {
        while let Some(top) = self.chosen.peek() {
            let less = self.chosen_amount.minus(Amount { bytes: top.bytes, objects: 1 });
            if !self.done_amount.plus(less).covers(self.shortage.wanted) {
                return;
            }
            self.chosen_amount = less;
            self.chosen.pop();
        }
    }
}

#[derive(Debug)]
struct ByWorth<T> {
    worth: f64,
    object: T,
    bytes: u64,
}

impl<T: Ord> Ord for ByWorth<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.worth.total_cmp(&other.worth).then_with(|| self.object.cmp(&other.object))
    }
}

impl<T: Ord> PartialOrd for ByWorth<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Ord> PartialEq for ByWorth<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T: Ord> Eq for ByWorth<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evict::Need;
    use proptest::prelude::*;

    /// A version, and its objects as (bytes, worth, native).
    type Version = (Standing, Vec<(u64, f64, bool)>);

    fn standing(need: Need, priority: i32) -> Standing {
        Standing { need, priority, pinned: false, current: true }
    }

    fn shortage(least: u64, wanted: u64) -> Shortage {
        let bytes = |bytes| Amount { bytes, objects: 0 };
        Shortage { least: bytes(least), wanted: bytes(wanted) }
    }

    /// Objects are named by the places of their version and of themselves.
    fn plan(
        claim: Claim,
        shortage: Shortage,
        versions: &[Version],
    ) -> Result<Vec<(usize, usize)>, NotEnough> {
        let mut plan = Plan::new(claim, shortage);
        for (version, (standing, objects)) in versions.iter().enumerate() {
            if !plan.begin(standing) {
                continue;
            }
            for (at, (bytes, worth, native)) in objects.iter().copied().enumerate() {
                plan.offer(Candidate { object: (version, at), bytes, worth, native });
            }
        }
        plan.finish()
    }

    #[test]
    fn the_least_valuable_version_goes_first_and_its_least_worthy_objects() {
        let versions = [
            (standing(Need::Nobody, 0), vec![(10, 9.0, false), (10, 8.0, true), (10, 7.0, false)]),
            (standing(Need::Pods, 0), vec![(10, 0.2, false), (10, 0.1, false), (10, 0.3, false)]),
        ];
        let chosen = |least| plan(Claim::Limit, shortage(least, least), &versions);
        assert_eq!(chosen(1), Ok(vec![(0, 2)]));
        assert_eq!(chosen(20), Ok(vec![(0, 2), (0, 0)]));
        assert_eq!(chosen(21), Ok(vec![(0, 2), (0, 0), (1, 1)]));
        assert_eq!(chosen(51).unwrap().len(), 5, "for a limit, whatever there is");
    }

    #[test]
    fn what_is_of_no_less_value_stays_for_another() {
        let pinned = Standing { pinned: true, ..standing(Need::Nobody, 0) };
        let versions = [
            (standing(Need::Nobody, 0), vec![(10, 1.0, false)]),
            (pinned, vec![(20, 1.0, false)]),
            (standing(Need::Pods, 0), vec![(30, 1.0, false)]),
        ];
        let claim = Claim::Version(standing(Need::Pods, 0));
        assert_eq!(plan(claim, shortage(10, 60), &versions), Ok(vec![(0, 0)]), "as much as there is");
        let why = plan(claim, shortage(11, 60), &versions).unwrap_err().to_string();
        assert!(why.starts_with("11 B more have to go, and 10 B can: "), "{why}");
    }

    #[test]
    fn inodes_are_counted_too() {
        let versions = [(standing(Need::Nobody, 0), vec![(10, 1.0, false), (10, 2.0, false)])];
        let amount = |objects| Amount { bytes: 1, objects };
        let pods = Claim::Version(standing(Need::Pods, 0));
        let plan =
            |objects| plan(pods, Shortage { least: amount(objects), wanted: amount(objects) }, &versions);
        assert_eq!(plan(2), Ok(vec![(0, 0), (0, 1)]));
        let why = plan(3).unwrap_err().to_string();
        assert!(why.starts_with("3 more files have to go, and 2 can: "), "{why}");
    }

    fn versions() -> impl Strategy<Value = Vec<Version>> {
        let need = prop_oneof![Just(Need::Nobody), Just(Need::Warmup), Just(Need::Pods)];
        let standing = (need, any::<bool>(), any::<bool>(), -2..3i32)
            .prop_map(|(need, pinned, current, priority)| Standing { need, pinned, current, priority });
        let objects = prop::collection::vec((0u64..100, 0.0..4.0f64, any::<bool>()), 0..12);
        prop::collection::vec((standing, objects), 0..8).prop_map(|mut versions| {
            versions.sort_by_key(|version| version.0);
            versions
        })
    }

    proptest! {
        #[test]
        fn enough_is_freed_of_what_may_go_or_it_is_said_why_not(
            versions in versions(), least in 1u64..1500, more in 0u64..500, by in 0usize..9,
        ) {
            let claim = versions.get(by).map_or(Claim::Limit, |version| Claim::Version(version.0));
            let object = |(version, at): (usize, usize)| versions[version].1[at];
            let may_go = |version: usize, at: usize| {
                claim.takes_from(&versions[version].0) && !object((version, at)).2
            };
            let all: Vec<(usize, usize)> = versions.iter().enumerate()
                .flat_map(|(version, (_, objects))| (0..objects.len()).map(move |at| (version, at)))
                .filter(|(version, at)| may_go(*version, *at))
                .collect();
            let bytes = |objects: &[(usize, usize)]| objects.iter().map(|at| object(*at).0).sum::<u64>();
            let wanted = least + more;
            match plan(claim, shortage(least, wanted), &versions) {
                Ok(chosen) => {
                    prop_assert!(chosen.iter().all(|(version, at)| may_go(*version, *at)));
                    prop_assert!(bytes(&chosen) >= least || claim == Claim::Limit);
                    prop_assert!(bytes(&chosen) >= wanted || chosen.len() == all.len());
                    let (last, rest) = chosen.split_last().unwrap();
                    prop_assert!(bytes(rest) < wanted, "one too many");
                    let rank = |(version, at): &(usize, usize)| (*version, object((*version, *at)).1);
                    prop_assert!(chosen.is_sorted_by(|one, other| rank(one) <= rank(other)));
                    let spared = all.iter().filter(|at| !chosen.contains(at));
                    prop_assert!(spared.clone().all(|at| rank(at) >= rank(last)));
                }
                Err(why) => {
                    prop_assert_eq!(bytes(&all), why.found.bytes);
                    prop_assert!(why.found.bytes < least);
                    prop_assert!(claim != Claim::Limit || all.is_empty());
                }
            }
        }

        #[test]
        fn the_order_of_offers_does_not_matter(mut versions in versions(), least in 1u64..500) {
            let name = |versions: &[Version], chosen: Vec<(usize, usize)>| {
                chosen.into_iter().map(|(version, at)| (version, versions[version].1[at])).collect::<Vec<_>>()
            };
            let forward = plan(Claim::Limit, shortage(least, least), &versions).map(|chosen| name(&versions, chosen));
            versions.iter_mut().for_each(|version| version.1.reverse());
            let backward = plan(Claim::Limit, shortage(least, least), &versions).map(|chosen| name(&versions, chosen));
            prop_assert_eq!(forward, backward);
        }
    }
}
