//! How long an agent takes to list a bucket, beside the time that the store needs for the same pages.
//!
//! `cargo bench -p hearth-tests --bench listing`. `HEARTH_BENCH_FILES` names another number of objects.
//!
//! Everything is real: an agent as it is shipped, an S3 server with the objects in it. What the agent asks for is
//! noted on its way, and asked for again with as many requests at a time by a client that only counts the bytes. Both
//! go the same way, and take turns to be first. What the agent asked for in vain is not the store's to answer for: the
//! client's time is that of so many pages as the objects fill.

mod hop;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use hearth_tests::cluster::{Cluster, e2e, nodes};
use hearth_tests::datasets::{credentials, origin};
use hearth_tests::environment;
use hearth_tests::measure::median;
use hearth_tests::s3::Bucket;
use hearth_tests::wait::eventually;
use hop::{Asked, Hop};
use serde_json::json;
use std::time::{Duration, Instant};

const NODE: &str = "node-1";
const FOLDER: &str = "train";
const FILES: u64 = 1_000_000;
const FILES_OF_DIRECTORY: u64 = 1_000;
const ROUNDS: usize = 5;
/// Requests at one time; those of the agent.
const WIDTH: usize = 10;
/// Uploads at one time.
const UPLOADS: usize = 32;
/// Keys that the server puts in a page.
const PAGE: u64 = 1_000;
/// Longest time that one listing may take.
const LISTING: Duration = Duration::from_secs(600);
const LONGEST: Duration = Duration::from_secs(3_600);

fn main() -> Result<()> {
    let files = environment::number("HEARTH_BENCH_FILES", FILES)?;
    e2e(&nodes(1).more_time(LONGEST), async |cluster| measure(cluster, files).await)
}

async fn measure(cluster: &mut Cluster, files: u64) -> Result<()> {
    let bucket = cluster.s3.bucket("listed")?;
    eprintln!("uploading {files} objects…");
    upload(&bucket, files).await?;
    cluster.kube.apply(&credentials()).await?;
    let hop = Hop::start(cluster.s3.endpoint()).await?;
    list(cluster, &hop, &bucket, "first", files).await?;
    let pages = hop.taken();
    let full = files.div_ceil(PAGE) as f64;
    println!("listing {files} objects: {} pages asked for, {full} would be full", pages.len());
    println!("{:>12} {:>16} {:>8}", "listing", "the full pages", "ratio");
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let name = format!("round-{round}");
        let (listing, alone) = match round % 2 {
            0 => {
                let listing = list(cluster, &hop, &bucket, &name, files).await?;
                (listing, ask(&hop, &pages).await?)
            }
            _ => {
                let alone = ask(&hop, &pages).await?;
                (list(cluster, &hop, &bucket, &name, files).await?, alone)
            }
        };
        let alone = alone * full / pages.len() as f64;
        println!("{listing:>10.2} s {alone:>14.2} s {:>8.2}", listing / alone);
        ratios.push(listing / alone);
    }
    println!("median ratio {:.2}", median(ratios.into_iter()));
    Ok(())
}

/// The seconds that all pages take.
async fn ask(hop: &Hop, pages: &[Asked]) -> Result<f64> {
    let started = Instant::now();
    let asked = pages.iter().map(|page| hop.ask(page));
    let bytes: usize =
        stream::iter(asked).buffer_unordered(WIDTH).try_fold(0, async |sum, page| Ok(sum + page)).await?;
    std::hint::black_box(bytes);
    Ok(started.elapsed().as_secs_f64())
}

/// Makes a dataset of all of it; the seconds from the beginning of the listing to the manifest.
async fn list(cluster: &mut Cluster, hop: &Hop, bucket: &Bucket, name: &str, files: u64) -> Result<f64> {
    let before = listings(cluster).await?;
    let origin = origin(bucket, FOLDER, hop.endpoint());
    cluster.dataset(name, json!({"origins": [origin], "refresh": "Never"})).await?;
    // By the agent's metric: asking the API server by kubectl takes half a core.
    let agent = cluster.agent(NODE)?;
    eventually("it to be listed", LISTING, async || {
        let listed = agent.metric("hearth_agent_listing_seconds_count", &[]).await?.unwrap_or(0.0);
        ensure!(listed > before.0, "it is not");
        Ok(())
    })
    .await?;
    cluster.listed(name).await?;
    let status = cluster.resource("dataset", name).await?["status"].clone();
    ensure!(status["version"]["files"] == files, "{status}");
    let after = listings(cluster).await?;
    ensure!(after.0 == before.0 + 1.0, "it was listed more than once");
    Ok(after.1 - before.1)
}

/// How many listings there were, and the seconds that all have taken.
async fn listings(cluster: &mut Cluster) -> Result<(f64, f64)> {
    let agent = cluster.agent(NODE)?;
    let count = agent.metric("hearth_agent_listing_seconds_count", &[]).await?;
    let seconds = agent.metric("hearth_agent_listing_seconds_sum", &[]).await?;
    count.zip(seconds).context("the agent has no metric of its listings")
}

async fn upload(bucket: &Bucket, files: u64) -> Result<()> {
    stream::iter(0..files)
        .map(|number| async move {
            let directory = number / FILES_OF_DIRECTORY;
            bucket.put(&format!("{FOLDER}/n{directory:08}/n{directory:08}_{number:08}.JPEG"), "x").await
        })
        .buffer_unordered(UPLOADS)
        .try_collect()
        .await
}
