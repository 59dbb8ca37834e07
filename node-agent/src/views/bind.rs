//! Mounts that are read-only before anybody sees them.
//!
//! A bind mount at a target that is shared with the host and only then made
//! read-only stays writable for the pod: the second step does not propagate. So the
//! mount is made in a private directory, made read-only there, and only its finished
//! copy is moved to the target.

use super::error::{ViewError, io_error};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_bind, mount_change,
    mount_remount, move_mount, open_tree, unmount,
};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Mounts that may lie on top of each other at one target: more are somebody's loop.
const MOST_STACKED: usize = 64;

/// Makes read-only mounts.
#[derive(Debug)]
pub(super) struct Binder {
    staging: PathBuf,
}

impl Binder {
    /// `staging` is a directory of its own; what a crash left there goes.
    pub(super) fn new(staging: &Path) -> Result<Self, ViewError> {
        let fail = |what| io_error(what, staging);
        unmount_all(staging)?;
        // Not what lies below: a mount that could not be taken away must not be emptied.
        match fs::remove_dir_all(staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail("cannot clear")(error)),
            _ => {}
        }
        fs::create_dir_all(staging).map_err(fail("cannot make"))?;
        Ok(Self { staging: staging.to_owned() })
    }

    /// Mounts `source` at `target`, a directory, read-only, without set-uid and devices.
    pub(super) fn mount(&self, source: &Path, target: &Path) -> Result<(), ViewError> {
        self.make_private()?;
        let place = self.staging.join(unique().to_string());
        fs::create_dir(&place).map_err(io_error("cannot make", &place))?;
        let mounted = mount_bind(source, &place)
            .map_err(|error| io_error("cannot bind", source)(error.into()))
            .and_then(|()| self.finish(&place, target));
        let cleared = unmount_all(&place)
            .and_then(|()| fs::remove_dir(&place).map_err(io_error("cannot remove", &place)));
        mounted.and(cleared)
    }

    fn finish(&self, place: &Path, target: &Path) -> Result<(), ViewError> {
        let restricted = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        let prepared = || -> rustix::io::Result<_> {
            mount_change(place, MountPropagationFlags::PRIVATE)?;
            mount_remount(place, MountFlags::BIND | restricted, "")?;
            open_tree(CWD, place, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
        };
        let tree = prepared().map_err(|error| io_error("cannot prepare a mount at", place)(error.into()))?;
        move_mount(&tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|error| io_error("cannot mount at", target)(error.into()))
    }

    /// A mount of its own that shares nothing with the host.
    fn make_private(&self) -> Result<(), ViewError> {
        if is_mount(&self.staging)? {
            return Ok(());
        }
        let private = || {
            mount_bind(&self.staging, &self.staging)?;
            mount_change(&self.staging, MountPropagationFlags::PRIVATE)
        };
        private().map_err(|error: Errno| {
            let error: io::Error = error.into();
            match error.raw_os_error() {
                Some(1) => ViewError::Invalid(
                    "the node agent may not mount: it needs CAP_SYS_ADMIN, as its DaemonSet gives it"
                        .to_owned(),
                ),
                _ => io_error("cannot bind", &self.staging)(error),
            }
        })
    }
}

impl Drop for Binder {
    fn drop(&mut self) {
        // In a container it goes with the container.
        let _ = unmount_all(&self.staging);
    }
}

/// Names in the staging directory need only differ within one process.
fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Whether something is mounted at `path`. Does not ask a FUSE daemon, which may be away.
pub(super) fn is_mount(path: &Path) -> Result<bool, ViewError> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    match statx(CWD, path, flags, StatxFlags::empty()) {
        Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        // What a mount says whose daemon is gone for good.
        Err(Errno::NOTCONN) => Ok(true),
        Err(error) => Err(io_error("cannot look at", path)(error.into())),
    }
}

/// Takes away all that is mounted at `path`, and nothing else. Those who have files
/// open there keep them.
pub(super) fn unmount_all(path: &Path) -> Result<(), ViewError> {
    for _ in 0..MOST_STACKED {
        if !is_mount(path)? {
            return Ok(());
        }
        match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Gone meanwhile, or the root of a container's own mount.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(io_error("cannot unmount", path)(error.into())),
        }
    }
    Err(io_error("cannot unmount", path)(io::Error::other("more mounts keep coming")))
}
