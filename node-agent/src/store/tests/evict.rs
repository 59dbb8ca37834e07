//! Objects that are given up.

use super::*;
use crate::store::evict::{BlockSets, Evicted};
use hearth_core::evict::Amount;

#[test]
fn what_is_given_up_is_gone_from_all_manifests_that_list_it() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let (old, new) = (small(), Version::new("ns", &[("0", "1", 10), ("a", "1", 1000)]));
    old.put(&store).unwrap();
    new.put(&store).unwrap();
    for (file, block) in [(0, 0), (1, 0), (2, 1)] {
        old.write(&store, file, block).unwrap();
    }
    let evicted = store.evict(&old.hash, &[0, 2, 3], Arc::default(), &mut || ()).unwrap();
    let blocks = |numbers: &[u32]| numbers.iter().copied().collect();
    assert_eq!(
        evicted,
        Evicted {
            amount: Amount { bytes: 1100, objects: 2 },
            blocks: BlockSets::from([(old.hash, blocks(&[0, 2, 3])), (new.hash, blocks(&[1]))]),
        }
    );
    assert_eq!((old.held(&store), new.held(&store)), (vec![1], vec![]));
    assert_eq!(store.shared.space.used(), 500);
    assert_eq!(disk.files_below(&layout().objects()).len(), 1);
    // It can come again.
    new.write(&store, 1, 0).unwrap();
    assert!(old.read(&store, 0, 0));
}

#[test]
fn what_must_stay_or_is_being_written_stays() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let (old, new) = (small(), Version::new("ns", &[("a", "1", 1000)]));
    old.put(&store).unwrap();
    new.put(&store).unwrap();
    (0..3).for_each(|file| old.write(&store, file, 0).unwrap());
    let writing = store.shared.gate.enter(old.object(2), 1).unwrap();
    let stay = Arc::new(BlockSets::from([(new.hash, [0].into_iter().collect())]));
    let evicted = store.evict(&old.hash, &[0, 1, 2], stay, &mut || ()).unwrap();
    assert_eq!(evicted.amount, Amount { bytes: 500, objects: 1 });
    assert_eq!(old.held(&store), [0, 2]);
    drop(writing);
    old.write(&store, 2, 1).unwrap();
    assert!(old.read(&store, 2, 0) && old.read(&store, 2, 1) && old.read(&store, 0, 0));
}

#[test]
fn a_reader_that_comes_too_late_reports_no_damage() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let version = small();
    version.put(&store).unwrap();
    version.write(&store, 0, 0).unwrap();
    let late = |store: &Engine| store.give_up_now(version.hash, 0, 0);
    store.evict(&version.hash, &[0], Arc::default(), &mut || ()).unwrap();
    late(&store);
    assert_eq!(store.shared.stats.blocks_damaged.load(std::sync::atomic::Ordering::Relaxed), 0);
    version.write(&store, 0, 0).unwrap();
    assert!(version.read(&store, 0, 0));
}
