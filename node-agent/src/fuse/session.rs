//! Mounts views and runs the threads that answer for them.
//!
//! The mount is made here and not by the library, which would unmount it when its
//! session is dropped: mounts end when they are taken away, and sessions with them. A
//! session that the keeper holds is taken up again by the next agent.

use super::keeper::{Descriptors, Keeper};
use super::ledger::Ledger;
use super::opens::Opens;
use super::reader::Reader;
use super::serve::View;
use super::tree::Tree;
use fuser::{Config, Session, SessionACL};
use hearth_fuse_device::take_over;
use hearth_keeper::Kept;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Threads that take one mount's calls: so many opens can wait for a cold disk at one time.
const THREADS: usize = 4;

/// What the kernel asks for ahead of whoever reads on, and with it how much it asks for at a
/// time: its own 128 KiB would make a round trip of each.
const READ_AHEAD_KIB: u32 = 1024;

/// One mounted file system: whose it is, and its device number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    name: String,
    device: (u32, u32),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.name, self.device.0, self.device.1)
    }
}

impl Id {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (name, device) = text.split_once('@')?;
        let (major, minor) = device.split_once(':')?;
        Some(Self { name: name.to_owned(), device: (major.parse().ok()?, minor.parse().ok()?) })
    }
}

/// All sessions of an agent. Clones are the same.
#[derive(Clone)]
pub(crate) struct Sessions(Arc<Inner>);

struct Inner {
    keeper: Keeper,
    living: Mutex<BTreeSet<Id>>,
    /// Where reads wait.
    handle: Handle,
    /// What cannot be answered once this is cancelled is left to the next agent.
    shutdown: CancellationToken,
    is_told: AtomicBool,
}

/// A session that an earlier agent began.
pub(crate) struct Orphan {
    id: Id,
    kept: Kept,
}

impl Orphan {
    /// Whose it is.
    pub(crate) fn name(&self) -> &str {
        &self.id.name
    }
}

impl Sessions {
    /// With the keeper at `socket`, if there is to be one; and what it has kept.
    pub(crate) fn new(
        socket: Option<PathBuf>,
        handle: Handle,
        shutdown: CancellationToken,
    ) -> (Self, Vec<Orphan>) {
        let (keeper, kept) = Keeper::find(socket);
        let inner =
            Inner { keeper, living: Mutex::default(), handle, shutdown, is_told: AtomicBool::new(false) };
        let orphans = kept.into_iter().filter_map(|kept| Some(Orphan { id: Id::parse(&kept.name)?, kept }));
        (Self(Arc::new(inner)), orphans.collect())
    }

    /// How many live, and how many of them outlive this process.
    pub(crate) fn count(&self) -> (usize, usize) {
        (self.0.living.lock().len(), self.0.keeper.count())
    }

    /// Whether what is mounted at `place` is a session of this name that lives.
    pub(crate) fn serves(&self, name: &str, place: &Path) -> bool {
        let found = device_of(place).map(|device| Id { name: name.to_owned(), device });
        found.is_ok_and(|id| self.0.living.lock().contains(&id))
    }

    /// Finds the keeper again when it was away.
    pub(crate) fn look_after(&self) {
        self.0.keeper.look_after();
    }

    /// Mounts a view at `place`, a directory, and serves it until nothing of it is
    /// mounted or open any more. Blocks until the kernel has been answered once.
    pub(crate) fn begin(&self, name: &str, place: &Path, tree: Tree, reader: Reader) -> io::Result<()> {
        let device = Arc::new(OwnedFd::from(OpenOptions::new().read(true).write(true).open("/dev/fuse")?));
        // Permissions are the kernel's affair; the bits are for all.
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
            device.as_raw_fd()
        );
        let options = CString::new(options)?;
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
        mount("hearth", place, "fuse.hearth", flags, options.as_c_str())?;
        let begun = || -> io::Result<()> {
            let opens = Arc::new(Opens::new(device.clone(), Ledger::create()?));
            let view = self.view(tree, reader, &opens);
            let session = Session::from_fd(view, device.try_clone()?, SessionACL::All, config())?;
            let id = Id { name: name.to_owned(), device: device_of(place)? };
            read_further_ahead(id.device);
            self.run(id, &opens, session)
        };
        begun().inspect_err(|_| _ = unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW))
    }

    /// Serves what an earlier agent began.
    pub(crate) fn take_over(&self, orphan: Orphan, tree: Tree, reader: Reader) -> io::Result<()> {
        let device = Arc::new(orphan.kept.device);
        let opens = Ledger::take_over(orphan.kept.memory)
            .and_then(|ledger| Opens::take_over(device.clone(), ledger))
            .map(Arc::new);
        let begun = || {
            let opens = opens?;
            let kernel = opens.ledger().kernel()?;
            let view = self.view(tree, reader, &opens);
            let session = take_over(view, &device, kernel, SessionACL::All, config())?;
            self.run(orphan.id.clone(), &opens, session)
        };
        begun().inspect_err(|_| self.0.keeper.forget(&orphan.id))
    }

    /// Lets a session end that nobody reads any more.
    pub(crate) fn give_up(&self, orphan: &Orphan) {
        self.0.keeper.forget(&orphan.id);
    }

    fn view(&self, tree: Tree, reader: Reader, opens: &Arc<Opens>) -> View {
        View::new(tree, reader, opens.clone(), self.0.handle.clone(), self.0.shutdown.clone())
    }

    fn run(&self, id: Id, opens: &Opens, session: Session<View>) -> io::Result<()> {
        self.0.living.lock().insert(id.clone());
        // Before anything is answered: what this process has read, the next one must be told again.
        match opens.ledger().can_outlive() {
            true => {
                let (device, memory) =
                    (opens.device().try_clone()?, opens.ledger().memory().try_clone_to_owned()?);
                self.0.keeper.keep(&id, Descriptors { device, memory });
            }
            false if !self.0.is_told.swap(true, Ordering::Relaxed) => tracing::warn!(
                "this kernel cannot let FUSE views outlive the agent, Linux 6.9 can: containers that read them have to be started again when the agent ends"
            ),
            false => {}
        }
        let sessions = self.clone();
        let run = move || {
            if let Err(error) = session.run() {
                tracing::warn!(session = %id, "a FUSE session ended: {error}");
            }
            sessions.0.living.lock().remove(&id);
            sessions.0.keeper.forget(&id);
        };
        std::thread::Builder::new().name("fuse".to_owned()).spawn(run)?;
        Ok(())
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(THREADS);
    config
}

/// Of what is mounted at a place, without asking whoever serves it.
fn device_of(place: &Path) -> io::Result<(u32, u32)> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let found = statx(CWD, place, flags, StatxFlags::empty())?;
    Ok((found.stx_dev_major, found.stx_dev_minor))
}

/// After the kernel's first answer, which sets its own limit.
fn read_further_ahead((major, minor): (u32, u32)) {
    let setting = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if let Err(error) = fs::write(&setting, READ_AHEAD_KIB.to_string()) {
        tracing::debug!("{setting} cannot be written, so long reads are slower: {error}");
    }
}

/// Ends the process when a thread that takes the kernel's calls panics: in a process
/// that lives on, nobody would answer.
pub fn end_when_a_session_panics() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        told(panic);
        // As the library names them.
        if std::thread::current().name().is_some_and(|name| name.starts_with("fuser-")) {
            std::process::abort();
        }
    }));
}
