//! Background work after opening: what a crash left half done, and files that
//! nothing holds.

use super::commands::ManifestCommand;
use super::engine::{Queue, Shared};
use super::error::StoreError;
use super::layout::fan_out;
use super::retire;
use super::stats::count;
use hearth_core::manifest::ManifestHash;
use hearth_core::object::ObjectId;

/// Objects looked at in one read of the index.
const OBJECTS_AT_ONCE: usize = 1024;

/// Finishes what was begun, and sweeps. `collect` says that objects may be there
/// which no manifest lists.
pub(super) fn run(shared: &Shared, queue: &Queue, collect: bool) {
    let work = || -> Result<(), StoreError> {
        for hash in shared.inventory.retiring() {
            let _turn = shared.busy.turn(&hash)?;
            // Someone who put it again was first, and has finished this.
            if shared.inventory.retiring().contains(&hash) {
                retire::free(shared, queue, &hash, None)?;
            }
        }
        if collect {
            collect_objects(shared, queue)?;
        }
        sweep_manifests(shared)?;
        sweep_objects(shared)
    };
    match work() {
        Ok(()) | Err(StoreError::Closed) => {}
        Err(error) => {
            tracing::warn!(%error, "cleaning up after the last run failed; the next start tries again")
        }
    }
}

/// Removes rows of objects that no known manifest lists.
fn collect_objects(shared: &Shared, queue: &Queue) -> Result<(), StoreError> {
    let seen = shared.inventory.counting();
    // The first halves of the names: two that agree keep an object too many, which
    // the next time may find.
    let mut listed: Vec<u64> = Vec::new();
    for hash in &seen {
        let Some(manifest) = shared.manifests.load(hash)? else { return Ok(()) };
        let files = manifest.files().filter(|file| !file.unlisted);
        listed.extend(files.map(|file| first_half(&manifest.object_id(&file))));
    }
    listed.sort_unstable();
    let mut after = None;
    loop {
        if shared.is_closing() {
            return Err(StoreError::Closed);
        }
        let mut objects = shared.index.objects_after(after, OBJECTS_AT_ONCE)?;
        let Some(last) = objects.last().copied() else { break };
        after = Some(last);
        objects.retain(|id| listed.binary_search(&first_half(id)).is_err());
        let seen = seen.clone();
        if !queue.ask_manifest(|reply| ManifestCommand::Collect { objects, seen, reply })? {
            // A manifest came in between: its objects are not in our list.
            return Ok(());
        }
    }
    queue.ask_manifest(|reply| ManifestCommand::Collected { reply })
}

fn first_half(id: &ObjectId) -> u64 {
    u64::from_be_bytes(*id.0.first_chunk().expect("16 bytes have 8"))
}

/// Removes manifest files that the index does not know.
fn sweep_manifests(shared: &Shared) -> Result<(), StoreError> {
    let directory = shared.layout.manifests();
    let fail = |error| StoreError::io(&directory, error);
    for name in shared.disk.list(&directory).map_err(fail)? {
        let Some(hash) = name.get(..64).and_then(ManifestHash::parse) else { continue };
        let _turn = shared.busy.turn(&hash)?;
        if shared.inventory.state(&hash).is_none() || name.len() > 64 {
            shared.disk.remove(&directory.join(&name)).map_err(fail)?;
        }
    }
    Ok(())
}

/// Removes object files that have no row. Writers wait while their object is
/// looked at, and an object that is being written is left alone.
fn sweep_objects(shared: &Shared) -> Result<(), StoreError> {
    for name in fan_out() {
        let directory = shared.layout.objects().join(name);
        let fail = |error| StoreError::io(&directory, error);
        for name in shared.disk.list(&directory).map_err(fail)? {
            if shared.is_closing() {
                return Err(StoreError::Closed);
            }
            let Some(id) = ObjectId::parse(&name) else { continue };
            if shared.index.has_object(&id)? || !shared.gate.doom_if_idle(id) {
                continue;
            }
            let removed = match shared.index.has_object(&id) {
                Ok(true) => Ok(false),
                Ok(false) => shared.disk.remove(&directory.join(&name)).map_err(fail),
                Err(error) => Err(error),
            };
            shared.gate.revive(&id);
            count(&shared.stats.orphans_removed, u64::from(removed?));
        }
    }
    Ok(())
}
