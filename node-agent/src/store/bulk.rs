//! Makes the index of a large store in minutes instead of hours, for benchmarks.
//!
//! `bulk::make(&config, "ns/set", &encoding, |file| file % 2 == 0)` makes a store
//! that holds every second file of a manifest; with 20 million files of one block
//! each these are 10 million blocks.
//!
//! Only the index and the manifest are made, as they would be after all those
//! writes; object files are not, so every read drops its object. Enough for what
//! opening, snapshots and adoption cost.

use super::engine::{Common, Engine};
use super::real_disk::RealDisk;
use super::rows::{self, BLOCKS_PER_ROW, ObjectRow};
use super::{StoreConfig, StoreError, index::meta};
use hearth_core::block;
use hearth_core::manifest::ManifestHash;
use hearth_core::object::ObjectId;
use std::sync::Arc;

/// Rows in one transaction: as many as its memory allows.
const ROWS_AT_ONCE: usize = 500_000;

/// Makes a store that holds, in full, the files of the manifest that `held`
/// picks by index.
pub fn make(
    config: &StoreConfig,
    dataset: &str,
    encoding: &[u8],
    held: impl Fn(usize) -> bool,
) -> Result<ManifestHash, StoreError> {
    let hash = ManifestHash::of(encoding);
    let engine = Engine::open(Arc::new(RealDisk), config, &Common::default())?;
    engine.put_manifest(hash, dataset, encoding)?;
    let manifest = engine.manifest(&hash)?.ok_or(StoreError::UnknownManifest(hash))?;
    let picked = manifest.files().filter(|file| file.size > 0 && held(file.index));
    let mut objects: Vec<(ObjectId, u64)> =
        picked.map(|file| (manifest.object_id(&file), file.size)).collect();
    // In the order of the keys, which fills pages instead of splitting them.
    objects.sort_unstable_by_key(|(id, _)| *id);
    let mut used = engine.shared.space.used();
    for group in objects.chunks(ROWS_AT_ONCE) {
        engine.shared.index.write(|tables| {
            for (id, size) in group {
                used += size;
                let blocks = block::blocks_in(*size);
                for first in (0..blocks).step_by(BLOCKS_PER_ROW as usize) {
                    let count = (blocks - first).min(BLOCKS_PER_ROW) as usize;
                    let row = ObjectRow { size: *size, sums: vec![Some(0); count] };
                    tables.put_object(&rows::object_key(id, first), &row)?;
                }
            }
            tables.put_meta(meta::USED, &used.to_le_bytes())
        })?;
    }
    engine.adopt(&hash)?;
    Ok(hash)
}
