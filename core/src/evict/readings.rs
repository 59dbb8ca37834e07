//! How one dataset is read on this node, and what each object is worth for that.

use super::heat::Heat;
use super::memory::Memories;
use super::reuse::{Kind, Reuse, gap};
use crate::index::Millis;
use crate::object::ObjectId;

/// Fewer objects than this are not worth a smaller table.
const FEWEST: u64 = 3_000;
/// Most objects of one dataset that are remembered: 7.5 bytes each.
const MOST: u64 = 16_000_000;
/// Ticks in which as many objects are read as there are places.
const TICKS: u64 = 1024;
/// Periods in which as many objects are read as there are places.
const PERIODS: u64 = 64;
/// Fewest readings in a period: what is learned at its end takes about a millisecond.
const SHORTEST: u64 = 500;
/// Ticks after which an object is forgotten: well before ages run over.
const FORGOTTEN: u16 = 48 * 1024;
/// Ticks in which a use comes to count half.
const HALF_LIFE: f32 = 8.0 * 1024.0;
/// Milliseconds in which a reading comes to count half for how fast the dataset is read.
const PACE_HALF_LIFE: u64 = 5 * 60_000;

/// Remembers what was read, and learns when it is read again.
///
/// Within the dataset time is counted in readings, so that a pause makes nobody older;
/// how fast they come only tells how the dataset compares with others. Losing all this
/// costs no more than learning it anew.
#[derive(Debug)]
pub struct Readings {
    memories: Memories,
    reuse: Reuse,
    pace: Heat,
    reads: u64,
    reads_per_tick: u64,
    reads_per_period: u64,
    /// Buckets that were swept in this period.
    swept: usize,
}

impl Readings {
    /// For a dataset of so many objects, all its versions taken together.
    pub fn new(objects: u64) -> Self {
        let memories = Memories::new(objects.clamp(FEWEST, MOST));
        let places = memories.places();
        Self {
            reads_per_tick: places / TICKS,
            reads_per_period: (places / PERIODS).max(SHORTEST),
            memories,
            reuse: Reuse::default(),
            pace: Heat::new(PACE_HALF_LIFE),
            reads: 0,
            swept: 0,
        }
    }

    /// An object is read: once for each time that it is opened, not for each part.
    pub fn read(&mut self, object: &ObjectId, now: Millis) {
        self.pace.add(now, 1.0);
        let now = self.tick();
        let (memory, known) = self.memories.get_or_insert(object, now);
        if known {
            let age = now.wrapping_sub(memory.last);
            self.reuse.read(Kind::new(memory.uses, memory.gap), age);
            let faded = f32::from(memory.uses) * (-f32::from(age) / HALF_LIFE).exp2();
            memory.uses = (faded + 4.5) as u8;
            memory.gap = gap(age);
        } else {
            memory.uses = 4;
        }
        memory.last = now;
        self.reads += 1;
        self.sweep();
    }

    /// What keeping an object is worth: how often it will be read in a second while it
    /// takes room. One that was never read counts as if it had been read once when all
    /// this began.
    pub fn worth(&self, object: &ObjectId, now: Millis) -> f64 {
        let tick = self.tick();
        let (kind, age) = match self.memories.get(object) {
            Some(memory) => (Kind::new(memory.uses, memory.gap), tick.wrapping_sub(memory.last)),
            None => (Kind::new(0, 0), (self.reads / self.reads_per_tick).min(FORGOTTEN.into()) as u16),
        };
        let per_reading = self.reuse.worth(kind, age) / self.reads_per_tick as f32;
        f64::from(per_reading) * self.pace.per_second(now)
    }

    fn tick(&self) -> u16 {
        (self.reads / self.reads_per_tick) as u16
    }

    /// Goes over all memories once a period, a little with every reading.
    fn sweep(&mut self) {
        let now = self.tick();
        let done = self.reads % self.reads_per_period;
        let until = match done {
            0 => self.memories.buckets(),
            done => (done * self.memories.buckets() as u64 / self.reads_per_period) as usize,
        };
        for bucket in self.swept..until {
            let reuse = &mut self.reuse;
            self.memories.sweep(bucket, |memory| {
                let age = now.wrapping_sub(memory.last);
                reuse.there(Kind::new(memory.uses, memory.gap), age);
                age < FORGOTTEN
            });
        }
        self.swept = until;
        if done == 0 {
            self.reuse.end_period((self.reads_per_period / self.reads_per_tick) as u32);
            self.swept = 0;
        }
    }
}
