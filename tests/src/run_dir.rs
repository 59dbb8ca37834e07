//! The folder of one test cluster: left for a look when the test failed, removed when all went well.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::mount::{UnmountFlags, unmount};

use crate::cache;

/// Longest part of a name: paths of sockets end at 107 bytes.
const LONGEST: usize = 20;

/// A new empty folder below the cache folder.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    stays: bool,
    // Says that the run is alive, however long it takes; the kernel takes it back when the process dies.
    _alive: File,
}

impl RunDir {
    /// Makes a folder of its own for `name` and clears away what dead runs left more than an hour ago.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(name: &str) -> Result<Self> {
        let parent = cache::dir()?.join("run");
        std::fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
        clear(&parent, Duration::from_secs(3600))?;
        let path = tempfile::Builder::new()
            .prefix(&format!("{}-", &name[..name.floor_char_boundary(LONGEST)]))
            .tempdir_in(&parent)
            .context("cannot make a folder for the run")?
            .keep();
        let alive = File::open(&path).context("cannot open the run's folder")?;
        alive.try_lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Self { path, stays: true, _alive: alive })
    }

    /// From now on it goes with this value, however that ends: nobody wants to look at it.
    pub fn remove_at_the_end(&mut self) {
        self.stays = false;
    }

    /// Removes it: all went well. Without this call it stays, for a look at logs and state.
    pub fn remove(mut self) {
        self.remove_at_the_end();
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if !self.stays {
            // What an agent has mounted is still there when it was killed.
            unmount_below(&self.path);
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Takes away all that is mounted below a folder, the last first.
fn unmount_below(dir: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    for place in places.filter(|place| place.starts_with(dir)).collect::<Vec<_>>().into_iter().rev() {
        let _ = unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
}

/// Removes the folders of runs that are dead and at least this old.
fn clear(parent: &Path, age: Duration) -> Result<()> {
    for entry in std::fs::read_dir(parent).context("cannot list old runs")?.flatten() {
        let made = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        let Ok(folder) = File::open(entry.path()) else { continue };
        if made.is_some_and(|made| made >= age) && folder.try_lock().is_ok() {
            // Another process may be clearing the same folder.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_are_alive_are_left_alone_and_dead_ones_are_cleared_away() -> Result<()> {
        let live = RunDir::create("live")?;
        let parent = tempfile::tempdir()?;
        let (alive, dead) = (parent.path().join("alive"), parent.path().join("dead"));
        for dir in [&alive, &dead] {
            std::fs::create_dir(dir)?;
            std::fs::write(dir.join("log"), "")?;
        }
        let lock = File::open(&alive)?;
        lock.try_lock()?;

        clear(parent.path(), Duration::ZERO)?;
        assert!(alive.exists() && !dead.exists());

        drop(lock);
        clear(parent.path(), Duration::ZERO)?;
        assert!(!alive.exists());

        assert!(File::open(live.path())?.try_lock().is_err(), "a run does not say that it is alive");
        let path = live.path().to_owned();
        live.remove();
        assert!(!path.exists());
        Ok(())
    }
}
