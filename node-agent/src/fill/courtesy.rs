//! How many requests that nobody waits for run beside readers. Pure.
//!
//! Requests share the node's processors and its line with whoever reads: more of them than it takes
//! to keep those busy come no sooner, and each only makes a reader wait longer. So while
//! readers wait for blocks there are few, and twice as many only where that fetches so much
//! faster that it is worth it: where the way is long. How it is changes, so it is tried again
//! and again, more as well as fewer. Where the way is short and the processors have nothing left a few
//! are begun now and then. Without readers there are as many as may be.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Fewest: what is wanted comes on, whoever reads.
pub(super) const FEWEST: usize = 2;
/// For how long a number is tried.
const WINDOW: Duration = Duration::from_millis(200);
/// A window that took longer than this says nothing: nobody looked at it in time.
const STALE: Duration = Duration::from_secs(1);
/// What twice as many must fetch in the same time.
const WORTH: f64 = 1.25;
/// Windows until another number is tried, at first and at most.
const HOLD: u32 = 8;
const LONGEST_HOLD: u32 = 64;
/// While they only crowd readers none is begun for so long after one.
const TRICKLE: Duration = Duration::from_millis(20);
/// An origin whose answers begin within this is near: what is asked for ahead saves a reader little.
const SOON: Duration = Duration::from_millis(10);
/// Readers are there for so long after one of them has asked for something.
const THERE: Duration = Duration::from_secs(2);

/// Decides how many requests run that nobody waits for.
#[derive(Debug)]
pub(super) struct Courtesy {
    most: usize,
    limit: usize,
    /// Until when readers are there.
    until: Option<Instant>,
    /// When the present window began, and what had come by then.
    window: Option<(Instant, u64)>,
    phase: Phase,
    hold: u32,
    /// Whether fewer were tried last, so that more come next.
    fewer: bool,
    /// For so many windows more they are taken to only crowd readers.
    crowded: u32,
    /// When the last one was begun.
    begun: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// What the present number fetches is not known yet.
    New,
    /// It is good for so many windows more.
    Holding { windows: u32 },
    /// Another one was in use before, and fetched so many bytes a second.
    Trying { before: usize, rate: f64 },
}

impl Courtesy {
    /// With at most so many, at least one.
    pub(super) fn new(most: usize) -> Self {
        let limit = FEWEST.min(most);
        Self {
            most,
            limit,
            until: None,
            window: None,
            phase: Phase::New,
            hold: HOLD,
            fewer: true,
            crowded: 0,
            begun: None,
        }
    }

    /// A reader waits for something.
    pub(super) fn asked(&mut self, now: Instant) {
        self.until = Some(now + THERE);
    }

    /// Looks at how it goes: `came` are all bytes that ever came, and `is_crowded` whether the way is
    /// short and the processors have nothing left.
    pub(super) fn look(&mut self, came: u64, is_crowded: bool, now: Instant) {
        if !self.has_readers(now) {
            // What was learned holds, but not how fast it was.
            (self.window, self.phase, self.hold) = (None, Phase::New, HOLD);
            self.crowded = u32::from(is_crowded);
            return;
        }
        let (began, before) = *self.window.get_or_insert((now, came));
        let took = now.saturating_duration_since(began);
        if took < WINDOW {
            return;
        }
        self.window = Some((now, came));
        self.crowded = if is_crowded { HOLD } else { self.crowded.saturating_sub(1) };
        match (took < STALE && self.crowded == 0, self.phase) {
            (true, _) => self.measured(came.saturating_sub(before) as f64 / took.as_secs_f64()),
            (false, Phase::Trying { before, .. }) => (self.limit, self.phase) = (before, Phase::New),
            (false, _) => self.phase = Phase::New,
        }
    }

    /// How many may run now.
    pub(super) fn limit(&self, now: Instant) -> usize {
        if !self.has_readers(now) {
            self.most
        } else if self.crowded == 0 {
            self.limit
        } else if self.begun.is_none_or(|begun| begun + TRICKLE <= now) {
            FEWEST.min(self.most)
        } else {
            0
        }
    }

    /// When there may be one again; `None` while there may be some.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        self.begun.map(|begun| begun + TRICKLE).filter(|_| self.limit(now) == 0)
    }

    /// One is begun.
    pub(super) fn begun(&mut self, now: Instant) {
        self.begun = Some(now);
    }

    fn has_readers(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until > now)
    }

    /// The present number has fetched so many bytes a second.
    fn measured(&mut self, rate: f64) {
        match self.phase {
            Phase::New => self.try_another(rate),
            Phase::Holding { windows } if windows > 1 => self.phase = Phase::Holding { windows: windows - 1 },
            Phase::Holding { .. } => self.try_another(rate),
            Phase::Trying { before, rate: was } => {
                let is_better = match self.limit > before {
                    true => rate >= was * WORTH,
                    false => rate * WORTH > was,
                };
                if is_better {
                    // On in the same direction, while it pays.
                    self.hold = HOLD;
                    self.go(!self.fewer, rate);
                } else {
                    self.limit = before;
                    self.phase = Phase::Holding { windows: self.hold };
                    self.hold = (self.hold * 2).min(LONGEST_HOLD);
                }
            }
        }
    }

    fn try_another(&mut self, rate: f64) {
        self.fewer = !self.fewer;
        self.go(!self.fewer, rate);
    }

    /// Doubles or halves; turns back at the ends.
    fn go(&mut self, more: bool, rate: f64) {
        let next = match more {
            true => self.limit.saturating_mul(2).min(self.most),
            false => (self.limit / 2).max(FEWEST.min(self.most)),
        };
        self.phase = match next == self.limit {
            true => Phase::Holding { windows: self.hold },
            false => Phase::Trying { before: self.limit, rate },
        };
        self.limit = next;
    }
}

/// How soon the first byte of an answer comes, of late.
#[derive(Debug, Default)]
pub(super) struct Answers(AtomicU64);

impl Answers {
    /// One has begun to come.
    pub(super) fn came(&self, after: Duration) {
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX).max(1);
        // An answer that is lost to another thread's is no loss.
        let average = match self.0.load(Ordering::Relaxed) {
            0 => micros,
            average => average - average / 8 + micros / 8,
        };
        self.0.store(average, Ordering::Relaxed);
    }

    /// Whether so soon that nothing is gained by asking ahead; not before the first one.
    pub(super) fn come_soon(&self) -> bool {
        (1..SOON.as_micros()).contains(&u128::from(self.0.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs with a reader that always waits, and an origin that answers at the rate that `rate`
    /// gives for a number of requests; the limits over time.
    fn run(courtesy: &mut Courtesy, from: Instant, seconds: u64, rate: impl Fn(usize) -> f64) -> Vec<usize> {
        run_where(courtesy, from, seconds, false, rate)
    }

    fn run_where(
        courtesy: &mut Courtesy,
        from: Instant,
        seconds: u64,
        is_crowded: bool,
        rate: impl Fn(usize) -> f64,
    ) -> Vec<usize> {
        let step = Duration::from_millis(10);
        let (mut came, mut limits) = (0.0, Vec::new());
        for at in 0..seconds * 100 {
            let now = from + step * at as u32;
            courtesy.asked(now);
            courtesy.look(came as u64, is_crowded, now);
            let limit = courtesy.limit(now);
            if limit > 0 {
                courtesy.begun(now);
            }
            came += rate(limit) * step.as_secs_f64();
            limits.push(limit);
        }
        limits
    }

    fn mean(limits: &[usize]) -> f64 {
        limits.iter().sum::<usize>() as f64 / limits.len() as f64
    }

    #[test]
    fn without_readers_there_are_as_many_as_may_be() {
        let (mut courtesy, now) = (Courtesy::new(32), Instant::now());
        let mut limit = |asks: bool, now| {
            if asks {
                courtesy.asked(now);
            }
            courtesy.look(0, false, now);
            courtesy.limit(now)
        };
        assert_eq!(limit(false, now), 32);
        assert_eq!(limit(true, now), FEWEST);
        assert_eq!(limit(false, now + THERE), 32);
        assert_eq!(limit(true, now + THERE), FEWEST);
    }

    #[test]
    fn where_they_only_crowd_readers_a_few_are_begun_now_and_then() {
        let (mut courtesy, start) = (Courtesy::new(32), Instant::now());
        let limits = run_where(&mut courtesy, start, 60, true, |limit| limit as f64 * 1e6);
        // Once it is known.
        let limits = &limits[20..];
        assert!(limits.iter().all(|limit| [0, FEWEST].contains(limit)));
        let begun = limits.iter().filter(|limit| **limit > 0).count();
        assert_eq!(begun, limits.len() / 2, "one in two steps of 10 ms");
        // And many again, a while after there is something left.
        let limits = run(&mut courtesy, start + Duration::from_secs(60), 60, |limit| limit as f64 * 1e6);
        assert!(limits[300..].iter().filter(|limit| **limit < 16).count() == 0);
    }

    #[test]
    fn where_more_come_no_faster_they_stay_few() {
        let limits = run(&mut Courtesy::new(32), Instant::now(), 60, |_| 1e8);
        assert!(mean(&limits) < 1.1 * FEWEST as f64, "{}", mean(&limits));
    }

    #[test]
    fn where_the_way_is_long_there_are_soon_many() {
        let mut courtesy = Courtesy::new(32);
        let start = Instant::now();
        let limits = run(&mut courtesy, start, 60, |limit| limit as f64 * 1e6);
        assert!(limits[90..].iter().filter(|limit| **limit < 16).count() == 0);
        assert!(mean(&limits[100..]) > 29.0, "{}", mean(&limits[100..]));
        // And few again when the line is full.
        let limits = run(&mut courtesy, start + Duration::from_secs(61), 120, |_| 1e6);
        assert!(mean(&limits[6000..]) < 1.2 * FEWEST as f64, "{}", mean(&limits[6000..]));
    }

    #[test]
    fn it_settles_where_the_line_is_full() {
        let limits = run(&mut Courtesy::new(64), Instant::now(), 60, |limit| limit.min(16) as f64 * 1e6);
        let near = limits[500..].iter().filter(|limit| **limit == 16).count();
        assert!(near * 10 > limits[500..].len() * 8, "{near} of {}", limits[500..].len());
    }

    #[test]
    fn an_origin_is_near_when_its_answers_come_soon() {
        let answers = Answers::default();
        assert!(!answers.come_soon(), "nobody knows");
        answers.came(Duration::from_millis(2));
        assert!(answers.come_soon());
        (0..10).for_each(|_| answers.came(Duration::from_millis(50)));
        assert!(!answers.come_soon());
        (0..30).for_each(|_| answers.came(Duration::ZERO));
        assert!(answers.come_soon());
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds_and_recovers(
            most in 1usize..200,
            steps in prop::collection::vec((0u64..3_000, 0u64..1_000_000_000, any::<bool>(), any::<bool>()), 0..200),
        ) {
            let (mut courtesy, mut now, mut came) = (Courtesy::new(most), Instant::now(), 0);
            for (millis, bytes, asks, is_crowded) in steps {
                now += Duration::from_millis(millis);
                came += bytes;
                if asks {
                    courtesy.asked(now);
                }
                courtesy.look(came, is_crowded, now);
                let limit = courtesy.limit(now);
                prop_assert!(limit <= most);
                match limit {
                    0 => prop_assert!(courtesy.limit(courtesy.next(now).unwrap()) > 0),
                    _ => courtesy.begun(now),
                }
            }
            courtesy.look(came, false, now + THERE);
            prop_assert_eq!(courtesy.limit(now + THERE), most);
            // Whatever it came through, it finds what is worth it.
            let start = now + THERE;
            let limits = run(&mut courtesy, start, 40, |limit| limit as f64 * 1e6);
            prop_assert!(mean(&limits[2_000..]) * 2.0 > most as f64, "{}", mean(&limits[2_000..]));
        }
    }
}
