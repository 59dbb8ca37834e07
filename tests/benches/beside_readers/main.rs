//! What those who read and train notice of the agent's work in the background.
//!
//! `cargo bench -p hearth-tests --bench beside_readers -- eviction`: reads of a native view, past the page cache, while
//! 10 GB of files of 100 kB are given up, beside the same reads before and after.
//! `cargo bench -p hearth-tests --bench beside_readers -- training`: a PyTorch loop (Debian's python3-torch) over a native
//! view, while a dataset is fetched as fast as it comes, beside the same loop alone.
//!
//! As root: it mounts. An agent as it is shipped, and its store on a disk; objects are made when they are asked for.
//! `HEARTH_BENCH_FILES` names another number of files to give up than 100,000.

#[path = "../training/images.rs"]
mod images;
#[path = "../agent_memory/origin.rs"]
mod origin;

mod eviction;
mod foreground;
mod shares;
mod training;
#[path = "../training/training_loop.rs"]
mod training_loop;

use anyhow::{Context, Result, bail};
use hearth_tests::cluster::{Cluster, nodes};
use hearth_tests::volumes;

const NODE: &str = "node-1";
/// Bytes of each small file.
const SIZE: usize = 100_000;

fn main() -> Result<()> {
    let part = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    volumes::bench(nodes(1), async |cluster| match part.as_deref() {
        Some("eviction") => eviction::measure(cluster).await,
        Some("training") => training::measure(cluster).await,
        Some(other) => bail!("there is no part {other}: eviction or training"),
        None => {
            training::measure(cluster).await?;
            eviction::measure(cluster).await
        }
    })
}

/// One of the agent's numbers, 0 before there is one.
async fn number(cluster: &Cluster, name: &str, labels: &[&str]) -> Result<f64> {
    let agent = cluster.agents.get(NODE).context("no agent")?;
    Ok(agent.metric(name, labels).await?.unwrap_or(0.0))
}
