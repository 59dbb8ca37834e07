//! Retiring manifests: out of the inventory first, bytes after.

use super::commands::{BlockCommand, Command, Free, ManifestCommand};
use super::engine::{Engine, Queue, Shared};
use super::error::StoreError;
use super::manifests::Object;
use hearth_core::manifest::{File, ManifestHash};
use roaring::RoaringBitmap;
use std::sync::Arc;

/// Objects freed in one transaction.
const OBJECTS_AT_ONCE: usize = 512;

impl Engine {
    pub(super) fn retire(&self, hash: &ManifestHash) -> Result<(), StoreError> {
        let (shared, queue) = (&self.shared, self.queue()?);
        let _turn = shared.busy.turn(hash)?;
        self.settle()?;
        if shared.inventory.state(hash).is_none() {
            return Ok(());
        }
        let held = shared.inventory.with_adopted(hash, Clone::clone);
        let hash = *hash;
        queue.ask_manifest(|reply| ManifestCommand::BeginRetiring { hash, reply })?;
        free(shared, queue, &hash, held.as_ref())
    }
}

/// Frees the objects of a manifest that is being retired, all that are held or
/// only those of the blocks `held`, and forgets it. The caller has its turn.
pub(super) fn free(
    shared: &Shared,
    queue: &Queue,
    hash: &ManifestHash,
    held: Option<&RoaringBitmap>,
) -> Result<(), StoreError> {
    match shared.manifests.load(hash) {
        Ok(Some(manifest)) => {
            let is_held = |file: &File<'_>| {
                let holds_some = held.is_none_or(|held| held.range_cardinality(file.blocks()) > 0);
                holds_some && file.size > 0 && !file.unlisted
            };
            let mut files = manifest.files().filter(is_held).peekable();
            while files.peek().is_some() {
                if shared.is_closing() {
                    return Err(StoreError::Closed);
                }
                let group = files.by_ref().take(OBJECTS_AT_ONCE);
                let objects = group.map(|file| Arc::new(Object::of(&manifest, &file))).collect();
                queue.ask(|reply| Command::Block(BlockCommand::Free(Free { objects, reply })))?;
            }
            let hash = *hash;
            queue.ask_manifest(|reply| ManifestCommand::FinishRetiring { hash, reply })?;
        }
        Ok(None) | Err(StoreError::Damaged { .. } | StoreError::Manifest { .. }) => {
            let hash = *hash;
            queue.ask_manifest(|reply| ManifestCommand::Lose { hash, reply })?;
        }
        Err(error) => return Err(error),
    }
    shared.manifests.remove(hash)
}
