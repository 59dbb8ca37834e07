//! Writing blocks: the bytes by who writes, and what is known of them by the committer.

use super::commands::{BlockCommand, Command, Reply, Write, Written};
use super::disk::DiskFile;
use super::engine::{Engine, PATIENCE, late};
use super::error::StoreError;
use super::manifests::Object;
use super::stats::count;
use bytes::Bytes;
use hearth_core::manifest::ManifestHash;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use tokio::sync::oneshot;

/// How often a write begins again because its object's file was given up.
const ATTEMPTS: usize = 5;

impl Engine {
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
                    false,
                    Box::new(move |result| _ = sender.send(result)),
                );
                begun.inspect_err(|error| engine.shared.note_failure(error))
            });
            started.await.map_err(|_| StoreError::Closed)??;
            let written = tokio::time::timeout(PATIENCE, written).await.map_err(|_| late())?;
            if written.map_err(|_| StoreError::Closed)?? == Written::Kept {
                return Ok(());
            }
        }
        Err(given_up())
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
            let begun = self.begin_write(
                hash,
                file,
                block,
                data,
                true,
                Box::new(move |result| _ = sender.send(result)),
            );
            begun.inspect_err(|error| self.shared.note_failure(error))?;
            let written = written.recv_timeout(PATIENCE).map_err(|error| match error {
                RecvTimeoutError::Timeout => late(),
                RecvTimeoutError::Disconnected => StoreError::Closed,
            })?;
            if written? == Written::Kept {
                return Ok(());
            }
        }
        Err(given_up())
    }

    /// Writes the bytes and hands them to the committer, which replies.
    fn begin_write(
        &self,
        hash: ManifestHash,
        file: usize,
        block: u64,
        data: &[u8],
        awaited: bool,
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
                reply(Ok(Written::Kept));
                return Ok(());
            }
        }
        let opened = self.shared.gate.file(&pass, || self.open_object(&object))?;
        let unsynced = self.shared.unsynced.takes_more();
        let path = self.shared.layout.object(&object.id);
        let written = || {
            opened.write_at(place.bytes.start, data)?;
            if unsynced {
                return Ok(());
            }
            opened.sync_data()?;
            // Whoever made the file may not have synced it. After the data: the file system's journal
            // has the entry by then.
            self.shared.disk.sync_dir(&self.shared.layout.object_dir(&object.id))
        };
        if let Err(error) = written() {
            let error = StoreError::io(&path, error);
            if error.is_no_space() {
                count(&self.shared.stats.no_space, 1);
            }
            return Err(error);
        }
        let write = Write { object, manifest: hash, block, length, sum, unsynced, awaited, pass, reply };
        self.queue()?.send(Command::Block(BlockCommand::Write(write)))
    }

    /// Opens an object's file to write. One that is there without a row was left by
    /// a crash: somebody may still read it, and it may have been whole, so it is
    /// replaced.
    fn open_object(&self, object: &Object) -> Result<Arc<dyn DiskFile>, StoreError> {
        let path = self.shared.layout.object(&object.id);
        let fail = |error| StoreError::io(&path, error);
        let disk = &self.shared.disk;
        let (mut file, is_new) = disk.open(&path, true).map_err(fail)?;
        if !is_new && !self.shared.index.has_object(&object.id)? {
            disk.remove(&path).map_err(fail)?;
            file = disk.open(&path, true).map_err(fail)?.0;
        }
        // One that is known and new was removed by somebody. Its blocks are given
        // up as they are read.
        Ok(file)
    }
}

fn given_up() -> StoreError {
    StoreError::TimedOut { what: "a write of an object that keeps being given up", seconds: 0 }
}
