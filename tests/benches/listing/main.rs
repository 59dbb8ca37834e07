//! How long an agent takes to list a bucket, beside the time that the store needs for the same pages.
//!
//! `cargo bench -p hearth-tests --bench listing`. `HEARTH_BENCH_FILES` names another number of objects.
//!
//! Everything is real: an agent as it is shipped, an S3 server with the objects in it. What the agent asks for is
//! noted on its way, and asked for again with as many requests at a time by a client that only counts the bytes. Both
//! go the same way, and take turns.

mod hop;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use hearth_tests::cluster::{Cluster, e2e, nodes};
use hearth_tests::datasets::{credentials, origin};
use hearth_tests::environment;
use hearth_tests::measure::median;
use hearth_tests::s3::Bucket;
use hearth_tests::wait::eventually;
use hop::Hop;
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
    println!("listing {files} objects, {ROUNDS} rounds, taking turns");
    println!("{:>10} {:>12} {:>18} {:>8}", "pages", "listing", "the same pages", "ratio");
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let listing = list(cluster, &hop, &bucket, &format!("round-{round}"), files).await?;
        let pages = hop.taken();
        ensure!(pages.len() as u64 >= files.div_ceil(1_000), "{} pages are not all", pages.len());
        let started = Instant::now();
        let asked = pages.iter().map(|page| hop.ask(page));
        let bytes: usize =
            stream::iter(asked).buffer_unordered(WIDTH).try_fold(0, async |sum, page| Ok(sum + page)).await?;
        std::hint::black_box(bytes);
        let alone = started.elapsed().as_secs_f64();
        println!("{:>10} {listing:>10.2} s {alone:>16.2} s {:>8.2}", pages.len(), listing / alone);
        ratios.push(listing / alone);
        hop.taken();
    }
    println!("median ratio {:.2}", median(ratios.into_iter()));
    Ok(())
}

/// Makes a dataset of all of it; the seconds from the beginning of the listing to the manifest.
async fn list(cluster: &mut Cluster, hop: &Hop, bucket: &Bucket, name: &str, files: u64) -> Result<f64> {
    let before = seconds(cluster).await?;
    let origin = origin(bucket, FOLDER, hop.endpoint());
    cluster.dataset(name, json!({"origins": [origin], "refresh": "Never"})).await?;
    eventually("it to be listed", LISTING, async || {
        let status = cluster.resource("dataset", name).await?["status"].clone();
        ensure!(status["version"]["files"] == files, "{status}");
        Ok(())
    })
    .await?;
    Ok(seconds(cluster).await? - before)
}

/// What all listings have taken.
async fn seconds(cluster: &mut Cluster) -> Result<f64> {
    let seconds = cluster.agent(NODE)?.metric("hearth_agent_listing_seconds_sum", &[]).await?;
    seconds.context("the agent has no metric of its listings")
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
