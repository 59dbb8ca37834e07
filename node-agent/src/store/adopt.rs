//! Putting and adopting manifests.

use super::commands::ManifestCommand;
use super::engine::{Engine, Shared};
use super::error::StoreError;
use super::retire;
use super::rows::ManifestState;
use hearth_core::block::BlockNumber;
use hearth_core::manifest::{Manifest, ManifestHash};
use roaring::RoaringBitmap;

/// Files looked up in one read of the index, between which a commit may reopen it.
const FILES_AT_ONCE: usize = 1024;

impl Engine {
    pub(super) fn put_manifest(
        &self,
        hash: ManifestHash,
        dataset: &str,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let (shared, queue) = (&self.shared, self.queue()?);
        let _turn = shared.busy.turn(&hash)?;
        self.settle()?;
        if let Some((ManifestState::Retiring, _)) = shared.inventory.state(&hash) {
            retire::free(shared, queue, &hash, None)?;
        }
        match shared.inventory.state(&hash) {
            Some((_, known)) if known == dataset => Ok(()),
            known => {
                if known.is_none() {
                    shared.manifests.store(&hash, bytes)?;
                }
                let dataset = dataset.to_owned();
                queue.ask_manifest(|reply| ManifestCommand::Put { hash, dataset, reply })
            }
        }
    }

    /// Shows a stored manifest with what is held of its objects.
    pub(super) fn adopt(&self, hash: &ManifestHash) -> Result<(), StoreError> {
        let (shared, queue) = (&self.shared, self.queue()?);
        let _turn = shared.busy.turn(hash)?;
        self.settle()?;
        if shared.inventory.is_adopted(hash) {
            return Ok(());
        }
        let unknown = || StoreError::UnknownManifest(*hash);
        shared.inventory.state(hash).ok_or_else(unknown)?;
        let manifest = shared.manifests.load(hash)?.ok_or_else(unknown)?;
        let hash = *hash;
        queue.ask_manifest(|reply| ManifestCommand::BeginAdopting { hash, reply })?;
        let adopted = held_of(shared, &manifest).and_then(|found| {
            queue.ask_manifest(|reply| ManifestCommand::FinishAdopting { hash, found, reply })
        });
        if adopted.is_err() {
            shared.inventory.cancel_adopting(&hash);
        }
        adopted
    }
}

/// The blocks of a manifest whose objects have them, from the object rows.
fn held_of(shared: &Shared, manifest: &Manifest) -> Result<RoaringBitmap, StoreError> {
    let mut held = RoaringBitmap::new();
    let mut files = manifest.files().filter(|file| file.size > 0 && !file.unlisted).peekable();
    while files.peek().is_some() {
        if shared.is_closing() {
            return Err(StoreError::Closed);
        }
        let mut group: Vec<_> =
            files.by_ref().take(FILES_AT_ONCE).map(|file| (manifest.object_id(&file), file)).collect();
        // In the order of the rows: neighbours share pages.
        group.sort_unstable_by_key(|(id, _)| *id);
        shared.index.rows_of(&group, |file, first, row| {
            let number = file.first_block + first as BlockNumber;
            let sums = row.sums.iter().zip(number..file.blocks().end);
            held.extend(sums.filter(|(sum, _)| sum.is_some()).map(|(_, number)| number));
        })?;
    }
    Ok(held)
}
