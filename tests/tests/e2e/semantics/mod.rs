//! What SEMANTICS.md promises to readers, line by line, of both views.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use hearth_tests::cluster::{Cluster, nodes};
use hearth_tests::datasets::{FETCH, USER};
use hearth_tests::pods::pod;
use hearth_tests::volumes::{self, Driver};
use hearth_tests::wait::eventually;
use serde_json::{Value, json};

const NODE: &str = "node-1";
const BLOCK: usize = hearth_core::block::BLOCK_SIZE as usize;
const BIG: &str = "weights/model.bin";
const SMALL: &str = "images/a/1.jpg";

fn content() -> BTreeMap<&'static str, Vec<u8>> {
    let bytes = |length: usize, seed: usize| (0..length).map(|n| ((n * seed) >> 5 ^ n) as u8).collect();
    BTreeMap::from([
        (BIG, bytes(2 * BLOCK + 777, 31)),
        (SMALL, bytes(1234, 7)),
        ("images/empty", Vec::new()),
        ("images/a/block", bytes(BLOCK, 3)),
        ("names/ Größe 'é 画像' .. !", bytes(10, 5)),
    ])
}

async fn upload(cluster: &Cluster) -> Result<()> {
    let bucket = cluster.s3.bucket("data")?;
    for (path, bytes) in content() {
        bucket.put(&format!("all/{path}"), bytes).await?;
    }
    cluster.s3_dataset("all", &bucket, "all").await?;
    Ok(())
}

/// What a program sees at `target`.
fn observe(target: &Path) -> Result<Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/semantics/observe.py");
    let output = Command::new("python3").arg(script).arg(target).args([BIG, SMALL]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("the observer printed no JSON")
}

fn promised() -> Value {
    let changes = [
        "open for writing",
        "open for both",
        "create",
        "truncate",
        "unlink",
        "rename",
        "mkdir",
        "symlink",
        "link",
        "chmod",
        "chown",
        "utime",
        "setxattr",
    ];
    let changes: BTreeMap<_, _> = changes.into_iter().map(|change| (change, "EROFS")).collect();
    json!({
        "only files and directories": true,
        "modes": true,
        "owners": true,
        "inode numbers differ": true,
        "inode numbers stay": true,
        "changes": changes,
        "no such name": "ENOENT",
        "a file is no directory": "ENOTDIR",
        "a directory cannot be read": "EISDIR",
        "exec": "EACCES",
        "at the end": [3, 0, 0],
        "private map": true,
        "shared map": true,
        "shared map for writing": "EACCES",
        "direct": true,
        "sendfile": true,
        "splice": true,
        "copy_file_range": true,
        "holes": [0, 0],
        "fsync": "none",
        "locks": "EAGAIN",
        "xattrs": [],
        "getxattr": true,
        "ioctl": "ENOTTY",
        "readahead": "none",
        "mount flags": true,
    })
}

/// Names, sizes, content and times are the origin's.
fn is_the_origins(target: &Path, manifest_newest: i64) -> Result<()> {
    let mut seen = BTreeMap::new();
    for entry in walkdir::WalkDir::new(target) {
        let entry = entry?;
        let found = entry.metadata()?;
        if found.is_dir() {
            ensure!(found.mtime() == manifest_newest, "{} is of {}", entry.path().display(), found.mtime());
            continue;
        }
        let path = entry.path().strip_prefix(target)?.to_str().context("a name is not UTF-8")?.to_owned();
        let bytes = fs::read(entry.path())?;
        ensure!(
            found.len() == bytes.len() as u64,
            "{path} has {} bytes, and says {}",
            bytes.len(),
            found.len()
        );
        ensure!(found.mtime() <= manifest_newest, "{path} is newer than all");
        seen.insert(path, bytes);
    }
    let expected: BTreeMap<String, Vec<u8>> =
        content().into_iter().map(|(path, bytes)| (path.to_owned(), bytes)).collect();
    ensure!(seen == expected, "{:?} is seen", seen.keys());
    Ok(())
}

/// The time of the newest file, seconds since 1970, as the native view has it.
fn newest(target: &Path) -> Result<i64> {
    let files = walkdir::WalkDir::new(target).into_iter().collect::<Result<Vec<_>, _>>()?;
    let times = files.iter().filter(|entry| entry.file_type().is_file());
    let times = times.map(|entry| Ok(entry.metadata()?.mtime())).collect::<Result<Vec<_>>>()?;
    times.into_iter().max().context("there are no files")
}

#[test]
fn both_views_keep_what_is_promised() -> Result<()> {
    volumes::e2e(nodes(1), async |cluster| {
        upload(cluster).await?;
        let driver = Driver::of(cluster, NODE);
        cluster.s3.proxy.hold_gets_after(0);
        let fuse = driver.publish("cold", &json!({"dataset": "all"})).await?;
        ensure!(driver.kind("cold")? == "fuse.hearth");
        // Opened before it is here, so that the agent serves it for as long as it is open.
        let served = fs::File::open(fuse.join(BIG))?;
        cluster.s3.proxy.release_gets();
        let big = &content()[BIG];
        let mut seen = vec![0; big.len() + 5];
        let read = tokio::task::block_in_place(|| served.read_at(&mut seen, 0))?;
        ensure!(seen[..read] == big[..read] && read > 0, "wrong bytes");
        let seen = tokio::task::block_in_place(|| observe(&fuse)).context("served by the agent")?;
        ensure!(seen == promised(), "served by the agent: {seen:#}");
        drop(served);
        cluster.warm("all", NODE, 100).await?;
        let seen = tokio::task::block_in_place(|| observe(&fuse)).context("read by the kernel")?;
        ensure!(seen == promised(), "read by the kernel: {seen:#}");

        let native = driver.publish("warm", &json!({"dataset": "all"})).await?;
        ensure!(driver.kind("warm")? != "fuse.hearth");
        let seen = tokio::task::block_in_place(|| observe(&native)).context("native")?;
        ensure!(seen == promised(), "native: {seen:#}");
        for target in [&fuse, &native] {
            is_the_origins(target, newest(&native)?)?;
        }
        let size = |path: &Path| -> Result<u64> {
            let found = rustix::fs::statvfs(path)?;
            Ok(found.f_blocks * found.f_frsize)
        };
        let bytes: u64 = content().values().map(|bytes| bytes.len() as u64).sum();
        ensure!(size(&fuse)?.div_ceil(4096) == bytes.div_ceil(4096), "{} of {bytes} bytes", size(&fuse)?);
        ensure!(size(&native)? == size(cluster.dir())?, "{} of {}", size(&native)?, size(cluster.dir())?);
        let device = rustix::fs::stat(&fuse)?.st_dev;
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let ahead = fs::read_to_string(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"))?;
        ensure!(ahead.trim() == "1024", "the kernel reads {} KiB ahead in a FUSE view", ahead.trim());
        driver.unpublish("cold").await?;
        driver.unpublish("warm").await
    })
}

#[test]
fn a_mount_shows_one_version_for_as_long_as_it_is_there() -> Result<()> {
    volumes::e2e(nodes(1), async |cluster| {
        upload(cluster).await?;
        let driver = Driver::of(cluster, NODE);
        cluster.s3.proxy.hold_gets_after(0);
        let fuse = driver.publish("cold", &json!({"dataset": "all"})).await?;
        cluster.s3.proxy.release_gets();
        cluster.warm("all", NODE, 100).await?;
        let native = driver.publish("warm", &json!({"dataset": "all"})).await?;
        let old = cluster.resource("dataset", "all").await?["status"]["version"]["manifest"].clone();

        cluster.s3.bucket("data")?.put(&format!("all/{SMALL}"), b"new".to_vec()).await?;
        cluster.s3.bucket("data")?.put("all/images/more", b"more".to_vec()).await?;
        // A change of the spec has it listed at once.
        cluster
            .kube
            .kubectl(
                &[
                    "patch",
                    "dataset.hearth.dev",
                    "all",
                    "-n",
                    "default",
                    "--type=merge",
                    "-p",
                    r#"{"spec":{"refresh":"11m"}}"#,
                ],
                "",
            )
            .await?;
        eventually("the new version to be listed", FETCH, async || {
            let version = &cluster.resource("dataset", "all").await?["status"]["version"];
            ensure!(version["manifest"] != old, "{version}");
            Ok(())
        })
        .await?;
        let new = driver.publish("later", &json!({"dataset": "all"})).await?;
        let (small, more) = (content()[SMALL].clone(), "images/more");
        tokio::task::block_in_place(|| {
            for target in [&fuse, &native] {
                ensure!(fs::read(target.join(SMALL))? == small, "{} has changed", target.display());
                ensure!(!target.join(more).exists(), "{} has grown", target.display());
            }
            ensure!(fs::read(new.join(SMALL))? == b"new" && fs::read(new.join(more))? == b"more");
            Ok(())
        })?;
        for pod in ["cold", "warm", "later"] {
            driver.unpublish(pod).await?;
        }
        Ok(())
    })
}

#[test]
fn without_the_origin_a_read_fails_in_time_and_later_succeeds() -> Result<()> {
    let options = nodes(1).agent_config(&json!({"fuse": {"readTimeout": "2s"}}));
    volumes::e2e(options, async |cluster| {
        upload(cluster).await?;
        let driver = Driver::of(cluster, NODE);
        cluster.s3.proxy.hold_gets_after(0);
        let reader = pod("cold").datasets("all").on_node(NODE).create(&cluster.kube).await?;
        let fuse = driver.publish_for(&reader, &json!({"dataset": "all"})).await?;
        let read = || tokio::task::block_in_place(|| fs::read(fuse.join(SMALL)));
        let error = read().err().and_then(|error| error.raw_os_error());
        ensure!(error == Some(5), "{error:?}");
        let errors = cluster.agent(NODE)?.metric("hearth_agent_fuse_read_errors_total", &[]).await?;
        ensure!(errors > Some(0.0), "{errors:?} errors are counted");
        let event = cluster.kube.event(USER, "cold", SMALL, FETCH).await?;
        ensure!(event.contains("of Dataset default/all failed with EIO"), "{event}");
        // One that waits and is killed is gone when its read is answered.
        let mut killed = Command::new("cat").arg(fuse.join(BIG)).stdout(Stdio::null()).spawn()?;
        eventually("it to wait", FETCH, async || {
            ensure!(cluster.s3.proxy.held() > 0, "nothing is asked of the origin");
            Ok(())
        })
        .await?;
        killed.kill()?;
        let ended = tokio::task::block_in_place(|| killed.wait())?;
        ensure!(!ended.success(), "{ended}");
        cluster.s3.proxy.release_gets();
        eventually("the file to be read", FETCH, async || {
            ensure!(read()? == content()[SMALL], "wrong bytes");
            Ok(())
        })
        .await?;
        driver.unpublish("cold").await
    })
}

#[test]
fn what_was_overwritten_before_it_came_is_an_error_and_not_a_wait() -> Result<()> {
    // Longer than a test may take: only a refusal ends the read in time.
    let options = nodes(1).agent_config(&json!({"fuse": {"readTimeout": "10m"}}));
    volumes::e2e(options, async |cluster| {
        upload(cluster).await?;
        let driver = Driver::of(cluster, NODE);
        cluster.s3.proxy.hold_gets_after(0);
        let fuse = driver.publish("cold", &json!({"dataset": "all"})).await?;
        cluster.s3.bucket("data")?.put(&format!("all/{SMALL}"), b"new".to_vec()).await?;
        cluster.s3.proxy.release_gets();
        let error = tokio::task::block_in_place(|| fs::read(fuse.join(SMALL)));
        let error = error.err().and_then(|error| error.raw_os_error());
        ensure!(error == Some(5), "{error:?}");
        let big = tokio::task::block_in_place(|| fs::read(fuse.join(BIG)))?;
        ensure!(big == content()[BIG], "wrong bytes");
        driver.unpublish("cold").await
    })
}

#[test]
fn what_the_dataset_does_not_take_is_read_from_the_origin_and_never_kept() -> Result<()> {
    let options = nodes(1).agent_config(&json!({"fuse": {"readTimeout": "2s"}}));
    volumes::e2e(options, async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        for (path, bytes) in content() {
            bucket.put(&format!("all/{path}"), bytes).await?;
        }
        let kept = content().into_iter().filter(|(path, _)| path.starts_with("images/"));
        let kept: usize = kept.map(|(_, bytes)| bytes.len()).sum();
        let files = json!({"include": ["images/**"], "unlisted": "Show"});
        let status = cluster.s3_dataset_with("all", &bucket, "all", json!({"files": files})).await?;
        let version = &status["version"];
        ensure!(version["files"] == 3 && version["unlisted"] == 2 && version["bytes"] == kept, "{version}");

        let driver = Driver::of(cluster, NODE);
        let all = driver.publish("all", &json!({"dataset": "all", "wait": "100%"})).await?;
        ensure!(driver.kind("all")? == "fuse.hearth");
        cluster.warm("all", NODE, 100).await?;
        let seen = tokio::task::block_in_place(|| newest(&all).and_then(|time| is_the_origins(&all, time)));
        seen.context("all of it is shown")?;
        let seen = tokio::task::block_in_place(|| observe(&all))?;
        ensure!(seen == promised(), "{seen:#}");
        let used = cluster.agent(NODE)?.metric("hearth_agent_store_used_bytes", &[]).await?;
        ensure!(used == Some(kept as f64), "{used:?} bytes are kept, and {kept} are to be");
        let asked = cluster.explain("all").await?;
        ensure!(asked.requested_bytes == kept as u64 && asked.percent(NODE) == 100, "{asked:?}");

        let images = driver.publish("images", &json!({"dataset": "all", "path": "images"})).await?;
        ensure!(driver.kind("images")? != "fuse.hearth", "what has only what is kept is native");
        let read = |path: &Path| tokio::task::block_in_place(|| fs::read(path));
        ensure!(read(&images.join("a/1.jpg"))? == content()[SMALL], "wrong bytes");

        // As it was listed, or not at all.
        bucket.put("late/images/1", b"kept".to_vec()).await?;
        bucket.put("late/notes", b"old".to_vec()).await?;
        cluster.s3_dataset_with("late", &bucket, "late", json!({"files": files})).await?;
        let late = driver.publish("late", &json!({"dataset": "late", "wait": "100%"})).await?;
        bucket.put("late/notes", b"new".to_vec()).await?;
        let error = read(&late.join("notes")).err().and_then(|error| error.raw_os_error());
        ensure!(error == Some(5), "{error:?}");
        ensure!(read(&late.join("images/1"))? == b"kept", "wrong bytes");
        for pod in ["all", "images", "late"] {
            driver.unpublish(pod).await?;
        }
        Ok(())
    })
}
