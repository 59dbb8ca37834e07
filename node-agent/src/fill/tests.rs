//! Fetching end to end: from a fake bucket into a real store.

use super::*;
use crate::origin::s3::fake::FakeS3;
use crate::replicas::Known;
use crate::testing::*;
use hearth_api::Dataset;
use hearth_core::block::BLOCK_SIZE;
use hearth_core::manifest::{Manifest, ManifestHash};
use hearth_core::wire::report::TroubleKind;
use std::collections::BTreeMap;
use std::path::PathBuf;

mod unlisted;

struct World {
    fake: FakeS3,
    api: FakeApi,
    directory: tempfile::TempDir,
    origins: Arc<Origins>,
}

/// A running fill.
struct Filling {
    store: Store,
    wants: watch::Sender<Vec<Want>>,
    status: watch::Receiver<FillStatus>,
    metrics: Arc<Metrics>,
    demands: Demands,
    blocks: Arc<Blocks>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

fn content(seed: usize, size: usize) -> Vec<u8> {
    (0..size).map(|at| (at / 7 * 31 + seed * 17 + at) as u8).collect()
}

impl World {
    async fn new(objects: &[(&str, usize)]) -> Self {
        let fake = FakeS3::start().await;
        for (seed, (key, size)) in objects.iter().enumerate() {
            fake.faults.lock().put(key.as_bytes(), &content(seed, *size));
        }
        let api = FakeApi::default();
        api.put(DATASET, &dataset(&fake));
        Self { fake, api, directory: tempfile::tempdir().unwrap(), origins: patient_origins() }
    }

    fn dataset(&self) -> Dataset {
        dataset(&self.fake)
    }

    async fn list(&self) -> (ManifestHash, Manifest) {
        list(&self.origins, &self.dataset()).await
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn start(&self, manifest: &Manifest, concurrency: usize, capacity: Option<u64>) -> Filling {
        let store = open_store(&self.path(), capacity);
        let encoding = manifest.encode();
        store.put_manifest(ManifestHash::of(&encoding), "ns/d", &encoding).unwrap();
        let nobody: Known = watch::channel(Vec::new()).1;
        let (metrics, demands, blocks) =
            (metrics(), Demands::default(), Arc::new(Blocks::new(store.clone())));
        let parts = FillParts {
            store: store.clone(),
            datasets: Datasets::new(self.api.client()),
            manifests: Manifests::new(store.clone(), nobody),
            origins: self.origins.clone(),
            metrics: metrics.clone(),
            demands: demands.clone(),
            blocks: blocks.clone(),
            room: Arc::new(store.home().clone()),
        };
        let (fill, status) = Fill::new(&OriginConfig { concurrency, ..OriginConfig::default() }, parts);
        let (wants, receiver) = watch::channel(Vec::new());
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(fill.run(receiver, shutdown.clone()));
        Filling { store, wants, status, metrics, demands, blocks, shutdown, task }
    }

    fn gets(&self) -> BTreeMap<String, Vec<usize>> {
        self.fake.faults.lock().gets.clone()
    }
}

impl Filling {
    async fn held(&self, hash: &ManifestHash, blocks: u64) {
        let held = || self.store.held(hash).map_or(0, |held| held.len());
        eventually(
            || format!("{} of {blocks} blocks held, {:?}", held(), self.status.borrow().troubles),
            || held() == blocks,
        )
        .await;
    }

    async fn troubled(&self, kind: TroubleKind) -> String {
        let find = || self.status.borrow().troubles.iter().find(|trouble| trouble.kind == kind).cloned();
        eventually(
            || format!("trouble {kind:?}, only {:?}", self.status.borrow().troubles),
            || find().is_some(),
        )
        .await;
        find().unwrap().message
    }

    fn want(&self, wants: Vec<Want>) {
        self.wants.send_replace(wants);
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// Reads all that a store holds of a file.
fn read(store: &Store, hash: &ManifestHash, manifest: &Manifest, path: &str) -> Vec<u8> {
    let file = manifest.find(path).unwrap();
    let blocks = file.blocks().map(|number| u64::from(number - file.first_block));
    blocks.flat_map(|block| store.read_block(hash, file.index, block).unwrap().unwrap()).collect()
}

const MIB: usize = 1 << 20;
const BLOCK: usize = BLOCK_SIZE as usize;

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_wanted_comes_and_is_right() {
    let objects = [
        ("big", 50 * MIB + 3),
        ("block", BLOCK),
        ("empty", 0),
        ("more", BLOCK + 1),
        ("sub/small", 100),
        ("sub/x//y", 1),
    ];
    let world = World::new(&objects).await;
    let (hash, manifest) = world.list().await;
    assert_eq!(manifest.file_count(), 5);
    let filling = world.start(&manifest, 4, None);
    filling.want(vec![want(hash, &[], 1)]);
    filling.held(&hash, u64::from(manifest.blocks())).await;
    for (seed, (path, size)) in objects.iter().enumerate().take(5) {
        assert!(read(&filling.store, &hash, &manifest, path) == content(seed, *size), "{path}");
    }
    // 13 blocks in requests of two, which arrive in any order.
    let mut gets = world.gets()["big"].clone();
    gets.sort_unstable();
    assert_eq!(gets, [0, 2, 4, 6, 8, 10, 12].map(|block| block * BLOCK));
    eventually(|| "done".into(), || filling.metrics.wants.with_label_values(&["done"]).get() == 1).await;
    assert!(filling.status.borrow().origin_bytes_per_second.is_some());
    assert_eq!(filling.status.borrow().troubles, []);
    filling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_part_that_is_asked_for_comes_and_each_block_once() {
    let world = World::new(&[("a/1", 10), ("a/2", 10), ("b/1", 10), ("c/1", 10)]).await;
    let (hash, manifest) = world.list().await;
    let filling = world.start(&manifest, 8, None);
    filling.want(vec![want(hash, &["a"], 5), want(hash, &["a/1", "b"], 9)]);
    filling.held(&hash, 3).await;
    eventually(|| "done".into(), || filling.metrics.wants.with_label_values(&["done"]).get() == 2).await;
    let gets = world.gets();
    assert_eq!(gets.keys().collect::<Vec<_>>(), ["a/1", "a/2", "b/1"]);
    assert!(gets.values().all(|gets| gets.len() == 1), "{gets:?}");
    filling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_more_urgent_goes_first_even_when_every_slot_is_taken() {
    let world = World::new(&[("slow/1", 10), ("slow/2", 10), ("slow/3", 10), ("urgent", 10)]).await;
    let (hash, manifest) = world.list().await;
    let filling = world.start(&manifest, 2, None);
    world.fake.held.send_replace(Some("slow"));
    filling.want(vec![want(hash, &["slow"], 1)]);
    eventually(|| "both slots taken".into(), || filling.metrics.fill_running.get() == 2).await;
    filling.want(vec![want(hash, &["slow"], 1), want(hash, &["urgent"], 2)]);
    filling.held(&hash, 1).await;
    world.fake.held.send_replace(None);
    filling.held(&hash, 4).await;
    filling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_dataset_is_fetched_on() {
    let world = World::new(&[("slow/1", 10), ("slow/2", 10), ("slow/3", 10)]).await;
    let (hash, manifest) = world.list().await;
    let filling = world.start(&manifest, 1, None);
    world.fake.held.send_replace(Some("slow"));
    filling.want(vec![want(hash, &[], 1)]);
    eventually(|| "begun".into(), || filling.metrics.fill_running.get() == 1).await;
    let mut dataset = world.dataset();
    dataset.metadata.generation = Some(2);
    world.api.put(DATASET, &dataset);
    filling.want(vec![Want { generation: 2, ..want(hash, &[], 1) }]);
    world.fake.held.send_replace(None);
    filling.held(&hash, 3).await;
    filling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_longer_wanted_is_cancelled() {
    let world = World::new(&[("slow/1", 10), ("slow/2", 10)]).await;
    let (hash, manifest) = world.list().await;
    let filling = world.start(&manifest, 1, None);
    world.fake.held.send_replace(Some("slow"));
    filling.want(vec![want(hash, &[], 1)]);
    eventually(|| "begun".into(), || filling.metrics.fill_running.get() == 1).await;
    filling.want(vec![]);
    eventually(|| "cancelled".into(), || filling.metrics.fill_running.get() == 0).await;
    assert_eq!(filling.metrics.fill_missing_blocks.get(), 0);
    filling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_body_goes_on_from_the_block_that_it_came_to() {
    let size = 2 * BLOCK;
    let world = World::new(&[("a", size)]).await;
    let (hash, manifest) = world.list().await;
    let (signal, signalled) = watch::channel(false);
    world.fake.faults.lock().cuts.push_back((BLOCK + 5, signalled));
    let filling = world.start(&manifest, 1, None);
    filling.want(vec![want(hash, &[], 1)]);
    filling.held(&hash, 1).await;
    signal.send_replace(true);
    filling.held(&hash, 2).await;
    assert_eq!(world.gets()["a"], [0, BLOCK]);
    assert!(read(&filling.store, &hash, &manifest, "a") == content(0, size));
    filling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_object_is_told_and_the_others_come() {
    let world = World::new(&[("a", 10), ("b", 10), ("c", 2 * BLOCK)]).await;
    let (hash, manifest) = world.list().await;
    let before = world.fake.faults.lock().objects.clone();
    world.fake.faults.lock().put(b"b", &content(9, 10));
    world.fake.faults.lock().objects.remove(b"c".as_slice());
    let filling = world.start(&manifest, 1, None);
    filling.want(vec![want(hash, &[], 1)]);
    filling.held(&hash, 1).await;
    let held = filling.troubled(TroubleKind::Changed).await;
    assert!(held.contains("not as they were listed"), "{held}");
    eventually(
        || format!("{:?}", filling.status.borrow().troubles),
        || filling.status.borrow().troubles.iter().any(|trouble| trouble.message.starts_with("2 objects")),
    )
    .await;
    assert_eq!(filling.store.held(&hash).unwrap().len(), 1);
    let failed = filling.status.borrow().failed_files.clone();
    let files = failed[0].files.iter().map(|file| (file.path.as_str(), file.reason.as_str()));
    assert_eq!((failed[0].count, files.collect::<Vec<_>>()), (2, vec![("b", "Changed"), ("c", "Gone")]));
    // Back as they were, they come and have not failed any more.
    world.fake.faults.lock().objects = before;
    let mut dataset = world.dataset();
    dataset.metadata.generation = Some(2);
    world.api.put(DATASET, &dataset);
    filling.want(vec![Want { generation: 2, ..want(hash, &[], 1) }]);
    filling.held(&hash, 4).await;
    eventually(
        || format!("{:?}", filling.status.borrow()),
        || filling.status.borrow().failed_files.is_empty() && filling.status.borrow().troubles.is_empty(),
    )
    .await;
    filling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_survives_a_restart() {
    let world = World::new(&[("a", 10), ("b", 10), ("z/slow", 10)]).await;
    let (hash, manifest) = world.list().await;
    let filling = world.start(&manifest, 4, None);
    world.fake.held.send_replace(Some("slow"));
    filling.want(vec![want(hash, &[], 1)]);
    filling.held(&hash, 2).await;
    filling.stop().await;
    world.fake.held.send_replace(None);
    let filling = world.start(&manifest, 4, None);
    filling.want(vec![want(hash, &[], 1)]);
    filling.held(&hash, 3).await;
    let gets = world.gets();
    assert_eq!((gets["a"].len(), gets["b"].len()), (1, 1));
    filling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_is_told() {
    let world = World::new(&[("a", 10), ("b", BLOCK)]).await;
    let (hash, manifest) = world.list().await;
    let filling = world.start(&manifest, 1, Some(1000));
    filling.want(vec![want(hash, &[], 1)]);
    let message = filling.troubled(TroubleKind::NoSpace).await;
    assert!(message.starts_with("no space"), "{message}");
    filling.stop().await;
}

/// Whoever waits for what there is no room for gets it all the same, and at once.
async fn is_read_through(
    filling: &Filling,
    hash: ManifestHash,
    manifest: &Manifest,
    path: &str,
    content: &[u8],
) {
    let number = manifest.find(path).unwrap().first_block;
    for round in 1..=2 {
        let mut coming = filling.demands.wait_for(hash, number);
        filling.demands.demand(hash, [number]);
        assert!(coming.block().await == content, "{path}");
        assert!(filling.blocks.kept(hash, number).unwrap() == content);
        let through = || filling.metrics.read_through_bytes.get();
        let all = (round * content.len()) as u64;
        eventually(|| format!("{} of {all} bytes", through()), || through() == all).await;
    }
    assert!(!filling.store.holds(&hash, number));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_keeps_no_reader_waiting() {
    let world = World::new(&[("a", 10), ("b", 2000)]).await;
    let (hash, manifest) = world.list().await;
    let filling = world.start(&manifest, 2, Some(1000));
    filling.want(vec![want(hash, &[], 1)]);
    filling.troubled(TroubleKind::NoSpace).await;
    is_read_through(&filling, hash, &manifest, "b", &content(1, 2000)).await;
    filling.held(&hash, 1).await;
    filling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_nothing_keeps_no_reader_waiting() {
    const LARGE: usize = BLOCK_SIZE as usize + 5;
    let world = World::new(&[("a", 10), ("b", LARGE)]).await;
    let (hash, manifest) = world.list().await;
    let filling = world.start(&manifest, 2, None);
    // No object can be made any more, whoever asks.
    let objects = world.path().join("objects");
    std::fs::remove_dir_all(&objects).unwrap();
    std::fs::write(&objects, "no directory").unwrap();
    filling.want(vec![want(hash, &[], 1)]);
    filling.troubled(TroubleKind::Store).await;
    let large = content(1, LARGE);
    let (first, rest) = large.split_at(BLOCK_SIZE as usize);
    let number = |path| manifest.find(path).unwrap().first_block;
    for blocks in [vec![(number("b"), first), (number("b") + 1, rest)], vec![(number("a"), &content(0, 10))]]
    {
        let mut coming: Vec<_> = blocks.iter().map(|(at, _)| filling.demands.wait_for(hash, *at)).collect();
        filling.demands.demand(hash, blocks.iter().map(|(at, _)| *at));
        for (coming, (number, content)) in coming.iter_mut().zip(blocks) {
            assert!(coming.block().await == content, "block {number}");
            assert!(!filling.store.holds(&hash, number));
        }
    }
    filling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_used_up_keeps_no_reader_waiting() {
    let world = World::new(&[("a", 600), ("b", 600)]).await;
    let mut dataset = world.dataset();
    dataset.spec.cache = Some(hearth_api::CacheSpec { quota: Some("1000".into()), ..Default::default() });
    world.api.put(DATASET, &dataset);
    let (hash, manifest) = world.list().await;
    let filling = world.start(&manifest, 1, None);
    filling.want(vec![want(hash, &[], 1)]);
    filling.troubled(TroubleKind::NoSpace).await;
    is_read_through(&filling, hash, &manifest, "b", &content(1, 600)).await;
    filling.held(&hash, 1).await;
    filling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_holds() {
    let world = World::new(&[("a", 600), ("b", 600)]).await;
    let mut dataset = world.dataset();
    dataset.spec.cache = Some(hearth_api::CacheSpec { quota: Some("1000".into()), ..Default::default() });
    world.api.put(DATASET, &dataset);
    let (hash, manifest) = world.list().await;
    let filling = world.start(&manifest, 4, None);
    filling.want(vec![want(hash, &[], 1)]);
    let message = filling.troubled(TroubleKind::NoSpace).await;
    assert!(message.contains("spec.cache.quota"), "{message}");
    filling.held(&hash, 1).await;
    filling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_the_datasets_whoever_wants_which_part_and_version() {
    let world = World::new(&[("a", 600), ("b", 600), ("c", 300)]).await;
    let mut dataset = world.dataset();
    dataset.spec.cache = Some(hearth_api::CacheSpec { quota: Some("1000".into()), ..Default::default() });
    world.api.put(DATASET, &dataset);
    let (hash, manifest) = world.list().await;
    let filling = world.start(&manifest, 4, None);
    filling.want(vec![want(hash, &["a"], 1)]);
    filling.held(&hash, 1).await;
    filling.want(vec![want(hash, &["a"], 1), want(hash, &["b"], 1)]);
    filling.troubled(TroubleKind::NoSpace).await;
    filling.held(&hash, 1).await;
    // The old version's file is still there: 600 and 300 are, and 600 more are not, within 1000.
    world.fake.faults.lock().put(b"a", &[1; 600]);
    let (new, listed) = world.list().await;
    filling.store.put_manifest(new, "ns/d", &listed.encode()).unwrap();
    filling.want(vec![want(new, &["c"], 2)]);
    filling.held(&new, 1).await;
    filling.want(vec![want(new, &["a", "c"], 2)]);
    filling.troubled(TroubleKind::NoSpace).await;
    assert_eq!(filling.store.held(&new).unwrap().len(), 1);
    filling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_origin_than_was_listed_is_not_read() {
    let world = World::new(&[("a", 10)]).await;
    let (hash, manifest) = world.list().await;
    let mut dataset = world.dataset();
    dataset.spec.origins[0].secret_ref = None;
    world.api.put(DATASET, &dataset);
    let filling = world.start(&manifest, 4, None);
    filling.want(vec![want(hash, &[], 1)]);
    let message = filling.troubled(TroubleKind::Origin).await;
    assert!(
        message.contains("another origin, Secret or ServiceAccount than when this version was listed"),
        "{message}"
    );
    assert_eq!(world.gets(), BTreeMap::new());
    filling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_dataset_is_not_fetched() {
    let world = World::new(&[("a", 10)]).await;
    let (hash, manifest) = world.list().await;
    let filling = world.start(&manifest, 4, None);
    filling.want(vec![Want { uid: "another".into(), ..want(hash, &[], 1) }]);
    let message = filling.troubled(TroubleKind::Origin).await;
    assert_eq!(message, "Dataset ns/d was deleted");
    filling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_several_origins_that_fails_keeps_nothing_of_the_others() {
    let mut world = World::new(&[("a", 10), ("b", 20)]).await;
    let other = FakeS3::start().await;
    for (seed, key) in ["c", "d", "e"].into_iter().enumerate() {
        other.faults.lock().put(key.as_bytes(), &content(seed, 30));
    }
    let mut dataset = world.dataset();
    let mut second = world.dataset().spec.origins.remove(0);
    // In the order of paths its files come first.
    second.path = "/0".to_owned();
    second.options.as_mut().unwrap().endpoint = Some(other.endpoint());
    dataset.spec.origins.push(second);
    world.api.put(DATASET, &dataset);
    let (hash, manifest) = list(&world.origins, &dataset).await;
    // One request at a time, and one that is not tried again.
    world.origins = patient_origins();
    other.faults.lock().answers.extend((0..100).map(|_| (403, vec![], String::new())));
    let filling = world.start(&manifest, 1, None);
    filling.want(vec![want(hash, &[], 1)]);
    filling.held(&hash, 2).await;
    filling.troubled(TroubleKind::Credentials).await;
    other.faults.lock().answers.clear();
    filling.held(&hash, 5).await;
    eventually(|| "no trouble".into(), || filling.status.borrow().troubles.is_empty()).await;
    filling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_back_is_read_without_being_asked_again() {
    let world = World::new(&[("a", 10)]).await;
    let (hash, manifest) = world.list().await;
    let down = || (500, vec![], String::new());
    world.fake.faults.lock().answers.extend([down(), down(), down()]);
    let filling = world.start(&manifest, 1, None);
    filling.want(vec![want(hash, &[], 1)]);
    filling.troubled(TroubleKind::Origin).await;
    filling.held(&hash, 1).await;
    eventually(|| "no trouble".into(), || filling.status.borrow().troubles.is_empty()).await;
    filling.stop().await;
}
