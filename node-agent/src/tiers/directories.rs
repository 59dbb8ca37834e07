//! Which of the configured tiers this node has.

use crate::config::StoreSection;
use crate::config::units::Size;
use crate::store::StoreConfig;
use anyhow::{Context, bail, ensure};
use hearth_core::explain;
use hearth_core::tier::Medium;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the agent itself may take of its memory limit, or half of a limit that is less than
/// two of it.
const OWN: u64 = 1 << 30;

/// The tiers of this node, home first. Looks at its directories.
pub fn find(section: &StoreSection) -> anyhow::Result<Vec<StoreConfig>> {
    let mut found = vec![StoreConfig {
        directory: section.directory.clone(),
        medium: section.medium,
        capacity: section.capacity,
        min_free: section.min_free,
        file_system: None,
        watermarks: section.watermarks()?,
    }];
    fs::create_dir_all(&section.directory)
        .with_context(|| format!("store.directory {} cannot be made", section.directory.display()))?;
    for (index, tier) in section.tiers.iter().enumerate() {
        let directories =
            directories(&tier.directory).with_context(|| format!("store.tiers[{index}].directory"))?;
        if directories.is_empty() {
            let directory = tier.directory.display();
            tracing::info!(%directory, medium = %tier.medium, "this node does not have that tier");
        }
        for directory in directories {
            found.push(StoreConfig {
                directory,
                medium: tier.medium,
                capacity: tier.capacity,
                min_free: tier.min_free(),
                file_system: None,
                watermarks: tier.watermarks()?,
            });
        }
    }
    apart(&found)?;
    let mut memory = memory_limit().map_or(u64::MAX, |limit| limit.saturating_sub(OWN.min(limit / 2)));
    for config in found.iter_mut().filter(|config| config.medium == Medium::Mem) {
        keep_within(config, &mut memory)?;
    }
    Ok(found)
}

/// The directories that a path names which are there; one that ends in `*` names all file systems
/// that are mounted in its parent.
fn directories(path: &Path) -> io::Result<Vec<PathBuf>> {
    let parent = match (path.file_name(), path.parent()) {
        (Some(name), Some(parent)) if name == "*" => parent,
        _ => return Ok(Some(path.to_owned()).filter(|path| path.is_dir()).into_iter().collect()),
    };
    let device = match fs::metadata(parent) {
        Ok(found) => found.dev(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut there = Vec::new();
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        match fs::metadata(&path) {
            Ok(found) if !found.is_dir() => {}
            Ok(found) if found.dev() != device => there.push(path),
            // A disk that is broken, or not there at this start.
            Ok(_) => tracing::warn!(directory = %path.display(), "nothing is mounted there: it is no tier"),
            Err(error) => tracing::warn!(directory = %path.display(), %error, "it is no tier"),
        }
    }
    there.sort();
    Ok(there)
}

/// Two tiers of one file system would take its room from each other.
fn apart(tiers: &[StoreConfig]) -> anyhow::Result<()> {
    let mut seen: Vec<(u64, &Path)> = Vec::new();
    for StoreConfig { directory, medium, .. } in tiers {
        let device = fs::metadata(directory)
            .with_context(|| format!("{} cannot be looked at", directory.display()))?
            .dev();
        if let Some((_, other)) = seen.iter().find(|(of, _)| *of == device) {
            bail!(
                "the store's directories {} and {} are on one file system, and each must have its own: mount a disk there, or name one of them only",
                other.display(),
                directory.display()
            );
        }
        seen.push((device, directory));
        ensure!(
            *medium != Medium::Mem || is_memory(directory)?,
            "the store's directory {} is said to be on MEM, and it is on no tmpfs: mount one there, or name another medium",
            directory.display()
        );
    }
    Ok(())
}

fn is_memory(directory: &Path) -> anyhow::Result<bool> {
    // linux/magic.h
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    let found = rustix::fs::statfs(directory)
        .with_context(|| format!("{} cannot be looked at", directory.display()))?;
    Ok([TMPFS, RAMFS].contains(&found.f_type))
}

/// What is on tmpfs is the agent's memory: it gets no more than is left of the limit.
fn keep_within(config: &mut StoreConfig, left: &mut u64) -> anyhow::Result<()> {
    let found = rustix::fs::statvfs(&config.directory)
        .with_context(|| format!("{} cannot be looked at", config.directory.display()))?;
    let total = found.f_blocks.saturating_mul(found.f_frsize);
    let wanted = match config.capacity {
        Some(Size::Bytes(bytes)) => bytes,
        Some(Size::Percent(percent)) => total / 100 * u64::from(percent),
        None => total,
    };
    let capacity = wanted.min(*left);
    if capacity < wanted {
        tracing::warn!(
            directory = %config.directory.display(),
            "of {} in memory only {} are used, which the agent's memory limit leaves: raise limits.memory of its container",
            explain::bytes(wanted),
            explain::bytes(capacity)
        );
    }
    *left -= capacity;
    config.file_system = Some(capacity);
    Ok(())
}

/// The memory limit of this process' control group; `None` when it has none.
fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    limit_files(&groups)
        .iter()
        .find_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
        .filter(|limit| *limit < 1 << 60)
}

/// Where the limit may be: within a container its own group is seen as the root.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            of if of.split(',').any(|controller| controller == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        files.push(Path::new(root).join(path.trim_start_matches('/')).join(name));
        files.push(Path::new(root).join(name));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TierSection;

    #[test]
    fn limits_are_looked_for_in_both_versions_of_control_groups() {
        let files = limit_files("4:cpu,cpuacct:/a\n3:memory:/kubepods/pod1\n0::/kubepods/pod1\n");
        let names = [
            "/sys/fs/cgroup/memory/kubepods/pod1/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/kubepods/pod1/memory.max",
            "/sys/fs/cgroup/memory.max",
        ];
        assert_eq!(files, names.map(PathBuf::from));
    }

    #[test]
    fn nodes_have_the_directories_that_are_there() {
        let root = tempfile::tempdir().unwrap();
        let of = |path: &str| directories(&root.path().join(path)).unwrap();
        assert!(of("disks/*").is_empty() && of("disks").is_empty());
        fs::create_dir_all(root.path().join("disks/b")).unwrap();
        fs::create_dir_all(root.path().join("disks/a")).unwrap();
        fs::write(root.path().join("disks/file"), "").unwrap();
        assert!(of("disks/*").is_empty(), "nothing is mounted there");
        assert_eq!(of("disks/a"), [root.path().join("disks/a")]);
        let mounted = directories(Path::new("/*")).unwrap();
        assert!(mounted.contains(&PathBuf::from("/proc")) && !mounted.contains(&PathBuf::from("/etc")));
    }

    #[test]
    fn what_cannot_be_is_said() {
        let root = tempfile::tempdir().unwrap();
        let (home, other) = (root.path().join("home"), root.path().join("other"));
        fs::create_dir_all(&other).unwrap();
        let tier = |medium| TierSection {
            directory: other.clone(),
            medium,
            capacity: None,
            min_free: None,
            high_watermark: 100,
            low_watermark: 95,
        };
        let section = |medium, tiers| StoreSection {
            directory: home.clone(),
            medium,
            tiers,
            ..StoreSection::default()
        };
        let why = find(&section(Medium::Ssd, vec![tier(Medium::Hdd)])).unwrap_err().to_string();
        assert!(why.ends_with("are on one file system, and each must have its own: mount a disk there, or name one of them only"), "{why}");
        assert_eq!(find(&section(Medium::Ssd, Vec::new())).unwrap().len(), 1);
    }
}
