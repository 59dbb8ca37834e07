//! What of the blocks that were noted as not synced is not on the disk as it was written: after
//! a power cut, or when a sync has failed.

use super::commands::{BlockCommand, Command, GiveUp, ManifestCommand};
use super::disk::{Disk, DiskFile};
use super::engine::{Queue, Shared};
use super::error::StoreError;
use super::index::{Fault, Index, Loaded, Tables};
use super::layout::Layout;
use super::manifests::{Manifests, Object};
use super::rows::{BLOCKS_PER_ROW, BlockOf, ObjectRow, object_key};
use super::staging::{block_bytes, held_in, put_holdings};
use super::stats::{StoreStats, count};
use hearth_core::block::{blocks_in, byte_range};
use hearth_core::manifest::ManifestHash;
use hearth_core::object::ObjectId;
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;

/// Blocks are read by so many threads at once.
const READERS: usize = 4;

/// A block that does not read back.
#[derive(Clone, Copy, Debug)]
struct Loss {
    /// The checksum that it should have.
    sum: u32,
    /// All of its object goes: its file cannot even be opened, or was whole, and is never written again then.
    entire: bool,
}

type Losses = BTreeMap<BlockOf, Loss>;

fn of_object<'l>(losses: &'l Losses, id: &ObjectId) -> impl Iterator<Item = (u64, &'l Loss)> {
    losses.range((*id, 0)..=(*id, u64::MAX)).map(|((_, block), loss)| (*block, loss))
}

/// What an index claims that is not there.
#[derive(Debug, Default)]
pub(super) struct Torn {
    losses: Losses,
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
        let look = Look { index, layout, open: &|path| disk.open_to_read(path), ends: &|| false };
        let losses = look.find(&loaded.unsynced)?;
        let mut torn = Self { losses, holdings: BTreeMap::new() };
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
                for (block, loss) in of_object(&torn.losses, &manifest.object_id(&file)) {
                    // Of another size, it is another object.
                    let number = file.first_block + block as u32;
                    match loss.entire {
                        true => _ = left.remove_range(file.blocks()),
                        false => _ = left.remove(number),
                    }
                }
            }
            if left != *held {
                torn.holdings.insert(*hash, left);
            }
        }
        Ok(torn)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.losses.is_empty()
    }

    /// Takes them from the rows of the index; the bytes that are held then. Files of which
    /// nothing is left are orphans.
    pub(super) fn take(&self, tables: &mut Tables<'_>, used: u64) -> Result<u64, Fault> {
        let mut used = used;
        for ((id, block), loss) in &self.losses {
            if loss.entire {
                for (first, row) in tables.take_object(id)? {
                    used = used.saturating_sub(held_in(first, &row).map(|(_, bytes)| bytes).sum());
                }
                continue;
            }
            let key = object_key(id, *block);
            let Some(mut row) = tables.object(&key)? else { continue };
            if row.sums.get_mut((block % BLOCKS_PER_ROW) as usize).and_then(Option::take).is_some() {
                used = used.saturating_sub(block_bytes(row.size, *block));
            }
            tables.put_object(&key, &row)?;
        }
        for (hash, held) in &self.holdings {
            put_holdings(tables, hash, held)?;
        }
        Ok(used)
    }

    /// Counts them, and says how many they are.
    pub(super) fn tell(&self, layout: &Layout, stats: &StoreStats) {
        if !self.is_empty() {
            let (directory, blocks) = (layout.root().display(), self.losses.len());
            tracing::warn!(%directory, blocks, "written last and not as they were written: they are fetched again");
            count(&stats.blocks_damaged, blocks as u64);
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
    let mut unlisted: BTreeSet<ObjectId> = torn.keys().map(|(id, _)| *id).collect();
    for hash in &seen {
        let manifest = match shared.manifests.load(hash) {
            Ok(Some(manifest)) => manifest,
            Ok(None) | Err(StoreError::Damaged { .. } | StoreError::Manifest { .. }) => continue,
            Err(error) => return Err(error),
        };
        for file in manifest.files().filter(|file| !file.unlisted) {
            let object = Arc::new(Object::of(&manifest, &file));
            for (block, loss) in of_object(&torn, &object.id) {
                unlisted.remove(&object.id);
                let (object, sum) = (Arc::clone(&object), Some(loss.sum));
                let give_up = GiveUp { object, block, sum, entire: loss.entire, reply: Box::new(drop) };
                queue.send(Command::Block(BlockCommand::GiveUp(give_up)))?;
            }
        }
    }
    let objects = unlisted.into_iter().collect();
    queue.ask_manifest(|reply| ManifestCommand::Collect { objects, seen, reply })?;
    // What is just being adopted, or was written meanwhile, is looked at again.
    let left = look.find(&noted)?;
    match left.is_empty() {
        true => Ok(()),
        false => {
            Err(StoreError::Index { why: format!("{} blocks are not as they were written", left.len()) })
        }
    }
}

/// Opens an object's file.
type Open<'a> = dyn Fn(&Path) -> io::Result<Arc<dyn DiskFile>> + Sync + 'a;
/// Whether to end early.
type Ends<'a> = dyn Fn() -> bool + Sync + 'a;

/// Compares blocks with what the index says of them.
struct Look<'a> {
    index: &'a Index,
    layout: &'a Layout,
    open: &'a Open<'a>,
    ends: &'a Ends<'a>,
}

impl Look<'_> {
    /// Those that do not read back.
    fn find(&self, blocks: &BTreeSet<BlockOf>) -> Result<Losses, StoreError> {
        let blocks: Vec<BlockOf> = blocks.iter().copied().collect();
        let share = blocks.len().div_ceil(READERS).max(1);
        thread::scope(|scope| {
            let readers: Vec<_> =
                blocks.chunks(share).map(|blocks| scope.spawn(move || self.find_among(blocks))).collect();
            let mut torn = Losses::new();
            for reader in readers {
                let why = || StoreError::Index { why: "a thread that reads what it notes panicked".into() };
                torn.append(&mut reader.join().map_err(|_| why())??);
            }
            Ok(torn)
        })
    }

    fn find_among(&self, blocks: &[BlockOf]) -> Result<Losses, StoreError> {
        let mut torn = Losses::new();
        for of_object in blocks.chunk_by(|(one, _), (other, _)| one == other) {
            self.find_in(of_object, &mut torn)?;
        }
        // Those that were given up or written anew meanwhile are no loss.
        let mut left = Losses::new();
        for (block, loss) in torn {
            if self.row(&block)?.is_some_and(|row| sum_of(&row, block.1) == Some(loss.sum)) {
                left.insert(block, loss);
            }
        }
        Ok(left)
    }

    /// Blocks of one object.
    fn find_in(&self, blocks: &[BlockOf], torn: &mut Losses) -> Result<(), StoreError> {
        let Some((id, _)) = blocks.first() else { return Ok(()) };
        let path = self.layout.object(id);
        let fail = |error| StoreError::io(&path, error);
        let file = match (self.open)(&path) {
            Ok(file) => Some(file),
            Err(error) if is_passing(&error) => return Err(fail(error)),
            // Whatever else a file system that was cut off says of a file.
            Err(_) => None,
        };
        let mut torn_here = Losses::new();
        for block in blocks {
            if (self.ends)() {
                return Err(StoreError::Closed);
            }
            let Some(row) = self.row(block)? else { continue };
            let Some(sum) = sum_of(&row, block.1) else { continue };
            let is_there = match file.as_ref().map(|file| sum_on_disk(file.as_ref(), row.size, block.1)) {
                Some(Ok(found)) => found == sum,
                Some(Err(error)) if is_passing(&error) => return Err(fail(error)),
                Some(Err(_)) | None => false,
            };
            if !is_there {
                torn_here.insert(*block, Loss { sum, entire: file.is_none() });
            }
        }
        // Only of what is torn: all rows of an object are read for it.
        if !torn_here.is_empty() && self.is_whole(id)? {
            torn_here.values_mut().for_each(|loss| loss.entire = true);
        }
        torn.append(&mut torn_here);
        Ok(())
    }

    /// Whether the index has all blocks of an object.
    fn is_whole(&self, id: &ObjectId) -> Result<bool, StoreError> {
        let (mut held, mut all) = (0, None);
        self.index.rows_of(&[(*id, ())], |(), first, row| {
            held += held_in(first, row).count() as u64;
            all = Some(blocks_in(row.size));
        })?;
        Ok(all == Some(held))
    }

    /// The row of a block, if there is a good one.
    fn row(&self, (id, block): &BlockOf) -> Result<Option<ObjectRow>, StoreError> {
        Ok(self.index.object_row(&object_key(id, *block))?.and_then(Result::ok))
    }
}

fn sum_of(row: &ObjectRow, block: u64) -> Option<u32> {
    row.sums.get((block % BLOCKS_PER_ROW) as usize).copied().flatten()
}

/// Whether a failed read says nothing of the bytes: the process ran out of something.
fn is_passing(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    error.kind() == io::ErrorKind::OutOfMemory || matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

fn sum_on_disk(file: &dyn DiskFile, size: u64, block: u64) -> io::Result<u32> {
    let mut data =
        vec![0; usize::try_from(block_bytes(size, block)).map_err(|_| io::ErrorKind::OutOfMemory)?];
    file.read_at(byte_range(size, block).start, &mut data)?;
    Ok(crc32c::crc32c(&data))
}
