//! The first epoch: nothing is on the node, and everything is read while it comes.

use crate::peers;
use crate::work::{empty_page_cache, epoch, files, sequential};
use crate::{Bench, median, upload};
use anyhow::Result;
use hearth_tests::s3::{ACCESS_KEY, REGION, SECRET_KEY};
use object_store::ObjectStoreExt;
use object_store::aws::AmazonS3Builder;
use serde_json::json;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const ROUNDS: usize = 3;
const SMALL: (usize, usize) = (5_000, 100_000);
const LARGE: (usize, usize) = (1, 1 << 30);
/// Requests of the plain client at one time; the agent's default.
const CONCURRENCY: usize = 32;
const RANGE: usize = 8 << 20;
const READERS: usize = 4;

/// Seconds of one first epoch, and of the slowest hundredth of its files.
struct First {
    seconds: f64,
    slowest: f64,
}

pub(crate) async fn table(bench: &Bench<'_>) -> Result<()> {
    println!("\nfirst epoch of a cold node, {ROUNDS} rounds, taking turns; seconds, medians");
    println!("{:32} {:>10} {:>9} {:>12} {:>9}", "", "seconds", "× plain", "p99 a file", "");
    for (name, (objects, size)) in [("5,000 × 100 kB, 4 readers", SMALL), ("1 GiB, sequential", LARGE)] {
        let peers = peers::NAMES.into_iter().filter(|name| peers::is_installed(name));
        let variants: Vec<&str> = ["plain client", "hearth"].into_iter().chain(peers).collect();
        let mut results: Vec<Vec<First>> = variants.iter().map(|_| Vec::new()).collect();
        for round in 0..ROUNDS {
            for turn in 0..variants.len() {
                let variant = (round + turn) % variants.len();
                // Of its own each time: nothing of it has ever been read.
                let folder = format!("first-{objects}-{round}-{variant}");
                let bucket = bench.bucket(&folder)?;
                upload(&bucket, "data", objects, size).await?;
                empty_page_cache()?;
                let first = match variants[variant] {
                    "plain client" => plain(bench, &folder, objects, size).await?,
                    "hearth" => ours(bench, &folder).await?,
                    peer => {
                        let mounted =
                            peers::mount(peer, bench.s3(), &folder, &bench.directory().join(&folder)).await?;
                        let root = mounted.root.join("data");
                        tokio::task::spawn_blocking(move || read(&root)).await??
                    }
                };
                results[variant].push(first);
            }
        }
        println!("{name}");
        let plain = median(results[0].iter().map(|first| first.seconds));
        for (variant, first) in variants.iter().zip(&results) {
            let seconds = median(first.iter().map(|first| first.seconds));
            let slowest = median(first.iter().map(|first| first.slowest));
            println!("  {variant:30} {seconds:>10.2} {:>9.2} {:>9.0} ms", seconds / plain, slowest * 1000.0);
        }
    }
    Ok(())
}

/// Reads all that is below a directory once.
fn read(root: &Path) -> Result<First> {
    let started = Instant::now();
    let files = files(root)?;
    let each = match files.as_slice() {
        [one] => vec![sequential(one)?],
        many => epoch(many, READERS, 1)?.1,
    };
    Ok(First { seconds: started.elapsed().as_secs_f64(), slowest: slowest(each).as_secs_f64() })
}

fn slowest(mut each: Vec<Duration>) -> Duration {
    each.sort();
    each[(each.len() * 99 / 100).min(each.len() - 1)]
}

async fn ours(bench: &Bench<'_>, folder: &str) -> Result<First> {
    bench.dataset(folder, folder, "data").await?;
    let driver = bench.driver();
    // The clock runs from when kubelet would call.
    let started = Instant::now();
    let target = driver.publish(folder, &json!({"dataset": folder})).await?;
    let published = started.elapsed().as_secs_f64();
    let first = tokio::task::spawn_blocking(move || read(&target)).await??;
    driver.unpublish(folder).await?;
    Ok(First { seconds: first.seconds + published, ..first })
}

/// What a program does that fetches everything in parallel and writes it to the disk.
async fn plain(bench: &Bench<'_>, bucket: &str, objects: usize, size: usize) -> Result<First> {
    let store = AmazonS3Builder::new()
        .with_endpoint(bench.s3().endpoint())
        .with_allow_http(true)
        .with_bucket_name(bucket)
        .with_region(REGION)
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key(SECRET_KEY)
        .build()?;
    let directory = bench.directory().join(bucket);
    std::fs::create_dir_all(&directory)?;
    let (store, slots) = (Arc::new(store), Arc::new(Semaphore::new(CONCURRENCY)));
    let started = Instant::now();
    let mut requests = JoinSet::new();
    for object in 0..objects {
        let path = object_store::path::Path::parse(crate::key("data", object))?;
        let file = Arc::new(File::create(directory.join(object.to_string()))?);
        let begun = Instant::now();
        for start in (0..size).step_by(RANGE) {
            let range = start as u64..(start + RANGE).min(size) as u64;
            let slot = slots.clone().acquire_owned().await?;
            let (store, path, file) = (store.clone(), path.clone(), file.clone());
            requests.spawn(async move {
                let bytes = store.get_range(&path, range.clone()).await?;
                let written = tokio::task::spawn_blocking(move || file.write_all_at(&bytes, range.start));
                written.await??;
                drop(slot);
                anyhow::Ok(begun.elapsed())
            });
        }
    }
    let mut each = Vec::with_capacity(objects);
    while let Some(ended) = requests.join_next().await {
        each.push(ended??);
    }
    Ok(First { seconds: started.elapsed().as_secs_f64(), slowest: slowest(each).as_secs_f64() })
}
