//! Blocks are not synced one by one.
//!
//! A sync of each, and one of its directory, is much of what a small file costs, and whoever reads a
//! large one for the first time waits for the disk. So the index notes which blocks were written since the
//! file system was last synced as a whole, which is done now and then, in the background. What is on
//! the note when a store is opened is read before it is claimed (`torn.rs`).

use super::commands::ManifestCommand;
use super::disk::FileSystem;
use super::engine::{Engine, PATIENCE, Queue, Shared};
use super::error::StoreError;
use super::index::Loaded;
use super::stats::count;
use super::torn;
use hearth_core::block::BLOCK_SIZE;
use hearth_core::tier::Medium;
use parking_lot::{Condvar, Mutex};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The file system is synced this long after the first write that was not,
const LONGEST: Duration = Duration::from_secs(10);
/// or when these are half of so many bytes or blocks. With all of them each write syncs its own: what
/// has to be read after a power cut is bounded, so that a disk that seeks is done with it in a minute…
const MOST_SEEKING: Written = Written { bytes: 2 << 30, blocks: 8192 };
/// …and another sooner, and does not keep whoever reads many small files waiting for syncs.
const MOST: Written = Written { bytes: 2 << 30, blocks: 32_768 };
/// After a sync that failed, what is noted is looked at so often: what was being written then is
/// noted a moment later.
const DOUBTS: u32 = 2;

#[derive(Clone, Copy, Debug, Default)]
struct Written {
    bytes: u64,
    blocks: usize,
}

impl Written {
    fn most(medium: Medium) -> Self {
        match medium {
            Medium::Hdd => MOST_SEEKING,
            Medium::Mem | Medium::Ssd => MOST,
        }
    }

    fn half(self) -> Self {
        Self { bytes: self.bytes / 2, blocks: self.blocks / 2 }
    }

    fn reaches(self, most: Self) -> bool {
        self.bytes >= most.bytes || self.blocks >= most.blocks
    }
}

#[derive(Debug, Default)]
struct State {
    /// The last note, of all that there ever were.
    last: u64,
    /// The last note of which all is synced.
    synced: u64,
    /// Written since a sync was begun.
    written: Written,
    /// When the first of these was.
    since: Option<Instant>,
    /// What a sync that is under way is about.
    syncing: Written,
    is_syncing: bool,
    /// Somebody waits for a sync.
    asked: bool,
    /// How many have failed, and until when another one waits.
    failed: u64,
    not_before: Option<Instant>,
    /// How often what is noted has to be looked at on the disk still: a sync has failed, and tells it
    /// once, and not of which files.
    doubts: u32,
    closed: bool,
}

/// How much was written and not synced.
#[derive(Debug)]
pub(super) struct Unsynced {
    state: Mutex<State>,
    changed: Condvar,
    most: Written,
    /// Held open, so that each of its errors is told here, whoever else syncs it.
    file_system: Box<dyn FileSystem>,
}

impl Unsynced {
    /// Those that the index knows are synced in time, too. The memory of the system may have what
    /// the disk does not, if the last run ended in trouble: they are in doubt.
    pub(super) fn of(loaded: &Loaded, medium: Medium, file_system: Box<dyn FileSystem>) -> Self {
        let blocks = loaded.unsynced.len();
        let bytes = blocks as u64 * BLOCK_SIZE;
        let state = State {
            last: loaded.last_unsynced,
            written: Written { bytes, blocks },
            since: (blocks > 0).then(Instant::now),
            doubts: u32::from(blocks > 0),
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::default(),
            most: Written::most(medium),
            file_system,
        }
    }

    /// Whether another write may be left to the next sync.
    pub(super) fn takes_more(&self) -> bool {
        let state = self.state.lock();
        let all = Written {
            bytes: state.written.bytes + state.syncing.bytes,
            blocks: state.written.blocks + state.syncing.blocks,
        };
        !state.closed && !all.reaches(self.most)
    }

    /// So many blocks of so many bytes were written, and are noted under the number that this returns.
    pub(super) fn note(&self, blocks: usize, bytes: u64) -> u64 {
        let mut state = self.state.lock();
        state.last += 1;
        state.written.blocks += blocks;
        state.written.bytes += bytes;
        state.since.get_or_insert_with(Instant::now);
        let last = state.last;
        drop(state);
        self.changed.notify_all();
        last
    }

    /// No more syncs: what is noted is looked at when the store is opened again.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits until it is time to sync, and begins. The last note of what is synced then, and whether
    /// there is doubt; `None` at the end.
    fn next(&self) -> Option<(u64, bool)> {
        let mut state = self.state.lock();
        while !state.closed {
            let due = match (state.since, state.not_before) {
                _ if state.asked => Some(Instant::now()),
                (None, _) => None,
                (Some(_), Some(not_before)) => Some(not_before),
                (Some(_), None) if state.written.reaches(self.most.half()) => Some(Instant::now()),
                (Some(since), None) => Some(since + LONGEST),
            };
            match due {
                None => self.changed.wait(&mut state),
                Some(due) if due <= Instant::now() => {
                    state.syncing = std::mem::take(&mut state.written);
                    (state.since, state.asked, state.is_syncing) = (None, false, true);
                    return Some((state.last, state.doubts > 0));
                }
                Some(due) => _ = self.changed.wait_until(&mut state, due),
            }
        }
        None
    }

    /// All up to that note is synced, or not: then it is tried again in time.
    fn ended(&self, upto: u64, synced: bool) {
        let mut state = self.state.lock();
        let syncing = std::mem::take(&mut state.syncing);
        state.is_syncing = false;
        if synced {
            (state.synced, state.not_before) = (upto, None);
            state.doubts = state.doubts.saturating_sub(1);
            if state.doubts > 0 {
                state.since.get_or_insert_with(Instant::now);
            }
        } else {
            state.failed += 1;
            state.written.bytes += syncing.bytes;
            state.written.blocks += syncing.blocks;
            let now = Instant::now();
            state.since.get_or_insert(now);
            state.not_before = Some(now + LONGEST);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Has all that was written before synced, and waits for it; `Some` when it was, or was not.
    fn ask(&self) -> Option<bool> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock();
        let (last, failed) = (state.last, state.failed);
        while (state.synced < last || state.doubts > 0) && state.failed == failed && !state.closed {
            if !state.is_syncing && !state.asked {
                state.asked = true;
                self.changed.notify_all();
            }
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return None;
            }
        }
        Some(state.synced >= last && state.doubts == 0)
    }
}

impl Engine {
    /// Has all that was written before synced.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        match self.shared.unsynced.ask() {
            Some(true) => Ok(()),
            Some(false) => {
                let why = io::Error::other("what was written cannot be synced");
                Err(StoreError::io(self.shared.layout.root(), why))
            }
            None => Err(StoreError::TimedOut { what: "a sync of its disk", seconds: PATIENCE.as_secs() }),
        }
    }
}

/// Syncs what is noted, in time, until the store closes.
pub(super) fn run(shared: &Arc<Shared>, queue: &Queue) {
    let _closes = Closes(&shared.unsynced);
    while let Some((upto, in_doubt)) = shared.unsynced.next() {
        let synced = sync(shared, queue, upto, in_doubt);
        shared.unsynced.ended(upto, synced.is_ok());
        match synced {
            Ok(()) => {}
            Err(StoreError::Closed) => return,
            Err(error) if shared.health.works() => {
                tracing::warn!(%error, "what was written cannot be synced");
            }
            Err(error) => tracing::debug!(%error, "what was written cannot be synced"),
        }
    }
}

/// Nobody waits for a sync any more, and each write syncs its own: however the thread ends.
struct Closes<'a>(&'a Unsynced);

impl Drop for Closes<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn sync(shared: &Shared, queue: &Queue, upto: u64, in_doubt: bool) -> Result<(), StoreError> {
    let unsynced = &shared.unsynced;
    if let Err(error) = unsynced.file_system.sync() {
        unsynced.state.lock().doubts = DOUBTS;
        let error = StoreError::io(shared.layout.root(), error);
        shared.note_failure(&error);
        return Err(error);
    }
    count(&shared.stats.syncs, 1);
    if in_doubt {
        torn::give_up(shared, queue)?;
    }
    queue.ask_manifest(|reply| ManifestCommand::Synced { upto, reply })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct NoFileSystem;

    impl FileSystem for NoFileSystem {
        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn unsynced(loaded: &Loaded) -> Unsynced {
        Unsynced::of(loaded, Medium::Ssd, Box::new(NoFileSystem))
    }

    #[test]
    fn a_write_syncs_its_own_when_too_many_wait_for_a_sync() {
        let unsynced = unsynced(&Loaded::default());
        unsynced.note(MOST.blocks - 1, 0);
        assert!(unsynced.takes_more());
        unsynced.note(1, 0);
        assert!(!unsynced.takes_more());
        let (upto, in_doubt) = unsynced.next().unwrap();
        assert_eq!((upto, in_doubt), (2, false));
        unsynced.note(1, 1);
        assert!(!unsynced.takes_more(), "these are not synced yet");
        unsynced.ended(upto, true);
        assert!(unsynced.takes_more());
        unsynced.note(0, MOST.bytes);
        assert!(!unsynced.takes_more());
    }

    #[test]
    fn a_disk_that_seeks_has_less_to_read_after_a_power_cut() {
        let unsynced = Unsynced::of(&Loaded::default(), Medium::Hdd, Box::new(NoFileSystem));
        unsynced.note(MOST_SEEKING.blocks, 0);
        assert!(!unsynced.takes_more());
    }

    #[test]
    fn after_one_that_failed_it_waits_and_is_in_doubt_twice() {
        let unsynced = unsynced(&Loaded::default());
        unsynced.note(MOST.half().blocks, 0);
        let (upto, _) = unsynced.next().unwrap();
        unsynced.state.lock().doubts = DOUBTS;
        unsynced.ended(upto, false);
        assert!(unsynced.state.lock().not_before.is_some_and(|until| until > Instant::now()));
        for doubts in (0..DOUBTS).rev() {
            // Whoever asks does not wait for that.
            unsynced.state.lock().asked = true;
            assert_eq!(unsynced.next(), Some((upto, true)));
            unsynced.ended(upto, true);
            assert_eq!(unsynced.state.lock().doubts, doubts);
        }
        assert_eq!(unsynced.ask(), Some(true));
        unsynced.close();
        assert_eq!(unsynced.next(), None);
    }

    #[test]
    fn who_asks_waits_for_what_was_written_before() {
        let unsynced = unsynced(&Loaded::default());
        assert_eq!(unsynced.ask(), Some(true), "there is nothing");
        unsynced.note(1, 1);
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| unsynced.ask());
            let (upto, _) = unsynced.next().unwrap();
            unsynced.ended(upto, true);
            assert_eq!(asked.join().unwrap(), Some(true));
            unsynced.note(1, 1);
            let asked = scope.spawn(|| unsynced.ask());
            let (upto, _) = unsynced.next().unwrap();
            unsynced.ended(upto, false);
            assert_eq!(asked.join().unwrap(), Some(false));
        });
    }

    #[test]
    fn what_an_index_notes_is_in_doubt_until_it_is_synced() {
        let loaded = Loaded {
            unsynced: [(hearth_core::object::ObjectId([1; 16]), 0)].into(),
            last_unsynced: 4,
            ..Loaded::default()
        };
        let unsynced = unsynced(&loaded);
        unsynced.state.lock().asked = true;
        assert_eq!(unsynced.next(), Some((4, true)));
        assert_eq!(unsynced.note(1, 1), 5);
    }
}
