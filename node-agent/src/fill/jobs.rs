//! All wants on their way, and whose turn it is. What happens to one of them costs the same
//! however many others there are: whatever is asked of all of them is kept up to date by each
//! change. Pure.

use super::job::{Job, Key, key};
use hearth_core::manifest::ManifestHash;
use hearth_core::wire::report::Want;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use tokio::time::Instant;

/// A place in an order: the higher priority first, then what was wanted earlier.
pub(super) type Turn = (Reverse<i32>, u64);

/// All wants on their way, each by its job's number.
#[derive(Default)]
pub(super) struct Jobs {
    jobs: BTreeMap<u64, Listed>,
    numbers: BTreeMap<Key, u64>,
    next: u64,
    /// To be prepared at that time…
    later: BTreeSet<(Instant, u64)>,
    /// …and those whose time has come.
    due: BTreeSet<Turn>,
    more: BTreeSet<Turn>,
    urgent: BTreeSet<Turn>,
    full: BTreeSet<Turn>,
    failing: BTreeSet<Turn>,
    done: usize,
    missing: u64,
}

struct Listed {
    job: Job,
    marks: Marks,
}

/// What of a job is kept in the orders and sums.
#[derive(Clone, Copy, Default)]
struct Marks {
    priority: i32,
    due: Option<Instant>,
    has_more: bool,
    has_urgent: bool,
    is_full: bool,
    fails: bool,
    is_done: bool,
    missing: u64,
}

impl Marks {
    fn of(job: &Job) -> Self {
        Self {
            priority: job.want.priority,
            due: job.due(),
            has_more: job.has_more(),
            has_urgent: job.has_urgent(),
            is_full: job.is_full(),
            fails: job.fails(),
            is_done: job.is_done(),
            missing: job.missing(),
        }
    }

    fn turn(&self, number: u64) -> Turn {
        (Reverse(self.priority), number)
    }
}

impl Jobs {
    /// Takes new orders, each key once with its highest priority: what is no longer wanted is
    /// gone. The numbers of those that are new.
    pub(super) fn want(&mut self, wants: Vec<Want>, now: Instant) -> Vec<u64> {
        let mut wanted: BTreeMap<Key, Want> = BTreeMap::new();
        for want in wants {
            let key = key(&want);
            if wanted.get(&key).is_none_or(|other| other.priority < want.priority) {
                wanted.insert(key, want);
            }
        }
        let gone = self.numbers.extract_if(.., |key, _| !wanted.contains_key(key));
        for number in gone.map(|(_, number)| number).collect::<Vec<_>>() {
            if let Some(listed) = self.jobs.remove(&number) {
                self.unmark(number, listed.marks);
            }
        }
        let mut new = Vec::new();
        for (key, want) in wanted {
            if let Some(number) = self.numbers.get(&key) {
                self.change(*number, |job| job.update(want, now));
                continue;
            }
            let (number, job) = (self.next, Job::new(want, now));
            self.next += 1;
            self.numbers.insert(key, number);
            let marks = Marks::of(&job);
            self.mark(number, marks);
            self.jobs.insert(number, Listed { job, marks });
            new.push(number);
        }
        new
    }

    /// Changes a job; `None` when it is not wanted any more.
    pub(super) fn change<T>(&mut self, number: u64, change: impl FnOnce(&mut Job) -> T) -> Option<T> {
        let listed = self.jobs.get_mut(&number)?;
        let changed = change(&mut listed.job);
        let before = std::mem::replace(&mut listed.marks, Marks::of(&listed.job));
        let after = listed.marks;
        self.unmark(number, before);
        self.mark(number, after);
        Some(changed)
    }

    fn mark(&mut self, number: u64, marks: Marks) {
        let turn = marks.turn(number);
        if let Some(at) = marks.due {
            self.later.insert((at, number));
        }
        for order in self.orders_of(marks) {
            order.insert(turn);
        }
        self.done += usize::from(marks.is_done);
        self.missing += marks.missing;
    }

    fn unmark(&mut self, number: u64, marks: Marks) {
        let turn = marks.turn(number);
        if let Some(at) = marks.due {
            self.later.remove(&(at, number));
            self.due.remove(&turn);
        }
        for order in self.orders_of(marks) {
            order.remove(&turn);
        }
        self.done -= usize::from(marks.is_done);
        self.missing -= marks.missing;
    }

    /// The orders that a job of these marks is in, but for the times.
    fn orders_of(&mut self, marks: Marks) -> impl Iterator<Item = &mut BTreeSet<Turn>> {
        let orders = [
            (marks.has_more, &mut self.more),
            (marks.has_urgent, &mut self.urgent),
            (marks.is_full, &mut self.full),
            (marks.fails, &mut self.failing),
        ];
        orders.into_iter().filter_map(|(is_in, order)| is_in.then_some(order))
    }

    pub(super) fn get(&self, number: u64) -> Option<&Job> {
        self.jobs.get(&number).map(|listed| &listed.job)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values().map(|listed| &listed.job)
    }

    /// Those of one manifest.
    pub(super) fn of(&self, hash: ManifestHash) -> Vec<u64> {
        let from = self.numbers.range((hash, Vec::new())..);
        from.take_while(|((of, _), _)| *of == hash).map(|(_, number)| *number).collect()
    }

    /// The first whose time to be prepared has come.
    pub(super) fn due(&mut self, now: Instant) -> Option<u64> {
        while let Some((at, number)) = self.later.first().copied().filter(|(at, _)| *at <= now) {
            self.later.remove(&(at, number));
            if let Some(listed) = self.jobs.get(&number) {
                self.due.insert(listed.marks.turn(number));
            }
        }
        self.due.first().map(|(_, number)| *number)
    }

    /// When the next one is to be prepared, of those whose time has not come.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    /// The first behind `turn` that somebody waits for.
    pub(super) fn urgent_after(&self, turn: Option<Turn>) -> Option<Turn> {
        after(&self.urgent, turn)
    }

    /// The first behind `turn` that may have a request to hand out that nobody waits for.
    pub(super) fn more_after(&self, turn: Option<Turn>) -> Option<Turn> {
        after(&self.more, turn)
    }

    /// Those that something keeps, the most urgent first.
    pub(super) fn failing(&self) -> impl Iterator<Item = &Job> {
        self.failing.iter().filter_map(|(_, number)| self.get(*number))
    }

    /// The versions that there is no room for.
    pub(super) fn full(&self) -> HashSet<ManifestHash> {
        self.full.iter().filter_map(|(_, number)| self.get(*number)).map(|job| job.want.manifest).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// How many are done.
    pub(super) fn done(&self) -> usize {
        self.done
    }

    /// Blocks that all of them still lack, as far as it is known.
    pub(super) fn missing(&self) -> u64 {
        self.missing
    }
}

fn after(order: &BTreeSet<Turn>, turn: Option<Turn>) -> Option<Turn> {
    match turn {
        Some(turn) => order.range((std::ops::Bound::Excluded(turn), std::ops::Bound::Unbounded)).next(),
        None => order.first(),
    }
    .copied()
}

#[cfg(test)]
#[path = "jobs_tests.rs"]
mod tests;
