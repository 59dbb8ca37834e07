//! A directory seen through a bind mount, as a container sees its volumes.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Unmounted with this value.
pub(crate) struct Bound(PathBuf);

impl Bound {
    pub(crate) fn new(from: &Path, at: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&at)?;
        let status = Command::new("mount").arg("--bind").arg(from).arg(&at).status()?;
        ensure!(status.success(), "{} cannot be bound to {}", from.display(), at.display());
        Ok(Self(at))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let ended = Command::new("umount").arg(&self.0).status().context("umount");
        if !ended.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.0.display());
        }
    }
}
