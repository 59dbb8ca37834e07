//! Mounts a view and runs the threads that answer for it.
//!
//! The mount is made here and not by the library, which would unmount it when its
//! session is dropped: mounts end when they are taken away, and sessions with them.

use super::reader::Reader;
use super::serve::View;
use super::tree::Tree;
use fuser::{Config, Session, SessionACL};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::Handle;

/// Threads that take one mount's calls. They do not wait, so a few are enough.
const THREADS: usize = 2;

/// How many sessions live. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions(Arc<AtomicUsize>);

impl Sessions {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn begin(&self) -> Living {
        self.0.fetch_add(1, Ordering::Relaxed);
        Living(self.clone())
    }
}

/// A session lives for as long as this.
struct Living(Sessions);

impl Drop for Living {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Mounts a view at `place`, a directory, and serves it until nothing of it is mounted
/// or open any more. Blocks until the kernel has been answered once.
pub(crate) fn serve(
    sessions: &Sessions,
    place: &Path,
    tree: Tree,
    reader: Reader,
    handle: Handle,
) -> io::Result<()> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    // Permissions are the kernel's affair; the bits are for all.
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
        device.as_raw_fd()
    );
    let options = CString::new(options)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    mount("hearth", place, "fuse.hearth", flags, options.as_c_str())?;
    let served = || -> io::Result<()> {
        let mut config = Config::default();
        config.acl = SessionACL::All;
        config.n_threads = Some(THREADS);
        let view = View::new(tree, reader, handle);
        let session = Session::from_fd(view, OwnedFd::from(device), SessionACL::All, config)?;
        let (living, place) = (sessions.begin(), place.to_owned());
        let run = move || {
            if let Err(error) = session.run() {
                tracing::warn!(mount = %place.display(), "a FUSE session ended: {error}");
            }
            drop(living);
        };
        std::thread::Builder::new().name("fuse".to_owned()).spawn(run)?;
        Ok(())
    };
    served().inspect_err(|_| _ = unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW))
}
