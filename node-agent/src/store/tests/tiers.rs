//! A store of several tiers, each on a disk of its own.

use super::*;
use crate::store::disk::Disk;
use crate::store::subscription::Taken;
use crate::store::{Store, Tier};
use hearth_core::selection::Selection;
use hearth_core::tier::Medium;
use hearth_core::wire::report::Change;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A slow disk, which is home, and a fast one.
#[derive(Clone, Default)]
struct Disks {
    home: FakeDisk,
    fast: FakeDisk,
}

impl Disks {
    fn open(&self) -> Store {
        let on = |medium, disk: &FakeDisk| {
            (StoreConfig { medium, ..config() }, Arc::new(disk.clone()) as Arc<dyn Disk>)
        };
        Store::open_on(&[on(Medium::Hdd, &self.home), on(Medium::Ssd, &self.fast)]).unwrap()
    }
}

fn fast(store: &Store) -> &Tier {
    &store.tiers()[0]
}

fn put(store: &Store, version: &Version) {
    store.put_manifest(version.hash, "ns/d", &version.bytes).unwrap();
    store.adopt(&version.hash).unwrap();
}

/// A store of which both tiers know a version, and hold nothing of it.
fn known_to_both() -> (Disks, Store, Version) {
    let (disks, version) = (Disks::default(), small());
    let store = disks.open();
    put(&store, &version);
    store.admit(fast(&store).id(), &version.hash).unwrap();
    (disks, store, version)
}

fn write(tier: &Tier, version: &Version, file: usize, block: u64) {
    tier.write_block(&version.hash, file, block, &version.content(file, block)).unwrap();
}

fn held(store: &Store, version: &Version) -> Vec<u32> {
    store.held(&version.hash).unwrap_or_default().iter().collect()
}

#[test]
fn a_block_counts_when_any_tier_has_it() {
    let (disks, version) = (Disks::default(), small());
    let store = disks.open();
    assert_eq!(fast(&store).medium(), Medium::Ssd, "the fastest is first");
    put(&store, &version);
    assert!(!fast(&store).is_adopted(&version.hash), "it has none of it");
    store.admit(fast(&store).id(), &version.hash).unwrap();
    write(fast(&store), &version, 0, 0);
    write(store.home(), &version, 2, 0);
    write(store.home(), &version, 2, 1);
    assert_eq!(held(&store, &version), [0, 2, 3]);
    let all = store.missing(&version.hash, &Selection::all()).unwrap();
    assert_eq!(all.iter().collect::<Vec<_>>(), [1]);
    for (file, block) in [(0, 0), (2, 0), (2, 1)] {
        assert_eq!(store.read_block(&version.hash, file, block).unwrap(), Some(version.content(file, block)));
        assert!(store.verify_block(&version.hash, file, block).unwrap().is_some());
    }
    assert_eq!(store.read_block(&version.hash, 1, 0).unwrap(), None);
    assert!(store.whole_file(&version.hash, 2).unwrap().is_some());
    assert_eq!(fast(&store).whole_file(&version.hash, 2).unwrap(), None);
    assert_eq!(store.usage().unwrap().used_bytes, 1000 + block::BLOCK_SIZE + 100);
    store.retire(&version.hash).unwrap();
    assert!(store.manifests().is_empty() && store.usage().unwrap().used_bytes == 0);
}

#[test]
fn a_version_that_shares_objects_is_known_where_they_are() {
    let (disks, old) = (Disks::default(), small());
    let store = disks.open();
    put(&store, &old);
    store.admit(fast(&store).id(), &old.hash).unwrap();
    write(fast(&store), &old, 0, 0);
    let new = Version::new("ns", &[("a", "1", 1000), ("new", "1", 10)]);
    put(&store, &new);
    assert_eq!(held(&store, &new), [0], "it has not changed");
    // And the other way round: what comes for one has come for the other.
    let other = Version::new("other", &[("x", "1", 10), ("y", "1", 10)]);
    let its_new = Version::new("other", &[("y", "1", 10)]);
    put(&store, &other);
    put(&store, &its_new);
    store.admit(fast(&store).id(), &other.hash).unwrap();
    write(fast(&store), &other, 1, 0);
    assert_eq!(held(&store, &its_new), [0]);
}

#[test]
fn a_tier_that_comes_back_empty_holds_nothing_and_the_others_go_on() {
    let (disks, store, version) = known_to_both();
    write(fast(&store), &version, 0, 0);
    write(store.home(), &version, 1, 0);
    drop(store);
    let disks = Disks { fast: FakeDisk::default(), ..disks };
    let store = disks.open();
    assert_eq!(held(&store, &version), [1]);
    store.admit(fast(&store).id(), &version.hash).unwrap();
    write(fast(&store), &version, 0, 0);
    assert_eq!(held(&store, &version), [0, 1]);
}

#[test]
fn a_tier_that_cannot_be_opened_is_left_out() {
    let (disks, version) = (Disks::default(), small());
    drop(disks.open());
    disks.fast.fail(true);
    let store = disks.open();
    assert_eq!(store.tiers().len(), 1);
    put(&store, &version);
    write(store.home(), &version, 0, 0);
    assert_eq!(held(&store, &version), [0]);
}

#[test]
fn a_disk_that_fails_again_and_again_is_done_without_until_it_works() {
    let (disks, store, version) = known_to_both();
    write(fast(&store), &version, 0, 0);
    write(fast(&store), &version, 1, 0);
    write(store.home(), &version, 2, 0);
    let (_, feed) = store.subscribe();
    disks.fast.fail(true);
    assert!(fast(&store).works(), "nobody has noticed");
    for _ in 0..20 {
        let _ = store.read_block(&version.hash, 0, 0);
        let _ = fast(&store).write_block(&version.hash, 3, 0, &[]);
        let data = version.content(2, 1);
        let _ = fast(&store).write_block(&version.hash, 2, 1, &data);
    }
    assert!(!fast(&store).works());
    assert_eq!(held(&store, &version), [2], "what it holds counts as missing");
    let Taken::Changes(changes) = feed.take_changes() else { panic!("too many") };
    let [Change::Blocks { removed, added, .. }] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((removed.0.iter().collect::<Vec<_>>(), added.0.len()), (vec![0, 1], 0));
    // Everything else goes on.
    write(store.home(), &version, 2, 1);
    assert!(store.whole_file(&version.hash, 2).unwrap().is_some());
    assert_eq!(store.usage().unwrap().used_bytes, block::BLOCK_SIZE + 100);
    fast(&store).look_after();
    assert!(!fast(&store).works(), "it still fails");
    disks.fast.fail(false);
    disks.fast.set_capacity(Some(disks.fast.used()));
    fast(&store).look_after();
    assert!(fast(&store).works());
    assert_eq!(held(&store, &version), [0, 1, 2, 3]);
    assert_eq!(store.read_block(&version.hash, 0, 0).unwrap(), Some(version.content(0, 0)), "full, and good");
}

#[test]
fn what_one_tier_forgets_others_still_hold() {
    let (_, store, version) = known_to_both();
    write(fast(&store), &version, 0, 0);
    write(store.home(), &version, 1, 0);
    let (_, feed) = store.subscribe();
    fast(&store).engine.retire(&version.hash).unwrap();
    let Taken::Changes(changes) = feed.take_changes() else { panic!("too many") };
    let [Change::Forgotten(_), Change::Blocks { added, dataset, .. }] = &changes[..] else {
        panic!("{changes:?}")
    };
    assert_eq!((added.0.iter().collect::<Vec<_>>(), dataset.as_str()), (vec![1], "ns/d"));
}

#[test]
fn home_may_fail_while_the_others_go_on() {
    let (disks, version) = (Disks::default(), small());
    let store = disks.open();
    put(&store, &version);
    let manifest = store.manifest(&version.hash).unwrap();
    write(store.home(), &version, 1, 0);
    disks.home.fail(true);
    store.home().look_after();
    assert!(!store.home().works());
    // What is known of it in memory is enough.
    store.admit(fast(&store).id(), &version.hash).unwrap();
    write(fast(&store), &version, 0, 0);
    assert_eq!(held(&store, &version), [0]);
    assert_eq!(store.read_block(&version.hash, 0, 0).unwrap(), Some(version.content(0, 0)));
    assert_eq!(store.read_block(&version.hash, 1, 0).unwrap(), None);
    let other = Version::new("other", &[("x", "1", 10)]);
    put(&store, &other);
    write(fast(&store), &other, 0, 0);
    assert_eq!(held(&store, &other), [0]);
    drop(manifest);
}

#[test]
fn what_was_forgotten_while_a_disk_was_away_is_forgotten_when_it_is_back() {
    let (disks, store, version) = known_to_both();
    write(fast(&store), &version, 0, 0);
    fast(&store).look_after();
    assert!(fast(&store).works());
    disks.fast.fail(true);
    fast(&store).look_after();
    assert!(!fast(&store).works(), "though nobody has asked anything of it");
    store.retire(&version.hash).unwrap();
    assert!(store.manifests().is_empty());
    disks.fast.fail(false);
    fast(&store).look_after();
    assert_eq!(store.manifests(), [(version.hash, "ns/d".to_owned())], "so that it can be forgotten");
    store.retire(&version.hash).unwrap();
    assert!(store.manifests().is_empty());
    assert_eq!(fast(&store).usage().unwrap().used_bytes, 0);
}

#[derive(Clone, Debug)]
enum Step {
    /// Write a file's first block into home, or the fast tier.
    Write(bool, usize),
    /// Give a file up there.
    Evict(bool, usize),
    /// Look what has changed.
    Take,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (any::<bool>(), 0usize..3).prop_map(|(fast, file)| Step::Write(fast, file)),
        (any::<bool>(), 0usize..3).prop_map(|(fast, file)| Step::Evict(fast, file)),
        Just(Step::Take),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Who follows the changes knows what the tiers hold together.
    #[test]
    fn the_feed_says_what_is_held(steps in prop::collection::vec(step(), 1..24)) {
        let (disks, version) = (Disks::default(), Version::new("ns", &[("a", "1", 10), ("b", "1", 10), ("c", "1", 10)]));
        let store = disks.open();
        put(&store, &version);
        store.admit(fast(&store).id(), &version.hash).unwrap();
        let (_, feed) = store.subscribe();
        let (mut known, mut truth) = (BTreeSet::new(), [BTreeSet::new(), BTreeSet::new()]);
        for step in steps.into_iter().chain([Step::Take]) {
            let tier = |is_fast: bool| if is_fast { fast(&store) } else { store.home() };
            match step {
                Step::Write(is_fast, file) => {
                    write(tier(is_fast), &version, file, 0);
                    truth[usize::from(is_fast)].insert(file as u32);
                }
                Step::Evict(is_fast, file) => {
                    tier(is_fast).evict(&version.hash, &[file], Arc::default(), &mut || ()).unwrap();
                    truth[usize::from(is_fast)].remove(&(file as u32));
                }
                Step::Take => {
                    let Taken::Changes(changes) = feed.take_changes() else { panic!("too many") };
                    for change in changes {
                        let Change::Blocks { added, removed, .. } = change else { panic!("{change:?}") };
                        known.retain(|number| !removed.0.contains(*number));
                        known.extend(added.0.iter());
                    }
                    let all: BTreeSet<u32> = &truth[0] | &truth[1];
                    prop_assert_eq!(&known, &all);
                    prop_assert_eq!(held(&store, &version), all.into_iter().collect::<Vec<_>>());
                }
            }
        }
    }
}
