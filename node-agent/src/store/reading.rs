//! Reading blocks, each against the checksum with which it was written. What does not read back
//! is given up.

use super::commands::{BlockCommand, Command, GiveUp};
use super::disk::{DiskFile, is_absent};
use super::engine::{Engine, Place};
use super::error::StoreError;
use super::rows::{self, BLOCKS_PER_ROW, DamagedRow};
use super::stats::count;
use hearth_core::block::BlockNumber;
use hearth_core::manifest::ManifestHash;
use std::io;
use std::path::Path;
use std::sync::Arc;

impl Engine {
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
    pub(super) fn checked(
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

    /// What a reader does that has not found what it knew to be held.
    #[cfg(test)]
    pub(super) fn give_up_now(&self, hash: ManifestHash, file: usize, block: u64) {
        let place = self.place(&hash, file, block).unwrap();
        self.give_up(place, block, None, true).unwrap();
    }
}

/// Whether a failed read says that the bytes are lost, rather than that the
/// process ran out of something.
pub(super) fn is_loss(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    error.kind() == io::ErrorKind::UnexpectedEof || error.raw_os_error() == Some(EIO)
}
