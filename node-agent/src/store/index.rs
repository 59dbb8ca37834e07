//! The index file: redb, with every call kept from taking the agent down.
//!
//! redb trusts its file: a damaged one can make it panic. Every call into it is
//! therefore caught, and [`Index::open`] tells a damaged file from a failing disk.

use super::disk::{Disk, DiskFile};
use super::error::StoreError;
use super::rows::{self, BlockOf, DamagedRow, HoldingKey, ManifestRow, ObjectKey, ObjectRow};
use hearth_core::manifest::ManifestHash;
use hearth_core::object::ObjectId;
use parking_lot::RwLock;
use redb::{Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition};
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// redb's own default is a gigabyte. Rows are small and their pages are in the
/// system's page cache as well.
const CACHE_BYTES: usize = 24 << 20;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const OBJECTS: TableDefinition<'_, &ObjectKey, &[u8]> = TableDefinition::new("objects");
const HOLDINGS: TableDefinition<'_, &HoldingKey, &[u8]> = TableDefinition::new("holdings");
const MANIFESTS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("manifests");
const UNSYNCED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("unsynced_blocks");

/// Names in the `meta` table.
pub(super) mod meta {
    /// [`super::rows::FORMAT`].
    pub(in crate::store) const FORMAT: &str = "format";
    /// The store's UUID.
    pub(in crate::store) const UUID: &str = "uuid";
    /// How often it was opened.
    pub(in crate::store) const BOOT: &str = "boot";
    /// Bytes of all held blocks.
    pub(in crate::store) const USED: &str = "used";
    /// Not 0 when object rows may be there that no manifest lists.
    pub(in crate::store) const COLLECT: &str = "collect";
}

/// What a call into redb came to grief over.
pub(super) type Fault = redb::Error;

/// A file of the store's disk as redb wants it.
#[derive(Debug)]
struct Backend(Arc<dyn DiskFile>);

impl redb::StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read_at(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.write_at(offset, data)
    }
}

/// What an index held when it was opened.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) format: u64,
    /// `None` in a new index.
    pub(super) uuid: Option<[u8; 16]>,
    pub(super) boot: u64,
    pub(super) used: u64,
    pub(super) collect: bool,
    pub(super) manifests: BTreeMap<ManifestHash, ManifestRow>,
    pub(super) holdings: BTreeMap<ManifestHash, RoaringBitmap>,
    /// Manifests whose own row, or one of whose holdings rows, is damaged.
    pub(super) damaged_manifests: BTreeSet<ManifestHash>,
    pub(super) damaged_holdings: BTreeSet<ManifestHash>,
    /// Blocks that may not be on the disk as they were written.
    pub(super) unsynced: BTreeSet<BlockOf>,
    /// The number of the last note of such.
    pub(super) last_unsynced: u64,
    /// Notes that cannot be read.
    pub(super) damaged_notes: usize,
}

/// Why an index cannot be opened.
#[derive(Debug)]
pub(super) enum OpenFault {
    /// The file is not, or no longer, an index: begin an empty one.
    Damaged(String),
    /// The disk refuses; the file may be fine.
    Refused(StoreError),
}

/// The open index.
#[derive(Debug)]
pub(super) struct Index {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// `None` after an error, until it is open again.
    database: RwLock<Option<Database>>,
}

impl Index {
    /// Opens the file, or makes it, and reads what the inventory needs.
    /// `check` reads the whole file first.
    pub(super) fn open(disk: Arc<dyn Disk>, path: &Path, check: bool) -> Result<(Self, Loaded), OpenFault> {
        let database = open_database(disk.as_ref(), path, check)?;
        let loaded = caught(|| load(&database)).map_err(classify)?;
        if loaded.uuid.is_some() && loaded.format != rows::FORMAT {
            let (found, known) = (loaded.format, rows::FORMAT);
            return Err(OpenFault::Damaged(format!("its format is {found}, and {known} is understood")));
        }
        Ok((Self { disk, path: path.to_owned(), database: RwLock::new(Some(database)) }, loaded))
    }

    /// Closes the file and opens it again: after an error redb refuses every write
    /// until then. Returns what is durable.
    pub(super) fn reopen(&self) -> Result<Loaded, StoreError> {
        let mut slot = self.database.write();
        if let Some(database) = slot.take() {
            // Closing writes, and may fail or panic on what made us come here.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
        }
        let refused = |fault| match fault {
            OpenFault::Damaged(why) => StoreError::Damaged { what: "the index".into(), why },
            OpenFault::Refused(error) => error,
        };
        let database = open_database(self.disk.as_ref(), &self.path, false).map_err(refused)?;
        let loaded = caught(|| load(&database)).map_err(|fault| refused(classify(fault)))?;
        *slot = Some(database);
        Ok(loaded)
    }

    /// Whether it is open; after an error it may not be.
    pub(super) fn is_open(&self) -> bool {
        self.database.read().is_some()
    }

    /// Runs `work` in one transaction and commits it durably.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let slot = self.database.read();
        let database = slot.as_ref().ok_or_else(closed)?;
        caught(|| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            // Without it the first open after a crash walks the whole file.
            transaction.set_quick_repair(true);
            let result = {
                let mut tables = Tables {
                    meta: transaction.open_table(META)?,
                    objects: transaction.open_table(OBJECTS)?,
                    holdings: transaction.open_table(HOLDINGS)?,
                    manifests: transaction.open_table(MANIFESTS)?,
                    unsynced: transaction.open_table(UNSYNCED)?,
                };
                work(&mut tables)?
            };
            transaction.commit()?;
            Ok(result)
        })
        .map_err(store_error)
    }

    /// One object row; `Some(Err)` for one that is there and damaged.
    pub(super) fn object_row(
        &self,
        key: &ObjectKey,
    ) -> Result<Option<Result<ObjectRow, DamagedRow>>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(OBJECTS)?;
            Ok(table.get(key)?.map(|row| ObjectRow::decode(key, row.value())))
        })
    }

    /// Whether the index has a row of the object.
    pub(super) fn has_object(&self, id: &ObjectId) -> Result<bool, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(OBJECTS)?;
            Ok(table.range::<&ObjectKey>(by_ref(&rows::object_keys(id)))?.next().transpose()?.is_some())
        })
    }

    /// Calls `each` with every good row of each of the objects.
    pub(super) fn rows_of<K>(
        &self,
        objects: &[(ObjectId, K)],
        mut each: impl FnMut(&K, u64, &ObjectRow),
    ) -> Result<(), StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(OBJECTS)?;
            for (id, tag) in objects {
                for row in table.range::<&ObjectKey>(by_ref(&rows::object_keys(id)))? {
                    let (key, row) = row?;
                    if let Ok(row) = ObjectRow::decode(key.value(), row.value()) {
                        each(tag, rows::first_block_of(key.value()), &row);
                    }
                }
            }
            Ok(())
        })
    }

    /// Up to `count` objects that have rows, from `after` on in order of their names.
    pub(super) fn objects_after(
        &self,
        after: Option<ObjectId>,
        count: usize,
    ) -> Result<Vec<ObjectId>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(OBJECTS)?;
            let mut found: Vec<ObjectId> = Vec::new();
            let start = after.map_or([0; 20], |id| *rows::object_keys(&id).end());
            for row in table.range::<&ObjectKey>(&start..)? {
                let id = rows::object_of(row?.0.value());
                if Some(id) != after && found.last() != Some(&id) {
                    if found.len() == count {
                        break;
                    }
                    found.push(id);
                }
            }
            Ok(found)
        })
    }

    /// Blocks that are noted as not synced.
    pub(super) fn unsynced(&self) -> Result<BTreeSet<BlockOf>, StoreError> {
        self.read(|transaction| {
            let mut found = BTreeSet::new();
            for row in transaction.open_table(UNSYNCED)?.iter()? {
                let (number, row) = row?;
                // A damaged one says nothing.
                found.extend(rows::decode_unsynced(number.value(), row.value()).unwrap_or_default());
            }
            Ok(found)
        })
    }

    /// Makes it one of before there were notes.
    #[cfg(test)]
    pub(super) fn drop_notes(&self) {
        let slot = self.database.read();
        let mut transaction = slot.as_ref().unwrap().begin_write().unwrap();
        transaction.set_durability(Durability::Immediate).unwrap();
        assert!(transaction.delete_table(UNSYNCED).unwrap());
        transaction.commit().unwrap();
    }

    fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, Fault>) -> Result<T, StoreError> {
        let slot = self.database.read();
        let database = slot.as_ref().ok_or_else(closed)?;
        caught(|| work(&database.begin_read()?)).map_err(store_error)
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        if let Some(database) = self.database.get_mut().take() {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
        }
    }
}

/// The tables of a transaction that writes.
pub(super) struct Tables<'t> {
    meta: Table<'t, &'static str, &'static [u8]>,
    objects: Table<'t, &'static ObjectKey, &'static [u8]>,
    holdings: Table<'t, &'static HoldingKey, &'static [u8]>,
    manifests: Table<'t, &'static [u8; 32], &'static [u8]>,
    unsynced: Table<'t, u64, &'static [u8]>,
}

impl Tables<'_> {
    pub(super) fn put_meta(&mut self, name: &str, value: &[u8]) -> Result<(), Fault> {
        self.meta.insert(name, rows::encode_meta(name, value).as_slice())?;
        Ok(())
    }

    /// An object row; a damaged one is as good as none.
    pub(super) fn object(&self, key: &ObjectKey) -> Result<Option<ObjectRow>, Fault> {
        Ok(self.objects.get(key)?.and_then(|row| ObjectRow::decode(key, row.value()).ok()))
    }

    /// Whether there is a row of the object.
    pub(super) fn has_object(&self, id: &ObjectId) -> Result<bool, Fault> {
        Ok(self.objects.range::<&ObjectKey>(by_ref(&rows::object_keys(id)))?.next().transpose()?.is_some())
    }

    /// Writes an object row, or removes it when it holds nothing.
    pub(super) fn put_object(&mut self, key: &ObjectKey, row: &ObjectRow) -> Result<(), Fault> {
        if row.holds_any() {
            self.objects.insert(key, row.encode(key).as_slice())?;
        } else {
            self.objects.remove(key)?;
        }
        Ok(())
    }

    /// Removes all rows of an object and returns the good ones with their first blocks.
    pub(super) fn take_object(&mut self, id: &ObjectId) -> Result<Vec<(u64, ObjectRow)>, Fault> {
        let mut taken = Vec::new();
        let keys = rows::object_keys(id);
        for row in self.objects.extract_from_if::<&ObjectKey, _>(by_ref(&keys), |_, _| true)? {
            let (key, row) = row?;
            if let Ok(row) = ObjectRow::decode(key.value(), row.value()) {
                taken.push((rows::first_block_of(key.value()), row));
            }
        }
        Ok(taken)
    }

    /// Writes one holdings row, or removes it when the chunk is empty.
    pub(super) fn put_holding(
        &mut self,
        hash: &ManifestHash,
        chunk: u16,
        blocks: &RoaringBitmap,
    ) -> Result<(), Fault> {
        let key = rows::holding_key(hash, chunk);
        if blocks.is_empty() {
            self.holdings.remove(&key)?;
        } else {
            self.holdings.insert(&key, rows::encode_holding(&key, blocks).as_slice())?;
        }
        Ok(())
    }

    /// Removes all holdings rows of a manifest.
    pub(super) fn remove_holdings(&mut self, hash: &ManifestHash) -> Result<(), Fault> {
        let (first, last) = (rows::holding_key(hash, 0), rows::holding_key(hash, u16::MAX));
        self.holdings.retain_in::<&HoldingKey, _>(&first..=&last, |_, _| false)?;
        Ok(())
    }

    pub(super) fn put_manifest(&mut self, hash: &ManifestHash, row: &ManifestRow) -> Result<(), Fault> {
        self.manifests.insert(&hash.0, row.encode(hash).as_slice())?;
        Ok(())
    }

    /// Notes blocks that were written and not synced, under a new number.
    pub(super) fn note_unsynced(&mut self, number: u64, blocks: &[BlockOf]) -> Result<(), Fault> {
        self.unsynced.insert(number, rows::encode_unsynced(number, blocks).as_slice())?;
        Ok(())
    }

    /// All up to that number is synced.
    pub(super) fn forget_unsynced(&mut self, upto: u64) -> Result<(), Fault> {
        self.unsynced.retain_in(..=upto, |_, _| false)?;
        Ok(())
    }

    pub(super) fn remove_manifest(&mut self, hash: &ManifestHash) -> Result<(), Fault> {
        self.manifests.remove(&hash.0)?;
        Ok(())
    }
}

/// A range of keys as redb wants it.
fn by_ref(keys: &RangeInclusive<ObjectKey>) -> RangeInclusive<&ObjectKey> {
    keys.start()..=keys.end()
}

fn open_database(disk: &dyn Disk, path: &Path, check: bool) -> Result<Database, OpenFault> {
    let (file, _) = disk.open(path, true).map_err(|error| OpenFault::Refused(StoreError::io(path, error)))?;
    caught(|| {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(check);
        Ok(builder.create_with_backend(Backend(file))?)
    })
    .map_err(classify)
}

fn load(database: &Database) -> Result<Loaded, Fault> {
    let transaction = database.begin_read()?;
    let mut loaded = Loaded::default();
    let table = match transaction.open_table(META) {
        // Nothing was ever committed to it.
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(loaded),
        other => other?,
    };
    let damaged = |_| Fault::Corrupted("a row of the meta table has a wrong checksum".into());
    let number = |name: &str| -> Result<u64, Fault> {
        let row = table.get(name)?.ok_or_else(|| Fault::Corrupted(format!("\"{name}\" is not in it")))?;
        Ok(u64::from_le_bytes(rows::decode_meta(name, row.value()).map_err(damaged)?))
    };
    loaded.format = number(meta::FORMAT)?;
    loaded.boot = number(meta::BOOT)?;
    loaded.used = number(meta::USED)?;
    loaded.collect = number(meta::COLLECT)? != 0;
    loaded.uuid = match table.get(meta::UUID)? {
        Some(row) => Some(rows::decode_meta(meta::UUID, row.value()).map_err(damaged)?),
        None => None,
    };
    for row in transaction.open_table(MANIFESTS)?.iter()? {
        let (hash, row) = row?;
        let hash = ManifestHash(*hash.value());
        match ManifestRow::decode(&hash, row.value()) {
            Ok(row) => _ = loaded.manifests.insert(hash, row),
            Err(DamagedRow) => _ = loaded.damaged_manifests.insert(hash),
        }
    }
    for row in transaction.open_table(HOLDINGS)?.iter()? {
        let (key, row) = row?;
        let hash = rows::manifest_of(key.value());
        match rows::decode_holding(key.value(), row.value()) {
            Ok(blocks) => *loaded.holdings.entry(hash).or_default() |= blocks,
            Err(DamagedRow) => _ = loaded.damaged_holdings.insert(hash),
        }
    }
    let unsynced = match transaction.open_table(UNSYNCED) {
        // An index from before there were any.
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(loaded),
        other => other?,
    };
    for row in unsynced.iter()? {
        let (number, row) = row?;
        loaded.last_unsynced = number.value();
        match rows::decode_unsynced(number.value(), row.value()) {
            Ok(blocks) => loaded.unsynced.extend(blocks),
            Err(DamagedRow) => loaded.damaged_notes += 1,
        }
    }
    Ok(loaded)
}

/// Runs `work`; a panic in it becomes [`Fault::Corrupted`].
fn caught<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(panic) => {
            let why = panic.downcast_ref::<&str>().map(ToString::to_string);
            let why = why.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(Fault::Corrupted(why.unwrap_or_else(|| "the database gave up".into())))
        }
    }
}

fn classify(fault: Fault) -> OpenFault {
    match &fault {
        Fault::Io(error) => match error.kind() {
            // What redb says of a file that is none of its own, or is cut short.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                OpenFault::Damaged(fault.to_string())
            }
            _ => OpenFault::Refused(store_error(fault)),
        },
        Fault::PreviousIo | Fault::DatabaseAlreadyOpen => OpenFault::Refused(store_error(fault)),
        _ => OpenFault::Damaged(fault.to_string()),
    }
}

fn store_error(fault: Fault) -> StoreError {
    match fault {
        Fault::Io(error)
            if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
        {
            StoreError::NoSpace { why: format!("the index cannot grow: {error}") }
        }
        Fault::Corrupted(why) => StoreError::Damaged { what: "the index".into(), why },
        fault => StoreError::Index { why: fault.to_string() },
    }
}

pub(super) fn closed() -> StoreError {
    StoreError::Index { why: "it is closed after an error and could not be opened again yet".into() }
}
