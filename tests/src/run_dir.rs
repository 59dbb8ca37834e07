//! The folder of one test cluster: left for a look when the test failed, removed when all went well.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cache;

/// A new empty folder below the cache folder.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Makes a folder of its own for `name` and clears away what failed runs left more than an hour ago.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(name: &str) -> Result<Self> {
        let parent = cache::dir()?.join("run");
        std::fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
        for entry in std::fs::read_dir(&parent).context("cannot list old runs")?.flatten() {
            let old = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
            if old.is_some_and(|age| age > Duration::from_secs(3600)) {
                // Another process may be clearing the same folder.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let path = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir_in(&parent)
            .context("cannot make a folder for the run")?
            .keep();
        Ok(Self { path })
    }

    /// Removes it: all went well. Without this call it stays, for a look at logs and state.
    pub fn remove(self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}
