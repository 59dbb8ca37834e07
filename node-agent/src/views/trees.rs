//! The trees of all versions that the store knows, those of each tier on its own file system.
//! They grow while files become whole, so that publishing a volume has nothing left to link.

use super::error::ViewError;
use super::tier_trees::{Key, TierTrees, indices};
use crate::store::{Store, Subscription, Taken, Tier, TierId};
use hearth_core::manifest::{Manifest, ManifestHash};
use hearth_core::wire::report::Change;
use roaring::RoaringBitmap;
use std::path::{Path, PathBuf};

/// The trees of a store.
pub(super) struct Trees {
    store: Store,
    /// By the ids of the tiers.
    of_tiers: Vec<TierTrees>,
}

impl Trees {
    /// Those of the store's home are below `directory`, those of other tiers in these.
    /// `keep` says which trees are of use: all others that are there go.
    pub(super) fn open(store: Store, directory: &Path, keep: &[Key]) -> Result<Self, ViewError> {
        let home = store.home().id();
        let open = |tier: &Tier| {
            let directory = match tier.id() == home {
                true => directory.to_owned(),
                false => tier.directory().join("views"),
            };
            TierTrees::open(tier.clone(), &directory.join("trees"), &directory.join("scratch"), keep)
        };
        let of_tiers = store.tiers().iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { store, of_tiers })
    }

    /// The trees of one tier.
    pub(super) fn of(&self, tier: TierId) -> &TierTrees {
        &self.of_tiers[tier.index()]
    }

    /// The trees of tiers whose disks work.
    fn working(&self) -> impl Iterator<Item = &TierTrees> {
        self.of_tiers.iter().filter(|trees| trees.tier().works())
    }

    /// Where the tree of a version's part may be, whether it is there or not.
    pub(super) fn places(&self, hash: ManifestHash, globs: &[String]) -> impl Iterator<Item = PathBuf> {
        self.of_tiers.iter().map(move |trees| trees.place(hash, globs))
    }

    /// Nobody shows this part any more. The tree of a whole version stays until the
    /// store forgets it.
    pub(super) fn unused(&self, hash: ManifestHash, globs: &[String]) -> Result<(), ViewError> {
        self.working().try_for_each(|trees| trees.unused(hash, globs))
    }

    /// Links all that is whole now, and follows what comes from there on.
    pub(super) fn catch_up(&self) -> Result<Subscription, ViewError> {
        let (holdings, feed) = self.store.subscribe();
        for holding in holdings {
            let Some(manifest) = self.store.manifest(&holding.manifest)? else { continue };
            let mut files = RoaringBitmap::new();
            files.insert_range(0..manifest.file_count() as u32);
            self.grow(holding.manifest, &manifest, &files, false)?;
        }
        Ok(feed)
    }

    /// Takes in what changed; `false` when that was too much, and all has to be looked at.
    pub(super) fn follow(&self, feed: &Subscription) -> Result<bool, ViewError> {
        let Taken::Changes(changes) = feed.take_changes() else { return Ok(false) };
        for change in changes {
            match change {
                Change::Forgotten(hash) => self.working().try_for_each(|trees| trees.forget(&hash))?,
                Change::Blocks { manifest: hash, added, .. } => {
                    let Some(manifest) = self.store.manifest(&hash)? else { continue };
                    self.grow(hash, &manifest, &indices(manifest.files_with(&added.0)), true)?;
                }
            }
        }
        Ok(true)
    }

    fn grow(
        &self,
        hash: ManifestHash,
        manifest: &Manifest,
        files: &RoaringBitmap,
        come: bool,
    ) -> Result<(), ViewError> {
        let mut showing = self.working().filter(|trees| trees.tier().is_adopted(&hash));
        showing.try_for_each(|trees| trees.grow(hash, manifest, files, come))
    }
}
