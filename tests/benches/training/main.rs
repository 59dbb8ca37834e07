//! A PyTorch training loop over images that are far away: how long its epochs take and how much of that it waits for
//! data, through both of Hearth's views, beside plain files, other mounts of the same bucket, and no mount at all.
//!
//! `cargo bench -p hearth-tests --bench training`, as root: it mounts, and empties the page cache. It takes Debian's
//! python3-torch, and python3-pil to decode with.
//!
//! All variants take turns in one run, and read through the same slow line. Plain files stand twice: what lies between
//! the two is the noise. Peers (s3fs, rclone, Mountpoint for S3, JuiceFS) take part where they are installed.

mod images;
#[path = "../read_views/juicefs.rs"]
mod juicefs;
#[path = "../read_views/peers.rs"]
mod peers;
mod table;
mod training_loop;
mod variant;

use anyhow::{Context, Result, ensure};
use hearth_tests::cluster::{Cluster, nodes};
use hearth_tests::measure::empty_page_cache;
use hearth_tests::python;
use hearth_tests::throttle::Throttle;
use hearth_tests::volumes::{self, Driver};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use training_loop::{EPOCHS, Epoch, TrainingLoop, WORKERS};
use variant::Variant;

const NODE: &str = "node-1";
/// Peers and the plain client take part in the first only: their distance is no matter of noise.
const ROUNDS: usize = 3;
const THROTTLE: Throttle = Throttle { bytes_per_second: 50_000_000, latency: Duration::from_millis(20) };
/// Folder of the images in each bucket.
const FOLDER: &str = "images";

/// What the turns are taken in.
pub(crate) struct Bench<'a> {
    cluster: &'a Cluster,
    driver: Driver,
    /// The images as plain files, and once more.
    plain: [PathBuf; 2],
    bytes: u64,
}

fn main() -> Result<()> {
    if python::with_torch().is_none() {
        eprintln!("no PyTorch (Debian's python3-torch), so nothing was trained");
        return Ok(());
    }
    volumes::bench(nodes(1), async |cluster| measure(cluster).await)
}

async fn measure(cluster: &Cluster) -> Result<()> {
    let driver = Driver::of(cluster, NODE);
    let _keeper = driver.keeper(cluster, "5m").await?;
    let plain = ["plain", "again"].map(|name| cluster.dir().join(name));
    let [to, again] = plain.clone();
    let copied = tokio::task::spawn_blocking(move || images::copy(&again).and_then(|_| images::copy(&to)));
    let bytes = copied.await??;
    let bench = Bench { cluster, driver, plain, bytes };
    let variants = Variant::all(&bench).await?;
    cluster.s3.proxy.throttle(Some(THROTTLE));
    bench.warm_up().await?;

    println!(
        "{} images, {:.1} MB; {} MB/s for all connections, {} ms before each answer; {WORKERS} workers, {EPOCHS} epochs \
         a turn, {ROUNDS} rounds",
        images::IMAGES,
        bytes as f64 / 1e6,
        THROTTLE.bytes_per_second / 1_000_000,
        THROTTLE.latency.as_millis(),
    );
    let mut turns: Vec<Vec<Vec<Epoch>>> = variants.iter().map(|_| Vec::new()).collect();
    for round in 0..ROUNDS {
        for turn in 0..variants.len() {
            // Each is first in its turn.
            let which = (round + turn) % variants.len();
            let variant = &variants[which];
            if round < variant.rounds() {
                let epochs = bench.turn(variant, round).await;
                turns[which].push(epochs.with_context(|| variant.name())?);
            }
        }
    }
    let rows = variants.iter().map(Variant::name).zip(turns).collect::<Vec<_>>();
    table::print(&rows);
    Ok(())
}

impl Bench<'_> {
    /// Uploads the images to a bucket.
    async fn upload(&self, bucket: &str) -> Result<()> {
        self.cluster.s3.bucket(bucket)?.put_tree(&self.plain[0], FOLDER, |_| {}).await.map(drop)
    }

    /// Makes a dataset of a bucket that has its name, and waits until it is listed.
    async fn dataset(&self, name: &str) -> Result<()> {
        self.cluster.s3_dataset(name, &self.cluster.s3.bucket(name)?, FOLDER).await.map(drop)
    }

    /// Has what the native volumes show fetched, as an earlier run of the training does.
    async fn warm_up(&self) -> Result<()> {
        self.upload(variant::WARM).await?;
        self.dataset(variant::WARM).await?;
        self.driver.publish("earlier", &json!({"dataset": variant::WARM, "wait": "100%"})).await?;
        self.driver.unpublish("earlier").await
    }

    /// The epochs of one new loop. The first begins when the volume is asked for.
    async fn turn(&self, variant: &Variant, round: usize) -> Result<Vec<Epoch>> {
        variant.prepare(self, round).await?;
        // What it loads is loaded before, so that no data comes meanwhile.
        let training = TrainingLoop::start().await?;
        let decoder = training.decoder.clone();
        tokio::task::spawn_blocking(empty_page_cache).await??;
        let asked = Instant::now();
        let place = variant.open(self, round).await?;
        let opened = asked.elapsed().as_secs_f64();
        let mut epochs = training.run(&place.path).await?;
        place.close(self).await?;
        for epoch in &epochs {
            ensure!(epoch.images == images::IMAGES && epoch.bytes == self.bytes, "it read {epoch:?}");
        }
        if let Some(first) = epochs.first_mut() {
            first.seconds += opened;
            first.waiting += opened;
        }
        let seconds: Vec<String> = epochs.iter().map(|epoch| format!("{:.2} s", epoch.seconds)).collect();
        eprintln!("{}, decoded with {decoder}: {}", variant.name(), seconds.join(", "));
        Ok(epochs)
    }
}
