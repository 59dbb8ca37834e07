//! What is chosen among what a store holds.

use super::choose::{Chosen, Held, sort};
use super::standings::Version;
use crate::fill::Visitor;
use crate::reads::Reads;
use crate::store::{BlockSets, Store};
use crate::testing::{STORED, open_store, stored};
use hearth_core::evict::{Amount, Claim, Need, Shortage, Standing};
use hearth_core::manifest::Manifest;
use hearth_core::object::ObjectId;
use std::sync::Arc;

struct World {
    store: Store,
    shown: BlockSets,
    reads: Reads,
    versions: Vec<Version>,
    _directory: tempfile::TempDir,
}

const SIZE: u64 = STORED;

fn standing(need: Need) -> Standing {
    Standing { need, current: true, ..Standing::default() }
}

fn bytes(bytes: u64) -> Shortage {
    let amount = Amount { bytes, objects: 0 };
    Shortage { least: amount, wanted: amount }
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            store: open_store(&directory.path().join("store"), None),
            shown: BlockSets::new(),
            reads: Reads::default(),
            versions: Vec::new(),
            _directory: directory,
        }
    }

    /// A version of `ns/NAME` of files by path and tag, all of them held.
    async fn add(&mut self, name: &str, files: &[(&str, &str)], standing: Standing) -> Manifest {
        let (hash, manifest) = stored(&self.store, files, name).await;
        let dataset = format!("ns/{name}");
        self.versions.push(Version { hash, dataset, standing, is_known: true, heat: 0.0 });
        manifest
    }

    /// Every other reading of a dataset is of that file; the others are never read again.
    fn is_read(&self, dataset: &str, manifest: &Manifest, file: usize) {
        let habit = self.reads.of(dataset);
        let object = manifest.object_id(&manifest.file(file).unwrap());
        for at in 0..4_000_u32 {
            habit.opened(3, &object);
            let mut other = ObjectId([0; 16]);
            other.0.copy_from_slice(&blake3::hash(&at.to_le_bytes()).as_bytes()[..16]);
            habit.opened(3, &other);
        }
    }

    fn held(&self) -> Held<'_> {
        Held { tier: self.store.home(), shown: &self.shown, reads: &self.reads }
    }

    /// Paths of what is chosen, each with its dataset.
    fn paths(&self, chosen: &[Chosen]) -> Vec<String> {
        let path = |chosen: &Chosen| {
            let version = &self.versions[chosen.version];
            let manifest = self.store.manifest(&version.hash).unwrap().unwrap();
            format!("{}:{}", version.dataset, manifest.file(chosen.file as usize).unwrap().path)
        };
        chosen.iter().map(path).collect()
    }

    /// What a block of the first version takes the room of.
    fn displaced(&self, own: &Manifest, file: usize, over_quota: bool) -> Vec<String> {
        let (hash, manifest) = (self.versions[0].hash, Arc::new(own.clone()));
        let visitor = Visitor { hash, manifest, file, bytes: SIZE, over_quota };
        self.paths(&self.held().displaced(&self.versions, &visitor, SIZE).unwrap())
    }

    fn plan(&mut self, claim: Claim, least: u64) -> Result<Vec<String>, String> {
        sort(&mut self.versions, &self.reads);
        let chosen = self.held().plan(&self.versions, claim, bytes(least)).unwrap();
        chosen.map(|chosen| self.paths(&chosen)).map_err(|why| why.to_string())
    }
}

#[tokio::test]
async fn what_a_better_version_lists_too_is_not_given_up_with_a_lesser() {
    let mut world = World::new();
    world.add("d", &[("a", "1"), ("b", "1"), ("c", "1")], Standing::default()).await;
    world.add("d", &[("a", "1"), ("b", "2")], standing(Need::Pods)).await;
    world.add("other", &[("c", "1")], standing(Need::Warmup)).await;
    let all = Claim::Version(standing(Need::Pods));
    assert_eq!(world.plan(all, 1).unwrap(), ["ns/d:b"]);
    assert_eq!(world.plan(all, 2 * SIZE).unwrap(), ["ns/d:b", "ns/other:c"]);
    let why = world.plan(all, 3 * SIZE).unwrap_err();
    assert!(why.starts_with("3.0 kB more have to go, and 2.0 kB can: "), "{why}");
    assert_eq!(world.plan(Claim::Limit, 3 * SIZE).unwrap(), ["ns/d:b", "ns/other:c", "ns/d:a"]);
}

#[tokio::test]
async fn what_a_pinned_version_lists_too_is_not_given_up_with_another() {
    let mut world = World::new();
    let pinned = Standing { pinned: true, ..standing(Need::Nobody) };
    world.add("pinned", &[("a", "1")], pinned).await;
    world.add("d", &[("a", "1"), ("b", "1")], standing(Need::Warmup)).await;
    let all = Claim::Version(standing(Need::Pods));
    assert_eq!(world.plan(all, 1).unwrap(), ["ns/d:b"]);
    assert!(world.plan(all, SIZE + 1).is_err());
}

#[tokio::test]
async fn what_is_shown_natively_is_never_chosen() {
    let mut world = World::new();
    world.add("d", &[("a", "1"), ("b", "1")], standing(Need::Pods)).await;
    world.shown.insert(world.versions[0].hash, [0].into_iter().collect());
    assert_eq!(world.plan(Claim::Limit, 1).unwrap(), ["ns/d:b"]);
    assert_eq!(world.plan(Claim::Limit, SIZE + 1).unwrap(), ["ns/d:b"], "and the rest is told the next time");
    world.shown.insert(world.versions[0].hash, [0, 1].into_iter().collect());
    assert!(world.plan(Claim::Limit, 1).unwrap_err().contains("mounted natively"));
}

#[tokio::test]
async fn among_equals_the_less_often_mounted_goes_first_and_of_it_what_is_read_less() {
    let mut world = World::new();
    let hot = world.add("hot", &[("h/a", "1"), ("h/b", "1")], standing(Need::Nobody)).await;
    world.add("cold", &[("c/a", "1")], standing(Need::Nobody)).await;
    world.reads.of("ns/hot").mounted();
    world.is_read("ns/hot", &hot, 1);
    assert_eq!(world.plan(Claim::Limit, 2 * SIZE).unwrap(), ["ns/cold:c/a", "ns/hot:h/a"]);
}

#[tokio::test]
async fn a_block_is_exchanged_for_what_is_read_less_of_the_same_standing() {
    let mut world = World::new();
    let pods = standing(Need::Pods);
    let own = world.add("d", &[("a", "1"), ("b", "1"), ("c", "1")], pods).await;
    world.add("better", &[("a", "1"), ("x", "1")], Standing { priority: 1, ..pods }).await;
    world.add("lesser", &[("y", "1")], standing(Need::Nobody)).await;
    let displaced = |file| world.displaced(&own, file, false);
    assert!(displaced(2).is_empty(), "nothing is known of anything yet");
    world.is_read("ns/d", &own, 2);
    // The first file is listed by a version of more value, too; the visitor is the third.
    assert_eq!(displaced(2), ["ns/d:b"]);
    assert!(displaced(1).is_empty(), "it is worth less than what it would displace");
}

#[tokio::test]
async fn beyond_its_quota_a_dataset_takes_the_room_of_its_own_only() {
    let mut world = World::new();
    let pods = standing(Need::Pods);
    let own = world.add("d", &[("a", "1"), ("b", "1")], pods).await;
    world.add("equal", &[("z", "1")], pods).await;
    world.shown.insert(world.versions[0].hash, [0].into_iter().collect());
    world.is_read("ns/d", &own, 1);
    assert_eq!(world.displaced(&own, 1, false), ["ns/equal:z"]);
    assert!(world.displaced(&own, 1, true).is_empty());
}

#[tokio::test]
async fn what_is_pinned_is_exchanged_for_its_own_only() {
    let mut world = World::new();
    let pinned = Standing { pinned: true, ..standing(Need::Pods) };
    let own = world.add("d", &[("a", "1"), ("b", "1")], pinned).await;
    world.add("other", &[("z", "1")], pinned).await;
    world.is_read("ns/d", &own, 1);
    assert_eq!(world.displaced(&own, 1, false), ["ns/d:a"]);
    world.shown.insert(world.versions[0].hash, [0].into_iter().collect());
    assert!(world.displaced(&own, 1, false).is_empty());
}
