//! A disk in memory that loses power: what was not synced is gone, or there in
//! part, as a seed says. Directories themselves are durable when made.

use super::disk::{DirectoryLock, Disk, DiskFile, FileSystem, SpaceFacts};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const EIO: i32 = 5;

/// Pseudo-random numbers that a seed repeats (SplitMix64).
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

#[derive(Debug)]
enum Unsynced {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Debug, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Unsynced>,
}

fn apply(bytes: &mut Vec<u8>, change: &Unsynced) {
    match change {
        Unsynced::Write(offset, data) => {
            let (start, end) = (*offset as usize, *offset as usize + data.len());
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[start..end].copy_from_slice(data);
        }
        Unsynced::Length(length) => bytes.resize(*length as usize, 0),
    }
}

#[derive(Debug)]
enum EntryChange {
    Add(PathBuf, usize),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

impl EntryChange {
    fn directory(&self) -> Option<&Path> {
        match self {
            Self::Add(path, _) | Self::Remove(path) | Self::Rename(path, ..) => path.parent(),
        }
    }

    fn apply(&self, entries: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Add(path, inode) => _ = entries.insert(path.clone(), *inode),
            Self::Remove(path) => _ = entries.remove(path),
            Self::Rename(from, to, inode) => {
                entries.remove(from);
                entries.insert(to.clone(), *inode);
            }
        }
    }
}

#[derive(Debug, Default)]
struct World {
    /// Raised by every power cut: handles of before are dead.
    epoch: u64,
    is_off: bool,
    /// Operations that change something until the power fails.
    fuse: Option<u64>,
    capacity: Option<u64>,
    fail_object_syncs: bool,
    lose_unsynced: bool,
    fails: bool,
    inodes: Vec<Inode>,
    entries: BTreeMap<PathBuf, usize>,
    durable_entries: BTreeMap<PathBuf, usize>,
    unsynced_entries: Vec<EntryChange>,
    locked: BTreeSet<PathBuf>,
}

impl World {
    fn used(&self) -> u64 {
        self.entries.values().map(|inode| self.inodes[*inode].live.len() as u64).sum()
    }

    fn enter(&mut self, epoch: u64) -> io::Result<()> {
        match self.is_off || self.epoch != epoch {
            true => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the power is off")),
            false if self.fails => Err(io::Error::from_raw_os_error(EIO)),
            false => Ok(()),
        }
    }

    fn change(&mut self, epoch: u64) -> io::Result<()> {
        if let Some(fuse) = &mut self.fuse {
            if *fuse == 0 {
                self.is_off = true;
            }
            *fuse = fuse.saturating_sub(1);
        }
        self.enter(epoch)
    }

    fn change_entry(&mut self, change: EntryChange) {
        change.apply(&mut self.entries);
        self.unsynced_entries.push(change);
    }
}

/// The disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeDisk(Arc<Mutex<World>>);

impl FakeDisk {
    fn world(&self) -> io::Result<MutexGuard<'_, World>> {
        let mut world = self.0.lock();
        let epoch = world.epoch;
        world.enter(epoch)?;
        Ok(world)
    }

    fn changing(&self) -> io::Result<MutexGuard<'_, World>> {
        let mut world = self.0.lock();
        let epoch = world.epoch;
        world.change(epoch)?;
        Ok(world)
    }

    /// Lets the power fail after so many changes from now.
    pub(super) fn cut_after(&self, changes: u64) {
        self.0.lock().fuse = Some(changes);
    }

    /// Nothing works from now until [`FakeDisk::power_on`].
    pub(super) fn cut_now(&self) {
        self.0.lock().is_off = true;
    }

    pub(super) fn is_off(&self) -> bool {
        self.0.lock().is_off
    }

    /// What survives a cut is decided, and the disk works again.
    pub(super) fn power_on(&self, seed: u64) {
        let mut random = Random(seed);
        let mut world = self.0.lock();
        world.epoch += 1;
        world.is_off = false;
        world.fuse = None;
        world.locked.clear();
        for inode in &mut world.inodes {
            for change in std::mem::take(&mut inode.unsynced) {
                match change {
                    Unsynced::Write(offset, data) => {
                        // Sector by sector: a write may be torn, in any order.
                        for (index, sector) in data.chunks(512).enumerate() {
                            if random.coin() {
                                let at = offset + index as u64 * 512;
                                apply(&mut inode.durable, &Unsynced::Write(at, sector.to_vec()));
                            }
                        }
                    }
                    length => {
                        if random.coin() {
                            apply(&mut inode.durable, &length);
                        }
                    }
                }
            }
            inode.live.clone_from(&inode.durable);
        }
        let World { durable_entries, unsynced_entries, .. } = &mut *world;
        for change in unsynced_entries.drain(..) {
            if random.coin() {
                change.apply(durable_entries);
            }
        }
        world.entries = world.durable_entries.clone();
    }

    /// Bytes that files may have in all.
    pub(super) fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    pub(super) fn used(&self) -> u64 {
        self.0.lock().used()
    }

    /// Whether all that is asked of it fails.
    pub(super) fn fail(&self, fails: bool) {
        self.0.lock().fails = fails;
    }

    /// Whether syncing an object's file fails.
    pub(super) fn fail_object_syncs(&self, fail: bool) {
        self.0.lock().fail_object_syncs = fail;
    }

    /// The next sync of all fails, and what was to be synced of objects is only in memory then.
    pub(super) fn lose_unsynced(&self) {
        self.0.lock().lose_unsynced = true;
    }

    /// Changes one byte of a file behind everybody's back.
    pub(super) fn flip(&self, path: &Path, offset: usize) {
        let mut world = self.0.lock();
        let inode = world.entries[path];
        world.inodes[inode].live[offset] ^= 0x55;
        if let Some(byte) = world.inodes[inode].durable.get_mut(offset) {
            *byte ^= 0x55;
        }
    }

    /// Removes a file behind everybody's back.
    pub(super) fn lose(&self, path: &Path) {
        let mut world = self.0.lock();
        world.entries.remove(path);
        world.durable_entries.remove(path);
    }

    /// Puts a file there, durably.
    pub(super) fn plant(&self, path: &Path, bytes: &[u8]) {
        let mut world = self.0.lock();
        let inode = world.inodes.len();
        world.inodes.push(Inode { live: bytes.to_vec(), durable: bytes.to_vec(), unsynced: vec![] });
        world.entries.insert(path.to_owned(), inode);
        world.durable_entries.insert(path.to_owned(), inode);
    }

    /// Names of all files below a directory.
    pub(super) fn files_below(&self, path: &Path) -> BTreeSet<PathBuf> {
        self.0.lock().entries.keys().filter(|entry| entry.starts_with(path)).cloned().collect()
    }
}

fn is_object(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "objects")
}

#[derive(Debug)]
struct FakeFileSystem {
    disk: FakeDisk,
    epoch: u64,
}

impl FileSystem for FakeFileSystem {
    fn sync(&self) -> io::Result<()> {
        let mut world = self.disk.0.lock();
        world.change(self.epoch)?;
        let World { inodes, entries, durable_entries, unsynced_entries, lose_unsynced, .. } = &mut *world;
        if std::mem::take(lose_unsynced) {
            for inode in entries.iter().filter(|(path, _)| is_object(path)).map(|(_, inode)| *inode) {
                inodes[inode].unsynced.clear();
            }
            return Err(io::Error::from_raw_os_error(EIO));
        }
        for inode in inodes {
            for change in std::mem::take(&mut inode.unsynced) {
                apply(&mut inode.durable, &change);
            }
        }
        unsynced_entries.drain(..).for_each(|change| change.apply(durable_entries));
        Ok(())
    }
}

#[derive(Debug)]
struct FakeFile {
    disk: FakeDisk,
    epoch: u64,
    inode: usize,
    is_object: bool,
    past_cache: bool,
}

impl FakeFile {
    fn change(&self, change: Unsynced) -> io::Result<()> {
        let mut world = self.disk.0.lock();
        world.change(self.epoch)?;
        let end = match &change {
            Unsynced::Write(offset, data) => offset + data.len() as u64,
            Unsynced::Length(length) => *length,
        };
        let growth = end.saturating_sub(world.inodes[self.inode].live.len() as u64);
        if let Some(capacity) = world.capacity
            && growth > 0
            && world.used() + growth > capacity
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = &mut world.inodes[self.inode];
        apply(&mut inode.live, &change);
        inode.unsynced.push(change);
        Ok(())
    }
}

impl DiskFile for FakeFile {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut world = self.disk.0.lock();
        world.enter(self.epoch)?;
        let inode = &world.inodes[self.inode];
        let mut on_disk = Vec::new();
        if self.past_cache {
            // What is still to be written is written first.
            on_disk.clone_from(&inode.durable);
            inode.unsynced.iter().for_each(|change| apply(&mut on_disk, change));
        }
        let seen = if self.past_cache { &on_disk } else { &inode.live };
        let start = offset as usize;
        let bytes = seen.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Unsynced::Write(offset, data.to_vec()))
    }

    fn len(&self) -> io::Result<u64> {
        let mut world = self.disk.0.lock();
        world.enter(self.epoch)?;
        Ok(world.inodes[self.inode].live.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Unsynced::Length(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = self.disk.0.lock();
        world.change(self.epoch)?;
        if self.is_object && world.fail_object_syncs {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let inode = &mut world.inodes[self.inode];
        for change in std::mem::take(&mut inode.unsynced) {
            apply(&mut inode.durable, &change);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct FakeLock {
    disk: FakeDisk,
    epoch: u64,
    path: PathBuf,
}

impl DirectoryLock for FakeLock {}

impl Drop for FakeLock {
    fn drop(&mut self) {
        let mut world = self.disk.0.lock();
        if world.epoch == self.epoch {
            world.locked.remove(&self.path);
        }
    }
}

impl FakeDisk {
    fn handle(&self, world: &World, path: &Path, inode: usize) -> FakeFile {
        let is_object = is_object(path);
        FakeFile { disk: self.clone(), epoch: world.epoch, inode, is_object, past_cache: false }
    }

    fn opened(&self, path: &Path) -> io::Result<FakeFile> {
        let world = self.world()?;
        let inode = world.entries.get(path).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(&world, path, inode))
    }
}

impl Disk for FakeDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<(Arc<dyn DiskFile>, bool)> {
        let mut world = self.world()?;
        if let Some(inode) = world.entries.get(path).copied() {
            return Ok((Arc::new(self.handle(&world, path, inode)), false));
        }
        if !create {
            return Err(io::ErrorKind::NotFound.into());
        }
        let epoch = world.epoch;
        world.change(epoch)?;
        let inode = world.inodes.len();
        world.inodes.push(Inode::default());
        world.change_entry(EntryChange::Add(path.to_owned(), inode));
        Ok((Arc::new(self.handle(&world, path, inode)), true))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(self.opened(path)?))
    }

    fn open_past_cache(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FakeFile { past_cache: true, ..self.opened(path)? }))
    }

    fn make_dir(&self, _: &Path) -> io::Result<()> {
        self.changing().map(|_| ())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.changing()?;
        let World { durable_entries, unsynced_entries, .. } = &mut *world;
        unsynced_entries.retain(|change| {
            let is_here = change.directory() == Some(path);
            if is_here {
                change.apply(durable_entries);
            }
            !is_here
        });
        Ok(())
    }

    fn file_system(&self, _: &Path) -> io::Result<Box<dyn FileSystem>> {
        let epoch = self.world()?.epoch;
        Ok(Box::new(FakeFileSystem { disk: self.clone(), epoch }))
    }

    fn remove(&self, path: &Path) -> io::Result<bool> {
        let mut world = self.changing()?;
        let is_there = world.entries.contains_key(path);
        if is_there {
            world.change_entry(EntryChange::Remove(path.to_owned()));
        }
        Ok(is_there)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.changing()?;
        let inode = world.entries.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        world.change_entry(EntryChange::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let world = self.world()?;
        let here = world.entries.keys().filter(|entry| entry.parent() == Some(path));
        Ok(here.filter_map(|entry| entry.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn space(&self, _: &Path) -> io::Result<SpaceFacts> {
        let world = self.world()?;
        let total_bytes = world.capacity.unwrap_or(1 << 40);
        let free_bytes = total_bytes.saturating_sub(world.used());
        Ok(SpaceFacts { total_bytes, free_bytes, total_inodes: 0, free_inodes: 0 })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DirectoryLock>>> {
        let mut world = self.changing()?;
        let epoch = world.epoch;
        if !world.locked.insert(path.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Box::new(FakeLock { disk: self.clone(), epoch, path: path.to_owned() })))
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let world = self.world()?;
        let mut random = Random(world.epoch ^ world.inodes.len() as u64);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&random.next().to_le_bytes());
        bytes[8..].copy_from_slice(&random.next().to_le_bytes());
        Ok(bytes)
    }
}
