//! `file://`: a directory that every node has, such as an NFS or Lustre mount.
//!
//! Every path is opened beneath the directory by the kernel's own rule and without
//! following links, so that nobody who may write there can lead the agent out.

use super::budget::Budget;
use super::error::shown;
use super::{ByteStream, Found, Origin, OriginError, Retries, Sink, Wanted};
use crate::metrics::Metrics;
use bytes::BytesMut;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use hearth_core::manifest::SkipReason;
use hearth_core::object::Validator;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat2, statat};
use rustix::io::Errno;
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// Threads that may be in the directory at one time: a mount whose server is gone
/// holds them for good, and the rest of the agent needs threads too.
const THREADS: usize = 32;
/// Longest time for one step, be it a read or the opening of a file.
const PATIENCE: Duration = Duration::from_secs(30);
/// One read, and one message to the reader.
const CHUNK: usize = 1 << 20;
/// Chunks that may wait for their reader.
const AHEAD: usize = 4;

const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Leave to block in a file system that may never answer.
#[derive(Clone, Debug)]
pub(super) struct Threads(Arc<Semaphore>);

impl Default for Threads {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(THREADS)))
    }
}

impl Threads {
    /// Runs `work` on a thread where it may block, and waits for it.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, OriginError> + Send + 'static,
    ) -> Result<T, OriginError> {
        let ended = self.start(work).await?;
        in_time(ended)
            .await?
            .map_err(|error| OriginError::Unavailable(format!("reading the directory ended: {error}")))?
    }

    /// Starts `work` on a thread where it may block.
    async fn start<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<tokio::task::JoinHandle<T>, OriginError> {
        let permit = in_time(self.0.clone().acquire_owned()).await?;
        Ok(tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        }))
    }
}

async fn in_time<T>(step: impl Future<Output = T>) -> Result<T, OriginError> {
    let late = |_| {
        OriginError::Unavailable(format!(
            "the directory's file system did not answer within {} seconds",
            PATIENCE.as_secs()
        ))
    };
    tokio::time::timeout(PATIENCE, step).await.map_err(late)
}

/// The directories below which `file://` origins may lie.
#[derive(Clone, Debug, Default)]
pub struct AllowedRoots(Vec<PathBuf>);

impl AllowedRoots {
    /// Absolute paths, as the configuration has them.
    pub fn new(roots: Vec<PathBuf>) -> Self {
        Self(roots)
    }

    /// The root that `directory` is or lies below, and the way from there.
    fn allow<'a>(&'a self, directory: &'a Path) -> Result<(&'a Path, &'a Path), OriginError> {
        if self.0.is_empty() {
            return Err(OriginError::Refused(format!(
                "file://{} is not allowed: no directory is, until fileOrigins.allowedRoots of the node agents' configuration names one",
                directory.display()
            )));
        }
        // The longest root: it is the least that is opened on the way.
        let root = self
            .0
            .iter()
            .filter_map(|root| Some((root.as_path(), directory.strip_prefix(root).ok()?)))
            .max_by_key(|(root, _)| root.components().count());
        root.ok_or_else(|| {
            let roots: Vec<String> = self.0.iter().map(|root| root.display().to_string()).collect();
            OriginError::Refused(format!(
                "file://{} is not allowed: fileOrigins.allowedRoots of the node agents' configuration names {}",
                directory.display(),
                roots.join(", ")
            ))
        })
    }
}

/// An opened directory.
#[derive(Debug)]
pub(super) struct FileOrigin {
    directory: PathBuf,
    root: Arc<OwnedFd>,
    threads: Threads,
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
}

impl FileOrigin {
    pub(super) async fn open(
        roots: &AllowedRoots,
        directory: PathBuf,
        threads: Threads,
        budget: Arc<Budget>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OriginError> {
        let (root, below) = roots.allow(&directory)?;
        let (root, below) = (root.to_owned(), below.to_owned());
        let at = directory.display().to_string();
        let work = move || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let failed = |error| failed(&at, error);
            let root = open(&root, flags, Mode::empty()).map_err(failed)?;
            if below.as_os_str().is_empty() {
                return Ok(root);
            }
            openat2(&root, &below, flags, Mode::empty(), BENEATH).map_err(failed)
        };
        let opened = threads.run(work).await?;
        Ok(Self { directory, root: Arc::new(opened), threads, budget, metrics })
    }
}

impl Origin for FileOrigin {
    fn retries(&self) -> &Retries {
        &self.budget.retries
    }

    fn list<'a>(&'a self, sink: &'a mut dyn Sink) -> BoxFuture<'a, Result<(), OriginError>> {
        let (root, directory) = (self.root.clone(), self.directory.clone());
        async move {
            // The walk blocks, the sink is borrowed: batches go from one to the other.
            let (sender, mut found) = mpsc::channel::<Vec<Entry>>(AHEAD);
            let walk = self
                .threads
                .start(move || Walk { root: &root, directory: &directory, batch: Vec::new(), sender }.run())
                .await?;
            let take = async {
                while let Some(batch) = in_time(found.recv()).await? {
                    for entry in batch {
                        match entry {
                            Entry::File(path, stat) => {
                                let modified = modified(&stat);
                                sink.object(&path, size(&stat), modified, Validator::Modified(modified))?;
                            }
                            Entry::Skipped(key, reason) => sink.skip(&key, reason),
                        }
                    }
                }
                Ok(())
            };
            let taken: Result<(), OriginError> = take.await;
            // Without a receiver the walk ends.
            drop(found);
            taken?;
            in_time(walk)
                .await?
                .map_err(|error| OriginError::Unavailable(format!("listing the directory ended: {error}")))?
        }
        .boxed()
    }

    fn find<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Found>, OriginError>> {
        let (root, path) = (self.root.clone(), path.to_owned());
        let at = self.directory.join(&path).display().to_string();
        let work = move || {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let stat = match openat2(&root, &path, flags, Mode::empty(), BENEATH).and_then(fstat) {
                Ok(stat) => stat,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(None),
                Err(error) => return Err(failed(&at, error)),
            };
            let found = Found { size: size(&stat), validator: Validator::Modified(modified(&stat)) };
            Ok(is_file(&stat).then_some(found))
        };
        self.threads.run(work).boxed()
    }

    fn get<'a>(&'a self, wanted: Wanted<'a>) -> BoxFuture<'a, Result<ByteStream, OriginError>> {
        async move {
            let Validator::Modified(expected) = *wanted.validator else {
                return Err(OriginError::Malformed(format!(
                    "{} was not listed by a file:// origin: it has an ETag",
                    shown(wanted.key)
                )));
            };
            let (root, key, size) = (self.root.clone(), wanted.key.to_owned(), wanted.size);
            let at = self.directory.join(wanted.key).display().to_string();
            let range = wanted.range.clone();
            let (sender, chunks) = mpsc::channel(AHEAD);
            let work = move || {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let file =
                    openat2(&root, &key, flags, Mode::empty(), BENEATH).map_err(|error| match error {
                        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV => {
                            OriginError::Gone(format!("{} is no longer there", shown(&at)))
                        }
                        error => failed(&at, error),
                    })?;
                let before = fstat(&file).map_err(|error| failed(&at, error))?;
                if modified(&before) != expected || self::size(&before) != size || !is_file(&before) {
                    return Err(changed(&at));
                }
                Ok(Reading { file, at, before })
            };
            let opened = self.threads.run(work).await?;
            // Ends by itself when the stream is dropped: its next chunk finds no receiver.
            self.threads.start(move || opened.run(range, &sender)).await?;
            let metrics = self.metrics.clone();
            let stream = futures::stream::unfold(chunks, |mut chunks: mpsc::Receiver<_>| async move {
                match in_time(chunks.recv()).await {
                    Ok(chunk) => chunk.map(|chunk| (chunk, chunks)),
                    Err(late) => {
                        chunks.close();
                        Some((Err(late), chunks))
                    }
                }
            });
            Ok(stream
                .inspect(move |chunk: &Result<bytes::Bytes, OriginError>| {
                    if let Ok(chunk) = chunk {
                        metrics.origin_bytes.with_label_values(&["file"]).inc_by(chunk.len() as u64);
                    }
                })
                .boxed())
        }
        .boxed()
    }
}

/// One file that is read from begin to end of a range.
struct Reading {
    file: OwnedFd,
    at: String,
    before: Stat,
}

impl Reading {
    fn run(&self, range: std::ops::Range<u64>, sender: &mpsc::Sender<Result<bytes::Bytes, OriginError>>) {
        let mut offset = range.start;
        while offset < range.end {
            let length = usize::try_from(range.end - offset).unwrap_or(CHUNK).min(CHUNK);
            // Checked behind each chunk, so that no whole block is made of two contents.
            let chunk = self.read(offset, length).and_then(|chunk| self.check().map(|()| chunk));
            let ended = chunk.is_err();
            if sender.blocking_send(chunk).is_err() || ended {
                return;
            }
            offset += length as u64;
        }
    }

    fn read(&self, offset: u64, length: usize) -> Result<bytes::Bytes, OriginError> {
        let mut chunk = BytesMut::zeroed(length);
        let mut filled = 0;
        while filled < length {
            match rustix::io::pread(&self.file, &mut chunk[filled..], offset + filled as u64) {
                Ok(0) => return Err(changed(&self.at)),
                Ok(read) => filled += read,
                Err(Errno::INTR) => {}
                Err(error) => return Err(failed(&self.at, error)),
            }
        }
        Ok(chunk.freeze())
    }

    fn check(&self) -> Result<(), OriginError> {
        let after = fstat(&self.file).map_err(|error| failed(&self.at, error))?;
        let same = modified(&after) == modified(&self.before)
            && size(&after) == size(&self.before)
            && (after.st_ctime, after.st_ctime_nsec) == (self.before.st_ctime, self.before.st_ctime_nsec);
        if same { Ok(()) } else { Err(changed(&self.at)) }
    }
}

enum Entry {
    File(String, Stat),
    Skipped(String, SkipReason),
}

/// Walks a directory tree, holding one directory open at a time.
struct Walk<'a> {
    root: &'a OwnedFd,
    directory: &'a Path,
    batch: Vec<Entry>,
    sender: mpsc::Sender<Vec<Entry>>,
}

impl Walk<'_> {
    const BATCH: usize = 1024;
    /// Deeper than any path that a manifest takes.
    const DEEPEST: usize = 2048;

    fn run(mut self) -> Result<(), OriginError> {
        let mut pending = vec![String::new()];
        while let Some(below) = pending.pop() {
            match self.open(&below) {
                Ok(open) => self.directory(&below, &open, &mut pending)?,
                // Gone, or swapped for something else, since its parent was read.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !below.is_empty() => {}
                Err(error) => return Err(failed(&self.at(&below), error)),
            }
        }
        self.send();
        Ok(())
    }

    fn open(&self, below: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = if below.is_empty() { "." } else { below.trim_end_matches('/') };
        openat2(self.root, path, flags, Mode::empty(), BENEATH)
    }

    fn at(&self, below: &str) -> String {
        self.directory.join(below).display().to_string()
    }

    fn directory(
        &mut self,
        below: &str,
        open: &OwnedFd,
        pending: &mut Vec<String>,
    ) -> Result<(), OriginError> {
        let entries = Dir::read_from(open).map_err(|error| failed(&self.at(below), error))?;
        for entry in entries {
            let entry = entry.map_err(|error| failed(&self.at(below), error))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(utf8) = name.to_str() else {
                self.found(Entry::Skipped(format!("{below}{}", name.to_string_lossy()), SkipReason::NotUtf8));
                continue;
            };
            self.entry(format!("{below}{utf8}"), name, open, pending)?;
            if self.sender.is_closed() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: String,
        name: &CStr,
        directory: &OwnedFd,
        pending: &mut Vec<String>,
    ) -> Result<(), OriginError> {
        let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(failed(&self.at(&path), error)),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.found(Entry::File(path, stat)),
            FileType::Directory if path.split('/').count() >= Self::DEEPEST => {
                self.found(Entry::Skipped(path, SkipReason::TooLong));
            }
            FileType::Directory => pending.push(format!("{path}/")),
            _ => self.found(Entry::Skipped(path, SkipReason::NotAFile)),
        }
        Ok(())
    }

    fn found(&mut self, found: Entry) {
        self.batch.push(found);
        if self.batch.len() >= Self::BATCH {
            self.send();
        }
    }

    fn send(&mut self) {
        // Without a receiver nobody wants to know any more.
        let _ = self.sender.blocking_send(std::mem::take(&mut self.batch));
    }
}

fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// Nanoseconds since 1970; good for the years 1678 to 2262.
fn modified(stat: &Stat) -> i64 {
    stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(i64::try_from(stat.st_mtime_nsec).unwrap_or(0))
}

fn changed(at: &str) -> OriginError {
    OriginError::Changed(format!("{} is no longer as it was listed", shown(at)))
}

fn failed(at: &str, error: Errno) -> OriginError {
    let at = shown(at);
    match error {
        Errno::NOENT | Errno::NOTDIR => {
            OriginError::NotFound(format!("{at} does not exist on this node, or is no directory"))
        }
        Errno::ACCESS | Errno::PERM => OriginError::Denied(format!("the node agent may not read {at}")),
        Errno::LOOP | Errno::XDEV => {
            OriginError::Refused(format!("{at} is reached through a symbolic link, which is not followed"))
        }
        Errno::NOSYS => OriginError::Refused("file:// origins need Linux 5.6 or later".to_owned()),
        error => OriginError::Unavailable(format!("{at} cannot be read: {error}")),
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
