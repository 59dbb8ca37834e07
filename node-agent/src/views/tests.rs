//! Volumes end to end: from a fake bucket through a real store to real mounts.

use super::*;
use crate::config::OriginConfig;
use crate::events::PodReference;
use crate::evict::{Evictor, EvictorParts, StandingParts, Standings};
use crate::fill::{Fill, FillParts};
use crate::origin::Origins;
use crate::origin::s3::fake::FakeS3;
use crate::replicas::Known;
use crate::store::Tier;
use crate::testing::*;
use crate::tiers::TierRoom;
use crate::versions::{self, Told, Versions};
use hearth_core::block::BLOCK_SIZE;
use hearth_core::manifest::ManifestHash;
use hearth_core::selection::Selection;
use hearth_core::volume::VolumeAttributes;
use hearth_core::wire::report::{Choice, Orders, PodVersion};
use rustix::fs::StatVfsMountFlags;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use walkdir::WalkDir;

#[path = "evict_tests.rs"]
mod evict;
#[path = "fuse_tests.rs"]
mod fuse;
#[path = "tier_tests.rs"]
mod tiers;
#[path = "unlisted_tests.rs"]
mod unlisted;

type Tree = BTreeMap<String, Vec<u8>>;

struct World {
    fake: FakeS3,
    api: FakeApi,
    origins: Arc<Origins>,
    store: Store,
    blocks: Arc<Blocks>,
    reads: Reads,
    views: Views,
    told: watch::Sender<Told>,
    versions: Versions,
    /// `status.held` of the Dataset.
    held: Mutex<serde_json::Value>,
    /// `spec.files` of it.
    files: Mutex<Option<hearth_api::FilesSpec>>,
    shutdown: CancellationToken,
    content: Tree,
    metrics: Arc<Metrics>,
    directory: tempfile::TempDir,
}

fn content(seed: usize, size: usize) -> Vec<u8> {
    (0..size).map(|at| (at / 5 * 29 + seed * 13 + at) as u8).collect()
}

/// Whether this process may mount; says so when not.
fn may_mount() -> bool {
    let may = rustix::process::geteuid().is_root();
    if !may {
        eprintln!("skipped: mounting takes root");
    }
    may
}

impl World {
    /// A bucket with these files, a Dataset of it that is listed, and an agent that fetches what volumes want.
    async fn new(objects: &[(&str, usize)]) -> Self {
        Self::with_capacity(objects, None).await
    }

    /// The same with a store of so many bytes.
    async fn with_capacity(objects: &[(&str, usize)], capacity: Option<u64>) -> Self {
        Self::with_store(objects, |directory| open_store(directory, capacity)).await
    }

    /// The same with a store that is opened in a directory.
    async fn with_store(objects: &[(&str, usize)], open_store: impl FnOnce(&Path) -> Store) -> Self {
        let fake = FakeS3::start().await;
        let content: Tree = objects
            .iter()
            .enumerate()
            .map(|(seed, (key, size))| ((*key).to_owned(), content(seed, *size)))
            .collect();
        for (key, bytes) in &content {
            fake.faults.lock().put(key.as_bytes(), bytes);
        }
        let directory = tempfile::tempdir().unwrap();
        let store = open_store(&directory.path().join("store"));
        let (blocks, reads) = (Arc::new(Blocks::new(store.clone())), Reads::default());
        let (api, origins) = (FakeApi::default(), patient_origins());
        let metrics = metrics();
        let (told, versions) = versions::channel();
        let views = open(&directory, &store, (&blocks, &reads), &api, &versions, &metrics);
        let mut world = Self {
            fake,
            api,
            origins,
            store,
            blocks,
            reads,
            views,
            told,
            versions,
            held: Mutex::new(serde_json::json!([])),
            files: Mutex::default(),
            shutdown: CancellationToken::new(),
            content,
            metrics,
            directory,
        };
        world.list(&[]).await;
        world.run();
        world
    }

    /// Lists the bucket and names the version in the Dataset, which is shared with these namespaces.
    async fn list(&self, shared: &[&str]) -> ManifestHash {
        let mut dataset = dataset(&self.fake);
        dataset.spec.files = self.files.lock().clone();
        let (hash, manifest) = list(&self.origins, &dataset).await;
        self.store.put_manifest(hash, "ns/d", &manifest.encode()).unwrap();
        let version = serde_json::json!({"manifest": hash.to_string(), "files": 1, "bytes": 1, "size": "1 B", "blocks": 1,
            "listedAt": "2026-01-01T00:00:00Z"});
        dataset.status = Some(
            serde_json::from_value(serde_json::json!({"version": version, "held": *self.held.lock()}))
                .unwrap(),
        );
        dataset.spec.share_with =
            Some(serde_json::from_value(serde_json::json!({"namespaces": shared})).unwrap());
        self.api.put(DATASET, &dataset);
        hash
    }

    fn run(&mut self) {
        self.shutdown = CancellationToken::new();
        let nobody: Known = watch::channel(Vec::new()).1;
        let standings = self.standings();
        let evictors = self.store.tiers().iter().map(|tier| self.evictor(tier, &standings)).collect();
        let parts = FillParts {
            store: self.store.clone(),
            datasets: Datasets::new(self.api.client()),
            manifests: Manifests::new(self.store.clone(), nobody),
            origins: self.origins.clone(),
            metrics: metrics(),
            demands: self.views.demands(),
            blocks: self.blocks.clone(),
            room: Arc::new(TierRoom::new(self.store.clone(), evictors, standings)),
        };
        let (fill, _) = Fill::new(&OriginConfig::default(), parts);
        tokio::spawn(fill.run(self.views.wants(), self.shutdown.clone()));
        tokio::spawn(self.views.clone().run(self.shutdown.clone()));
    }

    fn evictor(&self, tier: &Tier, standings: &Arc<Standings>) -> Evictor {
        Evictor::new(EvictorParts {
            store: self.store.clone(),
            tier: tier.clone(),
            views: self.views.clone(),
            reads: self.reads.clone(),
            standings: standings.clone(),
            metrics: self.metrics.clone(),
            shutdown: self.shutdown.clone(),
        })
    }

    fn standings(&self) -> Arc<Standings> {
        Arc::new(Standings::new(StandingParts {
            datasets: Datasets::new(self.api.client()),
            in_use: self.views.in_use(),
            wants: self.views.wants(),
        }))
    }

    /// The agent ends without a word and starts again.
    fn restart(&mut self) {
        self.shutdown.cancel();
        let memory = (&self.blocks, &self.reads);
        self.views = open(&self.directory, &self.store, memory, &self.api, &self.versions, &self.metrics);
        self.run();
    }

    fn target(&self, name: &str) -> PathBuf {
        self.directory.path().join("pods").join(name).join("mount")
    }

    /// Publishes once all is here, unless it is told otherwise: as a native view.
    async fn publish(
        &self,
        name: &str,
        namespace: &str,
        mut attributes: serde_json::Value,
    ) -> Result<Published, ViewError> {
        attributes["wait"] = attributes.get("wait").cloned().unwrap_or("100%".into());
        self.publish_at_once(name, namespace, attributes).await
    }

    async fn publish_at_once(
        &self,
        name: &str,
        namespace: &str,
        attributes: serde_json::Value,
    ) -> Result<Published, ViewError> {
        self.views.publish(self.request(name, namespace, attributes)).await
    }

    fn request(&self, name: &str, namespace: &str, attributes: serde_json::Value) -> VolumeRequest {
        let attributes: VolumeAttributes = serde_json::from_value(attributes).unwrap();
        let (volume, target) = (format!("csi-{name}"), self.target(name));
        VolumeRequest { volume, target, namespace: namespace.to_owned(), pod: None, attributes }
    }

    /// Publishes all for a pod of which the extender says this.
    async fn publish_for(&self, pod: &str, choice: Choice) -> Result<Published, ViewError> {
        let version = PodVersion { pod: pod.to_owned(), dataset: "ns/d".to_owned(), choice };
        let orders = Orders { versions: Some(vec![version]), ..Orders::default() };
        self.told.send_replace(Told::together(&[&orders]));
        let request = self.request(pod, "ns", serde_json::json!({"dataset": "d", "wait": "100%"}));
        self.views
            .publish(VolumeRequest {
                pod: Some(PodReference { namespace: "ns".into(), name: pod.into(), uid: pod.into() }),
                ..request
            })
            .await
    }

    async fn publish_all(&self, name: &str) -> Result<Published, ViewError> {
        self.publish(name, "ns", serde_json::json!({"dataset": "d"})).await
    }

    async fn unpublish(&self, name: &str) {
        self.views.unpublish(&format!("csi-{name}"), &self.target(name)).await.unwrap();
        assert!(!self.target(name).exists());
    }

    /// All files that a volume shows.
    fn seen(&self, name: &str) -> Tree {
        let root = self.target(name);
        let files =
            WalkDir::new(&root).into_iter().map(Result::unwrap).filter(|entry| entry.file_type().is_file());
        files
            .map(|entry| {
                let path = entry.path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                (path, fs::read(entry.path()).unwrap())
            })
            .collect()
    }

    fn expected(&self, prefix: &str, keep: impl Fn(&str) -> bool) -> Tree {
        let below = self.content.iter().filter_map(|(path, bytes)| Some((path.strip_prefix(prefix)?, bytes)));
        below.filter(|(path, _)| keep(path)).map(|(path, bytes)| (path.to_owned(), bytes.clone())).collect()
    }

    fn trees(&self) -> usize {
        fs::read_dir(self.directory.path().join("store/views/trees")).unwrap().count()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
        for below in ["pods", "store/views/fuse"] {
            for entry in WalkDir::new(self.directory.path().join(below)).max_depth(2).into_iter().flatten() {
                let _ = bind::unmount_all(entry.path());
            }
        }
    }
}

fn open(
    directory: &tempfile::TempDir,
    store: &Store,
    (blocks, reads): (&Arc<Blocks>, &Reads),
    api: &FakeApi,
    versions: &Versions,
    metrics: &Arc<Metrics>,
) -> Views {
    let nobody: Known = watch::channel(Vec::new()).1;
    let parts = ViewParts {
        store: store.clone(),
        blocks: blocks.clone(),
        reads: reads.clone(),
        datasets: Datasets::new(api.client()),
        manifests: Manifests::new(store.clone(), nobody),
        versions: versions.clone(),
        metrics: metrics.clone(),
        read_timeout: Duration::from_millis(1500),
        keeper: None,
        events: crate::events::channel().0,
        shutdown: CancellationToken::new(),
    };
    Views::open(&directory.path().join("store/views"), parts).unwrap()
}

const SOME: [(&str, usize); 6] = [
    ("empty", 0),
    ("train/a.bin", 1000),
    ("train/b.idx", 10),
    ("train/deep/er/c.bin", BLOCK_SIZE as usize + 5),
    ("val/a.bin", BLOCK_SIZE as usize),
    ("val/e/empty", 0),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_shows_the_dataset_read_only() {
    if !may_mount() {
        return;
    }
    let world = World::new(&SOME).await;
    assert_eq!(world.publish_all("one").await.unwrap(), Published::Now);
    assert_eq!(world.seen("one"), world.expected("", |_| true));
    let target = world.target("one");
    let flags = rustix::fs::statvfs(&target).unwrap().f_flag;
    assert!(flags.contains(StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOSUID | StatVfsMountFlags::NODEV));
    for change in [
        fs::write(target.join("new"), "x"),
        fs::write(target.join("train/a.bin"), "x"),
        fs::remove_file(target.join("train/a.bin")),
        fs::set_permissions(target.join("empty"), fs::Permissions::from_mode(0o777)),
    ] {
        assert_eq!(change.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }
    let (_, manifest) = list(&world.origins, &dataset(&world.fake)).await;
    for file in manifest.files() {
        let found = fs::metadata(target.join(file.path)).unwrap();
        assert_eq!((found.mode() & 0o7777, found.len()), (0o444, file.size), "{}", file.path);
        assert_eq!(found.mtime() * 1_000_000_000 + found.mtime_nsec(), file.modified, "{}", file.path);
    }
    for directory in ["", "train", "train/deep/er"] {
        let found = fs::metadata(target.join(directory)).unwrap();
        assert_eq!((found.mode() & 0o7777, found.mtime()), (0o755, manifest.newest() / 1_000_000_000));
    }

    assert_eq!(world.publish_all("one").await.unwrap(), Published::Before);
    assert_eq!(world.publish_all("two").await.unwrap(), Published::Now);
    assert_eq!(world.views.counts(), (2, 0));
    let state = world.views.state("csi-one", &target).await.unwrap().unwrap();
    let bytes = world.content.values().map(|bytes| bytes.len() as u64).sum();
    assert_eq!(state, VolumeState { bytes, held: bytes, files: 6, problem: None });
    world.unpublish("one").await;
    world.unpublish("one").await;
    assert_eq!(world.seen("two"), world.expected("", |_| true));
    assert_eq!(world.views.state("csi-one", &target).await.unwrap(), None);
    world.unpublish("two").await;
    assert_eq!((world.views.counts(), world.views.in_use().versions().len()), ((0, 0), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_shows_its_files_and_no_others() {
    if !may_mount() {
        return;
    }
    let world = World::new(&SOME).await;
    let attributes = serde_json::json!({"dataset": "d", "path": "/train/"});
    world.publish("directory", "ns", attributes).await.unwrap();
    assert_eq!(world.seen("directory"), world.expected("train/", |_| true));
    let trees = world.trees();
    let attributes = serde_json::json!({"dataset": "d", "path": "train", "files": "**/*.bin"});
    world.publish("glob", "ns", attributes).await.unwrap();
    assert_eq!(world.seen("glob"), world.expected("train/", |path| path.ends_with(".bin")));
    assert_eq!(world.trees(), trees + 1);
    world.unpublish("glob").await;
    assert_eq!(world.trees(), trees, "the tree of a glob goes with its last volume");
    // Only what was asked for has been fetched.
    let val = Selection::new(["val"]).unwrap();
    assert!(!world.store.missing(&world.list(&[]).await, &val).unwrap().is_empty());
    for (attributes, why) in [
        (serde_json::json!({"dataset": "d", "path": "test"}), "no file of Dataset ns/d matches test"),
        (serde_json::json!({"dataset": "d", "path": "train/a.bin"}), "must be a directory"),
        (serde_json::json!({"dataset": "d", "wait": "often"}), "volumeAttributes.wait"),
        (serde_json::json!({}), "volumeAttributes.dataset"),
    ] {
        let error = world.publish("bad", "ns", attributes).await.unwrap_err();
        assert!(matches!(&error, ViewError::Invalid(text) if text.contains(why)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_is_for_its_own_namespace_and_those_it_is_shared_with() {
    if !may_mount() {
        return;
    }
    let world = World::new(&SOME).await;
    let theirs = || serde_json::json!({"dataset": "ns:d"});
    let error = world.publish("thief", "other", theirs()).await.unwrap_err();
    assert!(matches!(error, ViewError::NotFound(_)));
    let absent =
        world.publish("thief", "other", serde_json::json!({"dataset": "ns:nothing"})).await.unwrap_err();
    assert_eq!(
        error.to_string().replace("ns/d", ""),
        absent.to_string().replace("ns/nothing", ""),
        "nobody learns what is there"
    );
    assert!(!world.target("thief").exists());
    world.list(&["other"]).await;
    world.publish("guest", "other", theirs()).await.unwrap();
    assert_eq!(world.seen("guest"), world.expected("", |_| true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_keeps_its_version_through_a_refresh_and_a_restart() {
    if !may_mount() {
        return;
    }
    let mut world = World::new(&SOME).await;
    world.publish_all("old").await.unwrap();
    let before = world.list(&[]).await;
    let old = world.expected("", |_| true);
    world.fake.faults.lock().put(b"train/a.bin", b"new");
    let after = world.list(&[]).await;
    assert_ne!(before, after);
    world.restart();
    assert!(world.views.in_use().try_retire(before).is_none(), "a version in use stays");
    assert_eq!(world.publish_all("old").await.unwrap(), Published::Before);
    assert_eq!(world.seen("old"), old);
    // The node went down: the mount is gone, and kubelet asks for the same volume.
    bind::unmount_all(&world.target("old")).unwrap();
    let state = world.views.state("csi-old", &world.target("old")).await.unwrap().unwrap();
    assert!(state.problem.is_some_and(|problem| problem.contains("nothing is mounted")));
    assert_eq!(world.publish_all("old").await.unwrap(), Published::Now);
    assert_eq!(world.seen("old"), old);
    world.publish_all("new").await.unwrap();
    assert_eq!(world.seen("new")["train/a.bin"], b"new");
    world.unpublish("old").await;
    let retiring = world.views.in_use().try_retire(before);
    assert!(retiring.is_some());
    world.store.retire(&before).unwrap();
    let gone = || !world.directory.path().join(format!("store/views/trees/{before}")).exists();
    eventually(|| "the old version's tree is still there".to_owned(), gone).await;
    assert_eq!(world.seen("new")["train/b.idx"], old["train/b.idx"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_one_owner_see_one_version_and_others_the_current_one() {
    if !may_mount() {
        return;
    }
    let world = World::new(&SOME).await;
    let old = world.list(&[]).await;
    world.fake.faults.lock().put(b"train/new.bin", b"new");
    *world.held.lock() = serde_json::json!([{"owner": "job", "manifest": old.to_string()}]);
    let new = world.list(&[]).await;
    let sees_new = |pod: &str| world.seen(pod).contains_key("train/new.bin");
    for (pod, choice, expected) in [
        ("first", Choice::Held("job".into()), false),
        ("second", Choice::Held("job".into()), false),
        ("names", Choice::Named(old), false),
        ("names-new", Choice::Named(new), true),
        ("alone", Choice::Current, true),
    ] {
        assert_eq!(world.publish_for(pod, choice).await.unwrap(), Published::Now);
        assert_eq!(sees_new(pod), expected, "{pod}");
    }
    // Whatever is said later, and when the hold is gone.
    *world.held.lock() = serde_json::json!([]);
    world.list(&[]).await;
    assert_eq!(world.publish_for("first", Choice::Current).await.unwrap(), Published::Before);

    let refused = world.publish_for("bad", Choice::Refused("why".into())).await.unwrap_err();
    assert!(matches!(&refused, ViewError::Invalid(why) if why == "why"), "{refused}");
    for choice in [Choice::Held("job".into()), Choice::Named(old)] {
        let early = world.publish_for("early", choice).await.unwrap_err();
        assert!(matches!(&early, ViewError::NotYet(why) if why.contains("status.held")), "{early}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_fetched_again_and_shown_in_place() {
    if !may_mount() {
        return;
    }
    let world = World::new(&SOME).await;
    world.publish_all("one").await.unwrap();
    let hash = world.list(&[]).await;
    let manifest = world.store.manifest(&hash).unwrap().unwrap();
    let file = manifest.find("train/a.bin").unwrap();
    let object = world.store.whole_file(&hash, file.index).unwrap().unwrap();
    let target = world.target("one").join("train/a.bin");
    let inode = fs::metadata(&target).unwrap().ino();
    fs::write(&object, "rotten").unwrap();
    assert_eq!(world.store.read_block(&hash, file.index, 0).unwrap(), None);
    // A new pod wants it whole.
    world.publish_all("two").await.unwrap();
    assert_eq!(world.seen("two"), world.expected("", |_| true));
    let replaced = || fs::metadata(&target).is_ok_and(|found| found.ino() != inode);
    eventually(|| "the running pod still sees the damaged file".to_owned(), replaced).await;
    assert_eq!(world.seen("one"), world.expected("", |_| true));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_for_one_volume_do_not_run_beside_each_other() {
    if !may_mount() {
        return;
    }
    let world = World::new(&SOME).await;
    let calls = (0..8).map(|_| world.publish_all("one"));
    let outcomes = futures::future::join_all(calls).await;
    let done = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!(
        done >= 1
            && outcomes
                .iter()
                .all(|outcome| !matches!(outcome, Err(error) if !matches!(error, ViewError::Busy)))
    );
    assert_eq!(world.seen("one"), world.expected("", |_| true));
    world.unpublish("one").await;
    assert!(!bind::is_mount(&world.target("one")).unwrap());
}
