//! How soon an agent knows what it holds after a start, with 10 million blocks in its
//! index and nothing of it in the page cache; and the memory that takes.
//!
//! `cargo bench -p hearth-tests --features bench-support --bench agent_restart`
//!
//! As root: nobody else may empty the page cache.

use anyhow::Context;
use hearth_core::manifest::{ListedObject, ManifestBuilder, ManifestOrigin};
use hearth_core::object::{AccessDomain, Validator};
use hearth_node_agent::store::{Store, StoreConfig, bulk};
use hearth_tests::measure::empty_page_cache;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The store that the started process opens.
const OPENS: &str = "HEARTH_BENCH_OPENS";
/// Datasets; of each the store holds every second file.
const DATASETS: usize = 10;
const FILES: usize = 2_000_000;
/// Of one block each.
const FILE_SIZE: u64 = 100_000;
const BLOCKS: u64 = (DATASETS * FILES / 2) as u64;
const RUNS: usize = 5;
/// How long the process lives on after it is ready.
const BACKGROUND: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    match std::env::var_os(OPENS) {
        Some(directory) => open(Path::new(&directory)),
        None => measure(),
    }
}

/// The process under test: what an agent must know before its first report.
fn open(directory: &Path) -> anyhow::Result<()> {
    let started = Instant::now();
    let store = Store::open(&StoreConfig::at(directory))?;
    let (holdings, _subscription) = store.subscribe();
    let identity = store.identity();
    let took = started.elapsed();
    let blocks: u64 = holdings.iter().map(|holding| holding.blocks.0.len()).sum();
    anyhow::ensure!(blocks == BLOCKS, "{blocks} blocks are held, and {BLOCKS} were written");
    let resident = memory("VmRSS")?;
    // What the store does in the background after a start takes memory too.
    std::thread::sleep(BACKGROUND);
    println!("{} {resident} {} {}", took.as_micros(), memory("VmHWM")?, identity.boot);
    Ok(())
}

/// A line of /proc/self/status, KiB.
fn memory(line: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let value = value.with_context(|| format!("/proc/self/status has no {line}"))?;
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}

fn measure() -> anyhow::Result<()> {
    let directory = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    eprintln!("making a store of {BLOCKS} blocks in {DATASETS} datasets…");
    for dataset in 0..DATASETS {
        let encoding = manifest(dataset)?;
        bulk::make(&StoreConfig::at(directory.path()), &format!("bench/set-{dataset}"), &encoding, |file| {
            file % 2 == 0
        })?;
    }
    let index = std::fs::metadata(directory.path().join("index.redb"))?.len();
    println!("{BLOCKS} blocks, an index of {} MiB, page cache emptied before each start", index >> 20);
    println!("{:>5} {:>10} {:>12} {:>12}", "start", "ready", "resident", "peak in 5 s");
    let mut times = Vec::new();
    for number in 1..=RUNS {
        empty_page_cache()?;
        let output = Command::new(std::env::current_exe()?).env(OPENS, directory.path()).output()?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        let fields: Vec<u64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [micros, resident, peak, _boot] = fields[..] else { anyhow::bail!("not understood: {text}") };
        let ready = Duration::from_micros(micros);
        println!("{number:>5} {:>7} ms {:>8} MiB {:>8} MiB", ready.as_millis(), resident >> 10, peak >> 10);
        times.push(ready);
    }
    times.sort_unstable();
    println!("median: ready in {} ms", times[RUNS / 2].as_millis());
    Ok(())
}

fn manifest(dataset: usize) -> anyhow::Result<Vec<u8>> {
    let origin = ManifestOrigin {
        domain: AccessDomain::new("bench", None),
        uri: format!("s3://bucket/set-{dataset}"),
        key_prefix: format!("set-{dataset}/"),
        mount: String::new(),
    };
    let mut builder = ManifestBuilder::new(vec![origin]);
    for file in 0..FILES {
        builder.push(ListedObject {
            origin: 0,
            path: format!("part-{}/{file:07}.jpg", file % 10),
            size: FILE_SIZE,
            modified: 0,
            validator: Validator::HexETag((file as u128).to_le_bytes()),
            unlisted: false,
        });
    }
    Ok(builder.finish()?.0.encode())
}
