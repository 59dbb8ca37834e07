//! Small objects, which are not synced one by one.
//!
//! A sync of each would cost more than all else that is done for it, and whoever trains beside it
//! waits for the same disk. So the index notes which were written since the file system was last
//! synced as a whole, which is done now and then, in the background. What is on the note when a
//! store is opened is read before it is claimed: after a power cut some of it may be torn.

use super::commands::{BlockCommand, Command, GiveUp, ManifestCommand};
use super::disk::{Disk, DiskFile, is_absent};
use super::engine::{Queue, Shared};
use super::error::StoreError;
use super::index::{Fault, Index, Loaded, Tables};
use super::layout::Layout;
use super::manifests::{Manifests, Object};
use super::reading::is_loss;
use super::rows::ObjectRow;
use super::staging::{held_in, put_holdings};
use super::stats::{StoreStats, count};
use hearth_core::block::byte_range;
use hearth_core::manifest::ManifestHash;
use hearth_core::object::ObjectId;
use parking_lot::{Condvar, Mutex};
use roaring::RoaringBitmap;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// The file system is synced this long after the first write that was not,
const LONGEST: Duration = Duration::from_secs(10);
/// or when these are so many bytes or objects.
const MANY: Amount = Amount { bytes: 1 << 30, objects: 1 << 15 };
/// With so many each write syncs its own: what a power cut leaves to be read is bounded.
const MOST: Amount = Amount { bytes: 2 << 30, objects: 1 << 16 };
/// Objects are read by so many threads at once.
const READERS: usize = 4;

#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    bytes: u64,
    objects: usize,
}

impl Amount {
    fn reaches(self, most: Self) -> bool {
        self.bytes >= most.bytes || self.objects >= most.objects
    }
}

#[derive(Debug, Default)]
struct State {
    /// The last batch of writes, of all that there ever were.
    last: u64,
    /// Written since a sync was begun.
    written: Amount,
    /// When the first of these was.
    since: Option<Instant>,
    /// What a sync that is under way is about.
    syncing: Amount,
    closed: bool,
}

/// How much was written and not synced.
#[derive(Debug)]
pub(super) struct Unsynced {
    state: Mutex<State>,
    changed: Condvar,
}

impl Unsynced {
    /// Those that the index knows are synced in time, too.
    pub(super) fn of(loaded: &Loaded) -> Self {
        let objects = loaded.unsynced.len();
        let since = (objects > 0).then(Instant::now);
        let written = Amount { bytes: 0, objects };
        let state = State { last: loaded.last_unsynced, written, since, ..State::default() };
        Self { state: Mutex::new(state), changed: Condvar::default() }
    }

    /// Whether another write may be left to the next sync.
    pub(super) fn has_room(&self) -> bool {
        let state = self.state.lock();
        let all = Amount {
            bytes: state.written.bytes + state.syncing.bytes,
            objects: state.written.objects + state.syncing.objects,
        };
        !all.reaches(MOST)
    }

    /// So many objects of so many bytes were written, and are noted under the number that this returns.
    pub(super) fn note(&self, objects: usize, bytes: u64) -> u64 {
        let mut state = self.state.lock();
        state.last += 1;
        state.written.objects += objects;
        state.written.bytes += bytes;
        state.since.get_or_insert_with(Instant::now);
        let last = state.last;
        drop(state);
        self.changed.notify_one();
        last
    }

    /// No more syncs: what is noted is looked at when the store is opened again.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_one();
    }

    /// Waits until it is time to sync, and begins. The last batch that is synced then; `None` at the end.
    fn wait(&self) -> Option<u64> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            match state.since {
                None => self.changed.wait(&mut state),
                Some(since) if state.written.reaches(MANY) || since.elapsed() >= LONGEST => break,
                Some(since) => _ = self.changed.wait_until(&mut state, since + LONGEST),
            }
        }
        Some(state.begin())
    }

    /// The sync has ended; one that failed is tried again in time.
    fn ended(&self, done: bool) {
        let mut state = self.state.lock();
        let syncing = std::mem::take(&mut state.syncing);
        if !done {
            state.written.bytes += syncing.bytes;
            state.written.objects += syncing.objects;
            state.since = Some(Instant::now());
        }
    }
}

impl State {
    fn begin(&mut self) -> u64 {
        self.syncing = std::mem::take(&mut self.written);
        self.since = None;
        self.last
    }
}

/// Syncs what is noted, in time, until the store closes.
pub(super) fn run(shared: &Shared, queue: &Queue) {
    while let Some(upto) = shared.unsynced.wait() {
        let synced = sync(shared, queue, upto);
        shared.unsynced.ended(synced.is_ok());
        match synced {
            Ok(()) | Err(StoreError::Closed) => {}
            Err(error) => tracing::warn!(%error, "what was written cannot be synced"),
        }
    }
}

/// Syncs now.
#[cfg(test)]
pub(super) fn sync_now(shared: &Shared, queue: &Queue) -> Result<(), StoreError> {
    let upto = shared.unsynced.state.lock().begin();
    let synced = sync(shared, queue, upto);
    shared.unsynced.ended(synced.is_ok());
    synced
}

fn sync(shared: &Shared, queue: &Queue, upto: u64) -> Result<(), StoreError> {
    let root = shared.layout.root();
    if let Err(error) = shared.disk.sync_all(root) {
        let error = StoreError::io(root, error);
        shared.note_failure(&error);
        // It is told once, and not of which files.
        give_up_torn(shared, queue)?;
        return Err(error);
    }
    count(&shared.stats.syncs, 1);
    queue.ask_manifest(|reply| ManifestCommand::Synced { upto, reply })
}

/// Gives up what is noted and not on the disk as it was written.
fn give_up_torn(shared: &Shared, queue: &Queue) -> Result<(), StoreError> {
    let noted = shared.index.unsynced()?;
    let torn =
        find_torn(&shared.index, &shared.layout, &noted, &|path: &Path| shared.disk.open_past_cache(path))?;
    if torn.is_empty() {
        return Ok(());
    }
    for hash in shared.inventory.counting() {
        let Some(manifest) = shared.manifests.load(&hash)? else { continue };
        for file in manifest.files().filter(|file| !file.unlisted) {
            let Some(sum) = torn.get(&manifest.object_id(&file)) else { continue };
            let (object, sum) = (Arc::new(Object::of(&manifest, &file)), *sum);
            queue.ask(|reply| {
                let give_up = GiveUp { object, block: 0, sum, entire: true, reply };
                Command::Block(BlockCommand::GiveUp(give_up))
            })?;
        }
    }
    Ok(())
}

/// What a power cut has left torn.
#[derive(Debug, Default)]
pub(super) struct Torn {
    objects: BTreeMap<ObjectId, Option<u32>>,
    /// What manifests hold without them, of those that held some.
    pub(super) holdings: BTreeMap<ManifestHash, RoaringBitmap>,
}

impl Torn {
    /// Reads all that is noted.
    pub(super) fn find(
        disk: &dyn Disk,
        layout: &Layout,
        index: &Index,
        manifests: &Manifests,
        loaded: &Loaded,
    ) -> Result<Self, StoreError> {
        let open = |path: &Path| disk.open_to_read(path);
        let noted: Vec<ObjectId> = loaded.unsynced.iter().copied().collect();
        let objects = find_torn(index, layout, &noted, &open)?;
        let mut torn = Self { objects, holdings: BTreeMap::new() };
        if torn.objects.is_empty() {
            return Ok(torn);
        }
        for (hash, held) in &loaded.holdings {
            let manifest = match manifests.load(hash) {
                Ok(Some(manifest)) => manifest,
                // Whoever asks for something of it finds out, and it is forgotten.
                Ok(None) | Err(StoreError::Damaged { .. } | StoreError::Manifest { .. }) => continue,
                Err(error) => return Err(error),
            };
            let mut left = held.clone();
            for file in manifest.files().filter(|file| !file.unlisted) {
                if torn.objects.contains_key(&manifest.object_id(&file)) {
                    left.remove_range(file.blocks());
                }
            }
            if left != *held {
                torn.holdings.insert(*hash, left);
            }
        }
        Ok(torn)
    }

    /// Takes their rows from the index; the bytes that are held then. Their files are orphans.
    pub(super) fn take(&self, tables: &mut Tables<'_>, used: u64) -> Result<u64, Fault> {
        let mut used = used;
        for id in self.objects.keys() {
            for (first, row) in tables.take_object(id)? {
                used = used.saturating_sub(held_in(first, &row).map(|(_, bytes)| bytes).sum());
            }
        }
        for (hash, held) in &self.holdings {
            put_holdings(tables, hash, held)?;
        }
        Ok(used)
    }

    /// Counts them, and says how many they are.
    pub(super) fn tell(&self, layout: &Layout, stats: &StoreStats) {
        if !self.objects.is_empty() {
            let (directory, objects) = (layout.root().display(), self.objects.len());
            tracing::warn!(%directory, objects, "the power failed while these were written: they are fetched again");
            count(&stats.blocks_damaged, objects as u64);
        }
    }
}

/// Opens an object's file.
type Open<'a> = dyn Fn(&Path) -> io::Result<Arc<dyn DiskFile>> + Sync + 'a;

/// Those of the objects that do not read back, with the checksums of their first blocks.
fn find_torn(
    index: &Index,
    layout: &Layout,
    objects: &[ObjectId],
    open: &Open<'_>,
) -> Result<BTreeMap<ObjectId, Option<u32>>, StoreError> {
    let share = objects.len().div_ceil(READERS).max(1);
    thread::scope(|scope| {
        let readers: Vec<_> = objects
            .chunks(share)
            .map(|objects| scope.spawn(move || find_torn_among(index, layout, objects, open)))
            .collect();
        let mut torn = BTreeMap::new();
        for reader in readers {
            let why = || StoreError::Index { why: "a thread that reads what it notes panicked".into() };
            torn.append(&mut reader.join().map_err(|_| why())??);
        }
        Ok(torn)
    })
}

fn find_torn_among(
    index: &Index,
    layout: &Layout,
    objects: &[ObjectId],
    open: &Open<'_>,
) -> Result<BTreeMap<ObjectId, Option<u32>>, StoreError> {
    let asked: Vec<(ObjectId, ObjectId)> = objects.iter().map(|id| (*id, *id)).collect();
    let mut rows = Vec::new();
    index.rows_of(&asked, |id, first, row| rows.push((*id, first, row.clone())))?;
    let mut torn = BTreeMap::new();
    for (id, first, row) in rows {
        let path = layout.object(&id);
        let reads_back = open(&path).and_then(|file| reads_back(file.as_ref(), first, &row));
        match reads_back {
            Ok(true) => {}
            Ok(false) => _ = torn.insert(id, row.sums.first().copied().flatten()),
            Err(error) if is_absent(&error) || is_loss(&error) => {
                torn.insert(id, row.sums.first().copied().flatten());
            }
            Err(error) => return Err(StoreError::io(&path, error)),
        }
    }
    Ok(torn)
}

fn reads_back(file: &dyn DiskFile, first: u64, row: &ObjectRow) -> io::Result<bool> {
    for (block, bytes) in held_in(first, row) {
        let mut data = vec![0; usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?];
        file.read_at(byte_range(row.size, block).start, &mut data)?;
        let sum = row.sums.get((block - first) as usize).copied().flatten();
        if sum != Some(crc32c::crc32c(&data)) {
            return Ok(false);
        }
    }
    Ok(true)
}
