//! When the objects of one dataset are read again, as it was seen.
//!
//! Objects are told apart by *kind* (how often they have been read of late, and at
//! what distance the last time) and by age since the last reading. For each it is known
//! how many were read again, and how many there were to be read: so the chance of
//! being read at the next tick is one over the other, and what is never read again
//! counts by being there. Where little was seen, the kinds that were read as often, and
//! then all kinds, stand in.
//!
//! What an object is *worth* is the best rate of readings that keeping it for some time
//! can give: over all times to keep it, the chance that it is read by then, over the
//! time that it takes room for until it is read or the time is over (its Gittins index).
//! With that one rule, what is read in shuffled epochs is given up youngest first, since
//! the others come sooner; what a second reader will pass by at a fixed distance is kept
//! until it has, and no longer; and among objects of steady popularity the most
//! popular stay.

use super::age::{BINS, bin, width};

/// Kinds by uses: half an octave each.
const USES: usize = 12;
/// Kinds by gap: never read before, and five octaves.
const GAPS: usize = 6;
/// Where the next class of gaps begins, in ticks.
const GAP_EDGES: [u16; GAPS - 2] = [128, 256, 512, 1024];
/// So many readings weigh as much as what is known of similar objects.
const PRIOR: f32 = 2.0;
/// What a period still counts one period later.
const FADING: f32 = 0.985;

/// Which objects are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    uses: u8,
    gap: u8,
}

impl Kind {
    /// `uses` in quarters, and a class of [`gap`]; 0 for one that was read once only.
    pub(super) fn new(uses: u8, gap: u8) -> Self {
        let quarters = u32::from(uses).max(4);
        let octave = quarters.ilog2();
        let is_upper_half = quarters * 2 >= 3 << octave;
        Self { uses: ((octave - 2) * 2) as u8 + u8::from(is_upper_half), gap }
    }

    fn place(self) -> usize {
        usize::from(self.uses) * GAPS + usize::from(self.gap)
    }
}

/// The class of a gap between two readings.
pub(super) fn gap(ticks: u16) -> u8 {
    1 + GAP_EDGES.iter().filter(|edge| ticks >= **edge).count() as u8
}

/// A number for each bin of ages.
type ByAge = [f32; BINS];

/// What is known of one kind.
#[derive(Clone, Debug)]
struct Known {
    /// Objects that were read again in this period.
    read_now: [u32; BINS],
    /// Objects that were there in this period.
    there_now: [u32; BINS],
    /// Objects that were read again.
    read: ByAge,
    /// Objects × ticks that they could have been read in.
    exposed: ByAge,
    worth: ByAge,
}

impl Known {
    /// Nothing yet: it is worth what similar kinds are.
    fn new(worth: ByAge) -> Self {
        Self { read_now: [0; BINS], there_now: [0; BINS], read: [0.0; BINS], exposed: [0.0; BINS], worth }
    }

    fn end_period(&mut self, ticks: f32) {
        let fade = |faded: &mut ByAge, now: &mut [u32; BINS], weight: f32| {
            for (faded, now) in faded.iter_mut().zip(now) {
                *faded = FADING * (*faded + std::mem::take(now) as f32 * weight);
            }
        };
        fade(&mut self.read, &mut self.read_now, 1.0);
        fade(&mut self.exposed, &mut self.there_now, ticks);
    }
}

/// What is known of a dataset.
#[derive(Debug)]
pub(super) struct Reuse {
    /// By uses, and of those by gap.
    kinds: Vec<Option<Box<Known>>>,
    /// By uses: worth of kinds of which nothing is known.
    worth: Vec<ByAge>,
}

impl Default for Reuse {
    fn default() -> Self {
        Self { kinds: vec![None; USES * GAPS], worth: vec![[0.0; BINS]; USES] }
    }
}

impl Reuse {
    /// An object was read again at an age, in ticks.
    pub(super) fn read(&mut self, kind: Kind, age: u16) {
        self.known(kind).read_now[bin(age)] += 1;
    }

    /// An object is there, unread for so many ticks. To be said once a period of each.
    pub(super) fn there(&mut self, kind: Kind, age: u16) {
        self.known(kind).there_now[bin(age)] += 1;
    }

    /// What such an object is worth: readings per tick.
    pub(super) fn worth(&self, kind: Kind, age: u16) -> f32 {
        let worth = match &self.kinds[kind.place()] {
            Some(known) => &known.worth,
            None => &self.worth[usize::from(kind.uses)],
        };
        worth[bin(age)]
    }

    /// A period of so many ticks is over: it is known from here on.
    pub(super) fn end_period(&mut self, ticks: u32) {
        self.kinds.iter_mut().flatten().for_each(|known| known.end_period(ticks as f32));
        let (read, exposed) = sums(&self.kinds);
        let overall = read.iter().sum::<f32>() / exposed.iter().sum::<f32>().max(1.0);
        let by_age = chances(&read, &exposed, &[overall; BINS]);
        for (kinds, unknown) in self.kinds.chunks_mut(GAPS).zip(&mut self.worth) {
            let (read, exposed) = sums(kinds);
            let by_uses = chances(&read, &exposed, &by_age);
            *unknown = worth(&by_uses);
            for known in kinds.iter_mut().flatten() {
                known.worth = worth(&chances(&known.read, &known.exposed, &by_uses));
            }
        }
    }

    fn known(&mut self, kind: Kind) -> &mut Known {
        let Self { kinds, worth } = self;
        kinds[kind.place()].get_or_insert_with(|| Box::new(Known::new(worth[usize::from(kind.uses)])))
    }
}

/// Readings and exposure of several kinds together.
fn sums(kinds: &[Option<Box<Known>>]) -> (ByAge, ByAge) {
    let sum = |of: fn(&Known) -> &ByAge| -> ByAge {
        std::array::from_fn(|at| kinds.iter().flatten().map(|known| of(known)[at]).sum())
    };
    (sum(|known| &known.read), sum(|known| &known.exposed))
}

/// Chances of being read at the next tick: readings over exposure, drawn to the prior
/// where little was seen.
fn chances(read: &ByAge, exposed: &ByAge, prior: &ByAge) -> ByAge {
    std::array::from_fn(|at| match prior[at] > 0.0 {
        true => prior[at] * (read[at] + PRIOR) / (prior[at] * exposed[at] + PRIOR),
        false => 0.0,
    })
}

/// Below this chance of being still unread, what comes later does not matter.
const SURELY_READ: f32 = 0.001;

/// The best rate of readings from each age on, given the chances at each.
fn worth(chances: &ByAge) -> ByAge {
    let read: ByAge = std::array::from_fn(|at| -(-chances[at] * width(at) as f32).exp_m1());
    // Ticks that an object stays in a bin on average.
    let stay: ByAge = std::array::from_fn(|at| match chances[at] > 0.0 {
        true => read[at] / chances[at],
        false => width(at) as f32,
    });
    std::array::from_fn(|from| {
        let (mut unread, mut readings, mut ticks, mut best) = (1.0, 0.0, 0.0, 0.0_f32);
        for (&read, &stay) in read.iter().zip(&stay).skip(from) {
            readings += unread * read;
            ticks += unread * stay;
            best = best.max(readings / ticks);
            unread *= 1.0 - read;
            if unread < SURELY_READ {
                break;
            }
        }
        best
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One kind, of which an object is there at each age, and is read so often in a period
    /// of 64 ticks.
    fn learned(times: impl Fn(u16) -> u32) -> Reuse {
        let mut reuse = Reuse::default();
        let kind = Kind::new(4, 0);
        for _ in 0..30 {
            for age in 0..16_384 {
                reuse.there(kind, age);
                (0..times(age)).for_each(|_| reuse.read(kind, age));
            }
            reuse.end_period(64);
        }
        reuse
    }

    #[test]
    fn kinds_are_all_there() {
        assert_eq!(Kind::new(0, 0).place(), 0);
        assert_eq!(Kind::new(u8::MAX, gap(u16::MAX)).place(), USES * GAPS - 1);
        assert_eq!((Kind::new(4, 1), Kind::new(5, 1)), (Kind { uses: 0, gap: 1 }, Kind { uses: 0, gap: 1 }));
        assert_eq!((Kind::new(6, 1).uses, Kind::new(8, 1).uses), (1, 2));
        assert_eq!([0, 127, 128, 1023, 1024].map(gap), [1, 1, 2, 4, 5]);
    }

    #[test]
    fn who_is_sure_to_be_read_is_worth_more_the_nearer_it_is() {
        let reuse = learned(|age| if (1000..1016).contains(&age) { 40 } else { 0 });
        let worth = |age| reuse.worth(Kind::new(4, 0), age);
        assert!(worth(0) * 1.5 < worth(500) && worth(500) * 1.5 < worth(900));
        assert!(worth(1100) < worth(0) / 10.0, "its time has passed");
    }

    #[test]
    fn what_cannot_be_told_apart_by_age_keeps_its_worth() {
        let reuse = learned(|_| 1);
        let worth = |age| reuse.worth(Kind::new(4, 0), age);
        // One reading of one object in a period of 64 ticks.
        assert!((worth(0) * 64.0 - 1.0).abs() < 0.1 && (worth(1500) * 64.0 - 1.0).abs() < 0.1);
        let other = reuse.worth(Kind::new(40, 3), 100);
        assert!((other * 64.0 - 1.0).abs() < 0.1, "similar objects stand in: {other}");
    }
}
