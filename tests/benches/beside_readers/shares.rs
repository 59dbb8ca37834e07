//! Shares of the processors, as kubelet gives them to pods by what they request.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const ROOT: &str = "/sys/fs/cgroup/cpu";

/// A control group of its own; it goes with this value.
pub(crate) struct Group {
    path: PathBuf,
    taken: Mutex<Vec<u32>>,
}

impl Group {
    /// For what requests so many thousandths of a processor; 0 gets what nobody else wants.
    pub(crate) fn of_request(name: &str, millis: u64) -> Result<Self> {
        ensure!(
            Path::new(ROOT).join("cpu.shares").exists(),
            "it takes control groups of version 1, with {ROOT}"
        );
        let path = Path::new(ROOT).join(format!("hearth-bench-{}-{name}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        // As kubelet counts.
        fs::write(path.join("cpu.shares"), (millis * 1024 / 1000).max(2).to_string())?;
        Ok(Self { path, taken: Mutex::default() })
    }

    /// Has a process, with all its threads, and what it starts from then on.
    pub(crate) fn take(&self, pid: u32) -> Result<()> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).push(pid);
        move_to(&self.path, pid)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Those that live on go back; those that have ended cannot.
        for pid in self.taken.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = move_to(Path::new(ROOT), *pid);
        }
        let _ = fs::remove_dir(&self.path);
    }
}

fn move_to(group: &Path, pid: u32) -> Result<()> {
    let procs = group.join("cgroup.procs");
    fs::write(&procs, pid.to_string()).with_context(|| format!("cannot write {}", procs.display()))
}
