//! How open files are read: by the kernel itself, or by us. The kernel insists that all
//! opens of one inode that live are read the same way, from the same backing file; also
//! those that another process answered.

use super::ledger::{Ledger, Mode, Slot};
use hearth_fuse_device::{SENT_AGAIN, close_backing};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Files that may be open in one view.
const MOST: u32 = 1 << 20;
/// Backing files are numbered in turn: those that a process had made and not noted when
/// it died are near the highest number that it has noted.
const NEAR: u32 = 64;

/// The files that are open in one view.
#[derive(Debug)]
pub(super) struct Opens {
    device: Arc<OwnedFd>,
    ledger: Ledger,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Slots by handle.
    places: HashMap<u64, u32>,
    /// How each open inode is read, and how many opens it has.
    inodes: HashMap<u64, (Mode, u64)>,
    /// Opens of an earlier process by their requests: its answer may have been lost.
    before: HashMap<u64, (u64, Mode)>,
    /// Slots that are free, below `end`.
    free: Vec<u32>,
    end: u32,
    next_handle: u64,
}

impl Opens {
    /// Of a new session.
    pub(super) fn new(device: Arc<OwnedFd>, ledger: Ledger) -> Self {
        let state = State { next_handle: ledger.first_handle(), ..State::default() };
        Self { device, ledger, state: Mutex::new(state) }
    }

    /// Of a session that another process began.
    pub(super) fn take_over(device: Arc<OwnedFd>, ledger: Ledger) -> io::Result<Self> {
        let slots = ledger.slots()?;
        let state = State::of(&slots, ledger.first_handle());
        for id in leaked(&slots) {
            // Nearly all of them were never made, or were let go in time.
            let _ = close_backing(&*device, id);
        }
        Ok(Self { device, ledger, state: Mutex::new(state) })
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(super) fn device(&self) -> &OwnedFd {
        &self.device
    }

    /// Notes an open that `request` asks for; the first one of an inode decides by `choose`, from what `find` finds, which
    /// may wait for a disk. Its handle, and how it is read.
    pub(super) fn open<F>(
        &self,
        request: u64,
        inode: u64,
        find: impl Fn() -> F,
        choose: impl FnOnce(F) -> Mode,
    ) -> io::Result<(u64, Mode)> {
        let mut found = None;
        let (mut state, mode) = loop {
            let mut state = self.state.lock();
            if request & SENT_AGAIN != 0
                && let Some(opened) = state.before.remove(&(request & !SENT_AGAIN))
            {
                return Ok(opened);
            }
            let known = state.inodes.get(&inode).map(|(mode, _)| *mode);
            match (known, found.take()) {
                (Some(mode), _) => break (state, mode),
                (None, Some(found)) => break (state, choose(found)),
                // Others open files meanwhile.
                (None, None) => {
                    drop(state);
                    found = Some(find());
                }
            }
        };
        let place = state.place().ok_or_else(|| io::Error::from(rustix::io::Errno::NFILE))?;
        let handle = state.next_handle;
        let slot = Slot { handle, request: request & !SENT_AGAIN, inode, mode };
        self.ledger.write(place, &slot)?;
        state.next_handle += 1;
        state.add(place, &slot);
        Ok((handle, mode))
    }

    /// Forgets an open; the last one of an inode lets its backing file go.
    pub(super) fn release(&self, handle: u64, inode: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        // Unknown when it was forgotten by a process whose answer was lost.
        let Some(place) = state.places.remove(&handle) else { return Ok(()) };
        self.ledger.free(place)?;
        state.free.push(place);
        let Some((mode, count)) = state.inodes.get_mut(&inode) else { return Ok(()) };
        *count -= 1;
        if *count > 0 {
            return Ok(());
        }
        let mode = *mode;
        state.inodes.remove(&inode);
        match mode {
            Mode::Served => Ok(()),
            Mode::Passthrough(id) => close_backing(&*self.device, id),
        }
    }
}

impl State {
    fn of(slots: &[Slot], next_handle: u64) -> Self {
        let mut state = Self { next_handle, end: slots.len() as u32, ..Self::default() };
        for (place, slot) in (0..).zip(slots) {
            match slot.handle {
                0 => state.free.push(place),
                handle => {
                    state.add(place, slot);
                    state.before.insert(slot.request, (handle, slot.mode));
                }
            }
        }
        state
    }

    fn add(&mut self, place: u32, slot: &Slot) {
        self.places.insert(slot.handle, place);
        self.inodes.entry(slot.inode).or_insert((slot.mode, 0)).1 += 1;
    }

    /// A free slot. It is lost when it cannot be written, and then memory has run out.
    fn place(&mut self) -> Option<u32> {
        if let Some(place) = self.free.pop() {
            return Some(place);
        }
        let place = self.end;
        (place < MOST).then(|| {
            self.end += 1;
            place
        })
    }
}

/// Numbers of backing files that no open has, and that may still be open.
fn leaked(slots: &[Slot]) -> impl Iterator<Item = u32> {
    let id = |slot: &Slot| match slot.mode {
        Mode::Passthrough(id) => Some(id),
        Mode::Served => None,
    };
    let live: HashSet<u32> = slots.iter().filter(|slot| slot.handle != 0).filter_map(id).collect();
    let most = slots.iter().filter_map(id).max().unwrap_or(0);
    let near = most.saturating_sub(NEAR).max(1)..=most.saturating_add(NEAR);
    let noted: HashSet<u32> = slots.iter().filter_map(id).chain(near).collect();
    noted.into_iter().filter(move |id| !live.contains(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::os::fd::AsFd;

    fn anything() -> Arc<OwnedFd> {
        Arc::new(memfd_create("device", MemfdFlags::CLOEXEC).unwrap())
    }

    fn new() -> Opens {
        Opens::new(anything(), Ledger::create().unwrap())
    }

    /// What the next process finds.
    fn next(opens: &Opens) -> Opens {
        let memory = opens.ledger().memory().as_fd().try_clone_to_owned().unwrap();
        Opens::take_over(anything(), Ledger::take_over(memory).unwrap()).unwrap()
    }

    fn never() -> Mode {
        panic!("the inode is open")
    }

    fn open(opens: &Opens, request: u64, inode: u64, choose: impl Fn() -> Mode) -> (u64, Mode) {
        opens.open(request, inode, choose, |mode| mode).unwrap()
    }

    #[test]
    fn an_answer_that_was_lost_is_given_again() {
        let opens = new();
        let (handle, mode) = open(&opens, 2, 7, || Mode::Passthrough(3));
        let opens = next(&next(&opens));
        assert_eq!(open(&opens, 2 | SENT_AGAIN, 7, never), (handle, mode));
        let (other, same) = open(&opens, 4, 7, never);
        assert!(other != handle && same == mode);
        opens.release(other, 7).unwrap();
        // A release whose answer was lost changes nothing.
        let opens = next(&opens);
        opens.release(other, 7).unwrap();
        assert_eq!(open(&opens, 6, 7, never).1, mode);
    }

    #[test]
    fn what_waits_for_a_disk_keeps_nobody_else_waiting() {
        let opens = new();
        let find = || {
            // Another thread's open, which would wait for ever.
            open(&opens, 4, 8, || Mode::Served);
            opens.open(6, 7, || (), |()| Mode::Passthrough(2)).unwrap();
        };
        let (_, mode) = opens.open(2, 7, find, |()| Mode::Passthrough(1)).unwrap();
        assert_eq!(mode, Mode::Passthrough(2), "it was opened meanwhile");
    }

    #[test]
    fn backing_files_that_nobody_noted_are_let_go() {
        let slot =
            |handle, id: u32| Slot { handle, request: 0, inode: id.into(), mode: Mode::Passthrough(id) };
        let leaked: HashSet<u32> = leaked(&[slot(1, 5), slot(0, 9), slot(2, 1000)]).collect();
        assert!(leaked.contains(&9), "it was closed, perhaps not by the kernel");
        assert!(leaked.contains(&1001) && leaked.contains(&999));
        assert!(!leaked.contains(&5) && !leaked.contains(&1000));
    }

    #[test]
    fn a_request_that_ends_every_process_is_refused_in_the_end() {
        let ledger = Ledger::create().unwrap();
        let murderer = 42 | SENT_AGAIN;
        for _ in 0..100 {
            assert!(!ledger.is_suspect(murderer, 0).unwrap(), "kills in one second are one");
        }
        let lives = (0..10).map(|life| ledger.is_suspect(murderer, life * 60).unwrap());
        assert_eq!(lives.filter(|suspect| !suspect).count(), 5);
        assert!(!ledger.is_suspect(44 | SENT_AGAIN, 600).unwrap(), "others are not accused");
    }

    /// What a program does, and what the kernel knows of it.
    #[derive(Clone, Debug)]
    enum Step {
        Open(u64),
        Close(usize),
        /// The process dies, before or after the last call's answer came through.
        Die {
            answered: bool,
        },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (1_u64..5).prop_map(Step::Open),
            3 => any::<usize>().prop_map(Step::Close),
            1 => any::<bool>().prop_map(|answered| Step::Die { answered }),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        #[test]
        fn the_kernel_and_every_process_agree(steps in steps()) {
            let mut opens = new();
            let mut backing = 0;
            // As the kernel has them: handle, inode, mode.
            let mut living: Vec<(u64, u64, Mode)> = Vec::new();
            let mut request = 0;
            let mut handles = HashSet::new();
            for (at, step) in steps.iter().enumerate() {
                let lost = matches!(steps.get(at + 1), Some(Step::Die { answered: false }));
                backing += 1;
                let mode = if backing % 3 == 0 { Mode::Served } else { Mode::Passthrough(backing) };
                match step {
                    Step::Open(inode) => {
                        request += 2;
                        let mut answer = open(&opens, request, *inode, || mode);
                        if lost {
                            opens = next(&opens);
                            answer = open(&opens, request | SENT_AGAIN, *inode, || mode);
                        }
                        let same = living.iter().find(|known| known.1 == *inode);
                        prop_assert!(same.is_none_or(|known| known.2 == answer.1));
                        prop_assert!(handles.insert(answer.0), "handles are never given twice");
                        living.push((answer.0, *inode, answer.1));
                    }
                    Step::Close(which) if !living.is_empty() => {
                        let (handle, inode, _) = living.swap_remove(which % living.len());
                        let _ = opens.release(handle, inode);
                        if lost {
                            opens = next(&opens);
                            let _ = opens.release(handle, inode);
                        }
                    }
                    Step::Close(_) => {}
                    Step::Die { .. } => opens = next(&opens),
                }
                let state = opens.state.lock();
                prop_assert_eq!(state.places.len(), living.len());
                for (handle, inode, mode) in &living {
                    prop_assert!(state.places.contains_key(handle));
                    prop_assert_eq!(state.inodes[inode].0, *mode);
                }
                let counts: u64 = state.inodes.values().map(|(_, count)| count).sum();
                prop_assert_eq!(counts, living.len() as u64);
            }
        }
    }
}
