//! Reads of mounted datasets beside a plain directory: at random, through faults, and in great numbers.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, anyhow, ensure};
use hearth_tests::cluster::{Cluster, ClusterOptions, nodes};
use hearth_tests::datasets::FETCH;
use hearth_tests::environment;
use hearth_tests::measure::empty_page_cache;
use hearth_tests::process::Process;
use hearth_tests::volumes::{self, Driver};
use hearth_tests::wait::eventually;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

const NODE: &str = "node-1";
const BLOCK: usize = hearth_core::block::BLOCK_SIZE as usize;
/// Readers of the model at one time.
const MODELS: u64 = 4;
/// Faults that they go through.
const DEFAULT_FAULTS: u64 = 12;

/// Files of all sizes that matter, in a plain directory.
fn plain(cluster: &Cluster, random: &mut fastrand::Rng) -> Result<PathBuf> {
    let plain = cluster.dir().join("plain");
    let sizes = [0, 1, 4095, 4096, 4097, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 12_345];
    for (i, size) in sizes.into_iter().cycle().take(45).enumerate() {
        let directory = plain.join(["", "a", "a/b", "a/b/c.d", "a!b"][i % 5]);
        fs::create_dir_all(&directory)?;
        let mut bytes = vec![0; size];
        random.fill(&mut bytes);
        fs::write(directory.join(format!("{i}.bin")), bytes)?;
    }
    Ok(plain)
}

async fn mount(cluster: &Cluster, driver: &Driver, plain: &Path) -> Result<(PathBuf, Process)> {
    let keeper = driver.keeper(cluster, "5m").await?;
    let bucket = cluster.s3.bucket("data")?;
    bucket.put_tree(plain, "plain", |_| {}).await?;
    cluster.s3_dataset("plain", &bucket, "plain").await?;
    cluster.s3.proxy.hold_gets_after(0);
    let target = driver.publish("reader", &json!({"dataset": "plain"})).await?;
    ensure!(driver.kind("reader")? == "fuse.hearth");
    Ok((target, keeper))
}

/// A program that reads at random and compares until it is told to end.
struct Model {
    program: Child,
    calls: Arc<AtomicU64>,
}

impl Model {
    fn start(seed: u64, target: &Path, plain: &Path) -> Result<Self> {
        let mut command = Command::new("python3");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/conformance/model.py"));
        command.arg(seed.to_string()).arg(target).arg(plain);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut program = command.spawn().context("cannot start python3")?;
        let calls = Arc::new(AtomicU64::new(0));
        let (counted, said) = (calls.clone(), program.stdout.take().context("it has no output")?);
        std::thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                counted.store(line.parse().unwrap_or(0), Ordering::Relaxed);
            }
        });
        Ok(Self { program, calls })
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Ends it; it fails if it has seen a difference.
    fn end(mut self) -> Result<()> {
        if let Some(mut input) = self.program.stdin.take() {
            // One that has found a difference is gone already.
            let _ = input.write_all(b"end\n");
        }
        let output = self.program.wait_with_output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }
}

/// Waits until the models have made so many more calls, all together; or one has ended, which is told at the end.
async fn call_more(models: &mut [Model], more: u64) -> Result<()> {
    let before: u64 = models.iter().map(Model::calls).sum();
    eventually(&format!("{more} more calls"), FETCH, async || {
        let calls = models.iter().map(Model::calls).sum::<u64>() - before;
        let ended =
            models.iter_mut().any(|model| model.program.try_wait().is_ok_and(|ended| ended.is_some()));
        ensure!(ended || calls >= more, "{calls} calls");
        Ok(())
    })
    .await
}

/// Waits until somebody waits for the origin, or nobody needs it any more.
async fn held(cluster: &Cluster) -> Result<()> {
    eventually("a GET to be held", FETCH, async || {
        let seen = cluster.explain("plain").await?;
        ensure!(cluster.s3.proxy.held() > 0 || seen.percent(NODE) == 100, "{seen:?}");
        Ok(())
    })
    .await
}

#[test]
fn a_mount_reads_like_a_plain_directory_through_faults() -> Result<()> {
    reads_like_a_plain_directory(nodes(1), DEFAULT_FAULTS)
}

#[test]
fn so_it_does_when_the_node_has_room_for_a_third_of_it() -> Result<()> {
    reads_like_a_plain_directory(
        nodes(1).agent_config(&json!({"store": {"capacity": "40Mi"}})),
        DEFAULT_FAULTS / 2,
    )
}

fn reads_like_a_plain_directory(options: ClusterOptions, faults: u64) -> Result<()> {
    volumes::e2e(options, async |cluster| {
        let faults = environment::number("HEARTH_FAULTS", faults)?;
        let seed = environment::number("HEARTH_FAULT_SEED", fastrand::u64(..1_000_000))?;
        eprintln!("{faults} faults; HEARTH_FAULT_SEED={seed} repeats this run");
        let mut random = fastrand::Rng::with_seed(seed);
        let plain = plain(cluster, &mut random)?;
        let driver = Driver::of(cluster, NODE);
        let (target, _keeper) = mount(cluster, &driver, &plain).await?;
        let models = (0..MODELS).map(|n| Model::start(seed + n, &target, &plain));
        let mut models = models.collect::<Result<Vec<_>>>()?;
        cluster.s3.proxy.release_gets();
        for fault in 0..faults {
            call_more(&mut models, random.u64(0..5_000)).await?;
            // Or nobody would ask for what is not kept again.
            empty_page_cache()?;
            match fault % 3 {
                0 => cluster.s3.proxy.fail_next_gets(random.u64(1..6)),
                1 => {
                    cluster.s3.proxy.hold_gets_after(random.u64(0..4));
                    held(cluster).await?;
                    cluster.s3.proxy.release_gets();
                }
                _ => {
                    cluster.agent(NODE)?.kill();
                    cluster.agent(NODE)?.start().await?;
                }
            }
        }
        let calls: u64 = models.iter().map(Model::calls).sum();
        for model in models {
            tokio::task::block_in_place(|| model.end())?;
        }
        eprintln!("{calls} calls through {faults} faults, all as in a plain directory");
        ensure!(calls > 100, "only {calls} calls");
        driver.unpublish("reader").await
    })
}

#[test]
fn sixty_four_readers_of_one_cold_file() -> Result<()> {
    volumes::e2e(nodes(1), async |cluster| {
        let dir = cluster.dir().join("one");
        fs::create_dir_all(&dir)?;
        let mut bytes = vec![0; 6 * BLOCK + 99];
        fastrand::Rng::with_seed(1).fill(&mut bytes);
        fs::write(dir.join("one.bin"), &bytes)?;
        let driver = Driver::of(cluster, NODE);
        let (target, _keeper) = mount(cluster, &driver, &dir).await?;
        let before = cluster.s3.proxy.counts();
        cluster.s3.proxy.release_gets();
        let bytes = Arc::new(bytes);
        let readers = (0..64).map(|n| {
            let (path, bytes) = (target.join("one.bin"), bytes.clone());
            std::thread::spawn(move || -> Result<()> {
                let file = File::open(path)?;
                let mut random = fastrand::Rng::with_seed(n);
                for _ in 0..40 {
                    let start = random.usize(0..bytes.len());
                    let length = random.usize(1..=(bytes.len() - start).min(500_000));
                    let mut seen = vec![0; length];
                    file.read_exact_at(&mut seen, start as u64)?;
                    ensure!(seen == bytes[start..start + length], "reader {n}: wrong bytes at {start}");
                }
                Ok(())
            })
        });
        for reader in readers.collect::<Vec<_>>() {
            tokio::task::block_in_place(|| reader.join()).map_err(|_| anyhow!("a reader panicked"))??;
        }
        cluster.warm("plain", NODE, 100).await?;
        let after = cluster.s3.proxy.counts();
        let fetched = after.bytes - before.bytes;
        ensure!(fetched == bytes.len() as u64, "{fetched} bytes of {} were fetched", bytes.len());
        driver.unpublish("reader").await
    })
}

#[test]
fn fio_verifies_what_it_reads() -> Result<()> {
    volumes::e2e(nodes(1), async |cluster| {
        let dir = cluster.dir().join("fio");
        fs::create_dir_all(&dir)?;
        let fio = |directory: &Path, more: &[&str]| -> Result<()> {
            let mut command = Command::new("fio");
            command.args([
                "--name=v",
                "--size=48m",
                "--bs=64k",
                "--verify=crc32c",
                "--verify_fatal=1",
                "--verify_state_save=0",
            ]);
            let output = command.arg("--filename").arg(directory.join("v")).args(more).output()?;
            let said = String::from_utf8_lossy(&output.stdout);
            ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        };
        tokio::task::block_in_place(|| fio(&dir, &["--rw=write", "--do_verify=0"]))?;
        let driver = Driver::of(cluster, NODE);
        let (target, _keeper) = mount(cluster, &driver, &dir).await?;
        cluster.s3.proxy.release_gets();
        for how in [
            &["--rw=randread"][..],
            &["--rw=read"],
            &["--rw=randread", "--direct=1"],
            &["--rw=read", "--ioengine=mmap"],
        ] {
            let all = [how, &["--readonly"]].concat();
            tokio::task::block_in_place(|| fio(&target, &all)).with_context(|| format!("{how:?}"))?;
        }
        driver.unpublish("reader").await
    })
}

#[test]
fn a_directory_of_a_hundred_thousand_files_and_ten_thousand_open_ones() -> Result<()> {
    const FILES: usize = 100_000;
    const OPEN: usize = 10_000;
    volumes::e2e(nodes(1), async |cluster| {
        let dir = cluster.dir().join("many/one");
        fs::create_dir_all(&dir)?;
        for i in 0..FILES {
            fs::write(dir.join(format!("{i:06}")), i.to_string())?;
        }
        // And one of every byte that a name may have, as UTF-8 does.
        let odd: String = ('\u{1}'..='\u{ff}').filter(|c| *c != '/' && !c.is_control()).collect();
        let names = [
            odd.chars().take(120).collect::<String>(),
            odd.chars().skip(120).collect(),
            "\n\t\u{1}\u{7f}".into(),
        ];
        for name in &names {
            fs::write(cluster.dir().join("many").join(name), name)?;
        }
        cluster.file_dataset("many", &cluster.dir().join("many")).await?;
        let driver = Driver::of(cluster, NODE);
        let _keeper = driver.keeper(cluster, "5m").await?;
        let target = driver.publish("reader", &json!({"dataset": "many"})).await?;
        tokio::task::block_in_place(|| -> Result<()> {
            let mut seen: Vec<String> = fs::read_dir(target.join("one"))?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<Result<_>>()?;
            seen.sort();
            ensure!(
                seen.len() == FILES && seen.iter().enumerate().all(|(i, name)| *name == format!("{i:06}"))
            );
            for name in &names {
                ensure!(fs::read(target.join(name))? == name.as_bytes(), "{name:?} has wrong bytes");
            }
            let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
            setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
            let most = maximum.map_or(OPEN, |most| OPEN.min(usize::try_from(most).unwrap_or(OPEN) - 200));
            let step = FILES / most;
            let open =
                (0..most).map(|n| Ok((n * step, File::open(target.join(format!("one/{:06}", n * step)))?)));
            let open = open.collect::<Result<Vec<_>>>()?;
            for (i, file) in &open {
                let mut seen = [0; 6];
                let length = file.read_at(&mut seen, 0)?;
                ensure!(seen[..length] == *i.to_string().as_bytes(), "{i} has wrong bytes");
            }
            eprintln!("{} files are open at one time", open.len());
            Ok(())
        })?;
        driver.unpublish("reader").await
    })
}
