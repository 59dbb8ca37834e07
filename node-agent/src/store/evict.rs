//! Giving up objects of adopted manifests, so that there is room for others. What goes is
//! decided elsewhere.

use super::commands::{BlockCommand, Command, Evict};
use super::engine::{Engine, Shared};
use super::error::StoreError;
use super::index::{Fault, Tables};
use super::manifests::Object;
use super::staging::{Places, Staging};
use hearth_core::evict::Amount;
use hearth_core::manifest::{Manifest, ManifestHash};
use hearth_core::object::ObjectId;
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Blocks, by the manifests that list them.
pub type BlockSets = BTreeMap<ManifestHash, RoaringBitmap>;

/// What was given up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evicted {
    /// Bytes that were held, and objects.
    pub amount: Amount,
    /// All blocks of these objects, held or not.
    pub blocks: BlockSets,
}

impl Evicted {
    /// Adds what was given up elsewhere. What was in two places is one object, and two times
    /// the bytes.
    pub fn add(&mut self, other: Self) {
        self.amount = self.amount.plus(other.amount);
        for (hash, blocks) in other.blocks {
            *self.blocks.entry(hash).or_default() |= blocks;
        }
    }
}

/// Objects that have no rows any more and that nobody writes until their files are unlinked, which they
/// are at the latest when this is dropped.
pub(super) struct Doomed {
    shared: Arc<Shared>,
    ids: Vec<ObjectId>,
}

impl Doomed {
    pub(super) fn new(shared: &Arc<Shared>, ids: Vec<ObjectId>) -> Self {
        Self { shared: Arc::clone(shared), ids }
    }

    /// Unlinks their files, and calls `pause` after each, while nobody waits to write one of them anew.
    fn unlink(mut self, pause: &mut dyn FnMut()) {
        // In the order of the files, as whoever fetches them again has it.
        self.ids.reverse();
        while let Some(id) = self.ids.pop() {
            self.shared.unlink(&id);
            if !self.shared.gate.is_awaited() {
                pause();
            }
        }
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        self.ids.iter().for_each(|id| self.shared.unlink(id));
    }
}

impl Shared {
    /// Unlinks the file of a doomed object, which may be written anew then.
    pub(super) fn unlink(&self, id: &ObjectId) {
        let path = self.layout.object(id);
        // What cannot be unlinked now is an orphan for the next sweep.
        if let Err(error) = self.disk.remove(&path) {
            tracing::warn!(path = %path.display(), %error, "an object's file cannot be removed");
        }
        self.gate.revive(id);
    }
}

impl Engine {
    pub(super) fn also_listed(
        &self,
        hash: &ManifestHash,
        files: &RoaringBitmap,
        other: &ManifestHash,
    ) -> Result<RoaringBitmap, StoreError> {
        let mut listed = RoaringBitmap::new();
        if hash == other || !self.shared.inventory.is_adopted(other) {
            return Ok(listed);
        }
        let manifest = self.adopted(hash)?;
        match self.shared.manifests.may_share(&manifest, other) {
            Ok(true) => {}
            // What cannot be read lists nothing any more.
            Ok(false) | Err(StoreError::Damaged { .. } | StoreError::Manifest { .. }) => return Ok(listed),
            Err(error) => return Err(error),
        }
        for file in files.iter().filter_map(|index| manifest.file(index as usize)) {
            if !self.shared.manifests.places(other, &Object::of(&manifest, &file))?.is_empty() {
                // A manifest has at most as many files with blocks as it has blocks.
                listed.insert(file.index as u32);
            }
        }
        Ok(listed)
    }

    /// Whether another manifest, which is stored here, may list objects of this one.
    pub(super) fn may_list(&self, manifest: &Manifest, other: &ManifestHash) -> bool {
        // What cannot be read lists nothing any more.
        self.shared.manifests.may_share(manifest, other).unwrap_or(false)
    }

    /// Whether any that is adopted here does.
    pub(super) fn may_share(&self, manifest: &Manifest) -> bool {
        self.shared.inventory.counting().iter().any(|other| self.may_list(manifest, other))
    }

    /// What other manifests hold that may list objects of this one.
    pub(super) fn held_by_sharers(&self, hash: &ManifestHash) -> Result<BlockSets, StoreError> {
        let manifest = self.adopted(hash)?;
        let mut sets = BlockSets::new();
        for (other, _) in self.manifests().into_iter().filter(|(other, _)| other != hash) {
            match self.shared.manifests.may_share(&manifest, &other) {
                Ok(true) => sets.extend(self.held(&other).map(|held| (other, held))),
                // What cannot be read lists nothing any more.
                Ok(false) | Err(StoreError::Damaged { .. } | StoreError::Manifest { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sets)
    }

    pub(super) fn evict(
        &self,
        hash: &ManifestHash,
        files: &[usize],
        stay: Arc<BlockSets>,
        pause: &mut dyn FnMut(),
    ) -> Result<Evicted, StoreError> {
        let manifest = self.adopted(hash)?;
        let files = files.iter().filter_map(|file| manifest.file(*file)).filter(|file| file.size > 0);
        let objects = files.map(|file| Arc::new(Object::of(&manifest, &file))).collect();
        let queue = self.queue()?;
        let (evicted, doomed) =
            queue.ask(|reply| Command::Block(BlockCommand::Evict(Evict { objects, stay, reply })))?;
        doomed.unlink(pause);
        Ok(evicted)
    }
}

/// Takes the rows of those objects that need not stay, and that `doom` says yes to:
/// nobody writes them, and from then on nobody does before their file is gone. Which these are, too.
pub(super) fn stage(
    staging: &mut Staging,
    tables: &mut Tables<'_>,
    evict: &Evict,
    places: &HashMap<ObjectId, Places>,
    mut doom: impl FnMut(ObjectId) -> bool,
) -> Result<(Evicted, Vec<ObjectId>), Fault> {
    let (mut evicted, mut gone) = (Evicted::default(), Vec::new());
    for object in &evict.objects {
        let blocks = blocks_of(object, &places[&object.id]);
        let stays = |(hash, blocks): (&ManifestHash, &RoaringBitmap)| {
            evict.stay.get(hash).is_some_and(|stay| !stay.is_disjoint(blocks))
        };
        if blocks.iter().any(stays) || !doom(object.id) {
            continue;
        }
        let before = staging.used;
        staging.take(tables, object, &places[&object.id])?;
        let bytes = before.saturating_sub(staging.used);
        evicted.amount = evicted.amount.plus(Amount { bytes, objects: 1 });
        gone.push(object.id);
        for (hash, blocks) in blocks {
            *evicted.blocks.entry(hash).or_default() |= blocks;
        }
    }
    Ok((evicted, gone))
}

fn blocks_of(object: &Object, places: &Places) -> BlockSets {
    let mut sets = BlockSets::new();
    for (hash, first_blocks) in places {
        let set = sets.entry(*hash).or_default();
        for first in first_blocks {
            // Within the manifest's numbers, as the file has these blocks.
            set.insert_range(*first..*first + object.blocks() as u32);
        }
    }
    sets
}
