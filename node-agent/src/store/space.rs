//! How much the store may still take.

use super::StoreConfig;
use super::disk::{Disk, SpaceFacts};
use super::error::StoreError;
use super::layout::Layout;
use super::tier::TierId;
use crate::config::units::Size;
use hearth_core::evict::{Amount, Limits, Room, Watermarks};
use hearth_core::explain;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Given up when the disk is full, so that the index can still delete.
const BALLAST_BYTES: u64 = 4 << 20;

/// Share of the inodes that stays free for others: at less than 5 % the kubelet
/// begins to evict pods.
const MIN_FREE_INODES_PERCENT: u64 = 10;

/// What a file of tmpfs takes besides its pages: its inode, and its name here and in a tree.
const INODE_BYTES: u64 = 2048;

/// How full a store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of blocks that it may hold, by configuration and by what the file
    /// system has left.
    pub capacity_bytes: u64,
    /// Bytes of blocks that it holds.
    pub used_bytes: u64,
    /// Bytes that the file system has left.
    pub free_bytes: u64,
}

/// Keeps account of bytes held and bytes promised.
#[derive(Debug)]
pub(super) struct Space {
    tier: TierId,
    disk: Arc<dyn Disk>,
    layout: Layout,
    capacity: Option<Size>,
    min_free: Size,
    file_system: Option<u64>,
    watermarks: Watermarks,
    used: AtomicU64,
    reserved: Mutex<u64>,
}

/// Room set aside; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    space: Arc<Space>,
    bytes: u64,
}

impl Reservation {
    /// Where it is set aside.
    pub fn tier(&self) -> TierId {
        self.space.tier
    }

    /// What is set aside.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives part of it back, as that is written.
    pub fn release(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        *self.space.reserved.lock() -= bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release(self.bytes);
    }
}

impl Space {
    pub(super) fn new(disk: Arc<dyn Disk>, layout: Layout, config: &StoreConfig, tier: TierId) -> Self {
        Self {
            tier,
            disk,
            layout,
            capacity: config.capacity,
            min_free: config.min_free,
            file_system: config.file_system,
            watermarks: config.watermarks,
            used: AtomicU64::new(0),
            reserved: Mutex::new(0),
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    pub(super) fn set_used(&self, bytes: u64) {
        self.used.store(bytes, Ordering::Release);
    }

    pub(super) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, StoreError> {
        let facts = self.facts()?;
        let mut reserved = self.reserved.lock();
        let room = self.room_by(&facts, *reserved);
        // Whether an inode is needed, too, is not known here: one more or less.
        if let Some(shortage) = room.shortage(Amount { bytes, objects: 0 }) {
            let why = match shortage.least.bytes {
                0 => format!(
                    "{} of {} inodes are used, and the rest is left to others",
                    room.used.objects, facts.total_inodes
                ),
                short => format!(
                    "{} more than the {} that capacity and minFree of {} allow",
                    explain::bytes(short),
                    explain::bytes(room.limits.high.bytes),
                    self.layout.root().display()
                ),
            };
            return Err(StoreError::NoSpace { why });
        }
        *reserved += bytes;
        Ok(Reservation { space: Arc::clone(self), bytes })
    }

    /// What a reservation has. `late` are bytes that the file system is still to show as free.
    pub(super) fn room(&self, late: u64) -> Result<Room, StoreError> {
        let mut facts = self.facts()?;
        facts.free_bytes = facts.free_bytes.saturating_add(late);
        Ok(self.room_by(&facts, *self.reserved.lock()))
    }

    /// What is held. Of what is reserved nobody knows how much is written already, so none
    /// of it counts, neither here nor there.
    pub(super) fn room_of_held(&self, late: u64) -> Result<Room, StoreError> {
        let mut facts = self.facts()?;
        let reserved = *self.reserved.lock();
        facts.free_bytes = facts.free_bytes.saturating_add(late).saturating_add(reserved);
        Ok(self.room_by(&facts, 0))
    }

    fn room_by(&self, facts: &SpaceFacts, reserved: u64) -> Room {
        let inodes = match facts.total_inodes {
            // The file system does not count them.
            0 => u64::MAX,
            total => total - total / 100 * MIN_FREE_INODES_PERCENT,
        };
        let capacity = Amount { bytes: self.capacity_by(facts), objects: inodes };
        let used = Amount {
            bytes: self.used().saturating_add(reserved),
            objects: facts.total_inodes.saturating_sub(facts.free_inodes),
        };
        Room { used, limits: Limits::new(capacity, self.watermarks) }
    }

    /// Bytes of blocks that may be held, by configuration and by what others leave.
    fn capacity_by(&self, facts: &SpaceFacts) -> u64 {
        let keep = bytes_of(self.min_free, facts);
        // What is held beyond that is to go: it can be less than what is used.
        let possible = self.used().saturating_add(facts.free_bytes).saturating_sub(keep);
        let possible = match self.file_system {
            None => possible,
            // Also what its inodes, the index and others take there.
            Some(limit) => {
                let inodes = facts.total_inodes.saturating_sub(facts.free_inodes).saturating_mul(INODE_BYTES);
                let taken = facts.total_bytes.saturating_sub(facts.free_bytes).saturating_add(inodes);
                possible.min(self.used().saturating_add(limit).saturating_sub(taken))
            }
        };
        self.capacity.map_or(possible, |capacity| bytes_of(capacity, facts).min(possible))
    }

    /// Whether others have taken much of what must stay free.
    pub(super) fn is_short(&self) -> Result<bool, StoreError> {
        let facts = self.facts()?;
        Ok(facts.free_bytes < bytes_of(self.min_free, &facts) / 4 * 3)
    }

    /// Whether it is configured to keep nothing.
    pub(super) fn keeps_nothing(&self) -> bool {
        matches!(self.capacity, Some(Size::Bytes(0) | Size::Percent(0)))
    }

    pub(super) fn usage(&self) -> Result<Usage, StoreError> {
        let facts = self.facts()?;
        Ok(Usage {
            capacity_bytes: self.capacity_by(&facts),
            used_bytes: self.used(),
            free_bytes: facts.free_bytes,
        })
    }

    /// Makes sure of the ballast while there is room for it.
    pub(super) fn keep_ballast(&self) -> Result<(), StoreError> {
        let facts = self.facts()?;
        let path = self.layout.ballast();
        let fill = || -> io::Result<()> {
            let (file, _) = self.disk.open(&path, true)?;
            if file.len()? < BALLAST_BYTES {
                // Written and not only extended: a hole gives nothing back.
                file.write_at(0, &vec![0; BALLAST_BYTES as usize])?;
                file.sync_data()?;
            }
            Ok(())
        };
        if facts.free_bytes < BALLAST_BYTES * 4 {
            return Ok(());
        }
        fill().map_err(|error| StoreError::io(&path, error))
    }

    /// Gives the ballast up. Whether there was one.
    pub(super) fn drop_ballast(&self) -> bool {
        self.disk.remove(&self.layout.ballast()).unwrap_or(false)
    }

    fn facts(&self) -> Result<SpaceFacts, StoreError> {
        self.disk.space(self.layout.root()).map_err(|error| StoreError::io(self.layout.root(), error))
    }
}

fn bytes_of(size: Size, facts: &SpaceFacts) -> u64 {
    match size {
        Size::Bytes(bytes) => bytes,
        Size::Percent(percent) => facts.total_bytes / 100 * u64::from(percent),
    }
}
