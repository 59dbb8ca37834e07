//! FUSE views of volumes: what is not here is fetched as it is read.

use super::*;
use rustix::mount::{UnmountFlags, unmount};
use std::os::unix::fs::FileExt;
use std::path::Path;

const BLOCK: usize = BLOCK_SIZE as usize;
/// Reads with O_DIRECT, whose buffers have to be aligned, which dd knows to do.
fn read_direct(path: &Path) -> Vec<u8> {
    let mut dd = std::process::Command::new("dd");
    let read = dd
        .arg(format!("if={}", path.display()))
        .args(["iflag=direct", "bs=1M", "status=none"])
        .output()
        .unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    read.stdout
}

/// A file of several blocks among others.
const COLD: [(&str, usize); 5] = [
    ("big.bin", 5 * BLOCK + 77),
    ("dir/empty", 0),
    ("dir/small", 1234),
    ("held/one", BLOCK),
    ("held/two", 2 * BLOCK + 1),
];

impl World {
    async fn publish_cold(&self, name: &str) -> Result<Published, ViewError> {
        self.publish_at_once(name, "ns", serde_json::json!({"dataset": "d"})).await
    }

    fn gets(&self) -> usize {
        self.fake.faults.lock().gets.values().map(Vec::len).sum()
    }

    /// What is mounted at a volume's target: the file system's type.
    pub(super) fn kind(&self, name: &str) -> Option<String> {
        let target = self.target(name);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = mounts.lines().find(|line| line.split(' ').nth(4) == target.to_str())?;
        line.split(" - ").nth(1)?.split(' ').next().map(str::to_owned)
    }

    fn fuse_mounts(&self) -> usize {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = self.directory.path().to_str().unwrap();
        mounts.lines().filter(|line| line.contains(root) && line.contains(" - fuse.hearth ")).count()
    }

    /// Runs what blocks on a mount where the session's tasks are not held up.
    pub(super) async fn reading<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> T {
        let target = self.target("one");
        tokio::task::spawn_blocking(move || work(&target)).await.unwrap()
    }

    pub(super) async fn seen_by_reader(&self, name: &str) -> Tree {
        tokio::task::block_in_place(|| self.seen(name))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cold_dataset_is_there_at_once_and_reads_right() {
    if !may_mount() {
        return;
    }
    let world = World::new(&COLD).await;
    world.fake.held.send_replace(Some("bin"));
    assert_eq!(world.publish_cold("one").await.unwrap(), Published::Now);
    assert_eq!(world.publish_cold("one").await.unwrap(), Published::Before);
    assert_eq!(world.kind("one").as_deref(), Some("fuse.hearth"));
    let flags = rustix::fs::statvfs(world.target("one")).unwrap().f_flag;
    assert!(flags.contains(StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOSUID | StatVfsMountFlags::NODEV));
    world.fake.held.send_replace(None);
    // Many readers of all files at once, in pieces of odd sizes, some past the page cache.
    let readers = (0..64).map(|seed: usize| {
        let (target, content) = (world.target("one"), world.content.clone());
        tokio::task::spawn_blocking(move || {
            for (path, expected) in content.iter().cycle().skip(seed % 5).take(5) {
                if seed.is_multiple_of(4) {
                    assert!(read_direct(&target.join(path)) == *expected, "{path}, past the page cache");
                    continue;
                }
                let file = fs::File::open(target.join(path)).unwrap();
                let step = 333_333 + seed;
                let mut seen = vec![0; expected.len() + 10];
                let mut at = 0;
                while at < seen.len() {
                    let end = (at + step).min(seen.len());
                    match file.read_at(&mut seen[at..end], at as u64).unwrap() {
                        0 => break,
                        read => at += read,
                    }
                }
                assert!(seen[..at] == expected[..], "{path} of {at} bytes, reader {seed}");
            }
        })
    });
    for reader in futures::future::join_all(readers.collect::<Vec<_>>()).await {
        reader.unwrap();
    }
    let copied = world.directory.path().join("copied");
    let (from, to) = (world.target("one"), copied.clone());
    let status = tokio::process::Command::new("cp").arg("-r").arg(from).arg(to).status().await.unwrap();
    assert!(status.success());
    for (path, expected) in &world.content {
        assert!(fs::read(copied.join(path)).unwrap() == *expected, "{path}");
    }
    // A new pod finds all of it here.
    world.publish_all("two").await.unwrap();
    assert_ne!(world.kind("two").as_deref(), Some("fuse.hearth"));
    world.unpublish("one").await;
    assert_eq!(world.fuse_mounts(), 0);
    eventually(|| "a session lives on".to_owned(), || world.views.sessions() == (0, 0)).await;
    world.unpublish("two").await;
    assert_eq!((world.views.counts(), world.views.in_use().versions().len()), ((0, 0), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn names_sizes_and_times_come_from_the_manifest_alone() {
    if !may_mount() {
        return;
    }
    let world = World::new(&COLD).await;
    world.fake.held.send_replace(Some(""));
    world.publish_cold("one").await.unwrap();
    let before = world.gets();
    let (_, manifest) = {
        let hash = world.store.manifests()[0].0;
        (hash, world.store.manifest(&hash).unwrap().unwrap())
    };
    let target = world.target("one");
    let mut names: Vec<String> = Vec::new();
    for entry in WalkDir::new(&target).into_iter().map(Result::unwrap) {
        let found = entry.metadata().unwrap();
        let path = entry.path().strip_prefix(&target).unwrap().to_str().unwrap().to_owned();
        if found.is_dir() {
            assert_eq!((found.mode() & 0o7777, found.mtime()), (0o755, manifest.newest() / 1_000_000_000));
        } else {
            let file = manifest.find(&path).unwrap();
            assert_eq!((found.mode() & 0o7777, found.len()), (0o444, file.size), "{path}");
            assert_eq!(found.mtime() * 1_000_000_000 + found.mtime_nsec(), file.modified, "{path}");
            names.push(path);
        }
    }
    names.sort();
    assert_eq!(names, world.content.keys().cloned().collect::<Vec<_>>());
    assert!(fs::metadata(target.join("dir/none")).is_err());
    assert_eq!(fs::read(target.join("dir/empty")).unwrap(), b"");
    assert_eq!(world.gets(), before, "no answer has come from the origin");
    for change in [fs::write(target.join("new"), "x"), fs::remove_file(target.join("big.bin"))] {
        assert_eq!(change.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }
    world.fake.held.send_replace(None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_the_origin_what_is_here_reads_and_the_rest_fails_in_time() {
    if !may_mount() {
        return;
    }
    let world = World::new(&COLD).await;
    world.publish("part", "ns", serde_json::json!({"dataset": "d", "path": "held"})).await.unwrap();
    world.unpublish("part").await;
    world.fake.held.send_replace(Some("b"));
    world.publish_cold("one").await.unwrap();
    let (expected, first) = (world.content.clone(), world.content["big.bin"][..10].to_vec());
    world
        .reading(move |target| {
            assert!(fs::read(target.join("held/two")).unwrap() == expected["held/two"]);
            let error = fs::read(target.join("big.bin")).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(5), "{error}");
            assert!(fs::read(target.join("held/one")).unwrap() == expected["held/one"]);
        })
        .await;
    assert!(world.metrics.fuse_read_errors.get() > 0);
    world.fake.held.send_replace(None);
    let seen = world
        .reading(|target| {
            let mut seen = vec![0; 10];
            let file = fs::File::open(target.join("big.bin")).unwrap();
            file.read_exact_at(&mut seen, 0).map(|()| seen)
        })
        .await;
    assert_eq!(seen.unwrap(), first, "it comes once the origin answers again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_volume_is_taken_up_again_by_the_next_agent() {
    if !may_mount() {
        return;
    }
    let mut world = World::new(&COLD).await;
    world.fake.held.send_replace(Some("two"));
    world.publish_cold("one").await.unwrap();
    // What the kernel does to the connection of a process that has died.
    let name = record::name_of("csi-one", &world.target("one"));
    let place = world.directory.path().join("store/views/fuse").join(name);
    let _ = unmount(&place, UnmountFlags::FORCE);
    eventually(|| "the session lives on".to_owned(), || world.views.sessions() == (0, 0)).await;
    assert!(fs::read_dir(world.target("one")).is_err(), "nobody serves it");
    let state = world.views.state("csi-one", &world.target("one")).await.unwrap().unwrap();
    assert!(state.problem.is_some_and(|problem| problem.contains("FUSE session has ended")));
    world.restart();
    assert_eq!(world.publish_cold("one").await.unwrap(), Published::Before);
    world.fake.held.send_replace(None);
    assert!(world.seen_by_reader("one").await == world.expected("", |_| true));
    // The same when it dies under an agent that lives.
    let _ = unmount(&place, UnmountFlags::FORCE);
    eventually(|| "the session lives on".to_owned(), || world.views.sessions() == (0, 0)).await;
    assert_eq!(world.publish_cold("one").await.unwrap(), Published::Now);
    assert!(world.seen_by_reader("one").await == world.expected("", |_| true));
    world.unpublish("one").await;
    assert_eq!(world.fuse_mounts(), 0);
    assert!(!place.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_file_that_has_become_whole_is_read_by_the_kernel_itself() {
    if !may_mount() {
        return;
    }
    let world = World::new(&COLD).await;
    world.fake.held.send_replace(Some("big"));
    world.publish_cold("one").await.unwrap();
    let hash = world.store.manifests()[0].0;
    let index = world.store.manifest(&hash).unwrap().unwrap().find("held/two").unwrap().index;
    let whole = || world.store.whole_file(&hash, index).unwrap();
    eventually(|| "held/two is not whole".to_owned(), || whole().is_some()).await;
    let expected = world.content["held/two"].clone();
    let read = world.store.stats().blocks_read.load(std::sync::atomic::Ordering::Relaxed);
    let seen = world.reading(|target| fs::read(target.join("held/two")).unwrap()).await;
    assert!(seen == expected);
    let after = world.store.stats().blocks_read.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(after, read, "no read came to the agent");
    world.fake.held.send_replace(None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_volume_that_waits_is_there_when_enough_is() {
    if !may_mount() {
        return;
    }
    let world = World::new(&COLD).await;
    world.fake.held.send_replace(Some("big"));
    let attributes = serde_json::json!({"dataset": "d", "wait": "30%"});
    assert_eq!(world.publish_at_once("one", "ns", attributes).await.unwrap(), Published::Now);
    assert_eq!(world.kind("one").as_deref(), Some("fuse.hearth"));
    let hash = world.store.manifests()[0].0;
    let manifest = world.store.manifest(&hash).unwrap().unwrap();
    assert!(manifest.bytes_of(&world.store.held(&hash).unwrap()) * 100 >= manifest.bytes() * 30);
    world.fake.held.send_replace(None);
}
