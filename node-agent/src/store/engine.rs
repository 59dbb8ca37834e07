//! One tier of the store behind its handle.

use super::StoreConfig;
use super::StoreIdentity;
use super::busy::Busy;
use super::commands::{Command, ManifestCommand, Reply};
use super::committer::Committer;
use super::disk::{DirectoryLock, Disk};
use super::error::StoreError;
use super::gate::Gate;
use super::health::Health;
use super::index::Index;
use super::inventory::Inventory;
use super::layout::Layout;
use super::manifests::{DecodedManifests, Manifests, Object};
use super::opening;
use super::rows::ManifestState;
use super::space::{Reservation, Space, Usage};
use super::stats::StoreStats;
use super::subscription::Feed;
use super::sweep;
use super::tier::TierId;
use super::unsynced::{self, Unsynced};
use hearth_core::block::{self, BlockNumber};
use hearth_core::evict::Room;
use hearth_core::manifest::{Manifest, ManifestHash, Selected};
use hearth_core::selection::Selection;
use hearth_core::wire::report::Holding;
use roaring::RoaringBitmap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Commands that may wait for the committer; whoever adds more waits.
const QUEUE: usize = 1024;
/// Blocks whose bytes are written at once, and synced, if they are: beyond four a disk
/// gets no faster, and eight hide the time between one and the next.
const WRITERS: usize = 8;
/// Longer than any commit of a disk that still works.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

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
    pub(super) unsynced: Unsynced,
    /// When it was opened, files were found to be other than they were written: links to them are left.
    pub(super) lost_files: bool,
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

pub(super) fn late() -> StoreError {
    StoreError::TimedOut { what: "a commit", seconds: PATIENCE.as_secs() }
}

/// A block and where it is.
pub(super) struct Place {
    pub(super) object: Arc<Object>,
    pub(super) number: BlockNumber,
    pub(super) bytes: Range<u64>,
}

/// An open tier.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) shared: Arc<Shared>,
    /// `None` only while closing.
    queue: Option<Queue>,
    threads: Vec<JoinHandle<()>>,
    pub(super) writers: Arc<Semaphore>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.unsynced.close();
        self.queue = None;
        // The last begun ends first: the others have senders, and the committer works
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
        let mut engine = Self { shared, queue: Some(queue), threads, writers };
        // Before any background work: what open promises is held when it returns.
        for hash in &unfinished.adopt_again {
            engine.adopt(hash)?;
        }
        // Not before: should that fail, the committer ends when nobody else has it.
        let queue = engine.queue()?.clone();
        let (shared, to_sync) = (Arc::clone(&engine.shared), queue.clone());
        engine.threads.push(spawn("hearth-sync", move || unsynced::run(&shared, &to_sync))?);
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

    pub(super) fn place(&self, hash: &ManifestHash, file: usize, block: u64) -> Result<Place, StoreError> {
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

    /// Returns when nothing is done in the background any more.
    #[cfg(test)]
    pub(super) fn finish_background_work(&mut self) {
        // The committer and who syncs go on.
        while self.threads.len() > 2 {
            self.threads.pop().into_iter().for_each(|thread| thread.join().unwrap());
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|error| StoreError::Index { why: format!("its thread {name} cannot be started: {error}") })
}
