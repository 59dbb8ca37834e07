//! Files that a dataset shows and does not take: read from the origin, by FUSE views only.

use super::*;
use hearth_api::{FilesSpec, Unlisted};

const FILES: [(&str, usize); 5] = [
    ("kept/a", 1000),
    ("kept/deep/b", BLOCK_SIZE as usize + 5),
    ("notes/big", 3 * BLOCK_SIZE as usize + 77),
    ("notes/empty", 0),
    ("readme", 20),
];
const KEPT: u64 = BLOCK_SIZE + 1005;

impl World {
    /// The dataset takes what is in `kept` only, and shows the rest.
    async fn showing() -> (Self, ManifestHash) {
        let world = Self::new(&FILES).await;
        let files =
            FilesSpec { include: vec!["kept/**".into()], unlisted: Unlisted::Show, ..FilesSpec::default() };
        *world.files.lock() = Some(files);
        let hash = world.list(&[]).await;
        (world, hash)
    }

    fn gets_of(&self, key: &str) -> usize {
        self.fake.faults.lock().gets.get(key).map_or(0, Vec::len)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn they_are_shown_and_read_beside_what_is_kept_and_take_no_room() {
    if !may_mount() {
        return;
    }
    let (mut world, hash) = World::showing().await;
    // It waits for what is kept.
    world.publish_all("one").await.unwrap();
    assert_eq!(world.kind("one").as_deref(), Some("fuse.hearth"));
    assert_eq!(world.gets_of("readme") + world.gets_of("notes/big"), 0, "nothing comes ahead of readers");
    let state = world.views.state("csi-one", &world.target("one")).await.unwrap().unwrap();
    assert_eq!((state.bytes, state.held, state.files), (KEPT, KEPT, 2));
    assert!(world.seen_by_reader("one").await == world.expected("", |_| true));
    world.restart();
    world.publish_all("two").await.unwrap();
    assert!(world.seen_by_reader("two").await == world.expected("", |_| true), "after a restart");
    assert!(world.gets_of("readme") > 0 && world.gets_of("notes/big") > 1);
    assert_eq!(world.store.held(&hash).unwrap().len(), 3);
    assert_eq!(world.store.usage().unwrap().used_bytes, KEPT);
    for volume in ["one", "two"] {
        world.unpublish(volume).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_has_none_of_them_is_native_and_what_has_only_them_is_not() {
    if !may_mount() {
        return;
    }
    let (world, _) = World::showing().await;
    let volumes = [
        ("directory", serde_json::json!({"dataset": "d", "path": "kept"})),
        ("glob", serde_json::json!({"dataset": "d", "files": "kept/**"})),
        ("notes", serde_json::json!({"dataset": "d", "path": "notes"})),
        ("readme", serde_json::json!({"dataset": "d", "files": "readme"})),
    ];
    let mut kinds = Vec::new();
    for (name, attributes) in volumes {
        world.publish(name, "ns", attributes).await.unwrap();
        kinds.push(world.kind(name).as_deref() == Some("fuse.hearth"));
    }
    assert_eq!(kinds, [false, false, true, true]);
    assert_eq!(world.seen("directory"), world.expected("kept/", |_| true));
    assert_eq!(world.seen("glob"), world.expected("", |path| path.starts_with("kept")));
    assert!(world.seen_by_reader("notes").await == world.expected("notes/", |_| true));
    assert!(world.seen_by_reader("readme").await == world.expected("", |path| path == "readme"));
    for name in ["directory", "glob", "notes", "readme"] {
        world.unpublish(name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_changed_at_the_origin_is_never_given_for_what_was_listed() {
    if !may_mount() {
        return;
    }
    let (world, _) = World::showing().await;
    world.publish_all("one").await.unwrap();
    world.fake.faults.lock().put(b"readme", b"other bytes, as many");
    let read = world.reading(|target| fs::read(target.join("readme"))).await;
    assert_eq!(read.unwrap_err().raw_os_error(), Some(5));
    // The origin is away.
    world.fake.held.send_replace(Some("notes"));
    let read = world.reading(|target| fs::read(target.join("notes/big"))).await;
    assert_eq!(read.unwrap_err().raw_os_error(), Some(5));
    let kept = world.reading(|target| fs::read(target.join("kept/a")).unwrap()).await;
    assert!(kept == world.content["kept/a"], "what is kept is read on");
    world.fake.held.send_replace(None);
    let read = world.reading(|target| fs::read(target.join("notes/big")).unwrap()).await;
    assert!(read == world.content["notes/big"]);
    world.unpublish("one").await;
}
