//! Moves versions between tiers: what is read often to better media, out of the way what is
//! not. One version at a time, file by file; each is durable in its new place before it goes
//! from the old one, so whenever this ends nothing is lost.

use super::{held_in, seen};
use crate::evict::{Standings, Version, in_batches};
use crate::metrics::Metrics;
use crate::reads::Reads;
use crate::store::{Store, StoreError, Tier};
use crate::views::{ViewError, Views};
use hearth_core::block::{self, BlockNumber};
use hearth_core::evict::Need;
use hearth_core::explain;
use hearth_core::manifest::{Manifest, ManifestHash};
use hearth_core::tier::{self, Medium, Move, Resident};
use parking_lot::Mutex;
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether something is to move, or is in two places.
const LOOK: Duration = Duration::from_secs(10);
/// When it is looked again after there was something, and no place for it: to know what datasets
/// wish, the API server is asked.
const REST: Duration = Duration::from_secs(300);
/// When what could not be moved is tried again.
const RESIGN: Duration = Duration::from_secs(3600);
/// Files that are carried at one time.
const AT_ONCE: usize = 4;

/// What moving needs.
pub struct MoverParts {
    /// What is held, and where.
    pub store: Store,
    /// What is shown, and by which links.
    pub views: Views,
    /// How it is read.
    pub reads: Reads,
    /// What versions are worth, and where they wish to be.
    pub standings: Arc<Standings>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the agent is asked to end.
    pub shutdown: CancellationToken,
}

/// Moves what is to move.
pub struct Mover(Arc<Inner>);

struct Inner {
    parts: MoverParts,
    /// Versions that could not be moved, and until when that is not tried again.
    stuck: Mutex<BTreeMap<ManifestHash, Instant>>,
}

/// What came of looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looked {
    /// Something has moved, or was tried.
    Moved,
    /// All that is mounted often is in the best tier.
    NothingToMove,
    /// Something is not, and cannot be, or does not wish to.
    NothingCanMove,
}

/// A version that may move, and its manifest.
struct Known {
    version: Version,
    manifest: Arc<Manifest>,
}

impl Mover {
    /// Nothing moves yet.
    pub fn new(parts: MoverParts) -> Self {
        Self(Arc::new(Inner { parts, stuck: Mutex::default() }))
    }

    /// Moves until the agent ends.
    pub async fn run(self) -> anyhow::Result<()> {
        let shutdown = self.0.parts.shutdown.clone();
        if self.0.parts.store.tiers().len() < 2 {
            shutdown.cancelled().await;
            return Ok(());
        }
        let mut pause = LOOK;
        while shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            pause = match shutdown.run_until_cancelled(self.move_one()).await {
                Some(Ok(Looked::Moved)) => Duration::ZERO,
                Some(Ok(Looked::NothingToMove)) | None => LOOK,
                Some(Ok(Looked::NothingCanMove)) => REST,
                Some(Err(why)) => {
                    tracing::warn!("what is in several tiers cannot be put in order: {why}");
                    REST
                }
            };
        }
        Ok(())
    }

    /// Gives up what is in two places, and moves one version, or what can be of it.
    pub(crate) async fn move_one(&self) -> Result<Looked, ViewError> {
        let inner = self.0.clone();
        let looked = crate::views::blocking(move || {
            inner.parts.give_up_doubles(&inner.movable()?)?;
            Ok(inner.parts.may_move())
        });
        if !looked.await? {
            return Ok(Looked::NothingToMove);
        }
        let inner = self.0.clone();
        let movable = crate::views::blocking(move || inner.movable()).await?;
        let standings = &self.0.parts.standings;
        let versions = standings.of(movable).await;
        let mut wishes = BTreeMap::new();
        for version in &versions {
            if !wishes.contains_key(&version.dataset) {
                wishes.insert(version.dataset.clone(), standings.wish(&version.dataset).await);
            }
        }
        let inner = self.0.clone();
        crate::views::blocking(move || inner.move_one(versions, &wishes)).await
    }
}

impl Inner {
    fn move_one(
        &self,
        versions: Vec<Version>,
        wishes: &BTreeMap<String, Vec<Medium>>,
    ) -> Result<Looked, ViewError> {
        let parts = &self.parts;
        let (mut known, mut residents) = (Vec::new(), Vec::new());
        for version in versions {
            let Some(manifest) = parts.store.manifest(&version.hash)? else { continue };
            let held = |tier: &Tier| held_in(tier, &version.hash, &manifest);
            residents.push(Resident {
                wish: wishes.get(&version.dataset).cloned().unwrap_or_default(),
                heat: parts.reads.of(&version.dataset).heat(),
                needed: version.standing.need > Need::Nobody || version.standing.pinned,
                held: parts.store.tiers().iter().map(held).collect(),
            });
            known.push(Known { version, manifest });
        }
        let tiers = parts.store.tiers().iter().map(|tier| seen(tier, &tier.room(0), 0));
        let tiers: Vec<tier::Tier> = tiers.collect();
        let Some(Move { version, from, to }) = tier::next_move(&residents, &tiers) else {
            return Ok(Looked::NothingCanMove);
        };
        let (version, tiers) = (&known[version], parts.store.tiers());
        let moved = parts.carry(version, &tiers[from], &tiers[to]);
        if !matches!(moved, Ok(bytes) if bytes > 0) {
            self.stuck.lock().insert(version.version.hash, Instant::now() + RESIGN);
        }
        moved.map(|_| Looked::Moved)
    }

    /// Versions that may move, and their datasets. What a native view shows stays where its links
    /// are, and so do other versions of its dataset, which mostly share its objects.
    fn movable(&self) -> Result<Vec<(ManifestHash, String)>, ViewError> {
        let (shown, mut all) = (self.parts.views.shown()?, self.parts.store.manifests());
        let datasets = all.iter().filter(|(hash, _)| shown.contains_key(hash));
        let datasets: BTreeSet<String> = datasets.map(|(_, dataset)| dataset.clone()).collect();
        let mut stuck = self.stuck.lock();
        stuck.retain(|_, until| *until > Instant::now());
        all.retain(|(hash, dataset)| !datasets.contains(dataset) && !stuck.contains_key(hash));
        Ok(all)
    }
}

impl MoverParts {
    /// Whether anything may have to move at all, without looking into manifests: something that
    /// is mounted often is not in the best tier.
    fn may_move(&self) -> bool {
        let [_, worse @ ..] = self.store.tiers() else { return false };
        let is_there =
            |hash: &ManifestHash| worse.iter().any(|tier| tier.holds_some(hash, 0..BlockNumber::MAX));
        let mut known = worse.iter().flat_map(Tier::manifests);
        known.any(|(hash, dataset)| tier::is_warm(self.reads.of(&dataset).heat()) && is_there(&hash))
    }

    /// Gives up what a better tier holds, too: after a move that was broken off, or when a disk is back
    /// without which it was fetched again.
    fn give_up_doubles(&self, versions: &[(ManifestHash, String)]) -> Result<(), ViewError> {
        for (hash, _) in versions {
            let having = |tier: &&Tier| tier.works() && tier.is_adopted(hash);
            let having: Vec<&Tier> = self.store.tiers().iter().filter(having).collect();
            for pair in having.windows(2) {
                let (better, worse) = (pair[0], pair[1]);
                let both = better.held(hash).unwrap_or_default() & worse.held(hash).unwrap_or_default();
                if both.is_empty() {
                    continue;
                }
                let Some(manifest) = self.store.manifest(hash)? else { continue };
                let files: Vec<usize> = manifest.files_with(&both).map(|file| file.index).collect();
                in_batches(&files, &self.shutdown, |files, pause| {
                    self.views.evict_copied(worse, better, hash, files, pause).map(drop)
                })?;
            }
        }
        Ok(())
    }

    /// Carries what one tier holds of a version to another. How much it was.
    fn carry(&self, known: &Known, from: &Tier, to: &Tier) -> Result<u64, ViewError> {
        let Known { version: Version { hash, dataset, .. }, manifest } = known;
        self.store.admit(to.id(), hash)?;
        let held = from.held(hash).unwrap_or_default();
        let files: Vec<usize> = manifest.files_with(&held).map(|file| file.index).collect();
        let carried = in_batches(&files, &self.shutdown, |files, pause| {
            Copy { hash, manifest, held: &held, from, to }.all(files)?;
            self.views.evict_copied(from, to, hash, files, pause)?;
            Ok(())
        });
        // What could not be read, and what somebody has begun to write or to show, stays.
        let moved = manifest.bytes_of(&held).saturating_sub(held_in(from, hash, manifest));
        self.metrics
            .tier_moved_bytes
            .with_label_values(&[&from.medium().to_string(), &to.medium().to_string()])
            .inc_by(moved);
        tracing::info!(
            dataset,
            manifest = ?hash,
            from = %from.directory().display(),
            to = %to.directory().display(),
            bytes = explain::bytes(moved),
            "moved between tiers"
        );
        carried.map(|()| moved)
    }
}

/// Writes what one tier holds of a version into another.
struct Copy<'a> {
    hash: &'a ManifestHash,
    manifest: &'a Manifest,
    /// What there was at the beginning.
    held: &'a RoaringBitmap,
    from: &'a Tier,
    to: &'a Tier,
}

impl Copy<'_> {
    /// Several files at a time, since each waits for the disk.
    fn all(&self, files: &[usize]) -> Result<(), StoreError> {
        let next = AtomicUsize::new(0);
        let copy_some = || -> Result<(), StoreError> {
            while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.one(*file)?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(copy_some)).collect();
            let ended = threads.into_iter().map(|thread| thread.join().unwrap_or(Err(StoreError::Closed)));
            // All of them, before the first error is told.
            ended.collect::<Vec<_>>().into_iter().collect()
        })
    }

    fn one(&self, index: usize) -> Result<(), StoreError> {
        let Some(file) = self.manifest.file(index) else { return Ok(()) };
        let here: RoaringBitmap = self.held.range(file.blocks()).collect();
        let mut room = self.to.reserve(self.manifest.bytes_of(&here))?;
        for block in 0..block::blocks_in(file.size) {
            let Some(data) = self.from.read_block(self.hash, index, block)? else { continue };
            self.to.write_block(self.hash, index, block, &data)?;
            room.release(data.len() as u64);
        }
        Ok(())
    }
}
