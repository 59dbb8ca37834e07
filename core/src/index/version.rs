//! One version of a dataset: its manifest, who holds which blocks of it, and the
//! bytes held of every selection that is kept counted.

use super::NodeId;
use crate::manifest::Manifest;
use crate::selection::Selection;
use hashbrown::HashMap;
use roaring::RoaringBitmap;
use std::sync::Arc;

struct Held {
    blocks: RoaringBitmap,
    /// Said by the node itself, and not concluded from an older version.
    reported: bool,
}

/// A selection's bytes, counted for every holder and kept up to date by deltas,
/// so that a scheduler's call adds up nothing.
pub(super) struct Counted {
    /// `None`: all blocks of the manifest.
    blocks: Option<RoaringBitmap>,
    pub(super) bytes: u64,
    pub(super) by_node: HashMap<NodeId, u64>,
    pub(super) prepared_at: u64,
}

impl Counted {
    fn bytes_of(&self, manifest: &Manifest, blocks: &RoaringBitmap) -> u64 {
        match &self.blocks {
            None => manifest.bytes_of(blocks),
            Some(selected) => manifest.bytes_of(&(blocks & selected)),
        }
    }
}

#[derive(Default)]
pub(super) struct Version {
    pub(super) manifest: Option<Arc<Manifest>>,
    holders: HashMap<NodeId, Held>,
    counted: HashMap<Selection, Counted>,
}

impl Version {
    pub(super) fn set_manifest(&mut self, manifest: Arc<Manifest>) {
        self.manifest = Some(manifest);
        self.counted.clear();
        self.prepare(&Selection::all(), u64::MAX);
    }

    pub(super) fn reported_by(&self, node: NodeId) -> bool {
        self.holders.get(&node).is_some_and(|held| held.reported)
    }

    pub(super) fn is_reported(&self) -> bool {
        self.holders.values().any(|held| held.reported)
    }

    pub(super) fn holders(&self) -> impl Iterator<Item = (NodeId, &RoaringBitmap)> {
        self.holders.iter().map(|(node, held)| (*node, &held.blocks))
    }

    pub(super) fn held_by(&self, node: NodeId) -> Option<&RoaringBitmap> {
        self.holders.get(&node).map(|held| &held.blocks)
    }

    /// The node holds exactly these blocks.
    pub(super) fn replace(&mut self, node: NodeId, blocks: RoaringBitmap) {
        let held = Held { blocks, reported: true };
        if let Some(manifest) = self.manifest.clone() {
            for counted in self.counted.values_mut() {
                let bytes = counted.bytes_of(&manifest, &held.blocks);
                set(&mut counted.by_node, node, bytes);
            }
        }
        self.holders.insert(node, held);
    }

    /// Until the node says better, it holds these blocks.
    pub(super) fn suppose(&mut self, node: NodeId, blocks: RoaringBitmap) {
        if !self.reported_by(node) {
            self.replace(node, blocks);
            if let Some(held) = self.holders.get_mut(&node) {
                held.reported = false;
            }
        }
    }

    /// Blocks came to the node and went from it.
    pub(super) fn change(&mut self, node: NodeId, mut added: RoaringBitmap, mut removed: RoaringBitmap) {
        if !self.reported_by(node) {
            // The node's first word on this version replaces what was concluded.
            added -= removed;
            return self.replace(node, added);
        }
        let Some(held) = self.holders.get_mut(&node) else { return };
        added -= &held.blocks;
        removed &= &held.blocks;
        held.blocks |= &added;
        held.blocks -= &removed;
        let Some(manifest) = &self.manifest else { return };
        for counted in self.counted.values_mut() {
            let plus = counted.bytes_of(manifest, &added);
            let minus = counted.bytes_of(manifest, &removed);
            if plus != minus {
                let bytes = counted.by_node.get(&node).copied().unwrap_or(0) + plus - minus;
                set(&mut counted.by_node, node, bytes);
            }
        }
    }

    /// The node holds nothing and knows nothing of this version.
    pub(super) fn forget(&mut self, node: NodeId) {
        if self.holders.remove(&node).is_some() {
            for counted in self.counted.values_mut() {
                counted.by_node.remove(&node);
            }
        }
    }

    pub(super) fn counted(&self, selection: &Selection) -> Option<&Counted> {
        self.counted.get(selection)
    }

    /// Starts to keep a selection counted, or marks it as still of use.
    pub(super) fn prepare(&mut self, selection: &Selection, now: u64) {
        if let Some(counted) = self.counted.get_mut(selection) {
            counted.prepared_at = now.max(counted.prepared_at);
        } else if let Some(counted) = self.count(selection, now) {
            self.counted.insert(selection.clone(), counted);
        }
    }

    /// Counts a selection from nothing; `None` without a manifest.
    pub(super) fn count(&self, selection: &Selection, now: u64) -> Option<Counted> {
        let manifest = self.manifest.as_ref()?;
        let blocks = (!selection.is_all()).then(|| manifest.blocks_of(selection));
        let bytes = blocks.as_ref().map_or(manifest.bytes(), |blocks| manifest.bytes_of(blocks));
        let mut counted = Counted { blocks, bytes, by_node: HashMap::new(), prepared_at: now };
        for (node, held) in &self.holders {
            let bytes = counted.bytes_of(manifest, &held.blocks);
            set(&mut counted.by_node, *node, bytes);
        }
        Some(counted)
    }

    /// Selections that are kept counted, with their ages; never the whole, which stays.
    pub(super) fn ages(&self) -> impl Iterator<Item = (&Selection, u64)> {
        self.counted
            .iter()
            .filter(|(selection, _)| !selection.is_all())
            .map(|(s, counted)| (s, counted.prepared_at))
    }

    pub(super) fn uncount(&mut self, selection: &Selection) {
        self.counted.remove(selection);
    }
}

/// Nodes that hold nothing have no entry: an answer is as large as the warm part.
fn set(by_node: &mut HashMap<NodeId, u64>, node: NodeId, bytes: u64) {
    match bytes {
        0 => by_node.remove(&node),
        bytes => by_node.insert(node, bytes),
    };
}
