//! What a FUSE session needs of `/dev/fuse` to go on in another process.
//!
//! A connection lives as long as one of its descriptors. Whoever gets such a
//! descriptor takes the session up with [`take_over`]: the kernel sends again what was
//! not answered, and the greeting that the first process had is played to the library,
//! since the kernel says it once only. The kernel's side of all this is described in
//! its source, `include/uapi/linux/fuse.h` and `fs/fuse/dev.c`.

mod backing;
mod greeting;

pub use backing::{close_backing, open_backing, opened_passthrough};
pub use greeting::Kernel;

use fuser::{Config, Filesystem, Session, SessionACL};
use rustix::io::{DupFlags, dup3};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Set in a request's number when it was sent before to a process that has not answered.
pub const SENT_AGAIN: u64 = 1 << 63;

/// The kernel's code of the notification, and its length.
const NOTIFY_RESEND: i32 = 7;
const NOTIFICATION: u32 = 16;

/// A session that goes on over `device`, whose kernel greeted the first process as
/// `kernel` says.
///
/// # Errors
/// When the kernel does not know how to send again (before Linux 6.9), or nothing of
/// the mount is left.
pub fn take_over<F: Filesystem>(
    filesystem: F,
    device: &OwnedFd,
    kernel: Kernel,
    acl: SessionACL,
    config: Config,
) -> io::Result<Session<F>> {
    // What waits for an answer must be queued before anything is read.
    send_again(device)?;
    let (kernels, ours) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::write(&kernels, &greeting::request(kernel))?;
    let session = Session::from_fd(filesystem, ours, acl, config)?;
    // Its answer goes nowhere: the kernel has had one.
    // SAFETY: the descriptor is open for as long as the session, which is not dropped
    // here, and the guard never closes it. The session has given it to nobody yet.
    #[allow(unsafe_code)]
    let mut socket = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(session.as_fd().as_raw_fd()) });
    dup3(device, &mut socket, DupFlags::CLOEXEC)?;
    Ok(session)
}

fn send_again(device: &OwnedFd) -> io::Result<()> {
    let mut notification = Vec::with_capacity(NOTIFICATION as usize);
    notification.extend(NOTIFICATION.to_ne_bytes());
    notification.extend(NOTIFY_RESEND.to_ne_bytes());
    notification.extend(0_u64.to_ne_bytes());
    rustix::io::write(device, &notification)?;
    Ok(())
}
