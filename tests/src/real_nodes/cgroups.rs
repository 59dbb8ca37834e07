//! Control groups of the nodes: one below the run's own in every hierarchy, since nodes must not see each other's pods.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const ROOT: &str = "/sys/fs/cgroup";

/// Whether there are hierarchies of version 1 that can be written to.
pub(super) fn usable() -> bool {
    let memory = Path::new(ROOT).join("memory");
    memory.join("memory.limit_in_bytes").exists()
        && rustix::fs::access(&memory, rustix::fs::Access::WRITE_OK).is_ok()
}

/// The path of a node's group, as kubelet takes it.
pub(super) fn of_node(run: &Path, node: &str) -> Result<String> {
    Ok(format!("/{}/{node}", name(run)?))
}

/// Makes a group that exists in every hierarchy and has nothing below it: what a power cut left there would cost
/// kubelet seconds for each.
pub(super) fn make_anew(group: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let mut path = hierarchy.clone();
        for part in group.split('/').filter(|part| !part.is_empty()) {
            let parent = path.clone();
            path.push(part);
            if path.is_dir() {
                continue;
            }
            fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
            // A new group of this hierarchy has no processors, and nothing can run in it.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = fs::read_to_string(parent.join(file)) {
                    fs::write(path.join(file), value).with_context(|| format!("cannot set {file}"))?;
                }
            }
        }
        remove_below(&path);
    }
    Ok(())
}

/// A shell command that removes the run's groups, once the last process has left them.
pub(super) fn removal(run: &Path) -> Result<String> {
    let name = name(run)?;
    Ok(format!(
        "for i in $(seq 100); do find {ROOT}/*/{name} -depth -type d -exec rmdir {{}} + ; \
         ls -d {ROOT}/*/{name} || exit 0; sleep 0.1; done"
    ))
}

fn name(run: &Path) -> Result<&str> {
    run.file_name().and_then(|name| name.to_str()).context("the run's folder has no name")
}

fn hierarchies() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(ROOT).with_context(|| format!("cannot list {ROOT}"))? {
        let entry = entry?;
        // Links such as `cpu` to `cpu,cpuacct` are the same again, and version 2's has no say here.
        if entry.file_type()?.is_dir() && entry.file_name() != "unified" {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn remove_below(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
            // One that is not empty yet stays: kubelet copes.
            let _ = fs::remove_dir(entry.path());
        }
    }
}
