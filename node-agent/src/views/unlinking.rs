//! The mark of a tier whose links may outlive what they are of.

use super::error::{ViewError, io_error};
use parking_lot::Mutex;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Files are given up in many batches, each soon after the other: the mark stays for so long after
/// one, so that not each has to sync it.
const KEPT: Duration = Duration::from_secs(5);

/// A mark that links may be there of what the store has given up, on the disk: they would hold
/// its room until their version is forgotten. It is written in place, since it is needed
/// most when the disk is full.
pub(super) struct Unlinking {
    file: File,
    state: Mutex<State>,
}

struct State {
    /// The mark is on the disk.
    marked: bool,
    /// Links may be left.
    unfinished: bool,
    /// Since when none are.
    ended: Instant,
}

impl State {
    fn unmark(&mut self, file: &File) -> io::Result<()> {
        if self.marked && !self.unfinished {
            file.write_all_at(FINISHED, 0)?;
            self.marked = false;
        }
        Ok(())
    }
}

impl Drop for Unlinking {
    fn drop(&mut self) {
        if let Err(error) = self.state.get_mut().unmark(&self.file) {
            tracing::debug!("the next start looks for links that are left: {error}");
        }
    }
}

const UNFINISHED: &[u8] = b"1";
const FINISHED: &[u8] = b"0";

impl Unlinking {
    /// `lost` says that the store has lost files of which there may be links.
    pub(super) fn open(directory: &Path, lost: bool) -> Result<Self, ViewError> {
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
            let marked = mark == UNFINISHED;
            let unfinished = marked || lost;
            if unfinished {
                // A mark that is there may be in memory only.
                file.write_all_at(UNFINISHED, 0)?;
                file.sync_data()?;
            }
            let state = State { marked: unfinished, unfinished, ended: Instant::now() };
            Ok(Self { file, state: Mutex::new(state) })
        };
        opened().map_err(io_error("cannot open", &path))
    }

    pub(super) fn begin(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.unfinished = true;
        if !state.marked {
            self.file.write_all_at(UNFINISHED, 0)?;
            self.file.sync_data()?;
            state.marked = true;
        }
        Ok(())
    }

    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        (state.unfinished, state.ended) = (false, Instant::now());
    }

    /// Takes the mark away when nothing has been given up for a while. Without a sync: after a power
    /// cut there may be more to look at than has to be.
    pub(super) fn unmark(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        match state.ended.elapsed() >= KEPT {
            true => state.unmark(&self.file),
            false => Ok(()),
        }
    }

    pub(super) fn is_unfinished(&self) -> bool {
        self.state.lock().unfinished
    }
}
