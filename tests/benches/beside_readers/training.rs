//! A training loop while another dataset is fetched.

use crate::shares::Group;
use crate::training_loop::{EPOCHS, Epoch, TrainingLoop, WORKERS};
use crate::{NODE, SIZE, images, number, origin};
use anyhow::{Context, Result, ensure};
use hearth_tests::cluster::Cluster;
use hearth_tests::datasets::FETCH;
use hearth_tests::measure::median;
use hearth_tests::python;
use hearth_tests::volumes::Driver;
use hearth_tests::wait::eventually;
use serde_json::json;
use std::path::Path;
use std::time::Instant;

const ROUNDS: usize = 3;
/// More than come meanwhile.
const FILES: usize = 150_000;
/// Thousandths of a processor that the pods request: the agent's as it is shipped, and the
/// loop's what is left of two.
const AGENT: u64 = 100;
const LOOP: u64 = 1900;

pub(crate) async fn measure(cluster: &mut Cluster) -> Result<()> {
    if python::with_torch().is_none() {
        eprintln!("no PyTorch (Debian's python3-torch), so nothing was trained");
        return Ok(());
    }
    let (agent, training) = (Group::of_request("agent", AGENT)?, Group::of_request("loop", LOOP)?);
    // The origin, which is in this process, would be another machine.
    let elsewhere = Group::of_request("elsewhere", 0)?;
    elsewhere.take(std::process::id())?;
    agent.take(cluster.agent(NODE)?.pid().context("the agent does not run")?)?;

    let driver = Driver::of(cluster, NODE);
    let _keeper = driver.keeper(cluster, "10m").await?;
    let plain = cluster.dir().join("plain");
    let to = plain.clone();
    let bytes = tokio::task::spawn_blocking(move || images::copy(&to)).await??;
    let bucket = cluster.s3.bucket("images")?;
    bucket.put_tree(&plain, "images", |_| {}).await?;
    cluster.s3_dataset_at("images", &bucket, "images", cluster.s3.endpoint().to_owned()).await?;
    let root = driver.publish("loop", &json!({"dataset": "images", "wait": "100%"})).await?;
    ensure!(driver.kind("loop")? != "fuse.hearth", "it is not wholly there");
    let origin = origin::start(FILES, SIZE).await?;
    origin.dataset(cluster, "fetched", json!({})).await?;

    let (mut alone, mut beside, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Each is first in its turn.
        for fills in [round % 2 == 1, round % 2 == 0] {
            if fills {
                cluster
                    .warmup("fetched", "fetched", json!({"nodes": {"replicas": 1}, "suspend": false}))
                    .await?;
                running(cluster, true).await?;
            }
            let (began, came) = (
                Instant::now(),
                number(cluster, "hearth_agent_origin_bytes_total", &["scheme=\"s3\""]).await?,
            );
            let epochs = turn(&training, &elsewhere, &root).await?;
            let came = number(cluster, "hearth_agent_origin_bytes_total", &["scheme=\"s3\""]).await? - came;
            let rate = came / began.elapsed().as_secs_f64();
            for epoch in &epochs {
                ensure!(epoch.images == images::IMAGES && epoch.bytes == bytes, "it read {epoch:?}");
            }
            let seconds: f64 = epochs.iter().map(|epoch| epoch.seconds).sum();
            let waiting: f64 = epochs.iter().map(|epoch| epoch.waiting).sum();
            eprintln!(
                "{}: {seconds:.2} s, {waiting:.2} s of it waiting",
                if fills { "beside it" } else { "alone" }
            );
            if fills {
                // Requests may be held back just now.
                let used = number(cluster, "hearth_agent_store_used_bytes", &[]).await?;
                ensure!(used < (FILES * SIZE) as f64, "it came to its end");
                cluster
                    .warmup("fetched", "fetched", json!({"nodes": {"replicas": 1}, "suspend": true}))
                    .await?;
                running(cluster, false).await?;
                rates.push(rate);
                beside.push(seconds);
            } else {
                alone.push(seconds);
            }
        }
    }
    let (quiet, busy) = (median(alone.iter().copied()), median(beside.iter().copied()));
    println!(
        "\na PyTorch loop, {WORKERS} workers, {EPOCHS} epochs of {} images, {ROUNDS} rounds, taking turns; seconds, medians",
        images::IMAGES
    );
    println!(
        "alone {quiet:.2}, beside a dataset that is fetched at {:.0} MB/s {busy:.2}: {:.3} ×",
        median(rates.into_iter()) / 1e6,
        busy / quiet
    );
    println!("alone {alone:.2?}, beside {beside:.2?}");
    driver.unpublish("loop").await
}

/// One new loop, in its group from its start.
async fn turn(training: &Group, elsewhere: &Group, root: &Path) -> Result<Vec<Epoch>> {
    let this = std::process::id();
    training.take(this)?;
    let started = TrainingLoop::start().await;
    elsewhere.take(this)?;
    let root = root.to_str().context("a path is not UTF-8")?;
    let started = started?;
    let decoder = started.decoder.clone();
    started.run(root).await.with_context(|| format!("decoding with {decoder}"))
}

async fn running(cluster: &Cluster, is_running: bool) -> Result<()> {
    eventually("fetching to begin or to end", FETCH, async || {
        let seen = number(cluster, "hearth_agent_fill_requests_running", &[]).await?;
        ensure!((seen > 0.0) == is_running, "{seen} requests run");
        Ok(())
    })
    .await
}
