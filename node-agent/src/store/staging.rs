//! What block commands do to the rows of the index, and to what is held.

use super::commands::{GiveUp, Write};
use super::index::{Fault, Tables};
use super::inventory::BlockChange;
use super::manifests::Object;
use super::rows::{self, BLOCKS_PER_CHUNK, BLOCKS_PER_ROW, ObjectRow};
use hearth_core::block::{self, BlockNumber};
use hearth_core::manifest::ManifestHash;
use hearth_core::object::ObjectId;
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, HashSet};

/// Which manifests list an object, and from which block numbers on.
pub(super) type Places = Vec<(ManifestHash, Vec<BlockNumber>)>;

/// A transaction's work in progress.
pub(super) struct Staging {
    /// Bytes of all held blocks.
    pub(super) used: u64,
    pub(super) changes: BTreeMap<ManifestHash, BlockChange>,
    /// Objects of which all rows were removed.
    pub(super) taken: HashSet<ObjectId>,
}

impl Staging {
    pub(super) fn new(used: u64) -> Self {
        Self { used, changes: BTreeMap::new(), taken: HashSet::new() }
    }

    fn change(&mut self, places: &Places, block: u64, added: bool) {
        for (hash, first_blocks) in places {
            let change = self.changes.entry(*hash).or_insert_with(|| BlockChange::of(*hash));
            let (to, from) = match added {
                true => (&mut change.added, &mut change.removed),
                false => (&mut change.removed, &mut change.added),
            };
            for first in first_blocks {
                // Within the manifest's numbers, as the file has this block.
                let number = first + block as BlockNumber;
                to.insert(number);
                from.remove(number);
            }
        }
    }

    pub(super) fn write(
        &mut self,
        tables: &mut Tables<'_>,
        write: &Write,
        places: &Places,
    ) -> Result<(), Fault> {
        let key = rows::object_key(&write.object.id, write.block);
        let mut row = row_for(tables, &write.object, write.block)?;
        let slot = &mut row.sums[(write.block % BLOCKS_PER_ROW) as usize];
        if slot.replace(write.sum).is_none() {
            self.used += write.length;
        }
        tables.put_object(&key, &row)?;
        self.change(places, write.block, true);
        Ok(())
    }

    /// Whether the object's file has to go.
    pub(super) fn give_up(
        &mut self,
        tables: &mut Tables<'_>,
        give_up: &GiveUp,
        places: &Places,
    ) -> Result<bool, Fault> {
        let (object, block) = (&give_up.object, give_up.block);
        let key = rows::object_key(&object.id, block);
        let mut row = row_for(tables, object, block)?;
        let slot = (block % BLOCKS_PER_ROW) as usize;
        if row.sums[slot].is_some() && row.sums[slot] != give_up.sum {
            return Ok(false);
        }
        // A file that was whole may be open elsewhere: it is never written again.
        if give_up.entire || is_whole(tables, object)? {
            self.take(tables, object, places)?;
            return Ok(true);
        }
        if row.sums[slot].take().is_some() {
            self.used = self.used.saturating_sub(block_bytes(object.size, block));
        }
        tables.put_object(&key, &row)?;
        self.change(places, block, false);
        // A file of which nothing is held would stay until the next sweep.
        let is_empty = !tables.has_object(&object.id)?;
        if is_empty {
            self.taken.insert(object.id);
        }
        Ok(is_empty)
    }

    pub(super) fn take(
        &mut self,
        tables: &mut Tables<'_>,
        object: &Object,
        places: &Places,
    ) -> Result<(), Fault> {
        self.taken.insert(object.id);
        for (first, row) in tables.take_object(&object.id)? {
            for (_, bytes) in held_in(first, &row) {
                self.used = self.used.saturating_sub(bytes);
            }
        }
        if !places.is_empty() {
            // All of them, held or not: a damaged row does not say.
            (0..object.blocks()).for_each(|block| self.change(places, block, false));
        }
        Ok(())
    }
}

/// The row of a block, empty when there is none that is good.
fn row_for(tables: &Tables<'_>, object: &Object, block: u64) -> Result<ObjectRow, Fault> {
    let first = block / BLOCKS_PER_ROW * BLOCKS_PER_ROW;
    let blocks = (object.blocks() - first).min(BLOCKS_PER_ROW) as usize;
    let row = tables.object(&rows::object_key(&object.id, block))?;
    let fits = |row: &ObjectRow| row.size == object.size && row.sums.len() == blocks;
    Ok(row.filter(fits).unwrap_or_else(|| ObjectRow::empty(object.size, blocks)))
}

fn is_whole(tables: &Tables<'_>, object: &Object) -> Result<bool, Fault> {
    for first in (0..object.blocks()).step_by(BLOCKS_PER_ROW as usize) {
        if !row_for(tables, object, first)?.sums.iter().all(Option::is_some) {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn block_bytes(size: u64, block: u64) -> u64 {
    let range = block::byte_range(size, block);
    range.end - range.start
}

/// The held blocks of a row and their bytes.
pub(super) fn held_in(first: u64, row: &ObjectRow) -> impl Iterator<Item = (u64, u64)> {
    let held = (first..).zip(&row.sums).filter(|(_, sum)| sum.is_some());
    held.map(|(block, _)| (block, block_bytes(row.size, block)))
}

/// The part of a manifest's blocks that one holdings row speaks of.
pub(super) fn part(blocks: &RoaringBitmap, chunk: u16) -> RoaringBitmap {
    let first = u32::from(chunk) * BLOCKS_PER_CHUNK;
    let mut mask = RoaringBitmap::new();
    mask.insert_range(first..=first + (BLOCKS_PER_CHUNK - 1));
    blocks & mask
}

/// Writes all holdings rows of a manifest in place of what is there.
pub(super) fn put_holdings(
    tables: &mut Tables<'_>,
    hash: &ManifestHash,
    held: &RoaringBitmap,
) -> Result<(), Fault> {
    tables.remove_holdings(hash)?;
    let last = held.max().map_or(0, |number| (number / BLOCKS_PER_CHUNK) as u16);
    for chunk in 0..=last {
        tables.put_holding(hash, chunk, &part(held, chunk))?;
    }
    Ok(())
}
