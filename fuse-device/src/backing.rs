//! Files that the kernel reads itself. Their numbers belong to the connection and
//! outlive the process that made them, so they are plain numbers here.

use fuser::{BackingId, FileHandle, FopenFlags, ReplyOpen};
use rustix::ioctl::{Setter, ioctl, opcode};
use std::io;
use std::os::fd::AsFd;

const CLOSE: rustix::ioctl::Opcode = opcode::write::<u32>(229, 2);

/// Gives the kernel a file to read itself; by which number.
///
/// # Errors
/// When the kernel does not like where it lies, or the process may not (CAP_SYS_ADMIN).
pub fn open_backing(device: impl AsFd, file: impl AsFd) -> io::Result<u32> {
    BackingId::create_raw(device, file)
}

/// Lets the kernel forget a number; opens that read by it go on.
///
/// # Errors
/// When it does not know the number.
pub fn close_backing(device: impl AsFd, id: u32) -> io::Result<()> {
    // SAFETY: the kernel reads one u32 for this code, and keeps no pointer to it.
    #[allow(unsafe_code)]
    unsafe {
        ioctl(device, Setter::<CLOSE, u32>::new(id))?;
    }
    Ok(())
}

/// Answers an open: the kernel reads the file by the number `id`, which stays open.
pub fn opened_passthrough(reply: ReplyOpen, handle: FileHandle, flags: FopenFlags, id: u32) {
    // SAFETY: the number is of this connection, and is taken back below before it would be closed.
    #[allow(unsafe_code)]
    let backing = unsafe { reply.wrap_backing(id) };
    reply.opened_passthrough(handle, flags, &backing);
    let _ = backing.into_raw();
}
