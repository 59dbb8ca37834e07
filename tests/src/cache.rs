//! The cache folder: what is built or downloaded once and kept, and the locks that keep parallel test processes apart.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// `$HEARTH_CACHE`, or `hearth` in the user's cache folder.
///
/// # Errors
/// When neither `HEARTH_CACHE`, `XDG_CACHE_HOME` nor `HOME` is set, or the folder cannot be made.
pub fn dir() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let dir = set("HEARTH_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|d| d.join("hearth")))
        .or_else(|| set("HOME").map(|d| d.join(".cache/hearth")))
        .context("set HEARTH_CACHE (or HOME) to say where built programs are kept")?;
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// An exclusive lock between processes and threads, released when dropped and by the kernel when its owner dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock `name`, waiting for whoever holds it.
///
/// # Errors
/// When the lock file cannot be opened or locked.
pub fn lock(name: &str) -> Result<Lock> {
    let (path, file) = lock_file(name)?;
    if file.try_lock().is_err() {
        eprintln!("waiting for {} (another process holds it)", path.display());
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(Lock { _file: file })
}

/// Takes the lock `name`, unless somebody holds it.
///
/// # Errors
/// When the lock file cannot be opened.
pub fn try_lock(name: &str) -> Result<Option<Lock>> {
    let (_, file) = lock_file(name)?;
    Ok(file.try_lock().is_ok().then(|| Lock { _file: file }))
}

fn lock_file(name: &str) -> Result<(PathBuf, File)> {
    let path = dir()?.join(format!("{name}.lock"));
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok((path, file))
}

/// The root of the workspace, for its manifests and configuration as they are shipped.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate lies in the workspace")
}
