//! How much of the node's processors fetching takes while others want them all. Pure.
//!
//! The scheduler of the kernel gives each pod its share by what it requests, but the little that an
//! agent requests is more than whoever trains on all processors should notice, and what the kernel
//! does for it counts as nobody's. So while others use most of the processors and leave next to
//! nothing, what no pod waits for is begun only as long as this process stays within a share.

use crate::pressure::ProcessorTime;
use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked at who uses them.
const WINDOW: Duration = Duration::from_millis(200);
/// Others want all when they use this part of the processors, and no more than that is left.
const OTHERS: f64 = 0.7;
const LEFT: f64 = 0.1;
/// They want them no more after so many looks that say so: whoever trains waits for data now and then.
const FREE: u32 = 3;
/// What was taken beyond the share is waited for no longer than this, in seconds: what comes in
/// large pieces comes on, too.
const LONGEST: f64 = 10.0;

/// Decides whether something may be begun.
#[derive(Debug)]
pub(super) struct Processors {
    /// Part of all of them.
    share: f64,
    /// When it was last looked at who uses them, and what was used by then.
    looked: Option<(Instant, ProcessorTime)>,
    /// For so many looks more; 0 when others do not want all of them.
    wanted: u32,
    /// Whether next to nothing was left at the last look, whoever used them.
    are_busy: bool,
    /// How many there are, as far as they had time.
    count: f64,
    /// Until when this process's own time was counted, and what it was by then.
    counted: Option<(Instant, f64)>,
    /// Seconds of one processor taken beyond the share.
    debt: f64,
    /// Since when nothing was begun.
    paused: Option<Instant>,
}

impl Processors {
    /// With at most so many percent of the processors while others want them.
    pub(super) fn new(percent: u8) -> Self {
        let share = f64::from(percent) / 100.0;
        Self {
            share,
            looked: None,
            wanted: 0,
            are_busy: false,
            count: 0.0,
            counted: None,
            debt: 0.0,
            paused: None,
        }
    }

    /// Whether others want all of them.
    pub(super) fn are_wanted(&self) -> bool {
        self.wanted > 0
    }

    /// Whether next to nothing of them is left, whoever uses them.
    pub(super) fn are_busy(&self) -> bool {
        self.are_busy
    }

    /// Until when nothing is to be begun that no pod waits for. `own` is the time that this process
    /// has used so far, in seconds of one processor, and `time` tells what was used in all.
    pub(super) fn pause(
        &mut self,
        now: Instant,
        own: f64,
        time: impl FnOnce() -> Option<ProcessorTime>,
    ) -> Option<Instant> {
        self.look(now, time);
        let counted = self.counted.replace((now, own));
        if !self.are_wanted() {
            (self.debt, self.paused) = (0.0, None);
            return None;
        }
        let (then, before) = counted?;
        let rate = self.share * self.count;
        let allowed = rate * now.saturating_duration_since(then).as_secs_f64();
        self.debt = (self.debt + own - before - allowed).clamp(-rate * WINDOW.as_secs_f64(), rate * LONGEST);
        // Readers that are served may take more than the share all the time.
        let since = *self.paused.get_or_insert(now);
        if self.debt <= 0.0 || now.saturating_duration_since(since).as_secs_f64() >= LONGEST {
            (self.debt, self.paused) = (self.debt.min(0.0), None);
            return None;
        }
        Some(now + Duration::from_secs_f64(self.debt / rate))
    }

    fn look(&mut self, now: Instant, time: impl FnOnce() -> Option<ProcessorTime>) {
        let passed = self.looked.map(|(then, _)| now.saturating_duration_since(then));
        if passed.is_some_and(|passed| passed < WINDOW) {
            return;
        }
        let Some(after) = time() else {
            self.are_busy = false;
            return;
        };
        if let (Some((_, before)), Some(passed)) = (self.looked, passed) {
            // Counters of idle time may go back.
            let all = (after.all - before.all).max(0.0);
            let (idle, own) = (after.idle - before.idle, after.own - before.own);
            self.count = all / passed.as_secs_f64();
            self.are_busy = all > 0.0 && (0.0..=LEFT).contains(&(idle / all));
            self.wanted = match self.are_busy && (all - idle - own) / all >= OTHERS {
                true => FREE,
                false => self.wanted.saturating_sub(1),
            };
        }
        self.looked = Some((now, after));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two processors.
    struct Node {
        now: Instant,
        time: ProcessorTime,
    }

    impl Node {
        fn new() -> Self {
            Self { now: Instant::now(), time: ProcessorTime::default() }
        }

        /// Whoever else is there uses this part of them when it can; filling takes all it gets when
        /// it may. The parts that each has had, over so many windows.
        fn run(&mut self, processors: &mut Processors, others: f64, windows: usize) -> (f64, f64) {
            let (mut own_sum, mut others_sum) = (0.0, 0.0);
            let (step, steps) = (WINDOW / 10, windows * 10);
            for _ in 0..steps {
                let is_paused = processors.pause(self.now, self.time.own, || Some(self.time)).is_some();
                // A scheduler that is fair to the process is the best that it can hope for.
                let own = if is_paused { 0.0 } else { (1.0 - others).max(0.25) };
                let theirs = others.min(1.0 - own);
                self.now += step;
                let all = 2.0 * step.as_secs_f64();
                self.time.all += all;
                self.time.idle += all * (1.0 - own - theirs);
                self.time.own += all * own;
                own_sum += own;
                others_sum += theirs;
            }
            (own_sum / steps as f64, others_sum / steps as f64)
        }
    }

    #[test]
    fn whoever_wants_all_processors_gets_nearly_all() {
        let (own, others) = Node::new().run(&mut Processors::new(5), 1.0, 500);
        assert!((0.03..0.06).contains(&own), "{own}");
        assert!(others > 0.94, "{others}");
        let (own, _) = Node::new().run(&mut Processors::new(100), 1.0, 500);
        assert!(own > 0.24, "{own}");
    }

    #[test]
    fn what_others_leave_is_taken() {
        for others in [0.0, 0.3, 0.6] {
            let mut processors = Processors::new(5);
            let (own, _) = Node::new().run(&mut processors, others, 100);
            assert!(own > 0.39, "{own} beside {others}");
            assert!(processors.are_busy() && !processors.are_wanted());
        }
    }

    #[test]
    fn it_goes_on_at_once_when_they_are_free_again() {
        let (mut node, mut processors) = (Node::new(), Processors::new(5));
        node.run(&mut processors, 1.0, 100);
        let (own, _) = node.run(&mut processors, 0.1, 20);
        assert!(own > 0.7, "{own}");
    }

    #[test]
    fn a_burst_is_not_held_against_it_for_long() {
        let (mut processors, mut now) = (Processors::new(5), Instant::now());
        let mut time = ProcessorTime::default();
        let mut pause = |own: f64| {
            now += WINDOW;
            time = ProcessorTime { all: time.all + 2.0 * WINDOW.as_secs_f64(), idle: 0.0, own };
            processors.pause(now, own, || Some(time)).map(|until| until - now)
        };
        assert_eq!(pause(0.0), None);
        assert_eq!(pause(0.0), None, "it has a little in hand");
        let longest = pause(1000.0).unwrap();
        assert!(longest <= Duration::from_secs_f64(LONGEST), "{longest:?}");
        assert!(pause(1000.0).unwrap() < longest);
    }

    #[test]
    fn what_readers_take_does_not_stop_the_rest_for_ever() {
        let (mut processors, mut now) = (Processors::new(5), Instant::now());
        let (mut time, mut begun) = (ProcessorTime::default(), 0);
        for _ in 0..200 {
            now += WINDOW;
            let all = 2.0 * WINDOW.as_secs_f64();
            time = ProcessorTime { all: time.all + all, idle: 0.0, own: time.own + 0.2 * all };
            begun += usize::from(processors.pause(now, time.own, || Some(time)).is_none());
        }
        assert!((3..10).contains(&begun), "{begun} times in 40 s");
    }

    #[test]
    fn counters_that_go_back_are_no_reason_for_anything() {
        let (mut processors, mut now) = (Processors::new(5), Instant::now());
        for all in [1.0, 2.0, 1.0, 0.0, 5.0, 5.0] {
            now += WINDOW;
            processors.pause(now, 0.5, || Some(ProcessorTime { all, idle: 0.0, own: 0.0 }));
        }
    }

    #[test]
    fn where_nothing_is_told_nothing_is_held_back() {
        let (mut processors, now) = (Processors::new(5), Instant::now());
        for step in 0..10 {
            assert_eq!(processors.pause(now + WINDOW * step, f64::from(step), || None), None);
        }
    }
}
