//! Volumes of a store of several tiers. In tests these are directories of one file system.

use super::*;
use crate::config::units::Size;
use crate::store::StoreConfig;
use crate::tiers::{Looked, Mover, MoverParts};
use hearth_core::tier::Medium;
use std::sync::atomic::Ordering;

/// The second is better, and takes so many bytes.
fn two(directory: &Path, capacity: u64) -> Store {
    let home = StoreConfig { medium: Medium::Hdd, ..StoreConfig::at(directory) };
    let fast = StoreConfig {
        capacity: Some(Size::Bytes(capacity)),
        ..StoreConfig::at(directory.with_file_name("fast"))
    };
    Store::open_tiers(&[home, fast]).unwrap()
}

const OBJECTS: [(&str, usize); 3] = [("a", 1000), ("b/c", 2000), ("b/d", 3000)];

fn held_in(world: &World, tier: usize) -> usize {
    let (tier, hash) = (&world.store.tiers()[tier], world.store.manifests()[0].0);
    tier.held(&hash).map_or(0, |held| held.len() as usize)
}

fn mover(world: &World) -> Mover {
    Mover::new(MoverParts {
        store: world.store.clone(),
        views: world.views.clone(),
        reads: world.reads.clone(),
        standings: world.standings(),
        metrics: world.metrics.clone(),
        shutdown: world.shutdown.clone(),
    })
}

/// What one tier holds of a file into the other, which knows the version.
fn copy(world: &World, from: usize, to: usize, file: usize) {
    let (hash, tiers) = (world.store.manifests()[0].0, world.store.tiers());
    let data = tiers[from].read_block(&hash, file, 0).unwrap().unwrap();
    world.store.admit(tiers[to].id(), &hash).unwrap();
    tiers[to].write_block(&hash, file, 0, &data).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_in_two_tiers_is_given_up_in_the_worse_one() {
    if !may_mount() {
        return;
    }
    let world = World::with_store(&OBJECTS, |directory| two(directory, 10_000)).await;
    world.publish("one", "ns", serde_json::json!({"dataset": "d"})).await.unwrap();
    tokio::task::block_in_place(|| copy(&world, 0, 1, 1));
    assert_eq!((held_in(&world, 0), held_in(&world, 1)), (3, 1));
    mover(&world).move_one().await.unwrap();
    assert_eq!((held_in(&world, 0), held_in(&world, 1)), (3, 1), "what is shown stays everywhere");
    world.unpublish("one").await;
    mover(&world).move_one().await.unwrap();
    assert_eq!((held_in(&world, 0), held_in(&world, 1)), (3, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_not_copied_is_not_given_up() {
    if !may_mount() {
        return;
    }
    let world = World::with_store(&OBJECTS, |directory| two(directory, 10_000)).await;
    world.publish("one", "ns", serde_json::json!({"dataset": "d"})).await.unwrap();
    world.unpublish("one").await;
    tokio::task::block_in_place(|| {
        copy(&world, 0, 1, 1);
        let (hash, tiers) = (world.store.manifests()[0].0, world.store.tiers());
        let synced = world.store.stats().syncs.load(Ordering::Relaxed);
        world.views.evict_copied(&tiers[0], &tiers[1], &hash, &[0, 1, 2], &mut || ()).unwrap();
        assert!(world.store.stats().syncs.load(Ordering::Relaxed) > synced, "a power cut leaves the copy");
    });
    assert_eq!((held_in(&world, 0), held_in(&world, 1)), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_fits_a_better_tier_goes_there_and_is_shown_from_there() {
    if !may_mount() {
        return;
    }
    let world = World::with_store(&OBJECTS, |directory| two(directory, 10_000)).await;
    world.publish("one", "ns", serde_json::json!({"dataset": "d"})).await.unwrap();
    assert_eq!((held_in(&world, 0), held_in(&world, 1)), (3, 0));
    assert_eq!(world.views.counts(), (1, 0), "native");
    assert_eq!(world.seen("one"), world.content);
    assert!(world.directory.path().join("fast/views/trees").read_dir().unwrap().next().is_some());
    // Published again, and after a restart, it is the same.
    let again = world.publish("one", "ns", serde_json::json!({"dataset": "d"})).await.unwrap();
    assert_eq!(again, Published::Before);
    world.unpublish("one").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_spread_over_tiers_is_shown_by_fuse() {
    if !may_mount() {
        return;
    }
    let world = World::with_store(&OBJECTS, |directory| {
        let home = StoreConfig {
            medium: Medium::Hdd,
            capacity: Some(Size::Bytes(4000)),
            ..StoreConfig::at(directory)
        };
        let fast = StoreConfig {
            capacity: Some(Size::Bytes(4000)),
            ..StoreConfig::at(directory.with_file_name("fast"))
        };
        Store::open_tiers(&[home, fast]).unwrap()
    })
    .await;
    world.publish("one", "ns", serde_json::json!({"dataset": "d"})).await.unwrap();
    assert!(held_in(&world, 0) > 0 && held_in(&world, 1) > 0);
    assert_eq!(held_in(&world, 0) + held_in(&world, 1), 3, "all of it is here");
    assert_eq!(world.views.counts(), (0, 1), "served");
    assert_eq!(world.seen("one"), world.content);
    world.unpublish("one").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_file_goes_on_in_another_tier_when_its_own_is_full() {
    const MIB: usize = 1 << 20;
    if !may_mount() {
        return;
    }
    let room = |directory: PathBuf, medium| StoreConfig {
        medium,
        capacity: Some(Size::Bytes(9 << 20)),
        ..StoreConfig::at(directory)
    };
    // Each of two blocks, of 4 and 1 MiB.
    let world = World::with_store(&[("x", 5 * MIB), ("y", 5 * MIB), ("z", 5 * MIB)], |directory| {
        let fast = directory.with_file_name("fast");
        Store::open_tiers(&[room(directory.to_owned(), Medium::Hdd), room(fast, Medium::Ssd)]).unwrap()
    })
    .await;
    world.publish("one", "ns", serde_json::json!({"dataset": "d"})).await.unwrap();
    assert_eq!(held_in(&world, 0) + held_in(&world, 1), 6, "all of it is here");
    assert_eq!(world.seen("one"), world.content);
    world.unpublish("one").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_mounted_moves_to_a_better_tier_when_there_is_room() {
    if !may_mount() {
        return;
    }
    let world = World::with_store(&OBJECTS, |directory| two(directory, 10_000)).await;
    // Somebody has had the room when it came.
    let taken = world.store.tiers()[0].reserve(10_000).unwrap();
    world.publish("one", "ns", serde_json::json!({"dataset": "d"})).await.unwrap();
    assert_eq!((held_in(&world, 0), held_in(&world, 1)), (0, 3));
    let mover = mover(&world);
    assert_eq!(mover.move_one().await.unwrap(), Looked::NothingCanMove, "there is no room yet");
    drop(taken);
    assert_eq!(mover.move_one().await.unwrap(), Looked::NothingCanMove, "what a native view shows stays");
    world.unpublish("one").await;
    assert_eq!(mover.move_one().await.unwrap(), Looked::Moved);
    assert_eq!((held_in(&world, 0), held_in(&world, 1)), (3, 0));
    assert_eq!(mover.move_one().await.unwrap(), Looked::NothingToMove, "it is where it wishes to be");
    world.publish("two", "ns", serde_json::json!({"dataset": "d"})).await.unwrap();
    assert_eq!(world.views.counts(), (1, 0));
    assert_eq!(world.seen("two"), world.content);
    world.unpublish("two").await;
}
