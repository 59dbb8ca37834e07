//! What a failing or lying disk does to a store.

use super::*;
use crate::store::disk::{Disk, read_all};
use crate::store::subscription::{Subscription, Taken};
use hearth_core::selection::Selection;
use std::sync::atomic::Ordering;

#[test]
fn a_flipped_byte_costs_its_block_only() {
    let (disk, version) = (FakeDisk::default(), small());
    let store = open(&disk);
    version.put(&store).unwrap();
    version.write(&store, 0, 0).unwrap();
    version.write(&store, 2, 1).unwrap();
    let (_, feed) = subscribe(&store);
    disk.flip(&version.path(2), block::BLOCK_SIZE as usize + 7);
    assert!(!version.read(&store, 2, 1));
    assert_eq!(version.held(&store), [0]);
    assert!(matches!(feed.take_changes(), Taken::Changes(changes) if changes.len() == 1));
    assert_eq!(store.shared.stats.blocks_damaged.load(Ordering::Relaxed), 1);
    version.write(&store, 2, 1).unwrap();
    assert!(version.read(&store, 2, 1));
}

/// Whoever has a whole file open keeps it as it is: damage makes a new file.
#[test]
fn a_damaged_whole_file_is_replaced_and_never_mended() {
    let (disk, version) = (FakeDisk::default(), small());
    let store = open(&disk);
    version.put(&store).unwrap();
    version.write(&store, 2, 0).unwrap();
    version.write(&store, 2, 1).unwrap();
    disk.flip(&version.path(2), 7);
    let reader = disk.open_to_read(&version.path(2)).unwrap();
    assert!(!version.read(&store, 2, 0));
    assert!(version.held(&store).is_empty());
    assert_eq!(store.shared.space.used(), 0);
    version.write(&store, 2, 0).unwrap();
    let mut byte = [0];
    reader.read_at(7, &mut byte).unwrap();
    assert_eq!(byte[0], version.content(2, 0)[7] ^ 0x55);
    assert!(version.read(&store, 2, 0) && !version.read(&store, 2, 1));
}

#[test]
fn a_file_of_which_nothing_is_left_goes() {
    let (disk, version) = (FakeDisk::default(), small());
    let store = open(&disk);
    version.put(&store).unwrap();
    version.write(&store, 2, 0).unwrap();
    disk.flip(&version.path(2), 7);
    assert!(!version.read(&store, 2, 0));
    drop(store);
    assert!(disk.files_below(&layout().objects()).is_empty());
}

#[test]
fn a_lost_file_leaves_the_inventory() {
    let (disk, version) = (FakeDisk::default(), small());
    let store = open(&disk);
    version.put(&store).unwrap();
    version.write(&store, 0, 0).unwrap();
    version.write(&store, 2, 0).unwrap();
    disk.lose(&version.path(2));
    assert!(!version.read(&store, 2, 0));
    assert_eq!(version.held(&store), [0]);
    version.write(&store, 2, 0).unwrap();
    assert!(version.read(&store, 2, 0));
}

#[test]
fn a_disk_that_fails_has_nothing_to_give_and_all_of_it_again_when_it_is_mended() {
    let (disk, version) = (FakeDisk::default(), small());
    let store = open(&disk);
    version.put(&store).unwrap();
    version.write(&store, 0, 0).unwrap();
    version.write(&store, 2, 0).unwrap();
    version.write(&store, 2, 1).unwrap();
    let (_, feed) = subscribe(&store);
    disk.fail(true);
    assert!(!version.read(&store, 2, 0) && !version.read(&store, 2, 1));
    assert_eq!(version.held(&store), [0]);
    assert_eq!(store.whole_file(&version.hash, 2).ok().flatten(), None);
    let missing = store.missing(&version.hash, &Selection::all()).unwrap();
    assert_eq!(missing.iter().collect::<Vec<_>>(), [1, 2, 3]);
    let changes = |feed: &Subscription| match feed.take_changes() {
        Taken::Changes(changes) => changes.len(),
        taken => panic!("{taken:?}"),
    };
    assert_eq!(changes(&feed), 1);
    version.write(&store, 2, 0).unwrap_err();
    assert_eq!(version.held(&store), [0]);

    disk.fail(false);
    let used = disk.used();
    version.write(&store, 2, 0).unwrap();
    version.write(&store, 2, 1).unwrap();
    assert_eq!(version.held(&store), [0, 2, 3]);
    assert!(version.read(&store, 2, 0) && version.read(&store, 2, 1));
    assert_eq!(changes(&feed), 1);
    assert_eq!(disk.used(), used, "what was whole is not written again");
    assert!(store.whole_file(&version.hash, 2).unwrap().is_some());
}

#[test]
fn a_damaged_index_makes_the_store_cold_and_true() {
    let (disk, version) = (FakeDisk::default(), small());
    let mut store = open(&disk);
    version.put(&store).unwrap();
    version.write(&store, 0, 0).unwrap();
    let uuid = store.identity().uuid;
    drop(store);
    disk.plant(&layout().index(), &[7; 100_000]);
    store = open(&disk);
    assert_ne!(store.identity().uuid, uuid);
    assert_eq!(store.shared.stats.index_rebuilds.load(Ordering::Relaxed), 1);
    assert!(store.manifests().is_empty());
    store.finish_background_work();
    assert!(disk.files_below(&layout().objects()).is_empty());
    assert!(disk.files_below(&layout().manifests()).is_empty());
    version.put(&store).unwrap();
    assert!(version.held(&store).is_empty());
    version.write(&store, 0, 0).unwrap();
    assert!(version.read(&store, 0, 0));
}

/// Wherever the index is damaged: it opens, whatever it claims is true, and no
/// thread dies of it.
#[test]
fn an_index_with_a_flipped_byte_claims_nothing_false() {
    let (pristine, version) = (FakeDisk::default(), small());
    let store = open(&pristine);
    version.put(&store).unwrap();
    version.write(&store, 0, 0).unwrap();
    version.write(&store, 2, 0).unwrap();
    drop(store);
    let index = read_all(&pristine, &layout().index()).unwrap();
    let places: Vec<usize> = (0..index.len()).filter(|at| index[*at] != 0).collect();
    for place in places.iter().step_by(places.len() / 60 + 1) {
        let disk = FakeDisk::default();
        for file in [version.path(0), version.path(2), layout().manifest(&version.hash)] {
            disk.plant(&file, &read_all(&pristine, &file).unwrap());
        }
        disk.plant(&layout().index(), &index);
        disk.flip(&layout().index(), *place);
        let mut store = open(&disk);
        store.finish_background_work();
        if store.is_adopted(&version.hash) {
            for number in version.held(&store) {
                let file = version.manifest.file_of_block(number).unwrap();
                // An error is allowed, another content is not.
                if let Ok(Some(bytes)) =
                    store.read_block(&version.hash, file.index, u64::from(number - file.first_block))
                {
                    assert!(bytes == version.content(file.index, u64::from(number - file.first_block)));
                }
            }
        }
    }
}

#[test]
fn a_lost_manifest_takes_its_objects_with_it() {
    let disk = FakeDisk::default();
    let (lost, kept) = (small(), Version::new("ns", &[("a", "1", 1000)]));
    let mut store = open(&disk);
    lost.put(&store).unwrap();
    kept.put(&store).unwrap();
    lost.write(&store, 0, 0).unwrap();
    lost.write(&store, 1, 0).unwrap();
    drop(store);
    disk.lose(&layout().manifest(&lost.hash));
    store = open(&disk);
    store.finish_background_work();
    assert_eq!(store.manifests(), [(kept.hash, "ns/d".to_owned())]);
    assert_eq!(kept.held(&store), [0]);
    assert_eq!(store.shared.space.used(), 1000);
    drop(store);
    assert_eq!(disk.files_below(&layout().objects()), [lost.path(0)].into());
}

#[test]
fn a_manifest_damaged_while_open_is_forgotten() {
    let (disk, version) = (FakeDisk::default(), small());
    let store = open(&disk);
    version.put(&store).unwrap();
    drop(store);
    disk.flip(&layout().manifest(&version.hash), 9);
    let store = open(&disk);
    assert!(matches!(store.read_block(&version.hash, 0, 0), Err(StoreError::Damaged { .. })));
    assert!(!store.is_adopted(&version.hash));
    version.put(&store).unwrap();
    version.write(&store, 0, 0).unwrap();
    assert!(version.read(&store, 0, 0));
}

#[test]
fn orphans_are_swept_and_never_mended() {
    let (disk, version) = (FakeDisk::default(), small());
    disk.plant(&version.path(0), &[1; 1000]);
    disk.plant(&version.path(1), &[1; 500]);
    disk.plant(&layout().new_manifest(&version.hash), &[1]);
    let mut store = open(&disk);
    version.put(&store).unwrap();
    version.write(&store, 1, 0).unwrap();
    store.finish_background_work();
    assert!(version.read(&store, 1, 0));
    assert_eq!(disk.files_below(&layout().objects()), [version.path(1)].into());
    assert_eq!(disk.files_below(&layout().manifests()), [layout().manifest(&version.hash)].into());
}

#[test]
fn a_failed_sync_fails_its_write_only() {
    let (disk, version) = (FakeDisk::default(), small());
    let store = open(&disk);
    version.put(&store).unwrap();
    // Each write syncs its own.
    store.shared.unsynced.close();
    disk.fail_object_syncs(true);
    assert!(matches!(version.write(&store, 2, 0), Err(StoreError::Io { .. })));
    assert!(version.held(&store).is_empty());
    disk.fail_object_syncs(false);
    version.write(&store, 2, 0).unwrap();
    assert!(version.read(&store, 2, 0));
}

#[test]
fn what_the_disk_lost_before_it_was_synced_is_given_up() {
    let (disk, version) = (FakeDisk::default(), small());
    let store = open(&disk);
    version.put(&store).unwrap();
    version.write(&store, 0, 0).unwrap();
    store.sync().unwrap();
    version.write(&store, 1, 0).unwrap();
    disk.lose_unsynced();
    assert!(matches!(store.sync(), Err(StoreError::Io { .. })));
    // Memory has it still, and only the next sync tells what the disk has.
    assert_eq!(version.held(&store), [0, 1]);
    store.sync().unwrap();
    assert_eq!(version.held(&store), [0]);
    version.write(&store, 1, 0).unwrap();
    store.sync().unwrap();
    assert_eq!(version.held(&store), [0, 1]);
    assert!(store.shared.index.unsynced().unwrap().is_empty());
}

#[test]
fn what_was_not_synced_is_read_before_it_is_claimed() {
    let (disk, version) = (FakeDisk::default(), small());
    let mut store = open(&disk);
    version.put(&store).unwrap();
    version.write(&store, 0, 0).unwrap();
    version.write(&store, 1, 0).unwrap();
    drop(store);
    disk.flip(&version.path(1), 7);
    store = open(&disk);
    assert_eq!(version.held(&store), [0]);
    assert_eq!(store.shared.space.used(), 1000);
    assert_eq!(store.shared.stats.blocks_damaged.load(Ordering::Relaxed), 1);
    // What is synced is found by who reads it.
    store.sync().unwrap();
    drop(store);
    disk.flip(&version.path(0), 7);
    store = open(&disk);
    assert_eq!(version.held(&store), [0]);
    assert!(!version.read(&store, 0, 0));
}

#[test]
fn a_store_from_before_there_were_notes_opens() {
    let (disk, version) = (FakeDisk::default(), small());
    let mut store = open(&disk);
    version.put(&store).unwrap();
    version.write(&store, 0, 0).unwrap();
    store.shared.index.drop_notes();
    drop(store);
    store = open(&disk);
    assert_eq!(version.held(&store), [0]);
    version.write(&store, 1, 0).unwrap();
    assert_eq!(store.shared.index.unsynced().unwrap(), [(version.object(1), 0)].into());
}

#[test]
fn of_a_large_file_goes_what_was_not_synced_unless_it_was_whole() {
    let version = Version::new("ns", &[("a", "1", 2 * block::BLOCK_SIZE + 100)]);
    let disk = FakeDisk::default();
    let mut store = open(&disk);
    version.put(&store).unwrap();
    version.write(&store, 0, 0).unwrap();
    store.sync().unwrap();
    version.write(&store, 0, 1).unwrap();
    assert_eq!(store.shared.index.unsynced().unwrap(), [(version.object(0), 1)].into());
    drop(store);
    disk.flip(&version.path(0), block::BLOCK_SIZE as usize + 7);
    store = open(&disk);
    assert_eq!((version.held(&store), store.shared.space.used()), (vec![0], block::BLOCK_SIZE));
    assert!(version.read(&store, 0, 0));
    version.write(&store, 0, 1).unwrap();
    store.sync().unwrap();
    version.write(&store, 0, 2).unwrap();
    // Somebody may have it open now.
    drop(store);
    disk.flip(&version.path(0), 2 * block::BLOCK_SIZE as usize + 7);
    store = open(&disk);
    assert_eq!((version.held(&store).len(), store.shared.space.used()), (0, 0));
}

#[test]
fn without_its_file_all_of_an_object_goes() {
    let (disk, version) = (FakeDisk::default(), small());
    let mut store = open(&disk);
    version.put(&store).unwrap();
    version.write(&store, 2, 0).unwrap();
    drop(store);
    disk.lose(&version.path(2));
    store = open(&disk);
    assert_eq!((version.held(&store).len(), store.shared.space.used()), (0, 0));
}
