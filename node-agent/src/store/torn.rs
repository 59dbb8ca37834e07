//! What of the objects that were noted as not synced is not on the disk as it was written: after
//! a power cut, or when a sync has failed.

use super::commands::{BlockCommand, Command, GiveUp, ManifestCommand};
use super::disk::{Disk, DiskFile};
use super::engine::{Queue, Shared};
use super::error::StoreError;
use super::index::{Fault, Index, Loaded, Tables};
use super::layout::Layout;
use super::manifests::{Manifests, Object};
use super::rows::ObjectRow;
use super::staging::{held_in, put_holdings};
use super::stats::{StoreStats, count};
use hearth_core::block::byte_range;
use hearth_core::manifest::ManifestHash;
use hearth_core::object::ObjectId;
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;

/// Objects are read by so many threads at once.
const READERS: usize = 4;

/// Objects that do not read back, and the checksums that their first blocks should have.
type Objects = BTreeMap<ObjectId, Option<u32>>;

/// What an index claims that is not there.
#[derive(Debug, Default)]
pub(super) struct Torn {
    objects: Objects,
    /// What manifests hold without them, of those that held some.
    pub(super) holdings: BTreeMap<ManifestHash, RoaringBitmap>,
}

impl Torn {
    /// Reads all that is noted, as whoever asks for it would.
    pub(super) fn find(
        disk: &dyn Disk,
        layout: &Layout,
        index: &Index,
        manifests: &Manifests,
        loaded: &Loaded,
    ) -> Result<Self, StoreError> {
        let noted: Vec<ObjectId> = loaded.unsynced.iter().copied().collect();
        let look = Look { index, layout, open: &|path| disk.open_to_read(path), ends: &|| false };
        let objects = look.find(&noted)?;
        let mut torn = Self { objects, holdings: BTreeMap::new() };
        if torn.is_empty() {
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

    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty()
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
        if !self.is_empty() {
            let (directory, objects) = (layout.root().display(), self.objects.len());
            tracing::warn!(%directory, objects, "written last and not as they were written: they are fetched again");
            count(&stats.blocks_damaged, objects as u64);
        }
    }
}

/// Gives up what is noted and not on the disk as it was written, whatever memory has.
pub(super) fn give_up(shared: &Shared, queue: &Queue) -> Result<(), StoreError> {
    // What is under way is noted then.
    queue.ask_manifest(|reply| ManifestCommand::Settle { reply })?;
    let noted = shared.index.unsynced()?;
    let look = Look {
        index: &shared.index,
        layout: &shared.layout,
        open: &|path| shared.disk.open_past_cache(path),
        ends: &|| shared.is_closing(),
    };
    let torn = look.find(&noted)?;
    if torn.is_empty() {
        return Ok(());
    }
    let seen = shared.inventory.counting();
    let mut unlisted: BTreeSet<ObjectId> = torn.keys().copied().collect();
    for hash in &seen {
        let manifest = match shared.manifests.load(hash) {
            Ok(Some(manifest)) => manifest,
            Ok(None) | Err(StoreError::Damaged { .. } | StoreError::Manifest { .. }) => continue,
            Err(error) => return Err(error),
        };
        for file in manifest.files().filter(|file| !file.unlisted) {
            let id = manifest.object_id(&file);
            let Some(sum) = torn.get(&id) else { continue };
            unlisted.remove(&id);
            let (object, sum) = (Arc::new(Object::of(&manifest, &file)), *sum);
            let give_up = GiveUp { object, block: 0, sum, entire: true, reply: Box::new(drop) };
            queue.send(Command::Block(BlockCommand::GiveUp(give_up)))?;
        }
    }
    let objects = unlisted.into_iter().collect();
    queue.ask_manifest(|reply| ManifestCommand::Collect { objects, seen, reply })?;
    // What is just being adopted, or was written meanwhile, is looked at again.
    let left = look.find(&noted)?;
    match left.is_empty() {
        true => Ok(()),
        false => {
            Err(StoreError::Index { why: format!("{} objects are not as they were written", left.len()) })
        }
    }
}

/// Opens an object's file.
type Open<'a> = dyn Fn(&Path) -> io::Result<Arc<dyn DiskFile>> + Sync + 'a;
/// Whether to end early.
type Ends<'a> = dyn Fn() -> bool + Sync + 'a;

/// Compares objects with what the index says of them.
struct Look<'a> {
    index: &'a Index,
    layout: &'a Layout,
    open: &'a Open<'a>,
    ends: &'a Ends<'a>,
}

impl Look<'_> {
    /// Those that do not read back.
    fn find(&self, objects: &[ObjectId]) -> Result<Objects, StoreError> {
        let distinct: Vec<ObjectId> = objects.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let share = distinct.len().div_ceil(READERS).max(1);
        thread::scope(|scope| {
            let readers: Vec<_> =
                distinct.chunks(share).map(|objects| scope.spawn(move || self.find_among(objects))).collect();
            let mut torn = Objects::new();
            for reader in readers {
                let why = || StoreError::Index { why: "a thread that reads what it notes panicked".into() };
                torn.append(&mut reader.join().map_err(|_| why())??);
            }
            Ok(torn)
        })
    }

    fn find_among(&self, objects: &[ObjectId]) -> Result<Objects, StoreError> {
        let mut torn = Objects::new();
        for (id, first, row) in self.rows(objects.iter())? {
            if (self.ends)() {
                return Err(StoreError::Closed);
            }
            let path = self.layout.object(&id);
            let is_there = match (self.open)(&path).and_then(|file| reads_back(file.as_ref(), first, &row)) {
                Ok(is_there) => is_there,
                Err(error) if is_passing(&error) => return Err(StoreError::io(&path, error)),
                // Whatever else a file system that was cut off says of a file.
                Err(_) => false,
            };
            if !is_there {
                torn.insert(id, first_sum(&row));
            }
        }
        // Those that were given up or written anew meanwhile are no loss.
        let left = self.rows(torn.keys())?;
        let still = left.into_iter().filter(|(id, _, row)| torn.get(id) == Some(&first_sum(row)));
        Ok(still.map(|(id, _, row)| (id, first_sum(&row))).collect())
    }

    fn rows<'i>(
        &self,
        objects: impl Iterator<Item = &'i ObjectId>,
    ) -> Result<Vec<(ObjectId, u64, ObjectRow)>, StoreError> {
        let asked: Vec<(ObjectId, ObjectId)> = objects.map(|id| (*id, *id)).collect();
        let mut rows = Vec::new();
        self.index.rows_of(&asked, |id, first, row| rows.push((*id, first, row.clone())))?;
        Ok(rows)
    }
}

fn first_sum(row: &ObjectRow) -> Option<u32> {
    row.sums.first().copied().flatten()
}

/// Whether a failed read says nothing of the bytes: the process ran out of something.
fn is_passing(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    error.kind() == io::ErrorKind::OutOfMemory || matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
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
