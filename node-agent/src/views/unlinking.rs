//! The mark of a tier whose links may outlive what they are of.

use super::error::{ViewError, io_error};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// A mark that links may be there of what the store has given up, on the disk: they would hold
/// its room until their version is forgotten. It is written in place, since it is needed
/// most when the disk is full.
pub(super) struct Unlinking {
    file: File,
    /// Links may be left.
    unfinished: AtomicBool,
}

const UNFINISHED: &[u8] = b"1";
const FINISHED: &[u8] = b"0";

impl Unlinking {
    pub(super) fn open(directory: &Path) -> Result<Self, ViewError> {
        let path = directory.join("unlinking");
        let opened = || -> io::Result<Self> {
            let file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
            let mut mark = Vec::new();
            (&file).take(1).read_to_end(&mut mark)?;
            if mark.is_empty() {
                file.write_all_at(FINISHED, 0)?;
                file.sync_all()?;
                File::open(directory)?.sync_all()?;
            }
            Ok(Self { file, unfinished: AtomicBool::new(mark == UNFINISHED) })
        };
        opened().map_err(io_error("cannot open", &path))
    }

    pub(super) fn begin(&self) -> io::Result<()> {
        self.unfinished.store(true, Ordering::Release);
        self.file.write_all_at(UNFINISHED, 0)?;
        self.file.sync_data()
    }

    /// Without a sync: after a power cut there may be more to look at than has to be.
    pub(super) fn end(&self) -> io::Result<()> {
        self.file.write_all_at(FINISHED, 0)?;
        self.unfinished.store(false, Ordering::Release);
        Ok(())
    }

    pub(super) fn is_unfinished(&self) -> bool {
        self.unfinished.load(Ordering::Acquire)
    }
}
