//! A store of several tiers. Each has an index of its own and knows the manifests of which
//! it has, or may get, blocks; a block counts when one of them has it.

use super::disk::Disk;
use super::engine::{Common, Engine};
use super::evict::BlockSets;
use super::stats::StoreStats;
use super::subscription::{Feed, Subscription};
use super::tier::{Tier, TierId};
use super::{StoreConfig, StoreError, StoreIdentity, Usage};
use bytes::Bytes;
use hearth_core::block::BlockNumber;
use hearth_core::manifest::{Manifest, ManifestHash};
use hearth_core::selection::Selection;
use hearth_core::wire::report::{Blocks, Holding};
use roaring::RoaringBitmap;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Tiers {
    /// The fastest first.
    tiers: Vec<Tier>,
    /// The one that was named first: it has what the others need not have.
    home: usize,
    stats: Arc<StoreStats>,
}

impl Tiers {
    /// Opens the tiers, the first of which is home. Others that cannot be opened are left out.
    pub(super) fn open(configs: &[(StoreConfig, Arc<dyn Disk>)]) -> Result<Self, StoreError> {
        let mut sorted: Vec<usize> = (0..configs.len()).collect();
        sorted.sort_by_key(|named| configs[*named].0.medium);
        let common = Common::default();
        let (mut tiers, mut home) = (Vec::with_capacity(configs.len()), 0);
        for named in sorted {
            let (config, disk) = &configs[named];
            let id = TierId(tiers.len());
            let common =
                Common { tier: id, decoded: Arc::clone(&common.decoded), stats: Arc::clone(&common.stats) };
            let engine = match Engine::open(Arc::clone(disk), config, &common) {
                Ok(engine) => Arc::new(engine),
                Err(error) if named == 0 || matches!(error, StoreError::Locked { .. }) => return Err(error),
                Err(error) => {
                    let directory = config.directory.display();
                    tracing::error!(%directory, %error, "a tier cannot be opened and is left out until the next start");
                    continue;
                }
            };
            if named == 0 {
                home = id.index();
            }
            tiers.push(Tier { id, medium: config.medium, engine });
        }
        Ok(Self { tiers, home, stats: common.stats })
    }

    pub(super) fn all(&self) -> &[Tier] {
        &self.tiers
    }

    pub(super) fn home(&self) -> &Tier {
        &self.tiers[self.home]
    }

    pub(super) fn identity(&self) -> StoreIdentity {
        self.home().engine.identity()
    }

    pub(super) fn stats(&self) -> &StoreStats {
        &self.stats
    }

    /// The tiers that work, and then home even if it does not: it has what no other may have.
    /// What other failed disks still name has been forgotten, or will be when they work again.
    fn heeded(&self) -> impl Iterator<Item = &Tier> {
        let home = Some(self.home()).filter(|home| !home.works());
        self.tiers.iter().filter(|tier| tier.works()).chain(home)
    }

    /// The tiers where a manifest is stored.
    fn with(&self, hash: &ManifestHash) -> impl Iterator<Item = &Tier> {
        self.heeded().filter(|tier| tier.engine.is_stored(hash))
    }

    /// The tiers that have a manifest in their inventories.
    fn showing(&self, hash: &ManifestHash) -> impl Iterator<Item = &Tier> {
        self.heeded().filter(|tier| tier.is_adopted(hash))
    }

    /// Where one tier is enough: the first that does it.
    fn first<'a, T>(
        &self,
        tiers: impl Iterator<Item = &'a Tier>,
        ask: impl Fn(&Engine) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let mut failed = None;
        for tier in tiers {
            match ask(&tier.engine) {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// Does something in each of these tiers. An error counts when it is the only one's, or
    /// home's: without another tier's the store goes on.
    fn each<'a>(
        &self,
        tiers: impl Iterator<Item = &'a Tier>,
        act: impl Fn(&Engine) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let (mut done, mut failed) = (0, None);
        for tier in tiers {
            match act(&tier.engine) {
                Ok(()) => done += 1,
                Err(error) if tier.id.index() == self.home && tier.works() => return Err(error),
                Err(error) => {
                    let directory = tier.directory().display();
                    tracing::warn!(%directory, %error, "one tier does without a manifest");
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) if done == 0 => Err(error),
            _ => Ok(()),
        }
    }

    /// Into home, and where others are that may list the same objects.
    pub(super) fn put_manifest(
        &self,
        hash: ManifestHash,
        dataset: &str,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let another = self.tiers.iter().find(|tier| tier.works()).filter(|_| !self.home().works());
        let first = another.unwrap_or_else(|| self.home());
        first.engine.put_manifest(hash, dataset, bytes)?;
        if self.tiers.len() == 1 {
            return Ok(());
        }
        let Some(manifest) = first.engine.manifest(&hash)? else { return Ok(()) };
        let others = self.heeded().filter(|tier| {
            tier.id != first.id && (tier.engine.is_stored(&hash) || tier.engine.may_share(&manifest))
        });
        self.each(others.chain([first]), |engine| engine.put_manifest(hash, dataset, bytes))
    }

    /// Makes a manifest known to one tier as it is to others, so that it can get blocks.
    pub(super) fn admit(&self, tier: TierId, hash: &ManifestHash) -> Result<(), StoreError> {
        let Some(tier) = self.tiers.get(tier.index()).filter(|tier| !tier.is_adopted(hash)) else {
            return Ok(());
        };
        let manifest = self.manifest(hash)?.ok_or(StoreError::UnknownManifest(*hash))?;
        let put = |hash: &ManifestHash, dataset: &str| -> Result<(), StoreError> {
            let bytes = match self.manifest_bytes(hash) {
                Ok(Some(bytes)) => bytes,
                // It may be in memory still.
                unread => match self.manifest(hash)? {
                    Some(manifest) => manifest.encode(),
                    None => return Err(unread.err().unwrap_or(StoreError::UnknownManifest(*hash))),
                },
            };
            tier.engine.put_manifest(*hash, dataset, &bytes)?;
            tier.engine.adopt(hash)
        };
        // What comes for one of them has come for all that list it.
        let shares =
            |other: &ManifestHash| self.showing(other).any(|tier| tier.engine.may_list(&manifest, other));
        for (other, dataset) in self.manifests() {
            if !tier.is_adopted(&other) && (other == *hash || shares(&other)) {
                put(&other, &dataset)?;
            }
        }
        Ok(())
    }

    pub(super) fn manifest(&self, hash: &ManifestHash) -> Result<Option<Arc<Manifest>>, StoreError> {
        self.first(self.with(hash), |engine| engine.manifest(hash))
    }

    pub(super) fn manifest_bytes(&self, hash: &ManifestHash) -> Result<Option<Vec<u8>>, StoreError> {
        self.first(self.with(hash), |engine| engine.manifest_bytes(hash))
    }

    pub(super) fn manifests(&self) -> Vec<(ManifestHash, String)> {
        if let [only] = self.tiers.as_slice() {
            return only.manifests();
        }
        let mut all: BTreeMap<ManifestHash, String> = self.heeded().flat_map(Tier::manifests).collect();
        // It is told first when a Dataset has another name.
        all.extend(self.home().manifests());
        all.into_iter().collect()
    }

    pub(super) fn dataset_of(&self, hash: &ManifestHash) -> Option<String> {
        self.manifests().into_iter().find(|(known, _)| known == hash).map(|(_, dataset)| dataset)
    }

    pub(super) fn is_adopted(&self, hash: &ManifestHash) -> bool {
        self.showing(hash).next().is_some()
    }

    pub(super) fn adopt(&self, hash: &ManifestHash) -> Result<(), StoreError> {
        let mut with = self.with(hash).peekable();
        match with.peek() {
            Some(_) => self.each(with, |engine| engine.adopt(hash)),
            None => Err(StoreError::UnknownManifest(*hash)),
        }
    }

    pub(super) fn retire(&self, hash: &ManifestHash) -> Result<(), StoreError> {
        self.heeded().try_for_each(|tier| tier.engine.retire(hash))
    }

    pub(super) fn missing(
        &self,
        hash: &ManifestHash,
        selection: &Selection,
    ) -> Result<RoaringBitmap, StoreError> {
        let mut missing: Option<RoaringBitmap> = None;
        for tier in self.showing(hash) {
            let here = tier.engine.missing(hash, selection)?;
            missing = Some(missing.map_or_else(|| here.clone(), |all| all & &here));
        }
        missing.ok_or(StoreError::UnknownManifest(*hash))
    }

    pub(super) fn held(&self, hash: &ManifestHash) -> Option<RoaringBitmap> {
        self.tiers.iter().filter_map(|tier| tier.held(hash)).reduce(|all, held| all | held)
    }

    pub(super) fn holds(&self, hash: &ManifestHash, number: BlockNumber) -> bool {
        self.tiers.iter().any(|tier| tier.engine.holds(hash, number))
    }

    pub(super) async fn write_block(
        &self,
        tier: TierId,
        hash: &ManifestHash,
        file: usize,
        block: u64,
        data: Bytes,
    ) -> Result<(), StoreError> {
        let tier = self.tiers.get(tier.index()).ok_or(StoreError::Closed)?;
        Engine::write_block(&tier.engine, *hash, file, block, data).await
    }

    pub(super) fn read_block(
        &self,
        hash: &ManifestHash,
        file: usize,
        block: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.of_a_block(hash, |engine| engine.read_block(hash, file, block))
    }

    pub(super) fn verify_block(
        &self,
        hash: &ManifestHash,
        file: usize,
        block: u64,
    ) -> Result<Option<u64>, StoreError> {
        self.of_a_block(hash, |engine| engine.verify_block(hash, file, block))
    }

    fn of_a_block<T>(
        &self,
        hash: &ManifestHash,
        ask: impl Fn(&Engine) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        match self.is_adopted(hash) {
            // Of a failed disk nothing is held.
            true => self.first(self.showing(hash).filter(|tier| tier.works()), ask),
            false => Err(StoreError::UnknownManifest(*hash)),
        }
    }

    pub(super) fn whole_file(&self, hash: &ManifestHash, file: usize) -> Result<Option<PathBuf>, StoreError> {
        self.of_a_block(hash, |engine| engine.whole_file(hash, file))
    }

    pub(super) fn held_by_sharers(&self, hash: &ManifestHash) -> Result<BlockSets, StoreError> {
        let mut sets = BlockSets::new();
        for tier in self.showing(hash) {
            for (other, held) in tier.engine.held_by_sharers(hash)? {
                *sets.entry(other).or_default() |= held;
            }
        }
        Ok(sets)
    }

    pub(super) fn usage(&self) -> Result<Usage, StoreError> {
        let mut sum = Usage::default();
        for tier in self.tiers.iter().filter(|tier| tier.works()) {
            let usage = tier.usage()?;
            sum.capacity_bytes = sum.capacity_bytes.saturating_add(usage.capacity_bytes);
            sum.used_bytes = sum.used_bytes.saturating_add(usage.used_bytes);
            sum.free_bytes = sum.free_bytes.saturating_add(usage.free_bytes);
        }
        Ok(sum)
    }

    pub(super) fn subscribe(this: &Arc<Self>) -> (Vec<Holding>, Subscription) {
        let feed = Arc::new(Feed::default());
        let mut holdings: BTreeMap<ManifestHash, Holding> = BTreeMap::new();
        for tier in &this.tiers {
            let holdings_here = tier.engine.follow(&feed);
            let is_heeded = tier.works() || tier.id.index() == this.home;
            for holding in holdings_here.into_iter().filter(|_| is_heeded) {
                match holdings.get_mut(&holding.manifest) {
                    Some(known) => known.blocks = Blocks(&known.blocks.0 | &holding.blocks.0),
                    None => _ = holdings.insert(holding.manifest, holding),
                }
            }
        }
        let several = (this.tiers.len() > 1).then_some(this);
        (holdings.into_values().collect(), Subscription::new(feed, several))
    }
}
