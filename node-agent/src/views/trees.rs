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
    /// By the ids of the tiers; nothing for one whose file system takes no trees.
    of_tiers: Vec<Option<TierTrees>>,
}

impl Trees {
    /// Those of the store's home are below `directory`, those of other tiers in these.
    /// `keep` says which trees are of use: all others that are there go.
    pub(super) fn open(store: Store, directory: &Path, keep: &[Key]) -> Result<Self, ViewError> {
        let home = store.home().id();
        let open = |tier: &Tier| {
            if tier.id() == home {
                return TierTrees::open(tier.clone(), directory, keep).map(Some);
            }
            let opened = TierTrees::open(tier.clone(), &tier.directory().join("views"), keep);
            Ok(opened.inspect_err(|error| tell(tier, error)).ok())
        };
        let of_tiers = store.tiers().iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { store, of_tiers })
    }

    /// The trees of one tier.
    pub(super) fn of(&self, tier: TierId) -> Result<&TierTrees, ViewError> {
        let trees = self.of_tiers.get(tier.index()).and_then(Option::as_ref);
        trees.ok_or_else(|| ViewError::NotYet("the trees of a tier could not be opened at the start".into()))
    }

    /// The trees of tiers whose disks work.
    pub(super) fn working(&self) -> impl Iterator<Item = &TierTrees> {
        self.of_tiers.iter().flatten().filter(|trees| trees.tier().works())
    }

    /// Does something with the trees of each tier. What goes wrong in one that is not home is
    /// told, and nothing to the others.
    fn each(&self, act: impl Fn(&TierTrees) -> Result<(), ViewError>) -> Result<(), ViewError> {
        let home = self.store.home().id();
        for trees in self.working() {
            match act(trees) {
                Err(error) if trees.tier().id() != home => tell(trees.tier(), &error),
                done => done?,
            }
        }
        Ok(())
    }

    /// Where the tree of a version's part may be, whether it is there or not.
    pub(super) fn places(&self, hash: ManifestHash, globs: &[String]) -> impl Iterator<Item = PathBuf> {
        self.of_tiers.iter().flatten().map(move |trees| trees.place(hash, globs))
    }

    /// Nobody shows this part any more. The tree of a whole version stays until the
    /// store forgets it.
    pub(super) fn unused(&self, hash: ManifestHash, globs: &[String]) -> Result<(), ViewError> {
        self.each(|trees| trees.unused(hash, globs))
    }

    /// Takes the marks away of tiers in which nothing has been given up for a while.
    pub(super) fn unmark(&self) {
        for trees in self.working() {
            if let Err(error) = trees.unlinking.unmark() {
                // It stays, and costs a look at the next start.
                tracing::debug!(directory = %trees.tier().directory().display(), "its mark stays: {error}");
            }
        }
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
                Change::Forgotten(hash) => self.each(|trees| trees.forget(&hash))?,
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
        self.each(|trees| match trees.tier().is_adopted(&hash) {
            true => trees.grow(hash, manifest, files, come),
            false => Ok(()),
        })
    }
}

fn tell(tier: &Tier, error: &ViewError) {
    tracing::warn!(directory = %tier.directory().display(), "its native views cannot be tended: {error}");
}
