//! How fast programs read through both views, beside the same files on raw ext4 and
//! other mounts of the same bucket.
//!
//! `cargo bench -p hearth-tests --bench read_views`, as root: it mounts, and empties the page cache.
//! With `-- views` or `-- first-epoch` only those tables; with `no-peers` nobody else's mounts, which take a
//! quarter of an hour; with `small-files` only those of the first epoch. `HEARTH_BENCH_VERBOSE` tells each turn.
//!
//! Everything is real: an agent as it is shipped, the CSI driver's mounts, an S3 server.
//! All variants take turns in one run, and in the tables of whole files each is bound to a path of the same length, as a
//! container sees a volume. Raw ext4 stands twice, as two copies: what lies between the two is the noise, that of the
//! places on the disk too. Peers (s3fs, rclone, Mountpoint for S3,
//! JuiceFS) take part where they are installed.

mod bound;
#[path = "../report_load/cpu.rs"]
mod cpu;
mod fill;
#[path = "../agent_fill/job.rs"]
mod job;
mod juicefs;
mod peers;
#[path = "../agent_fill/plain.rs"]
mod plain;
#[path = "../agent_fill/upload.rs"]
mod upload;
mod work;

use anyhow::{Context, Result};
use bound::Bound;
use hearth_tests::cluster::{Cluster, nodes};
use hearth_tests::measure::{empty_page_cache, median};
use hearth_tests::s3::{Bucket, S3};
use hearth_tests::volumes::{self, Driver};
use hearth_tests::wait::eventually;
use juicefs::JuiceFs;
use peers::Peer;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;
use walkdir::WalkDir;
use work::{ALL, Work};

const NODE: &str = "node-1";
const TABLES: [&str; 2] = ["views", "first-epoch"];
const ROUNDS: usize = 5;
/// Longest time that all of it may take to come.
const FETCH: Duration = Duration::from_secs(600);
/// Peers are too slow for more.
const PEER_ROUNDS: usize = 1;

/// What the tables are made in.
pub(crate) struct Bench<'a> {
    cluster: &'a Cluster,
    /// What is asked for; all of it when nothing is.
    words: Vec<String>,
}

impl Bench<'_> {
    /// Whether this word is among the arguments.
    pub(crate) fn is_told(&self, word: &str) -> bool {
        self.words.iter().any(|told| told == word)
    }

    /// Other mounts that take part, of the bucket as it is.
    pub(crate) fn peers(&self) -> Vec<&'static str> {
        peers::NAMES.into_iter().filter(|name| self.takes_part(name)).collect()
    }

    pub(crate) fn takes_part(&self, name: &str) -> bool {
        !self.is_told("no-peers") && peers::is_installed(name)
    }

    pub(crate) fn s3(&self) -> &S3 {
        &self.cluster.s3
    }

    pub(crate) fn bucket(&self, name: &str) -> Result<Bucket> {
        self.cluster.s3.bucket(name)
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.cluster.dir().join("bench")
    }

    pub(crate) fn driver(&self) -> Driver {
        Driver::of(self.cluster, NODE)
    }

    /// A new file system of JuiceFS with the files of a directory, mounted with an empty cache.
    pub(crate) async fn juicefs(&self, bucket: &str, from: &Path) -> Result<Peer> {
        let (name, directory) = (&self.bucket(bucket)?.name, self.directory().join(bucket));
        let filled = JuiceFs::fill(self.s3().endpoint(), name, from, &directory).await?;
        filled.mount(self.s3().endpoint(), &directory).await
    }

    /// Removes a bucket of one turn and what was copied of it, but for mount points and what the agent keeps.
    pub(crate) fn forget(&self, bucket: &str) -> Result<()> {
        for name in [bucket.to_owned(), format!("{bucket}-juicefs")] {
            self.s3().remove_bucket(&name)?;
            let copied = self.directory().join(&name);
            // Beside a cache there is a mount that nobody serves any more, which cannot be removed.
            let cache = copied.join("cache");
            let removed = if cache.exists() { cache } else { copied };
            if removed.exists() {
                std::fs::remove_dir_all(removed)?;
            }
        }
        Ok(())
    }

    /// Makes a dataset of a folder, beside the proxy of the tests.
    pub(crate) async fn dataset(&self, name: &str, bucket: &str, folder: &str) -> Result<()> {
        let endpoint = self.s3().endpoint().to_owned();
        self.cluster.s3_dataset_at(name, &self.bucket(bucket)?, folder, endpoint).await.map(drop)
    }
}

/// One column: where its files are.
struct Variant {
    name: String,
    root: Bound,
    rounds: usize,
}

fn main() -> Result<()> {
    let words = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    volumes::bench(nodes(1), async |cluster| measure(&Bench { cluster, words }).await)
}

async fn measure(bench: &Bench<'_>) -> Result<()> {
    let _keeper = bench.driver().keeper(bench.cluster, "5m").await?;
    let names_none = TABLES.iter().all(|table| !bench.is_told(table));
    let is_chosen = |table: &str| names_none || bench.is_told(table);
    if is_chosen("views") {
        views(bench).await?;
    }
    if is_chosen("first-epoch") {
        fill::table(bench).await?;
    }
    Ok(())
}

/// Both views of what is wholly on the node.
async fn views(bench: &Bench<'_>) -> Result<()> {
    let bucket = bench.bucket("reads")?;
    eprintln!("uploading 20,000 × 100 kB, 1 GiB and 100,000 small files…");
    for (folder, objects, size) in
        [("all/small", 20_000, 100_000), ("all/many", 100_000, 100), ("all/large", 1, 1 << 30)]
    {
        upload::objects(&bucket, folder, objects, size).await?;
    }
    bench.dataset("reads", "reads", "all").await?;

    // A cold volume, and then a warm one of the same version.
    let driver = bench.driver();
    let fuse = driver.publish("fuse", &json!({"dataset": "reads"})).await?;
    anyhow::ensure!(driver.kind("fuse")? == "fuse.hearth", "it was warm already");
    eventually("all of it to be fetched", FETCH, async || {
        let stats = driver.stats("fuse").await?;
        let message = stats.volume_condition.map(|condition| condition.message).unwrap_or_default();
        let mut counts = message.split(' ').filter_map(|word| word.parse::<u64>().ok());
        anyhow::ensure!(counts.next() == counts.next(), "{message}");
        Ok(())
    })
    .await?;
    let native = driver.publish("native", &json!({"dataset": "reads"})).await?;
    anyhow::ensure!(driver.kind("native")? != "fuse.hearth", "it is not wholly there");
    eprintln!("copying it to plain files, twice…");
    let copies = ["raw-1", "raw-2"].map(|name| bench.directory().join(name));
    for raw in &copies {
        copy(&native, raw)?;
    }

    let [raw, again] = &copies;
    let roots = [("ext4", raw), ("ext4 again", again), ("native", &native), ("FUSE, whole files", &fuse)];
    let mut variants = Vec::new();
    let mut bind = |name: &str, root: &Path, rounds| {
        let path = bench.directory().join(format!("volume-{}", variants.len()));
        variants.push(Variant { name: name.to_owned(), root: Bound::new(root, path)?, rounds });
        anyhow::Ok(())
    };
    for (name, root) in roots {
        bind(name, root, ROUNDS)?;
    }
    let mut mounted = Vec::new();
    for name in bench.peers() {
        let peer = peers::mount(name, bench.s3().endpoint(), "reads", &bench.directory().join(name)).await?;
        mounted.push((name, peer.root.join("all"), peer));
    }
    if bench.takes_part(juicefs::NAME) {
        eprintln!("copying it to {}…", juicefs::NAME);
        let peer = bench.juicefs("reads-juicefs", raw).await?;
        mounted.push((juicefs::NAME, peer.root.clone(), peer));
    }
    for (name, root, _) in &mounted {
        eprintln!("filling the cache of {name}…");
        let filled = root.clone();
        tokio::task::spawn_blocking(move || -> Result<()> {
            for work in ALL {
                work.run(&filled, 0)?;
            }
            Ok(())
        })
        .await??;
        bind(name, root, PEER_ROUNDS)?;
    }
    // What was copied is not to be written while others are timed.
    rustix::fs::sync();
    for is_cold in [false, true] {
        let (variants, cache) = (&variants, if is_cold { "cold" } else { "warm" });
        let rows = tokio::task::block_in_place(|| rows(variants, is_cold))?;
        println!(
            "\npage cache {cache}: medians of {ROUNDS} rounds, taking turns; speed over the mean of both ext4"
        );
        print!("{:20}", "");
        variants.iter().for_each(|variant| print!(" {:>18}", variant.name));
        println!();
        for (work, seconds) in rows {
            print!("{:20}", work.name());
            let ext4 = f64::midpoint(seconds[0], seconds[1]);
            for seconds in seconds {
                print!(" {:>8.3} s {:>5.2} ×", seconds, ext4 / seconds);
            }
            println!();
        }
    }
    drop(variants);
    drop(mounted);
    driver.unpublish("fuse").await?;
    driver.unpublish("native").await
}

/// Seconds of each work in each variant.
fn rows(variants: &[Variant], is_cold: bool) -> Result<Vec<(Work, Vec<f64>)>> {
    let mut rows = Vec::new();
    for work in ALL {
        let mut results: Vec<Vec<f64>> = variants.iter().map(|_| Vec::new()).collect();
        for round in 0..ROUNDS {
            for turn in 0..variants.len() {
                // Each is first in its turn.
                let which = (round + turn) % variants.len();
                let variant = &variants[which];
                if round >= variant.rounds {
                    continue;
                }
                // What others read may have taken the memory of what this one read before.
                match is_cold {
                    true => empty_page_cache()?,
                    false => _ = work.run(variant.root.path(), 1 + round as u64)?,
                }
                let took = work.run(variant.root.path(), 1 + round as u64);
                results[which].push(took.with_context(|| variant.name.clone())?.as_secs_f64());
            }
        }
        rows.push((work, results.into_iter().map(|seconds| median(seconds.into_iter())).collect()));
    }
    Ok(rows)
}

/// Copies a tree, file by file in the order of names, as a download writes it. In the order in which `cp` lists it the
/// inodes would lie as a walk asks for them, which no fetched dataset's do.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in WalkDir::new(from).sort_by_file_name() {
        let entry = entry?;
        let target = to.join(entry.path().strip_prefix(from)?);
        match entry.file_type().is_dir() {
            true => std::fs::create_dir_all(&target)?,
            false => _ = std::fs::copy(entry.path(), &target)?,
        }
    }
    Ok(())
}
