//! The first epoch: nothing is on the node, and everything is read while it comes.

use crate::job::Job;
use crate::juicefs;
use crate::peers::{self, Peer};
use crate::work::{epoch, files, sequential};
use crate::{Bench, plain, upload};
use anyhow::Result;
use hearth_tests::measure::{empty_page_cache, median};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

const ROUNDS: usize = 3;
const SMALL: (usize, usize) = (5_000, 100_000);
const LARGE: (usize, usize) = (1, 1 << 30);
/// Folder of the objects in a bucket.
const FOLDER: &str = "data";
const READERS: usize = 4;

/// Seconds of one first epoch, and, of those who read, what all but a hundredth of the files stayed below.
#[derive(Debug)]
struct First {
    seconds: f64,
    slowest: Option<f64>,
}

pub(crate) async fn table(bench: &Bench<'_>) -> Result<()> {
    println!("\nfirst epoch of a cold node, {ROUNDS} rounds, taking turns; seconds, medians");
    println!("{:32} {:>10} {:>9} {:>12}", "", "seconds", "× plain", "p99 a file");
    for (name, (objects, size)) in [("5,000 × 100 kB, 4 readers", SMALL), ("1 GiB, sequential", LARGE)] {
        if bench.is_told("small-files") && objects == 1 {
            continue;
        }
        let mut variants = vec!["plain client", "hearth"];
        variants.extend(bench.peers());
        variants.extend(bench.takes_part(juicefs::NAME).then_some(juicefs::NAME));
        let mut results: Vec<Vec<First>> = variants.iter().map(|_| Vec::new()).collect();
        for round in 0..ROUNDS {
            for turn in 0..variants.len() {
                let variant = (round + turn) % variants.len();
                // Of its own each time: nothing of it has ever been read.
                let folder = format!("first-{objects}-{round}-{variant}");
                let bucket = bench.bucket(&folder)?;
                upload::objects(&bucket, FOLDER, objects, size).await?;
                let copied = match variants[variant] {
                    juicefs::NAME => Some(copied(bench, &folder, objects, size).await?),
                    _ => None,
                };
                empty_page_cache()?;
                let first = match (variants[variant], copied) {
                    (_, Some(mounted)) => {
                        let root = mounted.root.clone();
                        tokio::task::spawn_blocking(move || read(&root)).await??
                    }
                    ("plain client", _) => plain(bench, &folder, objects, size).await?,
                    ("hearth", _) => ours(bench, &folder).await?,
                    (peer, _) => {
                        let directory = bench.directory().join(&folder);
                        let mounted = peers::mount(peer, bench.s3().endpoint(), &folder, &directory).await?;
                        let root = mounted.root.join(FOLDER);
                        tokio::task::spawn_blocking(move || read(&root)).await??
                    }
                };
                if std::env::var_os("HEARTH_BENCH_VERBOSE").is_some() {
                    eprintln!("{} {first:?}", variants[variant]);
                }
                results[variant].push(first);
                // A large file is copied by each variant, and gone at once. Many small ones would slow the next turn.
                if objects == 1 {
                    bench.forget(&folder)?;
                }
            }
        }
        println!("{name}");
        let plain = median(results[0].iter().map(|first| first.seconds));
        for (variant, first) in variants.iter().zip(&results) {
            let seconds = median(first.iter().map(|first| first.seconds));
            print!("  {variant:30} {seconds:>10.2} {:>9.2}", seconds / plain);
            let slowest: Vec<f64> = first.iter().filter_map(|first| first.slowest).collect();
            match slowest.is_empty() {
                true => println!(),
                false => println!(" {:>9.0} ms", median(slowest.into_iter()) * 1000.0),
            }
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
    Ok(First { seconds: started.elapsed().as_secs_f64(), slowest: Some(slowest(each).as_secs_f64()) })
}

fn slowest(mut each: Vec<Duration>) -> Duration {
    each.sort();
    each[(each.len() * 99 / 100).min(each.len() - 1)]
}

async fn ours(bench: &Bench<'_>, folder: &str) -> Result<First> {
    bench.dataset(folder, folder, FOLDER).await?;
    let driver = bench.driver();
    // The clock runs from when kubelet would call.
    let started = Instant::now();
    let target = driver.publish(folder, &json!({"dataset": folder})).await?;
    let published = started.elapsed().as_secs_f64();
    let first = tokio::task::spawn_blocking(move || read(&target)).await??;
    driver.unpublish(folder).await?;
    Ok(First { seconds: first.seconds + published, ..first })
}

/// JuiceFS with the files of a bucket in a file system of its own.
async fn copied(bench: &Bench<'_>, bucket: &str, objects: usize, size: usize) -> Result<Peer> {
    plain(bench, bucket, objects, size).await?;
    bench.juicefs(&format!("{bucket}-juicefs"), &bench.directory().join(bucket)).await
}

/// The client beside which fills are measured, too.
async fn plain(bench: &Bench<'_>, bucket: &str, objects: usize, size: usize) -> Result<First> {
    let directory = bench.directory().join(bucket);
    std::fs::create_dir_all(&directory)?;
    let endpoint = bench.s3().endpoint().to_owned();
    let job =
        Job { endpoint, bucket: bucket.to_owned(), folder: FOLDER.to_owned(), objects, size, directory };
    Ok(First { seconds: plain::fetch(&job).await?.seconds, slowest: None })
}
