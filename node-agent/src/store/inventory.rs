//! What is held, in memory: the truth that the agent reports, one step behind
//! what the index has durably and never before it.

use super::rows::ManifestState;
use super::subscription::Feed;
use hearth_core::block::BlockNumber;
use hearth_core::manifest::ManifestHash;
use hearth_core::wire::report::{Blocks, Holding};
use parking_lot::Mutex;
use roaring::RoaringBitmap;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Weak};

/// Blocks of one manifest that came and went.
#[derive(Clone, Debug)]
pub(super) struct BlockChange {
    pub(super) manifest: ManifestHash,
    pub(super) added: RoaringBitmap,
    pub(super) removed: RoaringBitmap,
}

impl BlockChange {
    /// No change yet.
    pub(super) fn of(manifest: ManifestHash) -> Self {
        Self { manifest, added: RoaringBitmap::new(), removed: RoaringBitmap::new() }
    }
}

#[derive(Debug)]
enum Phase {
    Stored,
    /// Its holdings are being found out. What changes meanwhile is kept in
    /// `blocks` and here, and laid over what is found.
    Adopting {
        removed: RoaringBitmap,
    },
    Adopted,
    Retiring,
}

#[derive(Debug)]
struct Known {
    dataset: String,
    phase: Phase,
    blocks: RoaringBitmap,
    /// Those of them that the disk does not give just now, and whose loss it does not note either.
    withheld: RoaringBitmap,
}

impl Known {
    fn new(dataset: String, phase: Phase, blocks: RoaringBitmap) -> Self {
        Self { dataset, phase, blocks, withheld: RoaringBitmap::new() }
    }

    fn shown(&self) -> RoaringBitmap {
        &self.blocks - &self.withheld
    }
}

#[derive(Debug, Default)]
struct State {
    known: BTreeMap<ManifestHash, Known>,
    feeds: Vec<Weak<Feed>>,
}

impl State {
    fn feeds(&mut self) -> impl Iterator<Item = Arc<Feed>> + use<> {
        self.feeds.retain(|feed| feed.strong_count() > 0);
        self.feeds.iter().filter_map(Weak::upgrade).collect::<Vec<_>>().into_iter()
    }

    fn publish(&mut self, change: &BlockChange) {
        let Some(dataset) = self.known.get(&change.manifest).map(|known| known.dataset.clone()) else {
            return;
        };
        self.feeds().for_each(|feed| feed.blocks(change, &dataset));
    }
}

/// All known manifests and what is held of them. Only the committer changes
/// blocks, so what it reads here stays true until it writes.
#[derive(Debug, Default)]
pub(super) struct Inventory(Mutex<State>);

impl Inventory {
    /// Takes a manifest in as it was found at open.
    pub(super) fn load(
        &self,
        hash: ManifestHash,
        dataset: String,
        state: ManifestState,
        blocks: RoaringBitmap,
    ) {
        let phase = match state {
            ManifestState::Stored => Phase::Stored,
            ManifestState::Adopted => Phase::Adopted,
            ManifestState::Retiring => Phase::Retiring,
        };
        self.0.lock().known.insert(hash, Known::new(dataset, phase, blocks));
    }

    /// Knows a manifest, or knows it from another dataset from now on.
    pub(super) fn put(&self, hash: ManifestHash, dataset: &str) {
        let mut state = self.0.lock();
        let Some(known) = state.known.get_mut(&hash) else {
            let known = Known::new(dataset.to_owned(), Phase::Stored, RoaringBitmap::new());
            state.known.insert(hash, known);
            return;
        };
        if known.dataset != dataset {
            dataset.clone_into(&mut known.dataset);
            if matches!(known.phase, Phase::Adopted) {
                state.publish(&BlockChange::of(hash));
            }
        }
    }

    /// The state that the index has, or is to have, of a manifest.
    pub(super) fn state(&self, hash: &ManifestHash) -> Option<(ManifestState, String)> {
        let state = self.0.lock();
        let known = state.known.get(hash)?;
        let durable = match known.phase {
            Phase::Stored | Phase::Adopting { .. } => ManifestState::Stored,
            Phase::Adopted => ManifestState::Adopted,
            Phase::Retiring => ManifestState::Retiring,
        };
        Some((durable, known.dataset.clone()))
    }

    pub(super) fn manifests(&self) -> Vec<(ManifestHash, String)> {
        let state = self.0.lock();
        let stored = state.known.iter().filter(|(_, known)| !matches!(known.phase, Phase::Retiring));
        stored.map(|(hash, known)| (*hash, known.dataset.clone())).collect()
    }

    pub(super) fn retiring(&self) -> Vec<ManifestHash> {
        let state = self.0.lock();
        let retiring = state.known.iter().filter(|(_, known)| matches!(known.phase, Phase::Retiring));
        retiring.map(|(hash, _)| *hash).collect()
    }

    /// The manifests that changes of objects matter to.
    pub(super) fn counting(&self) -> Vec<ManifestHash> {
        let state = self.0.lock();
        let counts = |known: &Known| matches!(known.phase, Phase::Adopted | Phase::Adopting { .. });
        state.known.iter().filter(|(_, known)| counts(known)).map(|(hash, _)| *hash).collect()
    }

    pub(super) fn is_adopted(&self, hash: &ManifestHash) -> bool {
        self.with_adopted(hash, |_| ()).is_some()
    }

    /// Whether the block is held; `None` when the manifest is not adopted.
    pub(super) fn holds(&self, hash: &ManifestHash, number: BlockNumber) -> Option<bool> {
        self.with_adopted(hash, |blocks| blocks.contains(number))
    }

    /// The blocks of an adopted manifest that can be had, as far as is known.
    pub(super) fn shown(&self, hash: &ManifestHash) -> Option<RoaringBitmap> {
        let state = self.0.lock();
        let known = state.known.get(hash)?;
        matches!(known.phase, Phase::Adopted).then(|| known.shown())
    }

    /// Whether a block of an adopted manifest can be had.
    pub(super) fn shows(&self, hash: &ManifestHash, number: BlockNumber) -> bool {
        let state = self.0.lock();
        let known = state.known.get(hash).filter(|known| matches!(known.phase, Phase::Adopted));
        known.is_some_and(|known| known.blocks.contains(number) && !known.withheld.contains(number))
    }

    /// Whether all of these blocks of an adopted manifest can be had.
    pub(super) fn shows_all(&self, hash: &ManifestHash, blocks: Range<BlockNumber>) -> bool {
        let state = self.0.lock();
        let known = state.known.get(hash).filter(|known| matches!(known.phase, Phase::Adopted));
        known.is_some_and(|known| {
            known.blocks.contains_range(blocks.clone()) && known.withheld.range_cardinality(blocks) == 0
        })
    }

    /// Whether some of these blocks of an adopted manifest can be had.
    pub(super) fn shows_some(&self, hash: &ManifestHash, blocks: Range<BlockNumber>) -> bool {
        let state = self.0.lock();
        let known = state.known.get(hash).filter(|known| matches!(known.phase, Phase::Adopted));
        known.is_some_and(|known| {
            known.blocks.range_cardinality(blocks.clone()) > known.withheld.range_cardinality(blocks)
        })
    }

    /// Nothing can be had any more, or all that is held can be again.
    pub(super) fn withhold_all(&self, withheld: bool) {
        let mut state = self.0.lock();
        let mut changes = Vec::new();
        for (hash, known) in &mut state.known {
            let before = known.shown();
            known.withheld = if withheld { known.blocks.clone() } else { RoaringBitmap::new() };
            let after = known.shown();
            if matches!(known.phase, Phase::Adopted) && before != after {
                let (added, removed) = (&after - &before, before - after);
                changes.push(BlockChange { manifest: *hash, added, removed });
            }
        }
        changes.iter().for_each(|change| state.publish(change));
    }

    /// A held block cannot be read, or can be again. Only shown differently: what the index says
    /// of it is the committer's.
    pub(super) fn withhold(&self, hash: &ManifestHash, number: BlockNumber, withheld: bool) {
        let mut state = self.0.lock();
        let Some(known) = state.known.get_mut(hash).filter(|known| known.blocks.contains(number)) else {
            return;
        };
        let is_news = match withheld {
            true => known.withheld.insert(number),
            false => known.withheld.remove(number),
        };
        if is_news && matches!(known.phase, Phase::Adopted) {
            let (mut change, block) = (BlockChange::of(*hash), RoaringBitmap::from([number]));
            *(if withheld { &mut change.removed } else { &mut change.added }) = block;
            state.publish(&change);
        }
    }

    /// All of a manifest's held blocks can be had, as far as is known.
    fn show(&self, hash: &ManifestHash) {
        let mut state = self.0.lock();
        let Some(known) = state.known.get_mut(hash) else { return };
        let shown = std::mem::take(&mut known.withheld) & &known.blocks;
        if !shown.is_empty() {
            state.publish(&BlockChange { added: shown, ..BlockChange::of(*hash) });
        }
    }

    /// Looks at the held blocks of an adopted manifest.
    pub(super) fn with_adopted<T>(
        &self,
        hash: &ManifestHash,
        look: impl FnOnce(&RoaringBitmap) -> T,
    ) -> Option<T> {
        let state = self.0.lock();
        let known = state.known.get(hash)?;
        matches!(known.phase, Phase::Adopted).then(|| look(&known.blocks))
    }

    /// Takes changes in and tells the subscribers, all at once.
    pub(super) fn apply(&self, changes: impl IntoIterator<Item = BlockChange>) {
        let mut state = self.0.lock();
        for change in changes {
            let Some(known) = state.known.get_mut(&change.manifest) else { continue };
            match &mut known.phase {
                Phase::Adopted => {}
                Phase::Adopting { removed } => {
                    *removed -= &change.added;
                    *removed |= &change.removed;
                }
                Phase::Stored | Phase::Retiring => continue,
            }
            known.blocks -= &change.removed;
            known.blocks |= &change.added;
            known.withheld -= &change.removed;
            known.withheld -= &change.added;
            if matches!(known.phase, Phase::Adopted) {
                state.publish(&change);
            }
        }
    }

    /// From here on changes of the manifest's objects count. False when it is not
    /// merely stored.
    pub(super) fn begin_adopting(&self, hash: &ManifestHash) -> bool {
        match self.0.lock().known.get_mut(hash) {
            Some(known) if matches!(known.phase, Phase::Stored) => {
                known.phase = Phase::Adopting { removed: RoaringBitmap::new() };
                known.blocks.clear();
                true
            }
            _ => false,
        }
    }

    /// What is held by now, given what a scan found since [`Inventory::begin_adopting`].
    /// `None` when the adoption was cancelled meanwhile.
    pub(super) fn adoption(&self, hash: &ManifestHash, found: &RoaringBitmap) -> Option<RoaringBitmap> {
        let state = self.0.lock();
        let known = state.known.get(hash)?;
        let Phase::Adopting { removed } = &known.phase else { return None };
        Some((found - removed) | &known.blocks)
    }

    /// Shows an adopted manifest.
    pub(super) fn finish_adopting(&self, hash: &ManifestHash, blocks: RoaringBitmap) {
        let mut state = self.0.lock();
        let Some(known) = state.known.get_mut(hash) else { return };
        known.phase = Phase::Adopted;
        known.blocks.clone_from(&blocks);
        state.publish(&BlockChange { manifest: *hash, added: blocks, removed: RoaringBitmap::new() });
    }

    pub(super) fn cancel_adopting(&self, hash: &ManifestHash) {
        if let Some(known) = self.0.lock().known.get_mut(hash)
            && matches!(known.phase, Phase::Adopting { .. })
        {
            known.phase = Phase::Stored;
            known.blocks.clear();
        }
    }

    /// Takes a manifest out of the inventory; it is known until [`Inventory::remove`].
    pub(super) fn begin_retiring(&self, hash: &ManifestHash) {
        let mut state = self.0.lock();
        let Some(known) = state.known.get_mut(hash) else { return };
        let was_shown = matches!(known.phase, Phase::Adopted);
        known.phase = Phase::Retiring;
        known.blocks.clear();
        if was_shown {
            state.feeds().for_each(|feed| feed.forgotten(*hash));
        }
    }

    pub(super) fn remove(&self, hash: &ManifestHash) {
        let mut state = self.0.lock();
        let Some(known) = state.known.remove(hash) else { return };
        if matches!(known.phase, Phase::Adopted) {
            state.feeds().for_each(|feed| feed.forgotten(*hash));
        }
    }

    /// Becomes what the index says, after a commit of which nobody knows whether
    /// it happened. Adoptions under way are cancelled.
    pub(super) fn reconcile(
        &self,
        manifests: &BTreeMap<ManifestHash, super::rows::ManifestRow>,
        holdings: &BTreeMap<ManifestHash, RoaringBitmap>,
    ) {
        let none = RoaringBitmap::new();
        let gone: Vec<ManifestHash> =
            self.0.lock().known.keys().filter(|hash| !manifests.contains_key(hash)).copied().collect();
        gone.iter().for_each(|hash| self.remove(hash));
        for (hash, row) in manifests {
            let held = holdings.get(hash).unwrap_or(&none);
            self.put(*hash, &row.dataset);
            match row.state {
                ManifestState::Stored => self.cancel_adopting(hash),
                ManifestState::Retiring => self.begin_retiring(hash),
                ManifestState::Adopted if self.is_adopted(hash) => {
                    // The disk works again; or it is found out anew.
                    self.show(hash);
                    let change = self.with_adopted(hash, |known| BlockChange {
                        manifest: *hash,
                        added: held - known,
                        removed: known - held,
                    });
                    self.apply(change);
                }
                ManifestState::Adopted => self.finish_adopting(hash, held.clone()),
            }
        }
    }

    /// A snapshot; the changes from there on go to the feed.
    pub(super) fn follow(&self, feed: &Arc<Feed>) -> Vec<Holding> {
        let mut state = self.0.lock();
        state.feeds.push(Arc::downgrade(feed));
        let adopted = state.known.iter().filter(|(_, known)| matches!(known.phase, Phase::Adopted));
        let holdings = adopted.map(|(hash, known)| Holding {
            manifest: *hash,
            dataset: known.dataset.clone(),
            blocks: Blocks(known.shown()),
        });
        holdings.collect()
    }
}
