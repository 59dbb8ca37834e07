//! The agent's side.

use crate::packet::{Packet, receive, send, user};
use crate::{DONE, FORGET, HELLO, KEEP, LIST, REFUSED, ROOT, USER};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::geteuid;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// A keeper answers at once, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(2);

/// One kept mount.
#[derive(Debug)]
pub struct Kept {
    /// The name that it was given by.
    pub name: String,
    /// Its connection to the kernel.
    pub device: OwnedFd,
    /// The memory that goes with it.
    pub memory: OwnedFd,
}

/// A connection to a keeper. As long as it lives no other agent gets one.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
}

impl Client {
    /// Connects to the keeper at `path`.
    ///
    /// # Errors
    /// When none is there, when it is not root's or its own user's, or when it does not answer within
    /// 2 s, as when another agent is connected.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        for timeout in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&socket, timeout, Some(PATIENCE))?;
        }
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        let owner = user(&socket)?;
        if ![ROOT, USER, geteuid().as_raw()].contains(&owner) {
            return Err(io::Error::other(format!("user {owner} is no keeper")));
        }
        let client = Self { socket };
        client.call(HELLO, &[])?;
        Ok(client)
    }

    /// All that is kept.
    ///
    /// # Errors
    /// When the keeper is gone or talks nonsense.
    pub fn list(&self) -> io::Result<Vec<Kept>> {
        send(&self.socket, &[LIST], &[])?;
        let mut all = Vec::new();
        loop {
            let packet = self.answer()?;
            match packet.bytes.split_first() {
                Some((&DONE, _)) => return Ok(all),
                Some((&KEEP, name)) => {
                    let name = String::from_utf8(name.to_vec()).map_err(|_| nonsense())?;
                    let [device, memory] =
                        <[OwnedFd; 2]>::try_from(packet.descriptors).map_err(|_| nonsense())?;
                    all.push(Kept { name, device, memory });
                }
                _ => return Err(nonsense()),
            }
        }
    }

    /// Has a mount kept that is served here, in place of what had its name.
    ///
    /// # Errors
    /// When the keeper is gone or full.
    pub fn keep(&self, name: &str, device: BorrowedFd<'_>, memory: BorrowedFd<'_>) -> io::Result<()> {
        self.call(&[&[KEEP], name.as_bytes()].concat(), &[device, memory])
    }

    /// Has a mount let go; one that is not kept is fine.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub fn forget(&self, name: &str) -> io::Result<()> {
        self.call(&[&[FORGET], name.as_bytes()].concat(), &[])
    }

    /// Whether the keeper is there.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // It says nothing unasked: whatever there is to read is its end.
        matches!(poll(&mut polled, Some(&now)), Ok(0))
    }

    fn call(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        send(&self.socket, bytes, descriptors)?;
        let answer = self.answer()?;
        match answer.bytes.split_first() {
            Some((&DONE, _)) => Ok(()),
            Some((&REFUSED, why)) => {
                Err(io::Error::other(format!("the keeper refuses: {}", String::from_utf8_lossy(why))))
            }
            _ => Err(nonsense()),
        }
    }

    fn answer(&self) -> io::Result<Packet> {
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the keeper is gone");
        match receive(self.socket.as_fd()) {
            Ok(packet) => packet.ok_or_else(gone),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the keeper does not answer, as when another agent is connected to it",
            )),
            Err(error) => Err(error),
        }
    }
}

fn nonsense() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the keeper's answer cannot be understood")
}
