//! How much memory an agent takes with a large dataset mounted that is not on the node:
//! its manifest is in memory, and the kernel asks for names and bytes.
//!
//! `cargo bench -p hearth-tests --bench agent_memory`, as root: it mounts. `HEARTH_BENCH_FILES` names
//! another number of files than the usual ones.
//!
//! Everything is real but the objects: an agent as it is shipped lists a bucket of an S3
//! server that makes names and content when it is asked, so that ten million files are there
//! in no time. The agent that listed is stopped, and what is measured is another process:
//! what a listing takes is a column of its own, since one agent of a cluster lists.

mod origin;

use anyhow::{Context, Result, bail, ensure};
use hearth_tests::cluster::{Cluster, nodes};
use hearth_tests::environment;
use hearth_tests::volumes::{self, Driver};
use serde_json::json;
use std::path::Path;

const NODE: &str = "node-1";
const DATASET: &str = "many";
const SIZES: [u64; 2] = [1_000_000, 10_000_000];
/// Files that are looked at.
const WALKED: usize = 200_000;
/// Objects that are fetched before the last look at the agent.
const MANY_GETS: usize = 20_000;
/// Of each object.
const SIZE: usize = 100;

fn main() -> Result<()> {
    if !volumes::has_own_mounts() {
        return volumes::own_mounts(&std::env::args().skip(1).collect::<Vec<_>>());
    }
    let sizes = match environment::number("HEARTH_BENCH_FILES", 0)? {
        0 => SIZES.to_vec(),
        files => vec![files],
    };
    println!("resident memory of the agent, MiB; peaks since its start in brackets");
    println!(
        "{:>12} {:>10} {:>10} {:>12} {:>16} {:>16} {:>16}",
        "files", "manifest", "listing", "started", "mounted", "walked", "fetching"
    );
    // A cluster for each: what an agent holds of one dataset is not to be counted with another.
    sizes.into_iter().try_for_each(|files| {
        volumes::bench(nodes(1), async |cluster| measure(cluster, usize::try_from(files)?).await)
    })
}

async fn measure(cluster: &mut Cluster, files: usize) -> Result<()> {
    let origin = origin::start(files, SIZE).await?;
    let driver = Driver::of(cluster, NODE);
    let _keeper = driver.keeper(cluster, "5m").await?;
    origin.dataset(cluster, DATASET, json!({})).await?;
    let lister = Memory::of(cluster)?;
    cluster.agent(NODE)?.stop().await?;
    cluster.agent(NODE)?.start().await?;
    cluster.agent(NODE)?.ready().await?;
    let started = Memory::of(cluster)?;
    let target = driver.publish("reader", &json!({"dataset": DATASET})).await?;
    ensure!(driver.kind("reader")? == "fuse.hearth", "it is {}", driver.kind("reader")?);
    let mounted = Memory::of(cluster)?;
    tokio::task::block_in_place(|| walk(&target))?;
    let walked = Memory::of(cluster)?;
    // What is wanted is fetched all the while.
    origin.answered(MANY_GETS).await?;
    let fetching = Memory::of(cluster)?;
    println!(
        "{files:>12} {:>10} {:>10} {:>12} {:>16} {:>16} {:>16}",
        encoding(cluster)? >> 20,
        lister.peak,
        started.resident,
        mounted.text(),
        walked.text(),
        fetching.text(),
    );
    driver.unpublish("reader").await
}

/// Looks at so many files, as a program does that reads in the order of the directories.
fn walk(target: &Path) -> Result<()> {
    let mut seen = 0;
    for entry in walkdir::WalkDir::new(target) {
        let entry = entry?;
        if entry.metadata()?.is_file() {
            seen += 1;
        }
        if seen == WALKED {
            return Ok(());
        }
    }
    bail!("{seen} files are there")
}

/// Bytes of the one manifest that is stored.
fn encoding(cluster: &Cluster) -> Result<u64> {
    let manifests = cluster.dir().join(format!("agent-{NODE}/store/manifests"));
    let files = std::fs::read_dir(manifests)?.map(|entry| Ok(entry?.metadata()?.len()));
    files.collect::<Result<Vec<u64>>>()?.into_iter().max().context("there is no manifest")
}

/// Of the agent's process, MiB.
struct Memory {
    resident: u64,
    peak: u64,
}

impl Memory {
    fn of(cluster: &mut Cluster) -> Result<Self> {
        let pid = cluster.agent(NODE)?.pid().context("the agent does not run")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = |name: &str| -> Result<u64> {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let value = value.with_context(|| format!("/proc/{pid}/status has no {name}"))?;
            Ok(value.trim().trim_end_matches(" kB").parse::<u64>()? >> 10)
        };
        Ok(Self { resident: line("VmRSS")?, peak: line("VmHWM")? })
    }

    fn text(&self) -> String {
        format!("{} ({})", self.resident, self.peak)
    }
}
