//! How long a pod waits for a volume whose data is on the node: from kubelet's call to
//! the first byte of a file.
//!
//! `cargo bench -p hearth-tests --bench publish`, as root: it mounts, and empties the page cache.
//!
//! Everything is real: an agent as it is shipped, the CSI driver's calls and mounts. The
//! dataset has 100,000 small files, all of them on the node. What misses a single file is
//! shown by FUSE: that one was listed and deleted at the origin before it was fetched.

mod table;

use anyhow::{Context, Result, ensure};
use hearth_tests::cluster::{Cluster, nodes};
use hearth_tests::datasets::USER;
use hearth_tests::pods::pod;
use hearth_tests::volumes::{self, Driver};
use hearth_tests::wait::eventually;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use table::{Row, Seen};

const NODE: &str = "node-1";
const DATASET: &str = "files";
const PARTS: usize = 100;
const FILES_OF_PART: usize = 1_000;
const FILES: usize = PARTS * FILES_OF_PART;
const FILE_SIZE: usize = 100;
/// The file that never comes.
const LATE: &str = "late.bin";
/// Longest time that listing or fetching all of it may take.
const FETCH: Duration = Duration::from_secs(600);

const NATIVE: [Row; 4] = [
    Row { name: "native, the whole dataset", path: "", files: "", shown: Seen::Native },
    Row { name: "native, a sub-tree of 1,000 files", path: "part-42", files: "", shown: Seen::Native },
    Row { name: "native, a glob of 1,000 files", path: "", files: "part-42/*.bin", shown: Seen::Native },
    Row { name: "native, a glob of 100,000 files", path: "", files: "**/*.bin", shown: Seen::Native },
];
const FUSE: [Row; 2] = [
    Row { name: "FUSE, 100,000 of 100,001 files", path: "", files: "", shown: Seen::Fuse },
    Row { name: "FUSE, the same by a glob", path: "", files: "**/*.bin", shown: Seen::Fuse },
];

/// The path of a file.
fn file(number: usize) -> String {
    format!("part-{:02}/{:03}.bin", number / FILES_OF_PART, number % FILES_OF_PART)
}

fn main() -> Result<()> {
    volumes::bench(nodes(1), async |cluster| measure(cluster).await)
}

async fn measure(cluster: &Cluster) -> Result<()> {
    let driver = Driver::of(cluster, NODE);
    let _keeper = driver.keeper(cluster, "5m").await?;
    let origin = cluster.dir().join("origin");
    make_files(&origin)?;
    eprintln!("listing and fetching {FILES} files…");
    list(cluster, &origin, "1h").await?;
    let reader = reads(cluster, "all").await?;
    eventually("all of it to be fetched", FETCH, async || {
        let percent = cluster.explain(DATASET).await?.percent(NODE);
        ensure!(percent == 100, "{percent} %");
        Ok(())
    })
    .await?;
    linked(cluster).await?;
    table::head();
    for is_cold in [false, true] {
        table::rows(&driver, &reader, &NATIVE, is_cold).await?;
    }
    cluster.kube.delete_pod(USER, "all").await?;

    // A version that differs by one file more, which is gone before anybody asks for it.
    fs::write(origin.join(LATE), b"late")?;
    list(cluster, &origin, "2h").await?;
    fs::remove_file(origin.join(LATE))?;
    let reader = reads(cluster, "nearly-all").await?;
    linked(cluster).await?;
    for is_cold in [false, true] {
        table::rows(&driver, &reader, &FUSE, is_cold).await?;
    }
    Ok(())
}

fn make_files(origin: &Path) -> Result<()> {
    for number in 0..FILES {
        let path = origin.join(file(number));
        if number % FILES_OF_PART == 0 {
            fs::create_dir_all(path.parent().context("it lies in no folder")?)?;
        }
        fs::write(path, [number as u8; FILE_SIZE])?;
    }
    Ok(())
}

/// Has the origin listed; another interval than before has it listed at once.
async fn list(cluster: &Cluster, origin: &Path, refresh: &str) -> Result<()> {
    let uri = format!("file://{}", origin.display());
    cluster.dataset(DATASET, json!({"origins": [{"uri": uri}], "refresh": refresh})).await?;
    cluster.listed(DATASET).await.map(drop)
}

/// A pod of the dataset on the node, which the agent has heard of.
async fn reads(cluster: &Cluster, name: &str) -> Result<Pod> {
    pod(name).mounts(DATASET).on_node(NODE).create(&cluster.kube).await
}

/// Waits until the current version's tree has grown: what is measured is not to share the cores with that.
async fn linked(cluster: &Cluster) -> Result<()> {
    let status = cluster.resource("dataset", DATASET).await?["status"].clone();
    let hash = status["version"]["manifest"].as_str().context("it has no version")?.to_owned();
    let tree: PathBuf = cluster.dir().join(format!("agent-{NODE}/store/views/trees")).join(hash);
    eventually("the version's tree to be linked", FETCH, async || {
        let linked = tokio::task::block_in_place(|| {
            let entries = walkdir::WalkDir::new(&tree).into_iter().filter_map(Result::ok);
            entries.filter(|entry| entry.file_type().is_file()).count()
        });
        ensure!(linked == FILES, "{linked} files");
        Ok(())
    })
    .await
}
