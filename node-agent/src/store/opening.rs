//! Opening a store: directories, the index or a new one in its place, and the
//! inventory that it holds.

use super::disk::{Disk, is_absent};
use super::engine::{Common, Shared};
use super::error::StoreError;
use super::health::Health;
use super::index::{Index, Loaded, OpenFault, meta};
use super::inventory::Inventory;
use super::layout::{Layout, fan_out};
use super::manifests::Manifests;
use super::rows::{FORMAT, ManifestRow, ManifestState};
use super::space::Space;
use super::stats::{StoreStats, count};
use super::torn::Torn;
use super::unsynced::Unsynced;
use super::{StoreConfig, StoreIdentity};
use hearth_core::manifest::ManifestHash;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What is left to do once the committer runs.
pub(super) struct Unfinished {
    /// Adopted manifests of whose holdings a row is damaged.
    pub(super) adopt_again: Vec<ManifestHash>,
    /// Objects may be there that no manifest lists.
    pub(super) collect: bool,
}

/// Opens or makes the store.
pub(super) fn open(
    disk: Arc<dyn Disk>,
    config: &StoreConfig,
    common: &Common,
) -> Result<(Arc<Shared>, Unfinished), StoreError> {
    let layout = Layout::new(&config.directory);
    let root = layout.root();
    disk.make_dir(root).map_err(|error| StoreError::io(root, error))?;
    let lock_path = layout.lock();
    let lock = disk.lock(&lock_path).map_err(|error| StoreError::io(&lock_path, error))?;
    let lock = lock.ok_or_else(|| StoreError::Locked { directory: root.to_owned() })?;
    make_directories(disk.as_ref(), &layout)?;

    let stats = Arc::clone(&common.stats);
    let (index, mut loaded) = open_index(&disk, &layout, &stats)?;
    let uuid = match loaded.uuid {
        Some(uuid) => uuid,
        None => disk.random().map_err(|error| StoreError::io(root, error))?,
    };
    let identity =
        StoreIdentity { uuid: uuid::Builder::from_random_bytes(uuid).into_uuid(), boot: loaded.boot + 1 };

    let files = list_manifests(disk.as_ref(), &layout)?;
    let (missing, kept): (Vec<_>, Vec<_>) =
        loaded.manifests.iter().partition(|(hash, _)| !files.contains(hash));
    let lost: Vec<ManifestHash> =
        missing.iter().map(|(hash, _)| **hash).chain(loaded.damaged_manifests.iter().copied()).collect();
    for hash in &lost {
        tracing::warn!(manifest = %hash, "a manifest is lost, and is forgotten with its holdings");
    }
    count(&stats.manifests_lost, lost.len() as u64);
    let damaged_rows = loaded.damaged_manifests.len() + loaded.damaged_holdings.len() + loaded.damaged_notes;
    count(&stats.rows_damaged, damaged_rows as u64);
    let manifests = Manifests::new(Arc::clone(&disk), layout.clone(), Arc::clone(&common.decoded));
    let file_system = disk.file_system(root).map_err(|error| StoreError::io(root, error))?;
    let torn = Torn::find(disk.as_ref(), &layout, &index, &manifests, &loaded)?;
    torn.tell(&layout, &stats);
    let is_damaged = |hash: &ManifestHash| loaded.damaged_holdings.contains(hash);
    let collect = loaded.collect || !lost.is_empty();
    let used = index.write(|tables| {
        let used = torn.take(tables, loaded.used)?;
        tables.put_meta(meta::FORMAT, &FORMAT.to_le_bytes())?;
        tables.put_meta(meta::UUID, identity.uuid.as_bytes())?;
        tables.put_meta(meta::BOOT, &identity.boot.to_le_bytes())?;
        tables.put_meta(meta::USED, &used.to_le_bytes())?;
        tables.put_meta(meta::COLLECT, &u64::from(collect).to_le_bytes())?;
        for hash in &lost {
            tables.remove_holdings(hash)?;
            tables.remove_manifest(hash)?;
        }
        for (hash, row) in kept.iter().filter(|(hash, _)| is_damaged(hash)) {
            tables.remove_holdings(hash)?;
            let row = ManifestRow { state: state_of(row.state, true), dataset: row.dataset.clone() };
            tables.put_manifest(hash, &row)?;
        }
        Ok(used)
    })?;
    let lost_files = !torn.is_empty();
    loaded.holdings.extend(torn.holdings);

    let inventory = Inventory::default();
    let mut adopt_again = Vec::new();
    for (hash, row) in kept {
        let state = state_of(row.state, is_damaged(hash));
        if state != row.state {
            adopt_again.push(*hash);
        }
        let held = match state {
            ManifestState::Adopted => loaded.holdings.get(hash).cloned().unwrap_or_default(),
            _ => Default::default(),
        };
        inventory.load(*hash, row.dataset.clone(), state, held);
    }
    let space = Space::new(Arc::clone(&disk), layout.clone(), config, common.tier);
    space.set_used(used);
    if let Err(error) = space.keep_ballast() {
        tracing::warn!(%error, "there is no ballast: on a full disk the index may not be able to delete");
    }
    let shared = Shared {
        manifests,
        disk,
        layout,
        index,
        inventory,
        gate: Arc::default(),
        busy: Arc::default(),
        space: Arc::new(space),
        health: Health::default(),
        unsynced: Unsynced::of(&loaded, config.medium, file_system),
        lost_files,
        stats,
        identity,
        closing: AtomicBool::new(false),
        _lock: lock,
    };
    Ok((Arc::new(shared), Unfinished { adopt_again, collect }))
}

/// One whose holdings are damaged has to be adopted again.
fn state_of(state: ManifestState, damaged: bool) -> ManifestState {
    match state {
        ManifestState::Adopted if damaged => ManifestState::Stored,
        state => state,
    }
}

fn make_directories(disk: &dyn Disk, layout: &Layout) -> Result<(), StoreError> {
    let make = |path: &Path| disk.make_dir(path).map_err(|error| StoreError::io(path, error));
    let sync = |path: &Path| disk.sync_dir(path).map_err(|error| StoreError::io(path, error));
    make(&layout.manifests())?;
    make(&layout.objects())?;
    for name in fan_out() {
        make(&layout.objects().join(name))?;
    }
    sync(&layout.objects())?;
    sync(layout.root())?;
    match layout.root().parent() {
        Some(parent) if parent != Path::new("") => sync(parent),
        _ => Ok(()),
    }
}

fn list_manifests(disk: &dyn Disk, layout: &Layout) -> Result<HashSet<ManifestHash>, StoreError> {
    let directory = layout.manifests();
    let names = disk.list(&directory).map_err(|error| StoreError::io(&directory, error))?;
    Ok(names.iter().filter_map(|name| ManifestHash::parse(name)).collect())
}

/// Opens the index; a damaged one is put aside, and its files become orphans.
fn open_index(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    stats: &StoreStats,
) -> Result<(Index, Loaded), StoreError> {
    let path = layout.index();
    let suspicion = layout.suspicion();
    let is_suspected = match disk.open_to_read(&suspicion) {
        Ok(_) => true,
        Err(error) if is_absent(&error) => false,
        Err(error) => return Err(StoreError::io(&suspicion, error)),
    };
    let opened = match Index::open(Arc::clone(disk), &path, is_suspected) {
        Ok(opened) => opened,
        Err(OpenFault::Refused(error)) => return Err(error),
        Err(OpenFault::Damaged(why)) => {
            tracing::error!(path = %path.display(), why, "the index is damaged: the store begins empty");
            count(&stats.index_rebuilds, 1);
            disk.rename(&path, &layout.damaged_index()).map_err(|error| StoreError::io(&path, error))?;
            let opened = Index::open(Arc::clone(disk), &path, false);
            opened.map_err(|fault| match fault {
                OpenFault::Refused(error) => error,
                OpenFault::Damaged(why) => StoreError::Damaged { what: "a new index".into(), why },
            })?
        }
    };
    let synced = || {
        disk.remove(&suspicion)?;
        disk.sync_dir(layout.root())
    };
    synced().map_err(|error| StoreError::io(layout.root(), error))?;
    Ok(opened)
}
