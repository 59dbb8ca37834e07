//! Giving up objects of which trees have links: those that native views show stay, and the
//! links of the others go with them.

use super::error::{ViewError, io_error};
use super::record::Record;
use super::tier_trees::TierTrees;
use super::{Inner, Views};
use crate::evict::in_batches;
use crate::store::{BlockSets, Evicted, StoreError, Tier};
use hearth_core::evict::Amount;
use hearth_core::manifest::{Manifest, ManifestHash, Selected};
use hearth_core::selection::Selection;
use roaring::RoaringBitmap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

impl Views {
    /// The blocks that native views show. Blocks on the disk.
    pub fn shown(&self) -> Result<Arc<BlockSets>, ViewError> {
        self.0.shown()
    }

    /// Gives up the objects of these files of a version, but those that native views show
    /// and those that are being written. Calls `pause` between pieces of work, for a while in which nobody
    /// waits. Blocks on the disk.
    pub fn evict(
        &self,
        hash: &ManifestHash,
        files: &[usize],
        pause: &mut dyn FnMut(),
    ) -> Result<Evicted, ViewError> {
        let Some(manifest) = self.0.store.manifest(hash)? else { return Ok(Evicted::default()) };
        let mut all = Evicted::default();
        for tier in self.0.holders(hash) {
            let here = files_here(tier, hash, &manifest, files);
            if !here.is_empty() {
                all.add(self.evict_in(tier, hash, &here, pause)?);
            }
        }
        Ok(all)
    }

    /// As [`Views::evict`], in one tier.
    pub fn evict_in(
        &self,
        tier: &Tier,
        hash: &ManifestHash,
        files: &[usize],
        pause: &mut dyn FnMut(),
    ) -> Result<Evicted, ViewError> {
        self.0.evict(tier, hash, files, || self.0.shown(), pause)
    }

    /// As [`Views::evict_in`], but for what another tier does not hold, durably.
    pub fn evict_copied(
        &self,
        tier: &Tier,
        other: &Tier,
        hash: &ManifestHash,
        files: &[usize],
        pause: &mut dyn FnMut(),
    ) -> Result<Evicted, ViewError> {
        let held = other.held(hash).unwrap_or_default();
        // It is all there is left of them then.
        other.sync()?;
        let stay = || {
            let mut stay = BlockSets::clone(&*self.0.shown()?);
            let there = held & other.held(hash).unwrap_or_default();
            let only_here = tier.held(hash).unwrap_or_default() - there;
            *stay.entry(*hash).or_default() |= only_here;
            Ok(Arc::new(stay))
        };
        self.0.evict(tier, hash, files, stay, pause)
    }

    /// Forgets a version that is in nobody's use: first what no other version holds, some
    /// files at a time, so that the reports tell how much is left, and then itself. How much
    /// was given up. Ends early at `shutdown`. Blocks on the disk.
    pub fn forget(&self, hash: &ManifestHash, shutdown: &CancellationToken) -> Result<Amount, ViewError> {
        let inner = &self.0;
        let mut amount = Amount::default();
        if let (Some(manifest), Some(held)) = (inner.readable(hash)?, inner.store.held(hash)) {
            let files: Vec<usize> = manifest.files_with(&held).map(|file| file.index).collect();
            in_batches(&files, shutdown, |files, pause| {
                for tier in inner.holders(hash) {
                    let here = files_here(tier, hash, &manifest, files);
                    // What others hold may have become more.
                    let stay = || {
                        let mut stay = inner.store.held_by_sharers(hash)?;
                        for (other, shown) in inner.shown()?.iter().filter(|(other, _)| *other != hash) {
                            *stay.entry(*other).or_default() |= shown;
                        }
                        Ok(Arc::new(stay))
                    };
                    if !here.is_empty() {
                        amount = amount.plus(inner.evict(tier, hash, &here, stay, pause)?.amount);
                    }
                }
                Ok(())
            })?;
        }
        inner.store.retire(hash)?;
        Ok(amount)
    }
}

/// Those of the files of which a tier holds some.
fn files_here(tier: &Tier, hash: &ManifestHash, manifest: &Manifest, files: &[usize]) -> Vec<usize> {
    let is_here =
        |index: &usize| manifest.file(*index).is_some_and(|file| tier.holds_some(hash, file.blocks()));
    files.iter().copied().filter(is_here).collect()
}

impl Inner {
    /// The tiers that may hold some of a version.
    fn holders(&self, hash: &ManifestHash) -> impl Iterator<Item = &Tier> {
        self.store.tiers().iter().filter(|tier| tier.works() && tier.is_adopted(hash))
    }

    /// Gives objects of one tier up with their links, but those that have blocks in what `stay`
    /// says when nothing of this tier is published as whole any more.
    fn evict(
        &self,
        tier: &Tier,
        hash: &ManifestHash,
        files: &[usize],
        stay: impl FnOnce() -> Result<Arc<BlockSets>, ViewError>,
        pause: &mut dyn FnMut(),
    ) -> Result<Evicted, ViewError> {
        let trees = self.trees.of(tier.id())?;
        self.finish_unlinking(trees)?;
        // Of what was done before, while nobody has to wait.
        pause();
        let mut pause = || {
            if !trees.is_awaited() {
                pause();
            }
        };
        let _alone = trees.alone();
        let stay = stay()?;
        let fail = io_error("cannot mark the end of files in", tier.directory());
        trees.unlinking.begin().map_err(fail)?;
        let evicted = tier.evict(hash, files, stay, &mut pause)?;
        evicted.blocks.iter().try_for_each(|(hash, blocks)| trees.unlink(hash, blocks, &mut pause))?;
        trees.unlinking.end();
        Ok(evicted)
    }

    fn shown(&self) -> Result<Arc<BlockSets>, ViewError> {
        let (changes, records) = {
            let published = self.published.lock();
            if let Some(shown) = &published.shown {
                return Ok(shown.clone());
            }
            let native = published.records.all().filter(|record| record.fetched.is_none());
            (published.changes, native.cloned().collect::<Vec<Record>>())
        };
        let (mut shown, mut all_known) = (BlockSets::new(), true);
        for record in &records {
            let manifest = match record.manifest() {
                Some(hash) => self.readable(&hash)?.map(|manifest| (hash, manifest)),
                None => None,
            };
            // One that the store has lost may come back.
            let Some((hash, manifest)) = manifest else {
                all_known = false;
                continue;
            };
            let selection = Selection::new(record.globs.iter().cloned())
                .map_err(|error| ViewError::Invalid(error.to_string()))?;
            *shown.entry(hash).or_default() |= Selected::find(&manifest, &selection).blocks(&manifest);
        }
        let shown = Arc::new(shown);
        let mut published = self.published.lock();
        if published.changes == changes && all_known {
            published.shown = Some(shown.clone());
        }
        Ok(shown)
    }

    /// A manifest, if it is here and can be read.
    fn readable(&self, hash: &ManifestHash) -> Result<Option<Arc<Manifest>>, ViewError> {
        match self.store.manifest(hash) {
            Err(StoreError::Damaged { .. } | StoreError::Manifest { .. }) => Ok(None),
            found => Ok(found?),
        }
    }

    /// Takes links away in a tier that are left of what was given up, if there may be any: the last
    /// run ended too soon, or something failed.
    pub(super) fn finish_unlinking(&self, trees: &TierTrees) -> Result<(), ViewError> {
        if !trees.unlinking.is_unfinished() {
            return Ok(());
        }
        let _alone = trees.alone();
        if !trees.unlinking.is_unfinished() {
            // It was only under way.
            return Ok(());
        }
        let (tier, shown) = (trees.tier(), self.shown()?);
        for (hash, _) in tier.manifests() {
            let (Some(manifest), Some(held)) = (self.readable(&hash)?, tier.held(&hash)) else {
                continue;
            };
            let mut gone = RoaringBitmap::new();
            for file in manifest.files().filter(|file| !held.contains_range(file.blocks())) {
                gone.insert_range(file.blocks());
            }
            if let Some(shown) = shown.get(&hash) {
                gone -= shown;
            }
            trees.unlink(&hash, &gone, &mut || ())?;
        }
        trees.unlinking.end();
        Ok(())
    }
}
