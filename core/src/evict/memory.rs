//! What is remembered of the objects that were read: 6 bytes each, in a table of
//! fixed size.

use crate::object::ObjectId;

/// Places that an object can be in.
const WAYS: usize = 16;
/// Places for every object: in a table with less to spare, too many buckets run over.
const ROOM: (u64, u64) = (5, 4);

/// What is remembered of one object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// A part of its name; 0 where nothing is remembered.
    tag: u16,
    /// The tick of its last reading.
    pub(super) last: u16,
    /// How often it has been read of late, in quarters, as of `last`.
    pub(super) uses: u8,
    /// How long before that it had been read: a class of gaps.
    pub(super) gap: u8,
}

/// A set-associative table, so that it needs no more than what it remembers: who is
/// new in a full bucket takes the place of who was read the longest ago.
#[derive(Debug)]
pub(super) struct Memories {
    buckets: Vec<[Memory; WAYS]>,
}

impl Memories {
    /// A table for so many objects.
    pub(super) fn new(objects: u64) -> Self {
        let places = objects.saturating_mul(ROOM.0) / ROOM.1;
        Self { buckets: vec![Default::default(); places.div_ceil(WAYS as u64).max(1) as usize] }
    }

    /// How many objects there are places for.
    pub(super) fn places(&self) -> u64 {
        (self.buckets.len() * WAYS) as u64
    }

    pub(super) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    pub(super) fn get(&self, object: &ObjectId) -> Option<&Memory> {
        let (bucket, tag) = self.place(object);
        self.buckets[bucket].iter().find(|memory| memory.tag == tag)
    }

    /// The place of an object, and whether it is remembered; if it is not, the place is
    /// its own from here on.
    pub(super) fn get_or_insert(&mut self, object: &ObjectId, now: u16) -> (&mut Memory, bool) {
        let (bucket, tag) = self.place(object);
        let bucket = &mut self.buckets[bucket];
        let found = bucket.iter().position(|memory| memory.tag == tag);
        let way = found.unwrap_or_else(|| {
            // Those that are empty first.
            let age = |memory: &Memory| match memory.tag {
                0 => u32::MAX,
                _ => u32::from(now.wrapping_sub(memory.last)),
            };
            (0..WAYS).max_by_key(|way| age(&bucket[*way])).unwrap_or(0)
        });
        let memory = &mut bucket[way];
        if found.is_none() {
            *memory = Memory { tag, ..Memory::default() };
        }
        (memory, found.is_some())
    }

    /// Shows what is remembered in one bucket, and forgets what `keep` says no to.
    pub(super) fn sweep(&mut self, bucket: usize, mut keep: impl FnMut(&Memory) -> bool) {
        for memory in self.buckets[bucket].iter_mut().filter(|memory| memory.tag != 0) {
            if !keep(memory) {
                *memory = Memory::default();
            }
        }
    }

    fn place(&self, object: &ObjectId) -> (usize, u16) {
        // Names are hashes: their bits are as good as any others.
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&object.0[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let bucket = (u128::from(word(0)) * self.buckets.len() as u128) >> 64;
        (bucket as usize, (word(8) as u16).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> ObjectId {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&blake3::hash(&number.to_le_bytes()).as_bytes()[..16]);
        ObjectId(bytes)
    }

    /// Remembers these objects, one each tick.
    fn remember(memories: &mut Memories, objects: std::ops::Range<u32>) {
        for number in objects {
            memories.get_or_insert(&id(number), number as u16).0.last = number as u16;
        }
    }

    fn remembered(memories: &Memories, mut objects: std::ops::Range<u32>) -> bool {
        objects.all(|number| memories.get(&id(number)).is_some())
    }

    #[test]
    fn six_bytes_each() {
        assert_eq!(size_of::<Memory>(), 6);
        assert_eq!(Memories::new(10_000_000).buckets.len() * size_of::<[Memory; WAYS]>(), 75_000_000);
    }

    #[test]
    fn who_was_read_the_longest_ago_makes_room() {
        let mut memories = Memories::new(10_000);
        remember(&mut memories, 0..30_000);
        assert!(remembered(&memories, 28_000..30_000));
        let old = (0..10_000).filter(|number| memories.get(&id(*number)).is_some()).count();
        assert!(old < 1_000, "{old} of 10000");
        let (memory, known) = memories.get_or_insert(&id(29_999), 30_000);
        assert!(known && memory.last == 29_999);
    }

    #[test]
    fn most_of_a_dataset_is_remembered() {
        let mut memories = Memories::new(10_000);
        remember(&mut memories, 0..10_000);
        let count = (0..10_000).filter(|number| memories.get(&id(*number)).is_some()).count();
        assert!(count > 9_600, "{count} of 10000");
    }

    #[test]
    fn what_is_swept_is_forgotten() {
        let mut memories = Memories::new(1_000);
        remember(&mut memories, 0..500);
        (0..memories.buckets()).for_each(|bucket| memories.sweep(bucket, |memory| memory.last >= 100));
        assert!(remembered(&memories, 100..500));
        assert!((0..100).all(|number| memories.get(&id(number)).is_none()));
    }
}
