//! The disk as the store sees it: few operations, so that tests can put one
//! below that loses power.

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// An open file. All methods take the position as an argument, and several
/// threads may call them.
pub(super) trait DiskFile: Debug + Send + Sync + 'static {
    /// Fills `out` from `offset`; an error when the file ends before.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    /// Writes all of `data` at `offset`.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Bytes in the file.
    fn len(&self) -> io::Result<u64>;
    /// Cuts the file, or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Returns once all bytes written before are durable, and the length with them.
    fn sync_data(&self) -> io::Result<()>;
}

/// What a file system has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SpaceFacts {
    /// Bytes in all.
    pub(super) total_bytes: u64,
    /// Bytes that we may still write.
    pub(super) free_bytes: u64,
    /// Inodes in all; 0 when the file system does not count them.
    pub(super) total_inodes: u64,
    /// Inodes that we may still make.
    pub(super) free_inodes: u64,
}

/// A file system, from when it was opened on.
pub(super) trait FileSystem: Debug + Send + Sync {
    /// Makes all durable that was written to it before, by others too. That something could not be
    /// written since then is told once, and not of which file.
    fn sync(&self) -> io::Result<()>;
}

/// Held for as long as the store is open.
pub(super) trait DirectoryLock: Debug + Send + Sync {}

/// A disk. A directory's entries are durable after [`Disk::sync_dir`] of it, a
/// file's bytes after [`DiskFile::sync_data`], and all of both after [`FileSystem::sync`].
pub(super) trait Disk: Debug + Send + Sync + 'static {
    /// Opens a file to read and write; makes it with `create`. Says whether it was made; one that
    /// others make or remove meanwhile may be said to have been there.
    fn open(&self, path: &Path, create: bool) -> io::Result<(Arc<dyn DiskFile>, bool)>;
    /// Opens a file to read.
    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file to read what the disk has, past the page cache: what others read often
    /// stays there. Where the file system cannot, as [`Disk::open_to_read`].
    fn open_past_cache(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes a directory; one that is there is fine.
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the directory's entries durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The file system that `path` is on.
    fn file_system(&self, path: &Path) -> io::Result<Box<dyn FileSystem>>;
    /// Unlinks a file; one that is not there is fine, and told by `false`.
    fn remove(&self, path: &Path) -> io::Result<bool>;
    /// Renames within one directory, over what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Names in a directory.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// What the file system that `path` is on has.
    fn space(&self, path: &Path) -> io::Result<SpaceFacts>;
    /// Locks a file against other processes; `None` when another has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DirectoryLock>>>;
    /// Random bytes.
    fn random(&self) -> io::Result<[u8; 16]>;
}

/// Whether an error says that there is no such file.
pub(super) fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// A file's bytes from its beginning, as a reader.
pub(super) struct Contents {
    file: Arc<dyn DiskFile>,
    at: u64,
    len: u64,
}

impl Contents {
    pub(super) fn open(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        let file = disk.open_to_read(path)?;
        let len = file.len()?;
        Ok(Self { file, at: 0, len })
    }

    /// How many bytes it has.
    pub(super) fn len(&self) -> u64 {
        self.len
    }
}

impl io::Read for Contents {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len - self.at).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        if count > 0 {
            self.file.read_at(self.at, &mut buffer[..count])?;
            self.at += count as u64;
        }
        Ok(count)
    }
}

/// All bytes of a file.
pub(super) fn read_all(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open_to_read(path)?;
    let length = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut bytes = vec![0; length];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}
