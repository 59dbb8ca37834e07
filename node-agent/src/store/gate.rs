//! Who may touch which object file now.
//!
//! One writer per block at a time, all writers of an object through one open
//! file, and none at all while the object is being removed.

use super::disk::DiskFile;
use super::error::StoreError;
use hearth_core::object::ObjectId;
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Longer than any commit of a disk that still works.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
struct Entry {
    /// Blocks being written, from before the file is open until the commit.
    blocks: Vec<u64>,
    /// Someone is about to put the file here.
    opening: bool,
    file: Option<Arc<dyn DiskFile>>,
    /// To be unlinked as soon as nobody writes.
    dying: bool,
}

/// Who writes what.
#[derive(Debug, Default)]
pub(super) struct Gate {
    objects: Mutex<HashMap<ObjectId, Entry>>,
    /// How many wait to write an object that is being removed.
    waiting: AtomicUsize,
    changed: Condvar,
}

/// Leave to write one block of one object; kept until the write is committed.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Arc<Gate>,
    id: ObjectId,
    block: u64,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut objects = self.gate.objects.lock();
        if let Some(entry) = objects.get_mut(&self.id) {
            entry.blocks.retain(|block| *block != self.block);
            if entry.blocks.is_empty() {
                entry.file = None;
                if !entry.dying {
                    objects.remove(&self.id);
                }
            }
        }
        drop(objects);
        self.gate.changed.notify_all();
    }
}

impl Gate {
    /// Waits for leave to write the block.
    pub(super) fn enter(self: &Arc<Self>, id: ObjectId, block: u64) -> Result<Pass, StoreError> {
        let deadline = Instant::now() + PATIENCE;
        let mut objects = self.objects.lock();
        loop {
            let entry = objects.entry(id).or_default();
            if !entry.dying && !entry.blocks.contains(&block) {
                entry.blocks.push(block);
                return Ok(Pass { gate: Arc::clone(self), id, block });
            }
            let waits_for_removal = usize::from(entry.dying);
            self.waiting.fetch_add(waits_for_removal, Ordering::Relaxed);
            let waited = self.changed.wait_until(&mut objects, deadline);
            self.waiting.fetch_sub(waits_for_removal, Ordering::Relaxed);
            if waited.timed_out() {
                return Err(late("an earlier write or removal of the same object"));
            }
        }
    }

    /// The object's open file; the first of several writers opens it.
    pub(super) fn file(
        &self,
        pass: &Pass,
        open: impl FnOnce() -> Result<Arc<dyn DiskFile>, StoreError>,
    ) -> Result<Arc<dyn DiskFile>, StoreError> {
        let deadline = Instant::now() + PATIENCE;
        let mut objects = self.objects.lock();
        loop {
            // The pass keeps the entry there.
            let entry = objects.entry(pass.id).or_default();
            if let Some(file) = &entry.file {
                return Ok(file.clone());
            }
            if !entry.opening {
                entry.opening = true;
                break;
            }
            if self.changed.wait_until(&mut objects, deadline).timed_out() {
                return Err(late("opening an object's file"));
            }
        }
        drop(objects);
        let opened = open();
        let mut objects = self.objects.lock();
        let entry = objects.entry(pass.id).or_default();
        entry.opening = false;
        if let Ok(file) = &opened {
            entry.file = Some(file.clone());
        }
        drop(objects);
        self.changed.notify_all();
        opened
    }

    /// From now on nobody begins to write the object, and writes under way are void.
    pub(super) fn doom(&self, id: ObjectId) {
        self.objects.lock().entry(id).or_default().dying = true;
    }

    /// [`Gate::doom`], but only when nobody writes the object.
    pub(super) fn doom_if_idle(&self, id: ObjectId) -> bool {
        let mut objects = self.objects.lock();
        if objects.contains_key(&id) {
            return false;
        }
        objects.insert(id, Entry { dying: true, ..Entry::default() });
        true
    }

    /// Whether somebody waits to write an object that is being removed.
    pub(super) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    pub(super) fn is_dying(&self, id: &ObjectId) -> bool {
        self.objects.lock().get(id).is_some_and(|entry| entry.dying)
    }

    /// Whether nobody writes the object.
    pub(super) fn is_idle(&self, id: &ObjectId) -> bool {
        self.objects.lock().get(id).is_none_or(|entry| entry.blocks.is_empty())
    }

    /// The doomed object's file is gone: it may be written anew.
    pub(super) fn revive(&self, id: &ObjectId) {
        self.objects.lock().remove(id);
        self.changed.notify_all();
    }
}

fn late(what: &'static str) -> StoreError {
    StoreError::TimedOut { what, seconds: PATIENCE.as_secs() }
}
