//! One tier of the store behind its handle: opening, reading and writing.

use super::StoreConfig;
use super::StoreIdentity;
use super::busy::Busy;
use super::commands::{BlockCommand, Command, GiveUp, ManifestCommand, Reply, Write, Written};
use super::committer::Committer;
use super::disk::{DirectoryLock, Disk, DiskFile, is_absent};
use super::error::StoreError;
use super::gate::{Gate, OpenObject};
use super::health::Health;
use super::index::Index;
use super::inventory::Inventory;
use super::layout::Layout;
use super::manifests::{DecodedManifests, Manifests, Object};
use super::opening;
use super::rows::{self, BLOCKS_PER_ROW, DamagedRow, ManifestState};
use super::space::{Reservation, Space, Usage};
use super::stats::{StoreStats, count};
use super::subscription::Feed;
use super::sweep;
use super::tier::TierId;
use bytes::Bytes;
use hearth_core::block::{self, BlockNumber};
use hearth_core::evict::Room;
use hearth_core::manifest::{Manifest, ManifestHash, Selected};
use hearth_core::selection::Selection;
use hearth_core::wire::report::Holding;
use roaring::RoaringBitmap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// Commands that may wait for the committer; whoever adds more waits.
const QUEUE: usize = 1024;
/// Blocks whose bytes are written and synced at once: beyond four a disk gets no
/// faster, and eight hide the time between one and the next.
const WRITERS: usize = 8;
/// Longer than any commit of a disk that still works.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often a write begins again because its object's file was given up.
const ATTEMPTS: usize = 5;

/// What the tiers of one store have in common.
#[derive(Debug, Default)]
pub(super) struct Common {
    /// Which of them is opened.
    pub(super) tier: TierId,
    pub(super) decoded: Arc<DecodedManifests>,
    pub(super) stats: Arc<StoreStats>,
}

/// What all threads of a tier share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) layout: Layout,
    pub(super) index: Index,
    pub(super) inventory: Inventory,
    pub(super) manifests: Manifests,
    pub(super) gate: Arc<Gate>,
    pub(super) busy: Arc<Busy>,
    pub(super) space: Arc<Space>,
    pub(super) health: Health,
    pub(super) stats: Arc<StoreStats>,
    pub(super) identity: StoreIdentity,
    /// Set when the store closes: background work ends soon.
    pub(super) closing: AtomicBool,
    /// Last, so that it outlives the index.
    pub(super) _lock: Box<dyn DirectoryLock>,
}

impl Shared {
    /// Leaves word for the next open to read the whole index, if it seems damaged.
    pub(super) fn suspect_if_damaged(&self, error: &StoreError) {
        if matches!(error, StoreError::Damaged { .. }) {
            let mark = || {
                self.disk.open(&self.layout.suspicion(), true)?;
                self.disk.sync_dir(self.layout.root())
            };
            if let Err(error) = mark() {
                tracing::warn!(%error, "the index seems damaged, and that cannot be noted");
            }
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}

/// The way to the committer.
#[derive(Clone, Debug)]
pub(super) struct Queue(SyncSender<Command>);

impl Queue {
    pub(super) fn send(&self, command: Command) -> Result<(), StoreError> {
        self.0.send(command).map_err(|_| StoreError::Closed)
    }

    /// Sends a command and waits for its answer.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, StoreError> {
        let (sender, answer) = mpsc::sync_channel(1);
        // Nobody waits any more once this function has given up.
        self.send(command(Box::new(move |result| _ = sender.send(result))))?;
        match answer.recv_timeout(PATIENCE) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err(late()),
            Err(RecvTimeoutError::Disconnected) => Err(StoreError::Closed),
        }
    }

    pub(super) fn ask_manifest<T: Send + 'static>(
        &self,
        command: impl FnOnce(Reply<T>) -> ManifestCommand,
    ) -> Result<T, StoreError> {
        self.ask(|reply| Command::Manifest(command(reply)))
    }
}

fn given_up() -> StoreError {
    StoreError::TimedOut { what: "a write of an object that keeps being given up", seconds: 0 }
}

fn late() -> StoreError {
    StoreError::TimedOut { what: "a commit", seconds: PATIENCE.as_secs() }
}

/// A block and where it is.
struct Place {
    object: Arc<Object>,
    number: BlockNumber,
    bytes: Range<u64>,
}

/// An open tier.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) shared: Arc<Shared>,
    /// `None` only while closing.
    queue: Option<Queue>,
    threads: Vec<JoinHandle<()>>,
    writers: Arc<Semaphore>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        self.queue = None;
        // The last begun ends first: the sweep has a sender, and the committer works
        // until all are gone. A thread that panicked has said so already.
        while let Some(thread) = self.threads.pop() {
            let _ = thread.join();
        }
    }
}

impl Engine {
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        config: &StoreConfig,
        common: &Common,
    ) -> Result<Self, StoreError> {
        let (shared, unfinished) = opening::open(disk, config, common)?;
        let (sender, receiver) = mpsc::sync_channel(QUEUE);
        let queue = Queue(sender);
        let committer = Committer::new(Arc::clone(&shared), receiver);
        let threads = vec![spawn("hearth-committer", move || committer.run())?];
        let writers = Arc::new(Semaphore::new(WRITERS));
        let mut engine = Self { shared, queue: Some(queue.clone()), threads, writers };
        // Before any background work: what open promises is held when it returns.
        for hash in &unfinished.adopt_again {
            engine.adopt(hash)?;
        }
        let shared = Arc::clone(&engine.shared);
        engine.threads.push(spawn("hearth-sweep", move || sweep::run(&shared, &queue, unfinished.collect))?);
        Ok(engine)
    }

    pub(super) fn queue(&self) -> Result<&Queue, StoreError> {
        self.queue.as_ref().ok_or(StoreError::Closed)
    }

    pub(super) fn identity(&self) -> StoreIdentity {
        self.shared.identity
    }

    pub(super) fn manifest(&self, hash: &ManifestHash) -> Result<Option<Arc<Manifest>>, StoreError> {
        match self.shared.inventory.state(hash) {
            Some(_) => self.shared.manifests.load(hash),
            None => Ok(None),
        }
    }

    pub(super) fn manifest_bytes(&self, hash: &ManifestHash) -> Result<Option<Vec<u8>>, StoreError> {
        match self.shared.inventory.state(hash) {
            Some(_) => self.shared.manifests.bytes(hash),
            None => Ok(None),
        }
    }

    pub(super) fn manifests(&self) -> Vec<(ManifestHash, String)> {
        self.shared.inventory.manifests()
    }

    /// Whether a manifest is stored here, adopted or not.
    pub(super) fn is_stored(&self, hash: &ManifestHash) -> bool {
        self.shared.inventory.state(hash).is_some_and(|(state, _)| state != ManifestState::Retiring)
    }

    pub(super) fn is_adopted(&self, hash: &ManifestHash) -> bool {
        self.shared.inventory.is_adopted(hash)
    }

    pub(super) fn missing(
        &self,
        hash: &ManifestHash,
        selection: &Selection,
    ) -> Result<RoaringBitmap, StoreError> {
        // Readers are served on when the disk fails, as long as somebody has the manifest.
        let manifest = self.adopted(hash).or_else(|error| match error.is_disks() {
            true => self.shared.manifests.load(hash)?.ok_or(error),
            false => Err(error),
        })?;
        let selected = Selected::find(&manifest, selection);
        let held = self.shared.inventory.shown(hash).ok_or(StoreError::UnknownManifest(*hash))?;
        Ok(selected.missing(&manifest, &held))
    }

    pub(super) fn held(&self, hash: &ManifestHash) -> Option<RoaringBitmap> {
        self.shared.inventory.shown(hash)
    }

    pub(super) fn holds(&self, hash: &ManifestHash, number: BlockNumber) -> bool {
        self.shared.inventory.shows(hash, number)
    }

    pub(super) fn whole_file(&self, hash: &ManifestHash, file: usize) -> Result<Option<PathBuf>, StoreError> {
        let manifest = self.adopted(hash)?;
        let Some(file) = manifest.file(file).filter(|file| file.size > 0) else { return Ok(None) };
        let whole = self.shared.inventory.shows_all(hash, file.blocks());
        Ok(whole.then(|| self.shared.layout.object(&manifest.object_id(&file))))
    }

    pub(super) fn reserve(&self, bytes: u64) -> Result<Reservation, StoreError> {
        self.shared.space.reserve(bytes)
    }

    /// What is held now; every change from there on goes to the feed.
    pub(super) fn follow(&self, feed: &Arc<Feed>) -> Vec<Holding> {
        self.shared.inventory.follow(feed)
    }

    pub(super) fn room(&self, late: u64) -> Result<Room, StoreError> {
        self.shared.space.room(late)
    }

    pub(super) fn room_of_held(&self, late: u64) -> Result<Room, StoreError> {
        self.shared.space.room_of_held(late)
    }

    pub(super) fn usage(&self) -> Result<Usage, StoreError> {
        self.shared.space.usage()
    }

    /// Makes sure that what memory says is what the disk has: after a failed commit
    /// nobody knows which of the two states is durable until the index is read again.
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        match self.shared.index.is_open() {
            true => Ok(()),
            false => self.queue()?.ask_manifest(|reply| ManifestCommand::Settle { reply }),
        }
    }

    /// The manifest, which is to be adopted.
    pub(super) fn adopted(&self, hash: &ManifestHash) -> Result<Arc<Manifest>, StoreError> {
        self.settle()?;
        let unknown = StoreError::UnknownManifest(*hash);
        if !self.shared.inventory.is_adopted(hash) {
            return Err(unknown);
        }
        let error = match self.shared.manifests.load(hash) {
            Ok(Some(manifest)) => return Ok(manifest),
            Ok(None) => unknown,
            Err(error @ (StoreError::Damaged { .. } | StoreError::Manifest { .. })) => error,
            Err(error) => return Err(error),
        };
        // It is claimed, and cannot be: nothing of it can be read any more.
        self.queue()?.ask_manifest(|reply| ManifestCommand::Lose { hash: *hash, reply })?;
        Err(error)
    }

    fn place(&self, hash: &ManifestHash, file: usize, block: u64) -> Result<Place, StoreError> {
        let manifest = self.adopted(hash)?;
        let none = |why: String| StoreError::NoSuchBlock { manifest: *hash, why };
        let files = manifest.file_count();
        let file =
            manifest.file(file).ok_or_else(|| none(format!("file {file} of {files} was asked for")))?;
        if file.unlisted {
            return Err(none(format!("the file {} is unlisted, and never kept", file.index)));
        }
        let blocks = block::blocks_in(file.size);
        if block >= blocks {
            return Err(none(format!("block {block} of {blocks} was asked for")));
        }
        Ok(Place {
            object: Arc::new(Object::of(&manifest, &file)),
            // Within the manifest's numbers, as the file has this block.
            number: file.first_block + block as BlockNumber,
            bytes: block::byte_range(file.size, block),
        })
    }

    pub(super) async fn write_block(
        this: &Arc<Self>,
        hash: ManifestHash,
        file: usize,
        block: u64,
        data: Bytes,
    ) -> Result<(), StoreError> {
        for _ in 0..ATTEMPTS {
            let (sender, written) = oneshot::channel();
            let permit = Arc::clone(&this.writers).acquire_owned().await.map_err(|_| StoreError::Closed)?;
            let (engine, data) = (Arc::clone(this), data.clone());
            let started = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                // Nobody waits any more when the future was dropped.
                let begun = engine.begin_write(
                    hash,
                    file,
                    block,
                    &data,
                    Box::new(move |result| _ = sender.send(result)),
                );
                begun.inspect_err(|error| engine.shared.note_failure(error))
            });
            started.await.map_err(|_| StoreError::Closed)??;
            let written = tokio::time::timeout(PATIENCE, written).await.map_err(|_| late())?;
            if written.map_err(|_| StoreError::Closed)?? == Written::Durable {
                return Ok(());
            }
        }
        Err(given_up())
    }

    /// Returns when nothing is done in the background any more.
    #[cfg(test)]
    pub(super) fn finish_background_work(&mut self) {
        while self.threads.len() > 1 {
            self.threads.pop().into_iter().for_each(|thread| thread.join().unwrap());
        }
    }

    /// [`Engine::write_block`] for threads that may block.
    pub(super) fn write_block_now(
        &self,
        hash: ManifestHash,
        file: usize,
        block: u64,
        data: &[u8],
    ) -> Result<(), StoreError> {
        for _ in 0..ATTEMPTS {
            let (sender, written) = mpsc::sync_channel(1);
            let begun =
                self.begin_write(hash, file, block, data, Box::new(move |result| _ = sender.send(result)));
            begun.inspect_err(|error| self.shared.note_failure(error))?;
            let written = written.recv_timeout(PATIENCE).map_err(|error| match error {
                RecvTimeoutError::Timeout => late(),
                RecvTimeoutError::Disconnected => StoreError::Closed,
            })?;
            if written? == Written::Durable {
                return Ok(());
            }
        }
        Err(given_up())
    }

    /// What a reader does that has not found what it knew to be held.
    #[cfg(test)]
    pub(super) fn give_up_now(&self, hash: ManifestHash, file: usize, block: u64) {
        let place = self.place(&hash, file, block).unwrap();
        self.give_up(place, block, None, true).unwrap();
    }

    /// Makes the bytes durable and hands them to the committer, which replies.
    fn begin_write(
        &self,
        hash: ManifestHash,
        file: usize,
        block: u64,
        data: &[u8],
        reply: Reply<Written>,
    ) -> Result<(), StoreError> {
        let place = self.place(&hash, file, block)?;
        let length = place.bytes.end - place.bytes.start;
        if data.len() as u64 != length {
            let why = format!("{} bytes were given for a block of {length}", data.len());
            return Err(StoreError::NoSuchBlock { manifest: hash, why });
        }
        let sum = crc32c::crc32c(data);
        let object = place.object;
        let pass = self.shared.gate.enter(object.id, block)?;
        let inventory = &self.shared.inventory;
        if inventory.holds(&hash, place.number) == Some(true) {
            // One that could not be read is looked at again: a whole file is never written.
            let is_there = inventory.shows(&hash, place.number) || {
                let read = self.checked(&hash, file, block, |path| self.shared.disk.open_past_cache(path))?;
                read.inspect(|_| inventory.withhold(&hash, place.number, false)).is_some()
            };
            if is_there {
                reply(Ok(Written::Durable));
                return Ok(());
            }
        }
        let opened = self.shared.gate.file(&pass, || self.open_object(&object))?;
        let path = self.shared.layout.object(&object.id);
        let written = || {
            opened.file.write_at(place.bytes.start, data)?;
            opened.file.sync_data()?;
            match opened.is_new {
                // After the data: the file system's journal has the entry by then.
                true => self.shared.disk.sync_dir(&self.shared.layout.object_dir(&object.id)),
                false => Ok(()),
            }
        };
        if let Err(error) = written() {
            let error = StoreError::io(&path, error);
            if error.is_no_space() {
                count(&self.shared.stats.no_space, 1);
            }
            return Err(error);
        }
        let write = Write { object, manifest: hash, block, length, sum, pass, reply };
        self.queue()?.send(Command::Block(BlockCommand::Write(write)))
    }

    /// Opens an object's file to write. One that is there without a row was left by
    /// a crash: somebody may still read it, and it may have been whole, so it is
    /// replaced.
    fn open_object(&self, object: &Object) -> Result<OpenObject, StoreError> {
        let path = self.shared.layout.object(&object.id);
        let fail = |error| StoreError::io(&path, error);
        let disk = &self.shared.disk;
        let is_known = self.shared.index.has_object(&object.id)?;
        let (mut file, is_new) = disk.open(&path, true).map_err(fail)?;
        if !is_known && !is_new {
            disk.remove(&path).map_err(fail)?;
            file = disk.open(&path, true).map_err(fail)?.0;
        }
        // One that is known and new was removed by somebody. Its blocks are given
        // up as they are read.
        Ok(OpenObject { file, is_new: is_new || !is_known })
    }

    pub(super) fn read_block(
        &self,
        hash: &ManifestHash,
        file: usize,
        block: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let data = match self.checked(hash, file, block, |path| self.shared.disk.open_to_read(path)) {
            Err(error) if error.is_disks() => {
                self.shared.note_failure(&error);
                tracing::warn!(manifest = %hash, file, block, "a block cannot be read, and counts as missing: {error}");
                self.withhold(hash, file, block);
                None
            }
            read => read?,
        };
        if let Some(data) = &data {
            self.shared.health.worked();
            count(&self.shared.stats.blocks_read, 1);
            count(&self.shared.stats.bytes_read, data.len() as u64);
        }
        Ok(data)
    }

    /// Shows a block as missing that the disk does not give, and whose loss the index does not note.
    fn withhold(&self, hash: &ManifestHash, file: usize, block: u64) {
        // Not by `place`, which asks the index.
        let Ok(Some(manifest)) = self.shared.manifests.load(hash) else { return };
        let Some(file) = manifest.file(file) else { return };
        self.shared.inventory.withhold(hash, file.first_block + block as BlockNumber, true);
    }

    pub(super) fn verify_block(
        &self,
        hash: &ManifestHash,
        file: usize,
        block: u64,
    ) -> Result<Option<u64>, StoreError> {
        let data = self.checked(hash, file, block, |path| self.shared.disk.open_past_cache(path))?;
        Ok(data.map(|data| {
            self.shared.health.worked();
            data.len() as u64
        }))
    }

    /// The bytes of a held block that have the checksum with which they were written.
    fn checked(
        &self,
        hash: &ManifestHash,
        file: usize,
        block: u64,
        open: impl FnOnce(&Path) -> io::Result<Arc<dyn DiskFile>>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let place = self.place(hash, file, block)?;
        if self.shared.inventory.holds(hash, place.number) != Some(true) {
            return Ok(None);
        }
        let key = rows::object_key(&place.object.id, block);
        let row =
            self.shared.index.object_row(&key).inspect_err(|error| self.shared.suspect_if_damaged(error))?;
        let slot = (block % BLOCKS_PER_ROW) as usize;
        let (sum, entire) = match row {
            Some(Ok(row)) => (row.sums.get(slot).copied().flatten(), false),
            Some(Err(DamagedRow)) => {
                count(&self.shared.stats.rows_damaged, 1);
                (None, true)
            }
            None => (None, true),
        };
        let Some(sum) = sum else { return self.give_up(place, block, None, entire) };
        let mut data = vec![0; (place.bytes.end - place.bytes.start) as usize];
        let path = self.shared.layout.object(&place.object.id);
        match open(&path).and_then(|opened| opened.read_at(place.bytes.start, &mut data)) {
            Ok(()) if crc32c::crc32c(&data) == sum => Ok(Some(data)),
            Ok(()) => self.give_up(place, block, Some(sum), false),
            Err(error) if is_absent(&error) => self.give_up(place, block, Some(sum), true),
            Err(error) if is_loss(&error) => {
                self.shared.note_failure(&StoreError::io(&path, error));
                self.give_up(place, block, Some(sum), false)
            }
            Err(error) => Err(StoreError::io(&path, error)),
        }
    }

    /// Drops a block that does not read back. Evicted or removed meanwhile by someone else
    /// is fine too: the committer looks again.
    fn give_up(
        &self,
        place: Place,
        block: u64,
        sum: Option<u32>,
        entire: bool,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let object = place.object;
        self.queue()?.ask(|reply| {
            Command::Block(BlockCommand::GiveUp(GiveUp { object, block, sum, entire, reply }))
        })?;
        Ok(None)
    }
}

/// Whether a failed read says that the bytes are lost, rather than that the
/// process ran out of something.
fn is_loss(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    error.kind() == io::ErrorKind::UnexpectedEof || error.raw_os_error() == Some(EIO)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|error| StoreError::Index { why: format!("its thread {name} cannot be started: {error}") })
}
