//! Writing, reading, sharing, adopting and retiring.

use super::*;
use crate::store::subscription::Taken;
use hearth_core::selection::Selection;
use hearth_core::wire::report::Change;

/// A manifest's blocks that were added, and that were removed.
type Moved = (ManifestHash, Vec<u32>, Vec<u32>);

/// What a feed says was added and removed, and forgotten.
fn taken(taken: Taken) -> (Vec<Moved>, Vec<ManifestHash>) {
    let Taken::Changes(changes) = taken else { panic!("lagged") };
    let (mut blocks, mut forgotten) = (Vec::new(), Vec::new());
    for change in changes {
        match change {
            Change::Forgotten(hash) => forgotten.push(hash),
            Change::Blocks { manifest, added, removed, .. } => {
                blocks.push((manifest, added.0.iter().collect(), removed.0.iter().collect()));
            }
        }
    }
    (blocks, forgotten)
}

#[test]
fn blocks_come_back_also_after_reopening() {
    let (disk, version) = (FakeDisk::default(), small());
    let store = open(&disk);
    let first = store.identity();
    version.put(&store).unwrap();
    let (snapshot, feed) = subscribe(&store);
    assert_eq!((snapshot.len(), snapshot[0].dataset.as_str()), (1, "ns/d"));
    version.write(&store, 0, 0).unwrap();
    version.write(&store, 2, 1).unwrap();
    version.write(&store, 2, 1).unwrap();
    assert_eq!(taken(feed.take_changes()).0, [(version.hash, vec![0, 3], vec![])]);
    assert_eq!(store.shared.space.used(), 1100);
    assert!(version.read(&store, 0, 0) && version.read(&store, 2, 1));
    assert!(!version.read(&store, 2, 0) && !version.read(&store, 1, 0));
    let missing = store.missing(&version.hash, &Selection::all()).unwrap();
    assert_eq!(missing.iter().collect::<Vec<_>>(), [1, 2]);
    drop(store);

    let store = open(&disk);
    assert_eq!(store.identity().uuid, first.uuid);
    assert_eq!(store.identity().boot, first.boot + 1);
    assert_eq!(version.held(&store), [0, 3]);
    assert_eq!(store.shared.space.used(), 1100);
    assert!(version.read(&store, 0, 0) && version.read(&store, 2, 1));
}

#[test]
fn wrong_arguments_are_refused() {
    let (disk, version) = (FakeDisk::default(), small());
    let store = open(&disk);
    let other = ManifestHash([9; 32]);
    assert!(matches!(store.put_manifest(other, "ns/d", &version.bytes), Err(StoreError::Damaged { .. })));
    assert!(matches!(store.adopt(&other), Err(StoreError::UnknownManifest(_))));
    store.put_manifest(version.hash, "ns/d", &version.bytes).unwrap();
    assert!(matches!(version.write(&store, 0, 0), Err(StoreError::UnknownManifest(_))));
    store.adopt(&version.hash).unwrap();
    for (file, block, bytes) in [(9, 0, 1), (3, 0, 0), (0, 1, 1), (0, 0, 999)] {
        let result = store.write_block_now(version.hash, file, block, &vec![0; bytes]);
        assert!(matches!(result, Err(StoreError::NoSuchBlock { .. })));
    }
    assert!(store.retire(&other).is_ok());
    assert!(matches!(
        Engine::open(Arc::new(disk), &config(), &Common::default()),
        Err(StoreError::Locked { .. })
    ));
}

#[test]
fn an_object_counts_in_every_manifest_that_lists_it() {
    let disk = FakeDisk::default();
    let old = Version::new("ns", &[("a", "1", 10), ("b", "1", 10)]);
    let new = Version::new("ns", &[("0", "1", 10), ("a", "1", 10), ("b", "2", 10)]);
    let stranger = Version::new("other", &[("a", "1", 10)]);
    let store = open(&disk);
    old.put(&store).unwrap();
    old.write(&store, 0, 0).unwrap();
    old.write(&store, 1, 0).unwrap();
    new.put(&store).unwrap();
    stranger.put(&store).unwrap();
    assert_eq!((new.held(&store), stranger.held(&store)), (vec![1], vec![]));

    let late = Version::new("ns", &[("a", "1", 10), ("b", "2", 10)]);
    late.put(&store).unwrap();
    let (_, feed) = subscribe(&store);
    new.write(&store, 2, 0).unwrap();
    let (mut changes, _) = taken(feed.take_changes());
    changes.sort();
    let mut expected = vec![(new.hash, vec![2], vec![]), (late.hash, vec![1], vec![])];
    expected.sort();
    assert_eq!(changes, expected);
    assert_eq!(store.shared.space.used(), 30);

    store.retire(&old.hash).unwrap();
    let (changes, forgotten) = taken(feed.take_changes());
    assert_eq!((changes, forgotten), (vec![], vec![old.hash]));
    assert_eq!(store.shared.space.used(), 20);
    assert!(new.read(&store, 1, 0) && late.read(&store, 0, 0));
    drop(store);
    assert!(!disk.files_below(&layout().objects()).contains(&old.path(1)));
    assert!(!disk.files_below(&layout().manifests()).contains(&layout().manifest(&old.hash)));

    let store = open(&disk);
    assert_eq!((new.held(&store), late.held(&store)), (vec![1, 2], vec![0, 1]));
    store.retire(&new.hash).unwrap();
    store.retire(&late.hash).unwrap();
    assert_eq!(store.shared.space.used(), 0);
    drop(store);
    assert!(disk.files_below(&layout().objects()).is_empty());
}

#[test]
fn a_retired_manifest_can_come_back() {
    let (disk, version) = (FakeDisk::default(), small());
    let store = open(&disk);
    version.put(&store).unwrap();
    version.write(&store, 0, 0).unwrap();
    store.retire(&version.hash).unwrap();
    assert!(store.manifests().is_empty());
    version.put(&store).unwrap();
    assert!(version.held(&store).is_empty());
    version.write(&store, 0, 0).unwrap();
    assert!(version.read(&store, 0, 0));
}

#[test]
fn a_dataset_can_take_a_manifest_over() {
    let (disk, version) = (FakeDisk::default(), small());
    let store = open(&disk);
    version.put(&store).unwrap();
    let (_, feed) = subscribe(&store);
    store.put_manifest(version.hash, "ns/other", &version.bytes).unwrap();
    assert_eq!(taken(feed.take_changes()).0, [(version.hash, vec![], vec![])]);
    drop(store);
    assert_eq!(open(&disk).manifests(), [(version.hash, "ns/other".to_owned())]);
}

#[test]
fn there_is_one_copy_of_a_manifest_in_memory() {
    let disk = FakeDisk::default();
    let names: Vec<String> = (0..5_000).map(|number| format!("{number:04}")).collect();
    let files: Vec<(&str, &str, u64)> = names.iter().map(|name| (name.as_str(), "1", 10)).collect();
    let version = Version::new("ns", &files);
    version.put(&open(&disk)).unwrap();
    let store = open(&disk);
    let copy = || store.manifest(&version.hash).unwrap().unwrap();
    let all_at_once = std::sync::Barrier::new(8);
    let copies: Vec<_> = std::thread::scope(|scope| {
        let wait_and_copy = || {
            all_at_once.wait();
            copy()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(wait_and_copy)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    store.put_manifest(version.hash, "ns/other", &version.bytes).unwrap();
    assert!(copies.iter().all(|one| Arc::ptr_eq(one, &copy())));
}

#[test]
fn writers_of_one_store_share_commits() {
    let disk = FakeDisk::default();
    let names: Vec<String> = (0..200).map(|number| format!("{number:03}")).collect();
    let files: Vec<(&str, &str, u64)> = names.iter().map(|name| (name.as_str(), "1", 10)).collect();
    let version = Version::new("ns", &files);
    let store = open(&disk);
    version.put(&store).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let (store, version) = (&store, &version);
            // Every block by two writers, who must not trip over each other.
            scope
                .spawn(move || (0..50).for_each(|n| version.write(store, (writer / 2) * 50 + n, 0).unwrap()));
        }
    });
    assert_eq!(version.held(&store).len(), 200);
    assert_eq!(store.shared.space.used(), 2000);
    assert_eq!(store.shared.stats.blocks_written.load(std::sync::atomic::Ordering::Relaxed), 200);
}
