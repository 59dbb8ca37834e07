//! How fast an agent fills its store from an S3 server on loopback, beside a plain
//! client that fetches, checksums, writes and syncs the same bytes.
//!
//! `cargo bench -p hearth-tests --bench agent_fill`
//!
//! Both are processes of their own, started from this same program, and take turns:
//! their CPU time can be told apart, and what the machine does meets both.

#[path = "../report_load/cpu.rs"]
mod cpu;
mod job;
mod ours;
mod plain;
mod upload;

use anyhow::Context;
use hearth_tests::measure::median;
use hearth_tests::s3::S3;
use job::{Job, Measured};
use std::path::Path;
use std::process::{Command, Stdio};

/// Which side the started process is.
const ROLE: &str = "HEARTH_BENCH_FETCHES";
/// Its job, as JSON.
const JOB: &str = "HEARTH_BENCH_JOB";
const ROUNDS: usize = 5;
/// Folder, objects and their size.
const SETS: [(&str, usize, usize); 2] = [("large", 4, 512 << 20), ("small", 20_000, 100_000)];

fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let measured = match std::env::var(ROLE) {
        Ok(role) => {
            let job: Job = serde_json::from_str(&std::env::var(JOB).context(JOB)?)?;
            match role.as_str() {
                "plain" => runtime.block_on(plain::fetch(&job))?,
                _ => runtime.block_on(ours::fetch(&job))?,
            }
        }
        Err(_) => return runtime.block_on(measure()),
    };
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

async fn measure() -> anyhow::Result<()> {
    // On a disk, which the system's temporary directory need not be.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let s3 = S3::start(&directory.path().join("s3"), directory.path()).await?;
    let bucket = s3.bucket("bench")?;
    for (folder, objects, size) in SETS {
        eprintln!("uploading {objects} objects of {size} bytes…");
        upload::objects(&bucket, folder, objects, size).await?;
    }
    println!("{ROUNDS} rounds, taking turns; medians of MiB/s and of CPU seconds per GiB");
    println!("{:28} {:>9} {:>9} {:>9} {:>9} {:>9}", "", "ours", "plain", "ratio", "our CPU", "plain CPU");
    for (folder, objects, size) in SETS {
        let job = |role: &str| Job {
            endpoint: s3.endpoint().to_owned(),
            bucket: bucket.name.clone(),
            folder: folder.to_owned(),
            objects,
            size,
            directory: directory.path().join(role),
        };
        let mut results = [Vec::new(), Vec::new()];
        for round in 0..ROUNDS {
            // Each is first in its turn.
            for role in [round % 2, 1 - round % 2] {
                results[role].push(run(["ours", "plain"][role], &job)?);
            }
        }
        let bytes = (objects * size) as f64;
        let rate =
            |runs: &[Measured]| bytes / f64::from(1 << 20) / median(runs.iter().map(|run| run.seconds));
        let cpu =
            |runs: &[Measured]| median(runs.iter().map(|run| run.cpu_seconds)) / (bytes / f64::from(1 << 30));
        let [ours, plain] = &results;
        println!(
            "{:28} {:>9.0} {:>9.0} {:>9.2} {:>9.2} {:>9.2}",
            format!("{objects} × {size} bytes"),
            rate(ours),
            rate(plain),
            rate(ours) / rate(plain),
            cpu(ours),
            cpu(plain)
        );
    }
    Ok(())
}

/// One turn, into an empty directory.
fn run(role: &str, job: &impl Fn(&str) -> Job) -> anyhow::Result<Measured> {
    let job = job(role);
    empty(&job.directory)?;
    // Nothing of the turn before is left to be written during this one.
    rustix::fs::sync();
    let mut command = Command::new(std::env::current_exe()?);
    let output =
        command.env(ROLE, role).env(JOB, serde_json::to_string(&job)?).stderr(Stdio::inherit()).output()?;
    anyhow::ensure!(output.status.success(), "{role} failed");
    let measured: Measured =
        serde_json::from_slice(&output.stdout).with_context(|| format!("{role} said nothing"))?;
    if std::env::var_os("HEARTH_BENCH_VERBOSE").is_some() {
        eprintln!("{role:6} {:?}", measured);
    }
    empty(&job.directory)?;
    Ok(measured)
}

fn empty(directory: &Path) -> anyhow::Result<()> {
    if directory.exists() {
        std::fs::remove_dir_all(directory)?;
    }
    Ok(std::fs::create_dir_all(directory)?)
}
