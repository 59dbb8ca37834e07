//! Hearth is taken away while pods read: its processes end for good, and what they mounted stays.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use hearth_tests::cluster::nodes;
use hearth_tests::datasets::FETCH;
use hearth_tests::volumes::{self, Driver};
use hearth_tests::wait::eventually;
use rustix::fs::{Advice, fadvise};
use serde_json::json;

const NODE: &str = "node-1";
const GRACE: Duration = Duration::from_secs(10);
/// In flight when the last descriptor of a session goes, and asked for afterwards.
const ABORTED: i32 = 103;
const NOT_CONNECTED: i32 = 107;

fn content(number: usize) -> Vec<u8> {
    (0..number * 50_000).map(|at| (((at * 31) >> 5) ^ at ^ number) as u8).collect()
}

fn name(number: usize) -> String {
    format!("part-{}/{number}.bin", number % 2)
}

/// All that is below a directory, which must be what was uploaded.
fn is_all_there(target: &Path, files: usize) -> Result<()> {
    let seen = walkdir::WalkDir::new(target).into_iter().collect::<Result<Vec<_>, _>>()?;
    let seen = seen.iter().filter(|entry| entry.file_type().is_file()).count();
    ensure!(seen == files, "{seen} files are seen, and {files} are there");
    for number in 0..files {
        let file = File::open(target.join(name(number)))?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
        let mut bytes = vec![0; content(number).len()];
        file.read_exact_at(&mut bytes, 0)?;
        ensure!(bytes == content(number), "{} has wrong bytes", name(number));
    }
    Ok(())
}

/// The error of a call that must not hang.
async fn error_of<T: Send + 'static>(
    what: &str,
    call: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<Option<i32>> {
    let thread = std::thread::spawn(call);
    eventually(what, FETCH, async || {
        ensure!(thread.is_finished(), "it hangs");
        Ok(())
    })
    .await?;
    let outcome = thread.join().map_err(|_| anyhow!("it panicked"))?;
    Ok(outcome.err().and_then(|error| error.raw_os_error()))
}

/// As an administrator does it, without Hearth.
fn umount(target: &Path) -> Result<()> {
    let output = Command::new("umount").arg(target).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(fs::read_dir(target)?.next().is_none(), "something is still seen at {}", target.display());
    Ok(())
}

#[test]
fn native_views_are_read_on_and_fuse_views_fail_at_once() -> Result<()> {
    const FILES: usize = 8;
    volumes::e2e(nodes(1), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        for number in 0..FILES {
            bucket.put(&format!("all/{}", name(number)), content(number)).await?;
        }
        cluster.s3_dataset("all", &bucket, "all").await?;
        let driver = Driver::of(cluster, NODE);
        let mut keeper = driver.keeper(cluster, "5m").await?;
        cluster.s3.proxy.hold_gets_after(0);
        let fuse = driver.publish("cold", &json!({"dataset": "all"})).await?;
        ensure!(driver.kind("cold")? == "fuse.hearth", "it is {}", driver.kind("cold")?);
        // Opened before it is here: the agent serves it, whatever comes.
        let served = File::open(fuse.join(name(FILES - 1)))?;
        cluster.s3.proxy.release_gets();
        cluster.warm("all", NODE, 100).await?;
        let native = driver.publish("warm", &json!({"dataset": "all"})).await?;
        ensure!(driver.kind("warm")? != "fuse.hearth", "it is not wholly there");
        let open = File::open(native.join(name(1)))?;

        // As when both DaemonSets are deleted.
        keeper.stop(GRACE).await?;
        cluster.agent(NODE)?.stop().await?;

        tokio::task::block_in_place(|| is_all_there(&native, FILES))?;
        let path = fuse.join(name(2));
        for error in [
            error_of("a read of an open file to end", move || served.read_at(&mut [0; 10], 0)).await?,
            error_of("an open to end", move || File::open(path)).await?,
        ] {
            ensure!(matches!(error, Some(ABORTED | NOT_CONNECTED)), "{error:?}");
        }

        umount(&fuse)?;
        let busy = Command::new("umount").arg(&native).output()?;
        ensure!(!busy.status.success(), "it was taken away from under a reader");
        drop(open);
        umount(&native)
    })
}
