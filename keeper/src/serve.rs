//! The keeper's side: one thread that waits for the one agent.

use crate::packet::{Packet, receive, send, user};
use crate::table::{MOST, Table};
use crate::{DONE, FORGET, HELLO, KEEP, LIST, REFUSED, ROOT};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen as start_listening,
    socket_with,
};
use rustix::process::geteuid;
use std::fmt;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often it looks which mounts are gone, and how long nobody has served.
const TICK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// An agent that does not read what it asked for is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// After an agent that could not be connected.
const PAUSE: Duration = Duration::from_secs(1);
/// Agents that wait for their turn.
const WAITING: i32 = 8;

/// The descriptors of one mount.
#[derive(Debug)]
struct Mount {
    device: OwnedFd,
    memory: OwnedFd,
}

/// Keeps what agents give it.
#[derive(Debug)]
pub struct Keeper {
    listener: OwnedFd,
    agent: Option<OwnedFd>,
    table: Table<Mount>,
    limit: Duration,
}

/// Listens at `path` in place of whoever did before.
///
/// # Errors
/// When the directory is not there yet or is somebody else's.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    start_listening(&socket, WAITING)?;
    Ok(socket)
}

impl Keeper {
    /// Keeps what comes by `listener`; what no agent has served for `limit` is let go.
    #[must_use]
    pub fn new(listener: OwnedFd, limit: Duration) -> Self {
        Self { listener, agent: None, table: Table::default(), limit }
    }

    /// Serves for ever.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn run(mut self) -> io::Result<()> {
        loop {
            self.turn()?;
        }
    }

    /// Waits a second at most, and does what there is to do.
    fn turn(&mut self) -> io::Result<()> {
        let waited_for = self.agent.as_ref().unwrap_or(&self.listener);
        let is_ready = match poll(&mut [PollFd::new(waited_for, PollFlags::IN)], Some(&TICK)) {
            Ok(ready) => ready > 0,
            Err(Errno::INTR) => false,
            Err(error) => return Err(error.into()),
        };
        match (&self.agent, is_ready) {
            (None, true) => {
                // It must not end for that: all that it keeps would.
                if let Err(error) = self.accept() {
                    say(format_args!("an agent cannot be connected: {error}"));
                    std::thread::sleep(PAUSE);
                }
            }
            (Some(_), true) => self.hear(),
            (_, false) => {}
        }
        let unmounted = self.table.drop_if(|mount| is_unmounted(mount.device.as_fd()));
        let given_up = self.table.expire(Instant::now(), self.limit);
        if unmounted > 0 {
            say(format_args!("{unmounted} mounts are gone"));
        }
        if given_up > 0 {
            say(format_args!(
                "{given_up} mounts are let go: no agent has served them for {} s, and their readers get ENOTCONN",
                self.limit.as_secs()
            ));
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        let agent = accept_with(&self.listener, SocketFlags::CLOEXEC)?;
        let user = user(&agent)?;
        if ![ROOT, geteuid().as_raw()].contains(&user) {
            say(format_args!("user {user} is no agent: only root is"));
            return Ok(());
        }
        for timeout in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&agent, timeout, Some(PATIENCE))?;
        }
        self.agent = Some(agent);
        say(format_args!("an agent is connected; {} mounts are kept", self.table.all().count()));
        Ok(())
    }

    /// Answers the agent; one that cannot be understood or does not listen is gone.
    fn hear(&mut self) {
        let Some(agent) = &self.agent else { return };
        let answered = match receive(agent) {
            Ok(Some(packet)) => answer(agent.as_fd(), &mut self.table, packet),
            Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => Err(error),
        };
        if let Err(error) = answered {
            say(format_args!("the agent is gone ({error}); {} mounts are kept", self.table.all().count()));
            self.agent = None;
            self.table.unserved(Instant::now());
        }
    }
}

fn answer(agent: BorrowedFd<'_>, table: &mut Table<Mount>, packet: Packet) -> io::Result<()> {
    let refuse = |why: &str| send(agent, &[&[REFUSED], why.as_bytes()].concat(), &[]);
    if packet.bytes == HELLO {
        return send(agent, &[DONE], &[]);
    }
    let Some((kind, name)) = packet.bytes.split_first() else { return refuse("an empty packet") };
    let Ok(name) = std::str::from_utf8(name) else { return refuse("a name that is not UTF-8") };
    match *kind {
        LIST => {
            for (name, mount) in table.all() {
                let entry = [&[KEEP], name.as_bytes()].concat();
                send(agent, &entry, &[mount.device.as_fd(), mount.memory.as_fd()])?;
            }
        }
        KEEP => {
            let Ok([device, memory]) = <[OwnedFd; 2]>::try_from(packet.descriptors) else {
                return refuse("a mount is two descriptors");
            };
            if !table.keep(name.to_owned(), Mount { device, memory }) {
                return refuse(&format!("{MOST} mounts are kept, and that is all it keeps"));
            }
        }
        FORGET => table.forget(name),
        _ => return refuse("a request of another protocol"),
    }
    send(agent, &[DONE], &[])
}

/// Says it to whoever reads, if anybody does.
fn say(what: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{what}");
}

/// Whether nothing of a mount is left. Asks and does not wait: whoever waits on the
/// descriptor is woken by each request of a reader.
fn is_unmounted(device: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(device, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0) && polled[0].revents().contains(PollFlags::ERR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Client;
    use rustix::fs::{MemfdFlags, memfd_create};
    use rustix::pipe::pipe;
    use std::fs::File;
    use std::os::unix::fs::{FileExt, MetadataExt};

    fn start(directory: &Path, limit: Duration) -> std::path::PathBuf {
        let path = directory.join("keeper.sock");
        let keeper = Keeper::new(listen(&path).unwrap(), limit);
        std::thread::spawn(move || keeper.run());
        path
    }

    fn memory(text: &str) -> File {
        let file = File::from(memfd_create("test", MemfdFlags::CLOEXEC).unwrap());
        file.write_all_at(text.as_bytes(), 0).unwrap();
        file
    }

    fn inode(file: &OwnedFd) -> u64 {
        File::from(file.try_clone().unwrap()).metadata().unwrap().ino()
    }

    #[test]
    fn what_one_agent_gives_the_next_one_gets() {
        let directory = tempfile::tempdir().unwrap();
        let path = start(directory.path(), Duration::from_secs(300));
        let agent = Client::connect(&path).unwrap();
        let (one, two) = (memory("one"), memory("two"));
        agent.keep("a", one.as_fd(), two.as_fd()).unwrap();
        agent.keep("b", two.as_fd(), two.as_fd()).unwrap();
        agent.keep("b", two.as_fd(), one.as_fd()).unwrap();
        agent.keep("c", two.as_fd(), one.as_fd()).unwrap();
        agent.forget("c").unwrap();
        agent.forget("never").unwrap();
        assert!(agent.is_connected());
        let (one, two) = (one.metadata().unwrap().ino(), two.metadata().unwrap().ino());
        drop(agent);
        let next = Client::connect(&path).unwrap();
        let kept = next.list().unwrap();
        let seen: Vec<_> =
            kept.iter().map(|kept| (kept.name.as_str(), inode(&kept.device), inode(&kept.memory))).collect();
        assert_eq!(seen, [("a", one, two), ("b", two, one)]);
    }

    #[test]
    fn a_second_agent_waits_for_the_first_to_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = start(directory.path(), Duration::from_secs(300));
        let first = Client::connect(&path).unwrap();
        let error = Client::connect(&path).unwrap_err();
        assert!(error.to_string().contains("another agent"), "{error}");
        drop(first);
        Client::connect(&path).unwrap();
    }

    #[test]
    fn what_ends_or_is_served_by_nobody_is_let_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = start(directory.path(), Duration::from_millis(1));
        let agent = Client::connect(&path).unwrap();
        // The writing end of a pipe that nobody reads says ERR, as a connection that is unmounted.
        let (reading, ended) = pipe().unwrap();
        drop(reading);
        let lives = memory("");
        agent.keep("ended", ended.as_fd(), lives.as_fd()).unwrap();
        agent.keep("lives", lives.as_fd(), lives.as_fd()).unwrap();
        while agent.list().unwrap().len() > 1 {}
        assert_eq!(agent.list().unwrap()[0].name, "lives");
        drop(agent);
        while !Client::connect(&path).unwrap().list().unwrap().is_empty() {}
    }
}
