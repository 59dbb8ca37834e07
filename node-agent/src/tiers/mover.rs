//! Moves versions between tiers: what is read often to better media, out of the way what is
//! not. One version at a time, file by file; each is durable in its new place before it goes
//! from the old one, so whenever this ends nothing is lost.

use super::{held_in, seen};
use crate::evict::{Standings, Version, in_batches};
use crate::manifests::blocking;
use crate::metrics::Metrics;
use crate::reads::Reads;
use crate::store::{Store, StoreError, Tier};
use crate::views::{ViewError, Views};
use hearth_core::block::{self, BlockNumber};
use hearth_core::evict::Need;
use hearth_core::explain;
use hearth_core::manifest::{Manifest, ManifestHash};
use hearth_core::tier::{self, Move, Resident};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether something is to move.
const LOOK: Duration = Duration::from_secs(10);
/// When to look again after nothing could move.
const RESIGN: Duration = Duration::from_secs(60);
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

/// Moves what is to move, and looks after disks that have failed.
pub struct Mover(Arc<MoverParts>);

/// A version that may move, and its manifest.
struct Known {
    version: Version,
    manifest: Arc<Manifest>,
}

impl Mover {
    /// Nothing moves yet.
    pub fn new(parts: MoverParts) -> Self {
        Self(Arc::new(parts))
    }

    /// Moves until the agent ends.
    pub async fn run(self) -> anyhow::Result<()> {
        let shutdown = self.0.shutdown.clone();
        let mut again = Instant::now();
        while shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            let parts = self.0.clone();
            let looked = blocking(move || {
                parts.store.tiers().iter().for_each(Tier::look_after);
                Ok(())
            });
            looked.await?;
            while again <= Instant::now() && self.0.may_move() {
                match shutdown.run_until_cancelled(self.move_one()).await {
                    Some(Ok(true)) => continue,
                    Some(Ok(false)) | None => {}
                    Some(Err(why)) => tracing::warn!("a dataset cannot be moved between tiers: {why}"),
                }
                again = Instant::now() + RESIGN;
            }
        }
        Ok(())
    }

    /// Moves one version, or what can be of it. Whether something has moved.
    pub(crate) async fn move_one(&self) -> Result<bool, ViewError> {
        let parts = self.0.clone();
        let versions = parts.standings.of(parts.store.manifests()).await;
        let mut wishes = BTreeMap::new();
        for version in &versions {
            if !wishes.contains_key(&version.dataset) {
                wishes.insert(version.dataset.clone(), parts.standings.wish(&version.dataset).await);
            }
        }
        crate::views::blocking(move || {
            let shown = parts.views.shown()?;
            let (mut known, mut residents) = (Vec::new(), Vec::new());
            for version in versions {
                // What a native view shows stays where its links are.
                if shown.contains_key(&version.hash) {
                    continue;
                }
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
            let tiers = parts.store.tiers().iter().map(|tier| seen(tier, tier.room(0), 0));
            let tiers: Vec<tier::Tier> = tiers.collect();
            let Some(Move { version, from, to }) = tier::next_move(&residents, &tiers) else {
                return Ok(false);
            };
            let (from, to) = (&parts.store.tiers()[from], &parts.store.tiers()[to]);
            parts.carry(&known[version], from, to).map(|bytes| bytes > 0)
        })
        .await
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

    /// Carries what one tier holds of a version to another. How much it was.
    fn carry(&self, known: &Known, from: &Tier, to: &Tier) -> Result<u64, ViewError> {
        let Known { version: Version { hash, dataset, .. }, manifest } = known;
        self.store.admit(to.id(), hash)?;
        let held = from.held(hash).unwrap_or_default();
        let files: Vec<usize> = manifest.files_with(&held).map(|file| file.index).collect();
        let carried = in_batches(&files, &self.shutdown, |files| {
            copy_all(hash, manifest, files, from, to)?;
            self.views.evict_in(from, hash, files)?;
            Ok(())
        });
        // What somebody has begun to write or to show meanwhile stays.
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

/// Writes what one tier holds of these files into another: several at a time, since each
/// waits for the disk.
fn copy_all(
    hash: &ManifestHash,
    manifest: &Manifest,
    files: &[usize],
    from: &Tier,
    to: &Tier,
) -> Result<(), StoreError> {
    let next = AtomicUsize::new(0);
    let copy_some = || -> Result<(), StoreError> {
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            copy(hash, manifest, *file, from, to)?;
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

fn copy(
    hash: &ManifestHash,
    manifest: &Manifest,
    index: usize,
    from: &Tier,
    to: &Tier,
) -> Result<(), StoreError> {
    let Some(file) = manifest.file(index) else { return Ok(()) };
    let mut room = to.reserve(file.size)?;
    for block in 0..block::blocks_in(file.size) {
        let Some(data) = from.read_block(hash, index, block)? else { continue };
        to.write_block(hash, index, block, &data)?;
        room.release(data.len() as u64);
    }
    Ok(())
}
