//! One table: each row's volume is published and taken away again, many times.

use crate::{FILES, FILES_OF_PART, file};
use anyhow::{Context, Result, ensure};
use hearth_tests::measure::{empty_page_cache, median};
use hearth_tests::volumes::Driver;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::json;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const RUNS: usize = 11;

/// As what a volume has to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Native,
    Fuse,
}

/// What is published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// Attributes of the volume; empty ones are left out.
    pub(crate) path: &'static str,
    pub(crate) files: &'static str,
    pub(crate) shown: Seen,
}

/// How long the call took, and a file's first byte with it.
#[derive(Clone, Copy, Debug)]
struct Took {
    byte: Duration,
    call: Duration,
}

pub(crate) fn head() {
    println!("from the CSI call to the first byte of a file; {RUNS} volumes each, ms");
    println!(
        "{:36} {:>10} {:>8} {:>8} {:>8} {:>14}",
        "", "page cache", "median", "fastest", "slowest", "call, median"
    );
}

pub(crate) async fn rows(driver: &Driver, pod: &Pod, rows: &[Row], is_cold: bool) -> Result<()> {
    for row in rows {
        // The first one may read what is not in memory yet: it is shown apart.
        let first = once(driver, pod, row, 0).await?;
        let mut all = Vec::with_capacity(RUNS);
        for run in 1..=RUNS {
            if is_cold {
                empty_page_cache()?;
            }
            all.push(once(driver, pod, row, run as u64).await.with_context(|| row.name)?);
        }
        let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
        let bytes = || all.iter().map(|took| ms(took.byte));
        println!(
            "{:36} {:>10} {:>8.1} {:>8.1} {:>8.1} {:>14.1}   (the first: {:.1})",
            row.name,
            if is_cold { "cold" } else { "warm" },
            median(bytes()),
            bytes().fold(f64::INFINITY, f64::min),
            bytes().fold(0.0, f64::max),
            median(all.iter().map(|took| ms(took.call))),
            ms(first.byte),
        );
    }
    Ok(())
}

async fn once(driver: &Driver, pod: &Pod, row: &Row, seed: u64) -> Result<Took> {
    let mut attributes = json!({"dataset": crate::DATASET});
    for (name, value) in [("path", row.path), ("files", row.files)] {
        if !value.is_empty() {
            attributes[name] = value.into();
        }
    }
    let path = a_file(row, seed)?;
    let started = Instant::now();
    let target = driver.publish_for(pod, &attributes).await?;
    let call = started.elapsed();
    tokio::task::block_in_place(|| first_byte(&target.join(path)))?;
    let byte = started.elapsed();
    let kind = driver.kind(&pod.name_any())?;
    let shown = if kind == "fuse.hearth" { Seen::Fuse } else { Seen::Native };
    ensure!(shown == row.shown, "it is shown as {kind}");
    driver.unpublish(&pod.name_any()).await?;
    Ok(Took { byte, call })
}

/// Any file that the row shows, by its path there.
fn a_file(row: &Row, seed: u64) -> Result<String> {
    let among = match (row.path, row.files) {
        ("", "" | "**/*.bin") => 0..FILES,
        _ => 42 * FILES_OF_PART..43 * FILES_OF_PART,
    };
    let path = file(fastrand::Rng::with_seed(seed).usize(among));
    let path = path.strip_prefix(row.path).context("it lies elsewhere")?;
    Ok(path.trim_start_matches('/').to_owned())
}

fn first_byte(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    file.read_exact_at(&mut [0], 0).context("it has no byte")
}
