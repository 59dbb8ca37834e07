//! Gives up what an Eviction names. Each is carried out once for as long as this agent lives;
//! one that restarts before all nodes are done gives up what is there by then.

use super::{Reason, in_batches};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::views::{ViewError, Views};
use hearth_core::evict::Amount;
use hearth_core::explain;
use hearth_core::manifest::{Manifest, ManifestHash, Selected};
use hearth_core::object::ObjectId;
use hearth_core::selection::Selection;
use hearth_core::wire::eviction::{EvictionDone, EvictionOrder, Evicts, Kept, KeptWhy};
use hearth_core::wire::report::Want;
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What evicting on demand needs.
pub struct OnDemandParts {
    /// What is held.
    pub store: Store,
    /// What is shown, and by which links.
    pub views: Views,
    /// What is wanted here.
    pub wants: watch::Receiver<Vec<Want>>,
    /// What is to be given up.
    pub orders: watch::Receiver<Vec<EvictionOrder>>,
    /// Where it is said what was.
    pub done: watch::Sender<Vec<EvictionDone>>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// The task that carries Evictions out.
pub struct OnDemand(OnDemandParts);

impl OnDemand {
    /// Nothing is given up yet.
    pub fn new(parts: OnDemandParts) -> Self {
        Self(parts)
    }

    /// Carries out what is ordered until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut done: BTreeMap<String, EvictionDone> = BTreeMap::new();
        loop {
            let orders = self.0.orders.borrow_and_update().clone();
            // Told for as long as anybody asks.
            done.retain(|id, _| orders.iter().any(|order| order.id == *id));
            for order in orders {
                if shutdown.is_cancelled() {
                    return Ok(());
                }
                if !done.contains_key(&order.id) {
                    done.insert(order.id.clone(), self.carry_out(order, shutdown.clone()).await);
                    self.0.done.send_replace(done.values().cloned().collect());
                }
            }
            self.0.done.send_replace(done.values().cloned().collect());
            let changed = shutdown.run_until_cancelled(self.0.orders.changed()).await;
            if !matches!(changed, Some(Ok(()))) {
                return Ok(());
            }
        }
    }

    async fn carry_out(&self, order: EvictionOrder, shutdown: CancellationToken) -> EvictionDone {
        let wants = self.0.wants.borrow().clone();
        let work = Work {
            store: self.0.store.clone(),
            views: self.0.views.clone(),
            shutdown,
            wants,
            told: HashSet::new(),
            done: EvictionDone { id: order.id.clone(), ..EvictionDone::default() },
        };
        let (dataset, what) = (order.dataset.clone(), order.what);
        let failed = EvictionDone {
            id: order.id.clone(),
            error: Some("it ended too soon: see the agent's log".to_owned()),
            ..EvictionDone::default()
        };
        let done = tokio::task::spawn_blocking(move || work.carry_out(&order)).await.unwrap_or(failed);
        self.0.metrics.evicted_bytes.with_label_values(&[Reason::Order.label()]).inc_by(done.bytes);
        self.0.metrics.evicted_objects.with_label_values(&[Reason::Order.label()]).inc_by(done.files);
        let bytes = explain::bytes(done.bytes);
        match &done.error {
            None => tracing::info!(dataset, ?what, files = done.files, bytes, "given up as an Eviction says"),
            Some(why) => tracing::warn!(dataset, ?what, bytes, "an Eviction was not carried out: {why}"),
        }
        done
    }
}

/// Carrying out one order. Blocks on the disk.
struct Work {
    store: Store,
    views: Views,
    shutdown: CancellationToken,
    wants: Vec<Want>,
    /// Objects that are known to stay.
    told: HashSet<ObjectId>,
    done: EvictionDone,
}

impl Work {
    fn carry_out(mut self, order: &EvictionOrder) -> EvictionDone {
        if let Err(why) = self.versions(order) {
            self.done.error = Some(why);
        }
        self.done
    }

    fn versions(&mut self, order: &EvictionOrder) -> Result<(), String> {
        let selection = Selection::new(order.globs.iter().cloned()).map_err(|error| error.to_string())?;
        let shown = self.views.shown().map_err(|error| error.to_string())?;
        let mut all = self.store.manifests();
        all.retain(|(hash, dataset)| *dataset == order.dataset || order.versions.contains(hash));
        // An object that one version shows stays in all of them, and is told once.
        all.sort_by_key(|(hash, _)| !shown.contains_key(hash));
        for (hash, _) in all {
            let version = match self.store.manifest(&hash) {
                Ok(Some(manifest)) => Version { hash, manifest },
                Ok(None) => continue,
                Err(error) => return Err(error.to_string()),
            };
            let evicted = match order.what {
                Evicts::Data => self.data(&version, &selection),
                Evicts::Metadata => self.metadata(&version),
            };
            evicted.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Gives up the files of a selection.
    fn data(&mut self, version: &Version, selection: &Selection) -> Result<(), ViewError> {
        let selected = Selected::find(&version.manifest, selection).blocks(&version.manifest);
        let held = self.held(version, &selected);
        let files: Vec<usize> = version.manifest.files_with(&held).map(|file| file.index).collect();
        in_batches(&files, &self.shutdown, |files, pause| {
            add(&mut self.done, self.views.evict(&version.hash, files, pause)?.amount);
            Ok(())
        })?;
        let left = self.held(version, &selected);
        let shown = self.views.shown()?.get(&version.hash).cloned().unwrap_or_default();
        for file in version.manifest.files_with(&left) {
            if !self.told.insert(version.manifest.object_id(&file)) {
                continue;
            }
            let is_shown = shown.range_cardinality(file.blocks()) > 0;
            let blocks: RoaringBitmap = left.range(file.blocks()).collect();
            let why = if is_shown { KeptWhy::Mounted } else { KeptWhy::Written };
            self.keep(why, 1, version.manifest.bytes_of(&blocks));
        }
        let gone = held - left;
        self.done.again |= !gone.is_empty() && self.is_wanted(version, &gone);
        Ok(())
    }

    /// Forgets a version that nobody needs.
    fn metadata(&mut self, version: &Version) -> Result<(), ViewError> {
        let held = self.store.held(&version.hash).unwrap_or_default();
        let (files, bytes) =
            (version.manifest.files_with(&held).count() as u64, version.manifest.bytes_of(&held));
        if self.wants.iter().any(|want| want.manifest == version.hash) {
            self.keep(KeptWhy::Wanted, files, bytes);
            return Ok(());
        }
        let Some(_retiring) = self.views.in_use().try_retire(version.hash) else {
            self.keep(KeptWhy::Mounted, files, bytes);
            return Ok(());
        };
        // What other versions hold, too, stays for them.
        add(&mut self.done, self.views.forget(&version.hash, &self.shutdown)?);
        Ok(())
    }

    fn held(&self, version: &Version, of: &RoaringBitmap) -> RoaringBitmap {
        self.store.held(&version.hash).unwrap_or_default() & of
    }

    fn keep(&mut self, why: KeptWhy, files: u64, bytes: u64) {
        match self.done.kept.iter_mut().find(|kept| kept.why == why) {
            Some(kept) => (kept.files, kept.bytes) = (kept.files + files, kept.bytes + bytes),
            None => self.done.kept.push(Kept { why, files, bytes }),
        }
    }

    /// Whether somebody here wants some of these blocks.
    fn is_wanted(&self, version: &Version, blocks: &RoaringBitmap) -> bool {
        let wants = self.wants.iter().filter(|want| want.manifest == version.hash);
        wants.filter_map(|want| Selection::new(want.globs.iter().cloned()).ok()).any(|wanted| {
            !Selected::find(&version.manifest, &wanted).blocks(&version.manifest).is_disjoint(blocks)
        })
    }
}

fn add(done: &mut EvictionDone, amount: Amount) {
    done.bytes += amount.bytes;
    done.files += amount.objects;
}

struct Version {
    hash: ManifestHash,
    manifest: Arc<Manifest>,
}
