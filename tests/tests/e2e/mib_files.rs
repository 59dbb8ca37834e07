//! Datasets of files of 1 MiB each, whose bytes follow from their names.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use hearth_tests::cluster::Cluster;
use serde_json::{Value, json};

pub(crate) const MIB: usize = 1 << 20;

fn content(dataset: &str, file: usize) -> Vec<u8> {
    let seed = dataset.bytes().map(usize::from).sum::<usize>() + file;
    (0..MIB).map(|at| (((at * 31) >> 5) ^ at ^ seed) as u8).collect()
}

/// A dataset of so many files, with that `spec.cache`.
pub(crate) async fn dataset(cluster: &Cluster, name: &str, files: usize, cache: Value) -> Result<()> {
    let bucket = cluster.s3.bucket("data")?;
    for file in 0..files {
        bucket.put(&format!("{name}/{file}.bin"), content(name, file)).await?;
    }
    cluster.s3_dataset_with(name, &bucket, name, json!({ "cache": cache })).await.map(drop)
}

/// Every file that a volume shows is what was uploaded.
pub(crate) async fn reads_right(target: &Path, name: &'static str, files: usize) -> Result<()> {
    let target = target.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        for file in 0..files {
            let bytes = fs::read(target.join(format!("{file}.bin")))?;
            ensure!(bytes == content(name, file), "{name}/{file}.bin has wrong bytes");
        }
        Ok(())
    });
    read.await?
}
