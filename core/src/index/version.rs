//! One version of a dataset: its manifest, who holds which blocks of it, and the
//! bytes held of every selection that is kept counted.

use super::NodeId;
use crate::manifest::{Manifest, Selected};
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
    pub(super) selected: Selected,
    pub(super) by_node: HashMap<NodeId, u64>,
    prepared_at: u64,
}

#[derive(Default)]
pub(super) struct Version {
    pub(super) manifest: Option<Arc<Manifest>>,
    holders: HashMap<NodeId, Held>,
    counted: HashMap<Selection, Counted>,
}

impl Version {
    pub(super) fn set_manifest(&mut self, manifest: Arc<Manifest>) {
        self.counted.clear();
        let all = Selected::all(&manifest);
        self.manifest = Some(manifest);
        self.count(Selection::all(), all, u64::MAX);
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
                let bytes = counted.selected.bytes_of(&manifest, &held.blocks);
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
            let plus = counted.selected.bytes_of(manifest, &added);
            let minus = counted.selected.bytes_of(manifest, &removed);
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

    /// Whether a node has said that it holds all of what is counted.
    pub(super) fn is_whole(&self, counted: &Counted, node: NodeId) -> bool {
        let held = counted.by_node.get(&node).copied().unwrap_or(0);
        held == counted.selected.bytes && self.reported_by(node)
    }

    pub(super) fn counted(&self, selection: &Selection) -> Option<&Counted> {
        self.counted.get(selection)
    }

    /// Starts to keep a selection counted.
    pub(super) fn count(&mut self, selection: Selection, selected: Selected, now: u64) {
        // Whoever was slower in finding the same changes nothing.
        if self.counted.contains_key(&selection) {
            return self.touch(&selection, now);
        }
        let Some(manifest) = &self.manifest else { return };
        let by_node = self.bytes_by_node(manifest, &selected);
        self.counted.insert(selection, Counted { selected, by_node, prepared_at: now });
    }

    /// What each holder has of a selection.
    pub(super) fn bytes_by_node(&self, manifest: &Manifest, selected: &Selected) -> HashMap<NodeId, u64> {
        let mut by_node = HashMap::new();
        for (node, held) in &self.holders {
            set(&mut by_node, *node, selected.bytes_of(manifest, &held.blocks));
        }
        by_node
    }

    /// Marks a selection as still of use.
    pub(super) fn touch(&mut self, selection: &Selection, now: u64) {
        if let Some(counted) = self.counted.get_mut(selection) {
            counted.prepared_at = now.max(counted.prepared_at);
        }
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
