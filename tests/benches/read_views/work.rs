//! What programs do with training data, and how long it takes them.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Folders of the small files, of the large one, and of many that are only looked at.
const SMALL: &str = "small";
const LARGE: &str = "large";
const MANY: &str = "many";

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// Every small file once, in random order.
    Epoch { threads: usize },
    /// The large file from its beginning to its end.
    Sequential,
    /// Pieces of the large file of this size, anywhere.
    Random { size: usize },
    /// Names and metadata of a hundred thousand files.
    Walk,
}

pub(crate) const ALL: [Work; 6] = [
    Work::Epoch { threads: 1 },
    Work::Epoch { threads: 4 },
    Work::Sequential,
    Work::Random { size: 4 << 10 },
    Work::Random { size: 128 << 10 },
    Work::Walk,
];

impl Work {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Epoch { threads } => {
                format!("epoch, {threads} thread{}", if threads == 1 { "" } else { "s" })
            }
            Self::Sequential => "sequential".to_owned(),
            Self::Random { size } => format!("random {} KiB", size >> 10),
            Self::Walk => "walk + stat".to_owned(),
        }
    }

    /// Does it in one variant's directory; `seed` is of the round, the same for all variants.
    pub(crate) fn run(self, root: &Path, seed: u64) -> Result<Duration> {
        match self {
            Self::Epoch { threads } => epoch(&files(&root.join(SMALL))?, threads, seed).map(|(took, _)| took),
            Self::Sequential => sequential(&large(root)?),
            Self::Random { size } => random(&large(root)?, size, seed),
            Self::Walk => walk(&root.join(MANY)),
        }
    }
}

fn large(root: &Path) -> Result<PathBuf> {
    files(&root.join(LARGE))?.pop().context("there is no large file")
}

/// The files below a directory, in the order of their paths.
pub(crate) fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let entries = walkdir::WalkDir::new(root).sort_by_file_name().into_iter();
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        if !entry.file_type().is_dir() {
            files.push(entry.into_path());
        }
    }
    Ok(files)
}

/// Reads every file once; how long that took, and each file from its opening to its last byte.
pub(crate) fn epoch(files: &[PathBuf], threads: usize, seed: u64) -> Result<(Duration, Vec<Duration>)> {
    let mut order: Vec<&PathBuf> = files.iter().collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut order);
    let started = Instant::now();
    let each = std::thread::scope(|scope| {
        let readers: Vec<_> = order
            .chunks(order.len().div_ceil(threads).max(1))
            .map(|share| {
                scope.spawn(move || -> Result<Vec<Duration>> {
                    let (mut buffer, mut each) = (vec![0; 256 << 10], Vec::with_capacity(share.len()));
                    for path in share {
                        let opened = Instant::now();
                        let mut file = File::open(path).with_context(|| path.display().to_string())?;
                        while file.read(&mut buffer)? > 0 {}
                        drop(file);
                        each.push(opened.elapsed());
                    }
                    Ok(each)
                })
            })
            .collect();
        let mut all = Vec::with_capacity(order.len());
        for reader in readers {
            all.extend(reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??);
        }
        anyhow::Ok(all)
    })?;
    Ok((started.elapsed(), each))
}

pub(crate) fn sequential(path: &Path) -> Result<Duration> {
    let started = Instant::now();
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 1 << 20]);
    while file.read(&mut buffer)? > 0 {}
    Ok(started.elapsed())
}

fn random(path: &Path, size: usize, seed: u64) -> Result<Duration> {
    let reads = if size < 64 << 10 { 20_000 } else { 4_000 };
    let mut random = fastrand::Rng::with_seed(seed);
    let file = File::open(path)?;
    let places = file.metadata()?.len() / size as u64;
    let mut buffer = vec![0; size];
    let started = Instant::now();
    for _ in 0..reads {
        file.read_exact_at(&mut buffer, random.u64(0..places) * size as u64)?;
    }
    Ok(started.elapsed())
}

fn walk(root: &Path) -> Result<Duration> {
    let started = Instant::now();
    let mut bytes = 0;
    for entry in walkdir::WalkDir::new(root) {
        bytes += entry?.metadata()?.len();
    }
    std::hint::black_box(bytes);
    Ok(started.elapsed())
}
