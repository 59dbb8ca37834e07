//! The change feed: what came and went since a subscriber last looked.

use super::Store;
use super::inventory::BlockChange;
use super::tiers::Tiers;
use hearth_core::manifest::ManifestHash;
use hearth_core::wire::report::{Blocks, Change};
use parking_lot::Mutex;
use roaring::RoaringBitmap;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use tokio::sync::Notify;

/// Most block changes merged for a subscriber that does not take them; then it
/// has to begin again from a snapshot, which is cheaper by then.
const MAX_PENDING: u64 = 4 << 20;

/// What a subscriber gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Taken {
    /// All changes since the last time, merged; none when nothing changed.
    Changes(Vec<Change>),
    /// There were too many to keep: subscribe anew. The feed stays at this.
    Lagged,
}

/// One subscriber's feed. Changes are merged while they wait, so a slow
/// subscriber costs little.
#[derive(Debug)]
pub struct Subscription {
    feed: Arc<Feed>,
    /// Of a store of several tiers, since a block that one lost another may have.
    tiers: Option<Weak<Tiers>>,
}

impl Subscription {
    pub(super) fn new(feed: Arc<Feed>, tiers: Option<&Arc<Tiers>>) -> Self {
        Self { feed, tiers: tiers.map(Arc::downgrade) }
    }

    /// Takes what changed since the last time.
    pub fn take_changes(&self) -> Taken {
        let mut taken = self.feed.take();
        if let (Taken::Changes(changes), Some(tiers)) =
            (&mut taken, self.tiers.as_ref().and_then(Weak::upgrade))
        {
            *changes = as_it_is(std::mem::take(changes), &Store(tiers));
        }
        taken
    }

    /// Returns when there is something to take, at once when there is already.
    pub async fn changed(&self) {
        loop {
            let notified = self.feed.notify.notified();
            if self.feed.has_news() {
                return;
            }
            notified.await;
        }
    }
}

/// Says of changes in one tier what they are for the store. Looked at after they were taken: what
/// changes meanwhile is in the feed again.
fn as_it_is(changes: Vec<Change>, store: &Store) -> Vec<Change> {
    let mut all = Vec::with_capacity(changes.len());
    for change in changes {
        match change {
            Change::Forgotten(manifest) => {
                all.push(Change::Forgotten(manifest));
                // Only one tier has forgotten it.
                if let (Some(held), Some(dataset)) = (store.held(&manifest), store.dataset_of(&manifest)) {
                    let (added, removed) = (Blocks(held), Blocks(RoaringBitmap::new()));
                    all.push(Change::Blocks { manifest, dataset, added, removed });
                }
            }
            Change::Blocks { manifest, dataset, added, removed } => {
                let changed = added.0 | removed.0;
                let held = store.held(&manifest).unwrap_or_default();
                let (added, removed) = (Blocks(&changed & &held), Blocks(changed - held));
                all.push(Change::Blocks { manifest, dataset, added, removed });
            }
        }
    }
    all
}

/// The store's end of a [`Subscription`].
#[derive(Debug, Default)]
pub(super) struct Feed {
    pending: Mutex<Pending>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    manifests: BTreeMap<ManifestHash, Merged>,
    merged: u64,
    lagged: bool,
}

/// Changes of one manifest: first forgotten, if at all, then the blocks.
#[derive(Debug, Default)]
struct Merged {
    forgotten: bool,
    dataset: Option<String>,
    added: RoaringBitmap,
    removed: RoaringBitmap,
}

impl Feed {
    pub(super) fn blocks(&self, change: &BlockChange, dataset: &str) {
        self.merge(change.added.len() + change.removed.len(), change.manifest, |merged| {
            merged.dataset = Some(dataset.to_owned());
            merged.added -= &change.removed;
            merged.removed |= &change.removed;
            merged.removed -= &change.added;
            merged.added |= &change.added;
        });
    }

    pub(super) fn forgotten(&self, manifest: ManifestHash) {
        self.merge(1, manifest, |merged| *merged = Merged { forgotten: true, ..Merged::default() });
    }

    fn merge(&self, count: u64, manifest: ManifestHash, change: impl FnOnce(&mut Merged)) {
        {
            let mut pending = self.pending.lock();
            pending.merged += count.max(1);
            if pending.merged > MAX_PENDING {
                *pending = Pending { lagged: true, merged: MAX_PENDING, ..Pending::default() };
            } else if !pending.lagged {
                change(pending.manifests.entry(manifest).or_default());
            }
        }
        self.notify.notify_waiters();
    }

    fn has_news(&self) -> bool {
        let pending = self.pending.lock();
        pending.lagged || !pending.manifests.is_empty()
    }

    fn take(&self) -> Taken {
        let mut pending = self.pending.lock();
        if pending.lagged {
            return Taken::Lagged;
        }
        pending.merged = 0;
        let manifests = std::mem::take(&mut pending.manifests);
        drop(pending);
        let mut changes = Vec::with_capacity(manifests.len());
        for (manifest, merged) in manifests {
            if merged.forgotten {
                changes.push(Change::Forgotten(manifest));
            }
            if let Some(dataset) = merged.dataset {
                let (added, removed) = (Blocks(merged.added), Blocks(merged.removed));
                changes.push(Change::Blocks { manifest, dataset, added, removed });
            }
        }
        Taken::Changes(changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: ManifestHash = ManifestHash([1; 32]);

    fn change(added: &[u32], removed: &[u32]) -> BlockChange {
        BlockChange {
            manifest: HASH,
            added: added.iter().copied().collect(),
            removed: removed.iter().copied().collect(),
        }
    }

    #[test]
    fn waiting_changes_merge() {
        let feed = Feed::default();
        feed.blocks(&change(&[1, 2, 3], &[]), "ns/d");
        feed.blocks(&change(&[], &[2, 7]), "ns/d");
        feed.blocks(&change(&[7], &[]), "ns/d");
        let expected = Change::Blocks {
            manifest: HASH,
            dataset: "ns/d".into(),
            added: Blocks([1, 3, 7].into_iter().collect()),
            removed: Blocks([2].into_iter().collect()),
        };
        assert_eq!(feed.take(), Taken::Changes(vec![expected]));
        assert_eq!(feed.take(), Taken::Changes(vec![]));
    }

    #[test]
    fn what_is_forgotten_and_known_again_says_both_in_order() {
        let feed = Feed::default();
        feed.blocks(&change(&[1], &[]), "ns/d");
        feed.forgotten(HASH);
        feed.blocks(&change(&[4], &[]), "ns/d");
        let Taken::Changes(changes) = feed.take() else { panic!("lagged") };
        assert_eq!(changes.len(), 2);
        assert_eq!(changes[0], Change::Forgotten(HASH));
        assert!(matches!(&changes[1], Change::Blocks { added, .. } if added.0.len() == 1));
    }

    #[test]
    fn a_lagging_subscriber_is_told_so_for_good() {
        let feed = Feed::default();
        let mut large = change(&[], &[]);
        large.added.insert_range(0..=MAX_PENDING as u32);
        feed.blocks(&large, "ns/d");
        assert_eq!(feed.take(), Taken::Lagged);
        feed.blocks(&change(&[1], &[]), "ns/d");
        assert_eq!(feed.take(), Taken::Lagged);
    }
}
