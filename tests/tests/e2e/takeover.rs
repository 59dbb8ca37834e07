//! The agent's death does not kill those who read by it: sessions of FUSE views outlive it with the keeper.
//!
//! `HEARTH_TAKEOVERS` is the number of deaths, and `HEARTH_KILL_SEED` repeats a run that failed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use hearth_tests::cluster::{Cluster, nodes};
use hearth_tests::datasets::FETCH;
use hearth_tests::environment;
use hearth_tests::volumes::{self, Driver};
use hearth_tests::wait::eventually;
use rustix::fs::{Advice, fadvise};
use serde_json::json;

const NODE: &str = "node-1";
const BLOCK: usize = hearth_core::block::BLOCK_SIZE as usize;
const DEFAULT_DEATHS: u64 = 20;

type Content = Arc<BTreeMap<String, Vec<u8>>>;

/// Uploads files of many sizes and makes a dataset of them.
async fn dataset(cluster: &Cluster, random: &mut fastrand::Rng) -> Result<Content> {
    let bucket = cluster.s3.bucket("data")?;
    let mut content = BTreeMap::new();
    for i in 0..24 {
        let size = match i % 8 {
            0 => 2 * BLOCK + random.usize(0..BLOCK),
            1 => 0,
            _ => random.usize(1..200_000),
        };
        let mut bytes = vec![0; size];
        random.fill(&mut bytes);
        content.insert(format!("part-{}/{i}.bin", i % 3), bytes);
    }
    for (path, bytes) in &content {
        bucket.put(&format!("images/{path}"), bytes.clone()).await?;
    }
    cluster.s3_dataset("images", &bucket, "images").await?;
    Ok(Arc::new(content))
}

/// Threads that read and compare until they are told to end.
struct Readers {
    stop: Arc<AtomicBool>,
    threads: Vec<(String, Arc<AtomicU64>, JoinHandle<Result<()>>)>,
}

impl Readers {
    fn new() -> Self {
        Self { stop: Arc::default(), threads: Vec::new() }
    }

    /// Reads again and again by `read`, which is given a number of its own each time.
    fn start(&mut self, name: &str, mut read: impl FnMut(u64) -> Result<()> + Send + 'static) {
        let (stop, done) = (self.stop.clone(), Arc::new(AtomicU64::new(0)));
        let counted = done.clone();
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                read(counted.load(Ordering::Relaxed))?;
                counted.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        self.threads.push((name.to_owned(), done, thread));
    }

    /// How much each of them has read.
    fn done(&self) -> Vec<u64> {
        self.threads.iter().map(|(_, done, _)| done.load(Ordering::Relaxed)).collect()
    }

    /// Waits until they have read so much more, all together, which is at any moment of any one of them.
    async fn read_more(&self, more: u64) -> Result<()> {
        let before: u64 = self.done().iter().sum();
        eventually(&format!("{more} more reads"), FETCH, async || {
            let ended = self.threads.iter().any(|(_, _, thread)| thread.is_finished());
            let read = self.done().iter().sum::<u64>() - before;
            ensure!(ended || read >= more, "{read} reads");
            Ok(())
        })
        .await
    }

    /// Waits until each of them has begun a read after this call and ended it well.
    async fn go_on(&mut self) -> Result<()> {
        let before = self.done();
        let went_on = eventually("every reader to go on", FETCH, async || {
            for ((name, done, thread), before) in self.threads.iter().zip(&before) {
                if thread.is_finished() {
                    return Ok(false);
                }
                ensure!(done.load(Ordering::Relaxed) > before + 1, "{name} stands still");
            }
            Ok(true)
        })
        .await?;
        if !went_on {
            self.end()?;
            bail!("a reader ended without an error");
        }
        Ok(())
    }

    /// Ends them; what they have read.
    fn end(&mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = 0;
        for (name, done, thread) in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("{name} panicked"))?.with_context(|| name)?;
            all += done.load(Ordering::Relaxed);
        }
        Ok(all)
    }
}

/// A read at any place of an open file that does not come from the page cache.
fn read_somewhere(file: &File, expected: &[u8], random: &mut fastrand::Rng) -> Result<()> {
    if expected.is_empty() {
        return Ok(());
    }
    let start = random.usize(0..expected.len());
    let length = random.usize(1..=(expected.len() - start).min(300_000));
    fadvise(file, 0, None, Advice::DontNeed)?;
    let mut seen = vec![0; length];
    file.read_exact_at(&mut seen, start as u64)?;
    ensure!(seen == expected[start..start + length], "wrong bytes at {start}, {length} of them");
    Ok(())
}

/// The path of the file that a reader takes next, and its content.
fn pick<'a>(content: &'a Content, half: usize, random: &mut fastrand::Rng) -> (&'a str, &'a [u8]) {
    let half: Vec<_> = content.iter().enumerate().filter(|(i, _)| i % 2 == half).collect();
    let (_, (path, bytes)) = half[random.usize(0..half.len())];
    (path, bytes)
}

/// Readers of two halves of the files: one half was opened before it was here, and is served; the other is opened
/// anew each time, and is the kernel's own.
fn start_readers(content: &Content, target: &Path, served: Vec<(String, File)>, seed: u64) -> Readers {
    let mut readers = Readers::new();
    let served = Arc::new(served);
    for n in 0..4 {
        let (content, served) = (content.clone(), served.clone());
        let mut random = fastrand::Rng::with_seed(seed + n);
        readers.start(&format!("served {n}"), move |_| {
            let (path, file) = &served[random.usize(0..served.len())];
            read_somewhere(file, &content[path], &mut random).with_context(|| path.clone())
        });
    }
    for n in 0..3 {
        let (content, target) = (content.clone(), target.to_owned());
        let mut random = fastrand::Rng::with_seed(seed + 100 + n);
        readers.start(&format!("passthrough {n}"), move |_| {
            let (path, expected) = pick(&content, 1, &mut random);
            let seen = fs::read(target.join(path)).with_context(|| path.to_owned())?;
            ensure!(seen == expected, "{path} has wrong bytes");
            Ok(())
        });
    }
    let (content, target) = (content.clone(), target.to_owned());
    readers.start("walker", move |_| {
        let files = walkdir::WalkDir::new(&target).into_iter().collect::<Result<Vec<_>, _>>()?;
        let files = files.iter().filter(|entry| entry.file_type().is_file()).count();
        ensure!(files == content.len(), "{files} files are seen, and {} are there", content.len());
        Ok(())
    });
    readers
}

/// Publishes a cold volume, opens half of its files while none is here, and lets the data come.
async fn publish(
    cluster: &Cluster,
    driver: &Driver,
    content: &Content,
) -> Result<(PathBuf, Vec<(String, File)>)> {
    cluster.s3.proxy.hold_gets_after(0);
    let target = driver.publish("one", &json!({"dataset": "images"})).await?;
    ensure!(driver.kind("one")? == "fuse.hearth", "it is {}", driver.kind("one")?);
    let halves = content.keys().enumerate().filter(|(i, _)| i % 2 == 0);
    let served = halves.map(|(_, path)| Ok((path.clone(), File::open(target.join(path))?)));
    let served = served.collect::<Result<Vec<_>>>()?;
    cluster.s3.proxy.release_gets();
    cluster.warm("images", NODE, 100).await?;
    Ok((target, served))
}

async fn kept(cluster: &mut Cluster, sessions: f64) -> Result<()> {
    let agent = cluster.agent(NODE)?;
    eventually(&format!("{sessions} sessions to be kept"), FETCH, async || {
        let seen = agent.metric("hearth_agent_fuse_sessions_kept", &[]).await?;
        ensure!(seen == Some(sessions), "{seen:?}");
        Ok(())
    })
    .await
}

#[test]
fn readers_read_on_through_the_agents_deaths() -> Result<()> {
    let deaths = environment::number("HEARTH_TAKEOVERS", DEFAULT_DEATHS)?;
    let more_time = Duration::from_secs(5 * deaths);
    volumes::e2e(nodes(1).more_time(more_time), async |cluster| {
        let seed = environment::number("HEARTH_KILL_SEED", fastrand::u64(..))?;
        eprintln!("{deaths} deaths; HEARTH_KILL_SEED={seed} repeats this run");
        let mut random = fastrand::Rng::with_seed(seed);
        let content = dataset(cluster, &mut random).await?;
        let driver = Driver::of(cluster, NODE);
        let mut keeper = driver.keeper(cluster, "5m").await?;
        kept(cluster, 0.0).await?;
        let (target, served) = publish(cluster, &driver, &content).await?;
        kept(cluster, 1.0).await?;
        let mut readers = start_readers(&content, &target, served, seed);
        readers.go_on().await?;
        for death in 0..deaths {
            readers.read_more(random.u64(0..10_000)).await?;
            match death % 5 {
                4 => cluster.agent(NODE)?.stop().await?,
                _ => cluster.agent(NODE)?.kill(),
            }
            cluster.agent(NODE)?.start().await?;
            readers.go_on().await.with_context(|| format!("after death {death}"))?;
            // The keeper may die too, as long as an agent lives.
            if death % 7 == 6 {
                drop(keeper);
                keeper = driver.keeper(cluster, "5m").await?;
                kept(cluster, 1.0).await?;
            }
        }
        let reads = readers.end()?;
        eprintln!("{reads} reads through {deaths} deaths, 0 errors, 0 wrong bytes");
        driver.unpublish("one").await?;
        kept(cluster, 0.0).await?;
        ensure!(driver.kind("one").is_err(), "it is still mounted");
        Ok(())
    })
}

#[test]
fn a_waiting_read_outlives_the_agent() -> Result<()> {
    volumes::e2e(nodes(1), async |cluster| {
        let content = dataset(cluster, &mut fastrand::Rng::with_seed(7)).await?;
        let driver = Driver::of(cluster, NODE);
        let _keeper = driver.keeper(cluster, "5m").await?;
        kept(cluster, 0.0).await?;
        cluster.s3.proxy.hold_gets_after(0);
        let target = driver.publish("one", &json!({"dataset": "images"})).await?;
        kept(cluster, 1.0).await?;
        let (path, expected) = content.iter().next().context("there are no files")?;
        let (file, expected) = (target.join(path), expected.clone());
        let reading = std::thread::spawn(move || fs::read(file).map(|seen| seen == expected));
        let agent = cluster.agent(NODE)?;
        eventually("the origin to be asked", FETCH, async || {
            let running = agent.metric("hearth_agent_fill_requests_running", &[]).await?;
            ensure!(running > Some(0.0), "{running:?} requests");
            Ok(())
        })
        .await?;
        for kill in [true, false, true] {
            match kill {
                true => cluster.agent(NODE)?.kill(),
                false => cluster.agent(NODE)?.stop().await?,
            }
            cluster.agent(NODE)?.start().await?;
            ensure!(!reading.is_finished(), "it was answered without its data");
        }
        cluster.s3.proxy.release_gets();
        let right = reading.join().map_err(|_| anyhow!("the reader panicked"))??;
        ensure!(right, "wrong bytes");
        driver.unpublish("one").await
    })
}

#[test]
fn without_an_agent_readers_fail_in_time() -> Result<()> {
    volumes::e2e(nodes(1), async |cluster| {
        let content = dataset(cluster, &mut fastrand::Rng::with_seed(8)).await?;
        let driver = Driver::of(cluster, NODE);
        let _keeper = driver.keeper(cluster, "2s").await?;
        kept(cluster, 0.0).await?;
        let (target, served) = publish(cluster, &driver, &content).await?;
        kept(cluster, 1.0).await?;
        cluster.agent(NODE)?.kill();
        let (path, file) =
            served.into_iter().find(|(path, _)| content[path].len() > BLOCK).context("no file")?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
        let waited = std::thread::spawn(move || file.read_at(&mut [0; 10], 0));
        let error = waited.join().map_err(|_| anyhow!("the reader panicked"))?;
        // What is in flight is aborted, and what comes later is not connected.
        let error = error.err().and_then(|error| error.raw_os_error());
        ensure!(matches!(error, Some(103 | 107)), "{path}: {error:?}");
        cluster.agent(NODE)?.start().await?;
        // The next container's mount is another one.
        let seen = fs::read(target.join(&path))?;
        ensure!(seen == content[&path], "wrong bytes");
        kept(cluster, 1.0).await?;
        driver.unpublish("one").await
    })
}
