//! How much the store may still take.

use super::disk::{Disk, SpaceFacts};
use super::error::StoreError;
use super::layout::Layout;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Given up when the disk is full, so that the index can still delete.
const BALLAST_BYTES: u64 = 4 << 20;

/// Share of the inodes that stays free for others: at less than 5 % the kubelet
/// begins to evict pods.
const MIN_FREE_INODES_PERCENT: u64 = 10;

/// What must stay free on the store's file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinFree {
    /// That many bytes.
    Bytes(u64),
    /// That share of the file system.
    Percent(u8),
}

impl Default for MinFree {
    /// The kubelet removes images at 85 % used and evicts pods soon after.
    fn default() -> Self {
        Self::Percent(15)
    }
}

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
    disk: Arc<dyn Disk>,
    layout: Layout,
    capacity: Option<u64>,
    min_free: MinFree,
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
    pub(super) fn new(disk: Arc<dyn Disk>, layout: Layout, capacity: Option<u64>, min_free: MinFree) -> Self {
        Self { disk, layout, capacity, min_free, used: AtomicU64::new(0), reserved: Mutex::new(0) }
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
        let wanted = reserved.saturating_add(bytes);
        if let Some(capacity) = self.capacity
            && self.used().saturating_add(wanted) > capacity
        {
            let used = self.used();
            let why = format!(
                "{bytes} bytes more than the {used} held and {reserved} reserved exceed the capacity of {capacity}"
            );
            return Err(StoreError::NoSpace { why });
        }
        let keep = self.min_free_bytes(&facts);
        if facts.free_bytes < keep.saturating_add(wanted) {
            let free = facts.free_bytes;
            let why = format!(
                "{bytes} bytes more than {reserved} reserved leave less than {keep} of {free} free bytes"
            );
            return Err(StoreError::NoSpace { why });
        }
        let inodes = facts.total_inodes / 100 * MIN_FREE_INODES_PERCENT;
        if facts.total_inodes > 0 && facts.free_inodes < inodes {
            let free = facts.free_inodes;
            return Err(StoreError::NoSpace {
                why: format!("{free} inodes are free, and {inodes} must stay so"),
            });
        }
        *reserved = wanted;
        Ok(Reservation { space: Arc::clone(self), bytes })
    }

    pub(super) fn usage(&self) -> Result<Usage, StoreError> {
        let facts = self.facts()?;
        let used = self.used();
        let room = facts.free_bytes.saturating_sub(self.min_free_bytes(&facts));
        let possible = used.saturating_add(room);
        Ok(Usage {
            capacity_bytes: self.capacity.map_or(possible, |capacity| capacity.min(possible)),
            used_bytes: used,
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

    fn min_free_bytes(&self, facts: &SpaceFacts) -> u64 {
        match self.min_free {
            MinFree::Bytes(bytes) => bytes,
            MinFree::Percent(percent) => facts.total_bytes / 100 * u64::from(percent),
        }
    }

    fn facts(&self) -> Result<SpaceFacts, StoreError> {
        self.disk.space(self.layout.root()).map_err(|error| StoreError::io(self.layout.root(), error))
    }
}
