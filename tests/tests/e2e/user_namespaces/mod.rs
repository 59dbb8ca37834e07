//! Pods with `hostUsers: false`: their runtime mounts volumes with the owners of files mapped, and their users read them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use hearth_tests::cluster::nodes;
use hearth_tests::datasets::FETCH;
use hearth_tests::volumes::{self, Driver};
use hearth_tests::wait::eventually;
use rustix::mount::{UnmountFlags, unmount};
use serde_json::{Value, json};

const NODE: &str = "node-1";
const FILE: &str = "a/1.jpg";
/// SHA-256 of the file's content.
const DIGEST: &str = "92b2fa58028958317e408bd84ecfa70f5ee35b121991dbc232c49d166353708b";
/// The first kernel that maps owners of FUSE file systems.
const MAPS_FUSE: (u32, u32) = (6, 12);

fn script(arguments: &[&str]) -> Result<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/user_namespaces/mapped.py");
    let output = Command::new("python3").arg(script).args(arguments).output()?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// What a user of a container sees of the file, below a path.
fn seen(volume: &Path, user: &str) -> Result<Value> {
    let volume = volume.to_str().context("the path is not UTF-8")?;
    let text = tokio::task::block_in_place(|| script(&["read", volume, FILE, user]))?;
    serde_json::from_str(&text).context("the reader printed no JSON")
}

fn mount_mapped(volume: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(target)?;
    let text = |path: &Path| path.to_str().map(str::to_owned).context("the path is not UTF-8");
    let (volume, target) = (text(volume)?, text(target)?);
    tokio::task::block_in_place(|| script(&["mount", &volume, &target])).map(drop)
}

/// Root of the container owns what the volume says root owns, and everybody reads it.
fn reads_right(volume: &Path) -> Result<()> {
    for user in ["0", "1000"] {
        let right = json!({"owner": [0, 0], "mode": "0o444", "sha256": DIGEST});
        let seen = seen(volume, user).with_context(|| format!("user {user} at {}", volume.display()))?;
        ensure!(seen == right, "user {user} sees {seen} at {}", volume.display());
    }
    Ok(())
}

/// Major and minor number of the kernel that runs.
fn kernel() -> Result<(u32, u32)> {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = text.split(['.', '-', '\n']).map_while(|part| part.parse().ok());
    numbers.next().zip(numbers.next()).with_context(|| format!("no version is in {text:?}"))
}

#[test]
fn users_of_a_container_read_both_views() -> Result<()> {
    volumes::e2e(nodes(1), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        bucket.put(&format!("all/{FILE}"), b"a picture".to_vec()).await?;
        cluster.s3_dataset("all", &bucket, "all").await?;
        let driver = Driver::of(cluster, NODE);
        let _keeper = driver.keeper(cluster, "5m").await?;
        let maps_fuse = kernel()? >= MAPS_FUSE;
        let (mapped_fuse, mapped_native) = (cluster.dir().join("mapped-fuse"), cluster.dir().join("mapped"));

        cluster.s3.proxy.hold_gets_after(0);
        let fuse = driver.publish("cold", &json!({"dataset": "all"})).await?;
        ensure!(driver.kind("cold")? == "fuse.hearth", "it is {}", driver.kind("cold")?);
        cluster.s3.proxy.release_gets();
        if maps_fuse {
            mount_mapped(&fuse, &mapped_fuse)?;
            reads_right(&mapped_fuse).context("fetched as it is read")?;
        } else {
            eprintln!("FUSE views are not tested: it takes Linux 6.12 to map their owners");
        }
        cluster.warm("all", NODE, 100).await?;
        let native = driver.publish("warm", &json!({"dataset": "all"})).await?;
        ensure!(driver.kind("warm")? != "fuse.hearth", "it is not wholly there");
        mount_mapped(&native, &mapped_native)?;
        reads_right(&mapped_native).context("native")?;
        // Without the mapping they read too, as any user of the node does.
        ensure!(seen(&native, "1000")?["owner"] == json!([65534, 65534]), "nothing was mapped");

        // The next agent goes on with a session whose greeting it has not heard.
        cluster.agent(NODE)?.kill();
        cluster.agent(NODE)?.start().await?;
        if maps_fuse {
            reads_right(&mapped_fuse).context("read by the kernel, with another agent")?;
            let again = cluster.dir().join("mapped-again");
            mount_mapped(&fuse, &again)?;
            reads_right(&again).context("mounted after the takeover")?;
            unmount(&again, UnmountFlags::empty())?;
            unmount(&mapped_fuse, UnmountFlags::empty())?;
        }
        unmount(&mapped_native, UnmountFlags::empty())?;
        eventually("the volumes to be taken away", FETCH, async || {
            driver.unpublish("cold").await?;
            driver.unpublish("warm").await
        })
        .await
    })
}
