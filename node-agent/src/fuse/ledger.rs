//! What the next process has to know of a session, in memory that outlives this one.
//!
//! One page of a header, then a slot for each open. A slot is written before the kernel
//! is answered and freed before a backing file is let go: whatever moment a process dies
//! at, what is written tells the next one what the kernel believes.

use fuser::InitFlags;
use hearth_fuse_device::Kernel;
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// The first word; another layout gets another one.
const FORMAT: u64 = u64::from_le_bytes(*b"HEARTHF1");
const FORMAT_AT: u64 = 0;
const CAPABILITIES_AT: u64 = 8;
const MINOR_AT: u64 = 16;
const LIFE_AT: u64 = 24;
const SUSPECTS_AT: u64 = 1024;
const SUSPECTS: u64 = 128;
const SUSPECT_LENGTH: usize = 24;
const SLOTS_AT: u64 = 4096;
const SLOT_LENGTH: usize = 32;
/// Slots that are read at a time.
const READ: usize = 4096;
/// Handles of one process; the next one's begin behind them.
const HANDLES: u64 = 1 << 40;
/// A slot's mode when it is not the number of a backing file.
const SERVED: u64 = u64::MAX;
/// Processes that a request may have survived before it is taken for their murderer.
const MOST_LIVES: u64 = 5;

/// How an inode is read for as long as it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// We are asked.
    Served,
    /// The kernel reads the backing file of this number.
    Passthrough(u32),
}

/// One open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// What the kernel names it by; 0 when it has been closed.
    pub(super) handle: u64,
    /// The number of the request that asked for it.
    pub(super) request: u64,
    pub(super) inode: u64,
    pub(super) mode: Mode,
}

/// A session's memory.
#[derive(Debug)]
pub(super) struct Ledger {
    memory: File,
    life: u64,
}

impl Ledger {
    /// Of a new session.
    pub(super) fn create() -> io::Result<Self> {
        let memory = File::from(memfd_create("hearth-fuse", MemfdFlags::CLOEXEC)?);
        let ledger = Self { memory, life: 1 };
        ledger.memory.set_len(SLOTS_AT)?;
        ledger.put(FORMAT_AT, FORMAT)?;
        ledger.put(LIFE_AT, ledger.life)?;
        Ok(ledger)
    }

    /// Of a session that another process began.
    pub(super) fn take_over(memory: OwnedFd) -> io::Result<Self> {
        let mut ledger = Self { memory: File::from(memory), life: 0 };
        if ledger.get(FORMAT_AT)? != FORMAT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its memory is of another release"));
        }
        ledger.life = ledger.get(LIFE_AT)? + 1;
        ledger.put(LIFE_AT, ledger.life)?;
        Ok(ledger)
    }

    pub(super) fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// Keeps how the kernel greeted.
    pub(super) fn greet(&self, kernel: Kernel) -> io::Result<()> {
        self.put(CAPABILITIES_AT, kernel.capabilities)?;
        self.put(MINOR_AT, kernel.minor.into())
    }

    pub(super) fn kernel(&self) -> io::Result<Kernel> {
        let minor = self.get(MINOR_AT)?.try_into().map_err(io::Error::other)?;
        Ok(Kernel { capabilities: self.get(CAPABILITIES_AT)?, minor })
    }

    /// Whether the kernel can send again what a process has not answered.
    pub(super) fn can_outlive(&self) -> bool {
        let can = InitFlags::FUSE_HAS_RESEND.bits();
        self.kernel().is_ok_and(|kernel| kernel.capabilities & can != 0)
    }

    /// The first handle of this process: none is given twice.
    pub(super) fn first_handle(&self) -> u64 {
        self.life * HANDLES
    }

    pub(super) fn write(&self, place: u32, slot: &Slot) -> io::Result<()> {
        let mode = match slot.mode {
            Mode::Served => SERVED,
            Mode::Passthrough(id) => id.into(),
        };
        let mut bytes = [0; SLOT_LENGTH];
        for (word, value) in bytes.chunks_exact_mut(8).zip([slot.handle, slot.request, slot.inode, mode]) {
            word.copy_from_slice(&value.to_le_bytes());
        }
        // Within one page: no signal ends it half way.
        self.memory.write_all_at(&bytes, at(place))
    }

    /// Frees a slot; what it was stays to be read.
    pub(super) fn free(&self, place: u32) -> io::Result<()> {
        self.put(at(place), 0)
    }

    /// All slots, those that are free too, by their place.
    pub(super) fn slots(&self) -> io::Result<Vec<Slot>> {
        let mut all = Vec::new();
        let mut bytes = vec![0; READ * SLOT_LENGTH];
        loop {
            let read = self.memory.read_at(&mut bytes, SLOTS_AT + (all.len() * SLOT_LENGTH) as u64)?;
            let whole = bytes[..read].chunks_exact(SLOT_LENGTH);
            if whole.len() == 0 {
                return Ok(all);
            }
            all.extend(whole.map(decode));
        }
    }

    /// Whether a request that is sent again has been sent to so many processes in vain that it is better
    /// refused than given to one more. Processes that followed within a second count
    /// as one, so that a quick series of kills accuses nobody. `now` is in seconds.
    pub(super) fn is_suspect(&self, request: u64, now: u64) -> io::Result<bool> {
        // Numbers grow by two, and few requests are in flight: the oldest of a place goes.
        let place = SUSPECTS_AT + (request / 2 % SUSPECTS) * SUSPECT_LENGTH as u64;
        let [known, lives, seen] = self.words(place)?;
        let lives = match known == request {
            true if seen.abs_diff(now) <= 1 => lives,
            true => lives + 1,
            false => 1,
        };
        let mut bytes = [0; SUSPECT_LENGTH];
        for (word, value) in bytes.chunks_exact_mut(8).zip([request, lives, now]) {
            word.copy_from_slice(&value.to_le_bytes());
        }
        self.memory.write_all_at(&bytes, place)?;
        Ok(lives > MOST_LIVES)
    }

    fn get(&self, at: u64) -> io::Result<u64> {
        self.words(at).map(|[word]| word)
    }

    fn words<const N: usize>(&self, at: u64) -> io::Result<[u64; N]> {
        let mut bytes = vec![0; N * 8];
        self.memory.read_exact_at(&mut bytes, at)?;
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = number(bytes);
        }
        Ok(words)
    }

    fn put(&self, at: u64, word: u64) -> io::Result<()> {
        self.memory.write_all_at(&word.to_le_bytes(), at)
    }
}

fn at(place: u32) -> u64 {
    SLOTS_AT + u64::from(place) * SLOT_LENGTH as u64
}

fn decode(bytes: &[u8]) -> Slot {
    let word = |n: usize| number(&bytes[n * 8..n * 8 + 8]);
    let mode = match word(3) {
        SERVED => Mode::Served,
        // Only such numbers were written.
        id => Mode::Passthrough(id as u32),
    };
    Slot { handle: word(0), request: word(1), inode: word(2), mode }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
