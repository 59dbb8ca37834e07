//! Somebody who reads small files all the time, from the disk.

use anyhow::{Context, Result, ensure};
use rustix::fs::OFlags;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between one read and the next: a reader that has something else to do, too.
const PAUSE: Duration = Duration::from_millis(1);
const SECTOR: usize = 4096;

/// The reader, until it is asked what it saw.
pub(crate) struct Foreground {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Duration>>>,
}

/// How long files took from opening to the last byte.
#[derive(Debug)]
pub(crate) struct Latencies(Vec<Duration>);

impl Foreground {
    /// Reads files below `root` in random order, past the page cache, until it is ended.
    pub(crate) fn start(root: &Path) -> Result<Self> {
        Self::start_for(root, usize::MAX)
    }

    fn start_for(root: &Path, most: usize) -> Result<Self> {
        let mut files: Vec<PathBuf> = Vec::new();
        for entry in walkdir::WalkDir::new(root) {
            let entry = entry?;
            if entry.file_type().is_file() {
                files.push(entry.into_path());
            }
        }
        let ends = Arc::new(AtomicBool::new(false));
        let told = ends.clone();
        let thread = std::thread::spawn(move || {
            let (mut random, mut each) = (fastrand::Rng::with_seed(1), Vec::new());
            let mut memory = vec![0; (256 << 10) + SECTOR];
            let start = memory.as_ptr().align_offset(SECTOR);
            let buffer = &mut memory[start..start + (256 << 10)];
            while !told.load(Ordering::Relaxed) && each.len() < most {
                let path = random.choice(&files).context("there are no files")?;
                let began = Instant::now();
                read(path, buffer).with_context(|| path.display().to_string())?;
                each.push(began.elapsed());
                std::thread::sleep(PAUSE);
            }
            Ok(each)
        });
        Ok(Self { ends, thread })
    }

    /// Reads so many.
    pub(crate) async fn run(root: &Path, reads: usize) -> Result<Latencies> {
        let reader = Self::start_for(root, reads)?;
        tokio::task::spawn_blocking(|| reader.latencies()).await?
    }

    pub(crate) fn end(self) -> Result<Latencies> {
        self.ends.store(true, Ordering::Relaxed);
        self.latencies()
    }

    fn latencies(self) -> Result<Latencies> {
        let each = self.thread.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        Ok(Latencies::of(each))
    }
}

fn read(path: &Path, buffer: &mut [u8]) -> Result<()> {
    let direct = i32::try_from(OFlags::DIRECT.bits())?;
    let mut file = OpenOptions::new().read(true).custom_flags(direct).open(path)?;
    // Once: the end of the file is no place to read from past the cache.
    ensure!(file.read(buffer)? > 0, "it is empty");
    Ok(())
}

impl Latencies {
    fn of(mut each: Vec<Duration>) -> Self {
        each.sort();
        Self(each)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Milliseconds that so many hundredths stayed below.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let at = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(at).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1000.0)
    }
}
