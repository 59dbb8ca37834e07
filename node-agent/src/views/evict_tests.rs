//! Room that is made while volumes are published.

use super::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

const FILES: usize = 12;
const SIZE: usize = 100_000;
const ALL: u64 = (FILES * SIZE) as u64;

fn objects() -> Vec<(String, usize)> {
    (0..FILES).map(|file| (format!("train/{file:02}"), SIZE)).collect()
}

impl World {
    async fn of_files(capacity: u64) -> Self {
        let objects = objects();
        let objects: Vec<(&str, usize)> = objects.iter().map(|(path, size)| (path.as_str(), *size)).collect();
        Self::with_capacity(&objects, Some(capacity)).await
    }

    /// All objects change at the origin, and are listed.
    async fn refresh(&mut self) -> ManifestHash {
        for (seed, (key, bytes)) in self.content.iter_mut().enumerate() {
            *bytes = content(seed + 100, SIZE);
            self.fake.faults.lock().put(key.as_bytes(), bytes);
        }
        self.list(&[]).await
    }

    async fn shows_all(&self, name: &str) {
        assert!(tokio::task::block_in_place(|| self.seen(name)) == self.content, "{name}");
    }

    fn used(&self) -> u64 {
        self.store.usage().unwrap().used_bytes
    }

    /// Files that are linked in the tree of a version.
    fn links(&self, hash: &ManifestHash) -> usize {
        let tree = self.directory.path().join("store/views/trees").join(hash.to_string());
        WalkDir::new(tree).into_iter().flatten().filter(|entry| entry.file_type().is_file()).count()
    }

    fn object_files(&self) -> usize {
        let objects = WalkDir::new(self.directory.path().join("store/objects")).into_iter().flatten();
        objects.filter(|entry| entry.file_type().is_file()).count()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_does_not_fit_is_read_through() {
    if !may_mount() {
        return;
    }
    let capacity = ALL / 3;
    let world = World::of_files(capacity).await;
    world.publish_at_once("one", "ns", serde_json::json!({"dataset": "d"})).await.unwrap();
    world.shows_all("one").await;
    world.shows_all("one").await;
    assert!(world.used() <= capacity, "{} of {capacity}", world.used());
    eventually(|| "what fits is kept".into(), || world.used() >= capacity / 2).await;
    world.unpublish("one").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn room_that_is_there_is_taken_without_asking_for_any_dataset() {
    if !may_mount() {
        return;
    }
    let world = World::of_files(ALL + 2 * SIZE as u64).await;
    world.publish_all("one").await.unwrap();
    let evictor = world.evictor(world.store.home(), &world.standings());
    let hash = world.store.manifests()[0].0;
    let before = world.api.asked();
    let room = evictor.reserve(hash, SIZE as u64).await.unwrap();
    assert_eq!(world.api.asked(), before);
    assert!(evictor.reserve(hash, ALL).await.is_err(), "a pod sees the rest natively");
    assert_eq!(world.api.asked(), before + 1, "it is asked what may go");
    drop(room);
    world.unpublish("one").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_pods_see_natively_stays_until_they_have_gone() {
    if !may_mount() {
        return;
    }
    let mut world = World::of_files(ALL + ALL / 4).await;
    world.publish_all("old").await.unwrap();
    let old_content = world.content.clone();
    let old = world.store.manifests()[0].0;
    let new = world.refresh().await;
    world.publish_at_once("new", "ns", serde_json::json!({"dataset": "d"})).await.unwrap();
    world.shows_all("new").await;
    assert!(tokio::task::block_in_place(|| world.seen("old")) == old_content);
    assert_eq!(world.store.held(&old).unwrap().len(), FILES as u64);
    // Nobody needs it any more: the new one takes its room, and nothing of it holds any.
    world.unpublish("old").await;
    let held = || world.store.held(&new).unwrap().len();
    eventually(|| format!("{} of {FILES} files are here", held()), || held() == FILES as u64).await;
    assert!(world.used() <= ALL + ALL / 4);
    assert_eq!(world.links(&old) + FILES, world.object_files());
    assert_eq!(world.metrics.evicted_bytes.with_label_values(&["room"]).get() % SIZE as u64, 0);
    world.shows_all("new").await;
    world.publish_all("native").await.unwrap();
    world.shows_all("native").await;
    world.unpublish("new").await;
    world.unpublish("native").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn links_that_a_death_left_do_not_hold_room() {
    if !may_mount() {
        return;
    }
    let mut world = World::of_files(ALL).await;
    let hash = world.store.manifests()[0].0;
    world.publish("part", "ns", serde_json::json!({"dataset": "d", "files": "train/00"})).await.unwrap();
    world.publish_all("one").await.unwrap();
    world.unpublish("one").await;
    assert_eq!(world.links(&hash), FILES);
    // As when the process ends between the store's commit and the links.
    world.shutdown.cancel();
    let files: Vec<usize> = (0..FILES - 2).collect();
    let evicted = world.store.home().evict(&hash, &files, world.views.shown().unwrap(), &mut || ()).unwrap();
    assert_eq!(evicted.amount.objects as usize, FILES - 3, "the first is shown");
    let mark = world.directory.path().join("store/views/unlinking");
    fs::write(&mark, "1").unwrap();
    world.restart();
    eventually(|| format!("{} links", world.links(&hash)), || world.links(&hash) == 3).await;
    eventually(|| "done".into(), || fs::read(&mark).unwrap() == b"0").await;
    assert_eq!(world.seen("part")["train/00"], world.content["train/00"]);
    world.unpublish("part").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_volume_is_published_whole_or_not_while_files_are_given_up() {
    if !may_mount() {
        return;
    }
    let world = World::of_files(ALL).await;
    let hash = world.store.manifests()[0].0;
    let files: Vec<usize> = (0..FILES).collect();
    world.publish_all("first").await.unwrap();
    world.unpublish("first").await;
    for round in 0..10 {
        let name = format!("v{round}");
        let evictor = world.views.clone();
        let files = files.clone();
        let evicted = tokio::task::spawn_blocking(move || {
            files.iter().for_each(|file| _ = evictor.evict(&hash, &[*file], &mut || ()).unwrap());
        });
        while let Err(error) = world.publish_all(&name).await {
            assert!(matches!(error, ViewError::NotYet(_)), "{error}");
        }
        evicted.await.unwrap();
        world.shows_all(&name).await;
        world.unpublish(&name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_version_that_is_forgotten_takes_its_links_and_leaves_what_others_hold() {
    if !may_mount() {
        return;
    }
    let mut world = World::of_files(3 * ALL).await;
    world.publish_all("old").await.unwrap();
    let old = world.store.manifests()[0].0;
    // All but one file change at the origin.
    for (seed, (key, bytes)) in world.content.iter_mut().enumerate().skip(1) {
        *bytes = content(seed + 100, SIZE);
        world.fake.faults.lock().put(key.as_bytes(), bytes);
    }
    world.list(&[]).await;
    world.publish_all("new").await.unwrap();
    world.unpublish("old").await;
    assert_eq!(world.object_files(), 2 * FILES - 1);
    let forgotten =
        tokio::task::block_in_place(|| world.views.forget(&old, &CancellationToken::new())).unwrap();
    assert_eq!(forgotten.objects as usize, FILES - 1);
    assert_eq!(forgotten.bytes as usize, (FILES - 1) * SIZE);
    assert_eq!((world.object_files(), world.store.held(&old)), (FILES, None));
    eventually(|| "its links to be gone".into(), || world.links(&old) == 0).await;
    world.shows_all("new").await;
    world.unpublish("new").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_being_deleted_is_mounted_by_nobody_who_has_it_not() {
    if !may_mount() {
        return;
    }
    let world = World::of_files(2 * ALL).await;
    world.publish_all("one").await.unwrap();
    let mut ending = dataset(&world.fake);
    ending.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    world.api.put(DATASET, &ending);
    assert_eq!(world.publish_all("one").await.unwrap(), Published::Before);
    let refused = world.publish_all("two").await.unwrap_err();
    assert!(matches!(&refused, ViewError::NotFound(why) if why.contains("is being deleted")), "{refused}");
    world.shows_all("one").await;
    world.unpublish("one").await;
}
