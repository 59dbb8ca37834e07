//! The images: some of Debian's openclipart-png, the same in every run.

use anyhow::{Context, Result, ensure};
use hearth_tests::downloads;
use std::fs;
use std::path::Path;

/// How many, spread evenly over all that are moderate, in the order of their paths.
pub(crate) const IMAGES: usize = 1_200;
/// Bytes of a moderate one: neither an icon nor a poster.
const MODERATE: std::ops::Range<u64> = 10_000..100_000;

/// Copies them to a folder; the sum of their bytes.
pub(crate) fn copy(to: &Path) -> Result<u64> {
    let from = downloads::debian_package("openclipart-png")?.join("usr/share/openclipart/png");
    let mut moderate = Vec::new();
    for entry in walkdir::WalkDir::new(&from).sort_by_file_name() {
        let entry = entry?;
        if entry.file_type().is_file() && MODERATE.contains(&entry.metadata()?.len()) {
            moderate.push(entry.into_path());
        }
    }
    ensure!(moderate.len() >= IMAGES, "there are only {} images of this size", moderate.len());
    let mut bytes = 0;
    for i in 0..IMAGES {
        let image = &moderate[i * moderate.len() / IMAGES];
        let copy = to.join(image.strip_prefix(&from)?);
        fs::create_dir_all(copy.parent().context("it lies in no folder")?)?;
        bytes += fs::copy(image, &copy).with_context(|| image.display().to_string())?;
    }
    Ok(bytes)
}
