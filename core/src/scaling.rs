//! How many replicas a dataset is to have, by how many nodes read it.

use crate::index::Millis;
use std::collections::VecDeque;
use std::ops::RangeInclusive;

/// So long, milliseconds, replicas stay that were needed: the next run of a job finds them.
pub const KEPT_FOR: u64 = 30 * 60 * 1_000;

/// How many nodes read a dataset of late.
#[derive(Clone, Debug, Default)]
pub struct Scaling {
    /// What can still be the most, the latest last: each is less than those before it.
    seen: VecDeque<(Millis, usize)>,
}

impl Scaling {
    /// How many replicas there are to be now that `readers` nodes read: as many as read at one
    /// time of late, within `bounds`. To one who has just begun to look, `before` were needed.
    pub fn next(
        &mut self,
        now: Millis,
        bounds: RangeInclusive<usize>,
        before: Option<usize>,
        readers: usize,
    ) -> usize {
        if self.seen.is_empty() {
            self.see(now, before.unwrap_or(0));
        }
        self.see(now, readers);
        while self.seen.front().is_some_and(|(then, _)| now.since(*then) > KEPT_FOR) {
            self.seen.pop_front();
        }
        let most = self.seen.front().map_or(readers, |(_, readers)| *readers);
        most.clamp(*bounds.start(), *bounds.end())
    }

    fn see(&mut self, now: Millis, readers: usize) {
        while self.seen.back().is_some_and(|(_, before)| *before <= readers) {
            self.seen.pop_back();
        }
        self.seen.push_back((now, readers));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn replicas_come_with_readers_and_outlive_them_for_a_while() {
        let mut scaling = Scaling::default();
        let mut next = |minute: u64, readers| scaling.next(Millis(minute * 60_000), 1..=4, None, readers);
        assert_eq!([next(0, 0), next(1, 3), next(2, 9), next(3, 0)], [1, 3, 4, 4]);
        assert_eq!([next(32, 2), next(33, 0), next(62, 0), next(63, 0)], [4, 2, 2, 1]);
        // A new leader knows what its predecessor wanted.
        let mut scaling = Scaling::default();
        assert_eq!(scaling.next(Millis(0), 1..=4, Some(3), 0), 3);
        assert_eq!(scaling.next(Millis(KEPT_FOR + 1), 1..=4, Some(3), 0), 1);
    }

    proptest! {
        #[test]
        fn it_is_the_most_of_the_time_that_counts(
            steps in prop::collection::vec((0u64..KEPT_FOR, 0usize..10), 1..30),
        ) {
            let (mut scaling, mut now, mut all) = (Scaling::default(), 0, Vec::new());
            for (pause, readers) in steps {
                now += pause;
                all.push((now, readers));
                let most = all.iter().filter(|(then, _)| now - then <= KEPT_FOR).map(|(_, n)| *n).max();
                let wanted = scaling.next(Millis(now), 2..=8, None, readers);
                prop_assert_eq!(wanted, most.unwrap().clamp(2, 8));
            }
        }
    }
}
