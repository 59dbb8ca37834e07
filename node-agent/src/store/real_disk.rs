//! The disk of the machine.

use super::disk::{DirectoryLock, Disk, DiskFile, FileSystem, SpaceFacts, is_absent};
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// Data of tenants: for the agent's eyes only.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// As large as any disk's.
const SECTOR: u64 = 4096;

/// The disk of the machine.
#[derive(Debug)]
pub(super) struct RealDisk;

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// A file that is read past the page cache: in whole sectors, into memory that begins at one.
#[derive(Debug)]
struct DirectFile {
    direct: File,
    /// The same, for where sectors are larger, and for all else.
    cached: RealFile,
}

impl DiskFile for DirectFile {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let before = (offset % SECTOR) as usize;
        let length = (before + out.len()).next_multiple_of(SECTOR as usize);
        let mut memory = vec![0; length + SECTOR as usize];
        let start = memory.as_ptr().align_offset(SECTOR as usize);
        let sectors = memory.get_mut(start..start + length).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut done = 0;
        while done < before + out.len() {
            match self.direct.read_at(&mut sectors[done..], offset - before as u64 + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    return self.cached.read_at(offset, out);
                }
                Err(error) => return Err(error),
            }
        }
        out.copy_from_slice(&sectors[before..before + out.len()]);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.cached.write_at(offset, data)
    }

    fn len(&self) -> io::Result<u64> {
        self.cached.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.cached.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.cached.sync_data()
    }
}

#[derive(Debug)]
struct RealFileSystem(File);

impl FileSystem for RealFileSystem {
    /// Tells of errors since Linux 5.8.
    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.0)?)
    }
}

#[derive(Debug)]
struct LockedFile {
    /// The lock lives as long as the open file.
    _file: File,
}

impl DirectoryLock for LockedFile {}

impl Disk for RealDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<(Arc<dyn DiskFile>, bool)> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(FILE_MODE);
        // Made first: nearly all that are opened like this are new.
        if create {
            match options.clone().create_new(true).open(path) {
                Ok(file) => return Ok((Arc::new(RealFile(file)), true)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        // One that is removed meanwhile is made all the same.
        let file = options.create(create).truncate(false).open(path)?;
        Ok((Arc::new(RealFile(file)), false))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(File::open(path)?)))
    }

    fn open_past_cache(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let direct = i32::try_from(OFlags::DIRECT.bits()).map_err(|_| io::ErrorKind::Unsupported)?;
        match OpenOptions::new().read(true).custom_flags(direct).open(path) {
            Ok(direct) => Ok(Arc::new(DirectFile { direct, cached: RealFile(File::open(path)?) })),
            // A file system in memory, and some over networks.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.open_to_read(path),
            Err(error) => Err(error),
        }
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn file_system(&self, path: &Path) -> io::Result<Box<dyn FileSystem>> {
        Ok(Box::new(RealFileSystem(File::open(path)?)))
    }

    fn remove(&self, path: &Path) -> io::Result<bool> {
        match fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            // Every name that the store gives is ASCII; others are not its own.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn space(&self, path: &Path) -> io::Result<SpaceFacts> {
        let facts = rustix::fs::statvfs(path)?;
        Ok(SpaceFacts {
            total_bytes: facts.f_blocks.saturating_mul(facts.f_frsize),
            free_bytes: facts.f_bavail.saturating_mul(facts.f_frsize),
            total_inodes: facts.f_files,
            free_inodes: facts.f_favail,
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DirectoryLock>>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(LockedFile { _file: file }))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let mut bytes = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
