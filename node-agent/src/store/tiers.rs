//! A store of several tiers. Each has an index of its own and knows the manifests of which
//! it has, or may get, blocks; a block counts when one of them has it.

use super::disk::Disk;
use super::engine::{Common, Engine};
use super::evict::BlockSets;
use super::stats::StoreStats;
use super::subscription::{Feed, Subscription};
use super::tier::{Tier, TierId};
use super::{Store, StoreConfig, StoreError, StoreIdentity, Usage};
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

    pub(super) fn home(&self) -> &Tier {
        &self.tiers[self.home]
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

    fn of_a_block<T>(
        &self,
        hash: &ManifestHash,
        ask: impl Fn(&Engine) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        match self.showing(hash).next().is_some() {
            // Of a failed disk nothing is held.
            true => self.first(self.showing(hash).filter(|tier| tier.works()), ask),
            false => Err(StoreError::UnknownManifest(*hash)),
        }
    }
}

impl Store {
    /// Its tiers, the fastest first.
    pub fn tiers(&self) -> &[Tier] {
        &self.0.tiers
    }

    /// The tier that was named first.
    pub fn home(&self) -> &Tier {
        self.0.home()
    }

    /// Makes a stored manifest known to a tier, so that this can get blocks of it.
    pub fn admit(&self, tier: TierId, hash: &ManifestHash) -> Result<(), StoreError> {
        let Some(tier) = self.0.tiers.get(tier.index()).filter(|tier| !tier.is_adopted(hash)) else {
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
            |other: &ManifestHash| self.0.showing(other).any(|tier| tier.engine.may_list(&manifest, other));
        for (other, dataset) in self.manifests() {
            if !tier.is_adopted(&other) && (other == *hash || shares(&other)) {
                put(&other, &dataset)?;
            }
        }
        Ok(())
    }

    /// Which store this is. Looks at memory only.
    pub fn identity(&self) -> StoreIdentity {
        self.home().engine.identity()
    }

    /// Keeps a manifest, durably, under the name of the dataset (`namespace/name`)
    /// that it is known from. Refused as [`StoreError::Damaged`] when `bytes` do not
    /// hash to `hash`. It is not in the inventory before [`Store::adopt`].
    pub fn put_manifest(&self, hash: ManifestHash, dataset: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let another = self.0.tiers.iter().find(|tier| tier.works()).filter(|_| !self.home().works());
        let first = another.unwrap_or_else(|| self.home());
        first.engine.put_manifest(hash, dataset, bytes)?;
        if self.0.tiers.len() == 1 {
            return Ok(());
        }
        let Some(manifest) = first.engine.manifest(&hash)? else { return Ok(()) };
        let others = self.0.heeded().filter(|tier| {
            tier.id != first.id && (tier.engine.is_stored(&hash) || tier.engine.may_share(&manifest))
        });
        self.0.each(others.chain([first]), |engine| engine.put_manifest(hash, dataset, bytes))
    }

    /// A stored manifest; `None` when it is not here. Kept decoded while it is in use.
    pub fn manifest(&self, hash: &ManifestHash) -> Result<Option<Arc<Manifest>>, StoreError> {
        self.0.first(self.0.with(hash), |engine| engine.manifest(hash))
    }

    /// The encoding of a stored manifest, its hash checked; `None` when it is not here.
    pub fn manifest_bytes(&self, hash: &ManifestHash) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.first(self.0.with(hash), |engine| engine.manifest_bytes(hash))
    }

    /// The stored manifests and their datasets, adopted or not. Looks at memory only.
    pub fn manifests(&self) -> Vec<(ManifestHash, String)> {
        if let [only] = self.0.tiers.as_slice() {
            return only.manifests();
        }
        let mut all: BTreeMap<ManifestHash, String> = self.0.heeded().flat_map(Tier::manifests).collect();
        // It is told first when a Dataset has another name.
        all.extend(self.home().manifests());
        all.into_iter().collect()
    }

    /// Whether the manifest is in the inventory. Looks at memory only.
    pub fn is_adopted(&self, hash: &ManifestHash) -> bool {
        self.0.showing(hash).next().is_some()
    }

    /// Takes a stored manifest into the inventory with whatever the store already
    /// holds of its objects. Adopting what is adopted changes nothing.
    pub fn adopt(&self, hash: &ManifestHash) -> Result<(), StoreError> {
        let mut with = self.0.with(hash).peekable();
        match with.peek() {
            Some(_) => self.0.each(with, |engine| engine.adopt(hash)),
            None => Err(StoreError::UnknownManifest(*hash)),
        }
    }

    /// Forgets a manifest, at once and durably, and then frees the objects that no
    /// other adopted manifest lists. Freeing goes on after a crash. Retiring what
    /// is not known changes nothing.
    pub fn retire(&self, hash: &ManifestHash) -> Result<(), StoreError> {
        self.0.heeded().try_for_each(|tier| tier.engine.retire(hash))
    }

    /// The blocks of a selection that are not held.
    pub fn missing(&self, hash: &ManifestHash, selection: &Selection) -> Result<RoaringBitmap, StoreError> {
        let mut missing: Option<RoaringBitmap> = None;
        for tier in self.0.showing(hash) {
            let here = tier.engine.missing(hash, selection)?;
            missing = Some(missing.map_or_else(|| here.clone(), |all| all & &here));
        }
        missing.ok_or(StoreError::UnknownManifest(*hash))
    }

    /// The held blocks of an adopted manifest; `None` for others. Looks at memory only.
    pub fn held(&self, hash: &ManifestHash) -> Option<RoaringBitmap> {
        self.0.tiers.iter().filter_map(|tier| tier.held(hash)).reduce(|all, held| all | held)
    }

    /// Whether a block of an adopted manifest is held. Looks at memory only.
    pub fn holds(&self, hash: &ManifestHash, number: BlockNumber) -> bool {
        self.0.tiers.iter().any(|tier| tier.engine.holds(hash, number))
    }

    /// Writes the `block`-th block of a file of a manifest that is adopted in that tier. Done
    /// when it is in the index, durably, and in the inventory; writing what is held there changes nothing.
    ///
    /// Hold a [`Reservation`](super::Reservation) of its bytes there until then: this does not look at capacity.
    /// A write whose future is dropped may still happen.
    pub async fn write_block(
        &self,
        tier: TierId,
        hash: &ManifestHash,
        file: usize,
        block: u64,
        data: Bytes,
    ) -> Result<(), StoreError> {
        let tier = self.0.tiers.get(tier.index()).ok_or(StoreError::Closed)?;
        Engine::write_block(&tier.engine, *hash, file, block, data).await
    }

    /// Reads the `block`-th block of a file of an adopted manifest. `None` when it is
    /// not held, or no longer: what turns out damaged or missing leaves the inventory
    /// before this returns.
    pub fn read_block(
        &self,
        hash: &ManifestHash,
        file: usize,
        block: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.of_a_block(hash, |engine| engine.read_block(hash, file, block))
    }

    /// Reads the `block`-th block of a file of an adopted manifest from the disk and not from
    /// memory: its bytes, if they are as they were written. Otherwise as
    /// [`Store::read_block`].
    pub fn verify_block(
        &self,
        hash: &ManifestHash,
        file: usize,
        block: u64,
    ) -> Result<Option<u64>, StoreError> {
        self.0.of_a_block(hash, |engine| engine.verify_block(hash, file, block))
    }

    /// The object file of a file of an adopted manifest, when all its blocks are held:
    /// to be linked and read, never to be written. `None` for an empty file, which has none.
    pub fn whole_file(&self, hash: &ManifestHash, file: usize) -> Result<Option<PathBuf>, StoreError> {
        self.0.of_a_block(hash, |engine| engine.whole_file(hash, file))
    }

    /// What other manifests hold that may list objects of this one.
    pub fn held_by_sharers(&self, hash: &ManifestHash) -> Result<BlockSets, StoreError> {
        let mut sets = BlockSets::new();
        for tier in self.0.showing(hash) {
            for (other, held) in tier.engine.held_by_sharers(hash)? {
                *sets.entry(other).or_default() |= held;
            }
        }
        Ok(sets)
    }

    /// What is held now, and a feed of every change from there on: no change is in
    /// both or in neither. Looks at memory only.
    pub fn subscribe(&self) -> (Vec<Holding>, Subscription) {
        let feed = Arc::new(Feed::default());
        let mut holdings: BTreeMap<ManifestHash, Holding> = BTreeMap::new();
        for tier in &self.0.tiers {
            let holdings_here = tier.engine.follow(&feed);
            let is_heeded = tier.works() || tier.id.index() == self.0.home;
            for holding in holdings_here.into_iter().filter(|_| is_heeded) {
                match holdings.get_mut(&holding.manifest) {
                    Some(known) => known.blocks = Blocks(&known.blocks.0 | &holding.blocks.0),
                    None => _ = holdings.insert(holding.manifest, holding),
                }
            }
        }
        let several = (self.0.tiers.len() > 1).then_some(&self.0);
        (holdings.into_values().collect(), Subscription::new(feed, several))
    }

    /// Whether all its tiers are configured to keep nothing.
    pub fn keeps_nothing(&self) -> bool {
        self.0.tiers.iter().all(Tier::keeps_nothing)
    }

    /// How full its tiers are that work, together.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let mut sum = Usage::default();
        for tier in self.0.tiers.iter().filter(|tier| tier.works()) {
            let usage = tier.usage()?;
            sum.capacity_bytes = sum.capacity_bytes.saturating_add(usage.capacity_bytes);
            sum.used_bytes = sum.used_bytes.saturating_add(usage.used_bytes);
            sum.free_bytes = sum.free_bytes.saturating_add(usage.free_bytes);
        }
        Ok(sum)
    }

    /// What it counted. Looks at memory only.
    pub fn stats(&self) -> &StoreStats {
        &self.0.stats
    }

    /// The dataset, `namespace/name`, that a stored manifest is known from.
    pub(super) fn dataset_of(&self, hash: &ManifestHash) -> Option<String> {
        self.manifests().into_iter().find(|(known, _)| known == hash).map(|(_, dataset)| dataset)
    }
}
