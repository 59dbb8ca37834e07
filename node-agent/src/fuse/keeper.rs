//! Sessions in the hands of the keeper, from where the next agent takes them up.

use super::session::Id;
use hearth_keeper::{Client, Kept, USER};
use parking_lot::Mutex;
use rustix::process::geteuid;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// What a session's next process needs.
#[derive(Debug)]
pub(super) struct Descriptors {
    pub(super) device: OwnedFd,
    pub(super) memory: OwnedFd,
}

/// The node's keeper, which may come and go.
#[derive(Debug)]
pub(super) struct Keeper {
    /// Nothing is kept without one.
    socket: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    client: Option<Client>,
    /// What is to be kept: a keeper that starts again has lost all of it.
    sessions: BTreeMap<Id, Descriptors>,
    is_told: bool,
}

impl Keeper {
    /// The keeper at `socket`, if one is there, and what it has kept.
    pub(super) fn find(socket: Option<PathBuf>) -> (Self, Vec<Kept>) {
        if let Some(directory) = socket.as_deref().and_then(Path::parent)
            && let Err(error) = make_directory(directory)
        {
            tracing::warn!(directory = %directory.display(), "the keeper's directory cannot be made: {error}");
        }
        let keeper = Self { socket, state: Mutex::default() };
        let kept = keeper.connect(&mut keeper.state.lock());
        (keeper, kept)
    }

    /// Has a session kept for as long as it is not forgotten.
    pub(super) fn keep(&self, id: &Id, descriptors: Descriptors) {
        let mut state = self.state.lock();
        state.sessions.insert(id.clone(), descriptors);
        match state.client.is_some() {
            true => state.give(id),
            false => self.connect_again(&mut state),
        }
    }

    /// Has a session let go.
    pub(super) fn forget(&self, id: &Id) {
        let mut state = self.state.lock();
        state.sessions.remove(id);
        state.let_go(&id.to_string());
    }

    /// Finds the keeper again when it was away.
    pub(super) fn look_after(&self) {
        let mut state = self.state.lock();
        if state.client.as_ref().is_some_and(|client| !client.is_connected()) {
            tracing::warn!("the keeper is gone");
            state.client = None;
        }
        if state.client.is_none() {
            self.connect_again(&mut state);
        }
    }

    /// Connects when it is too late to take over what an earlier agent began: its readers
    /// get an error now, and not only when the keeper's patience has ended.
    fn connect_again(&self, state: &mut State) {
        let ours: HashSet<String> = state.sessions.keys().map(Id::to_string).collect();
        for Kept { name, .. } in self.connect(state) {
            if !ours.contains(&name) {
                tracing::warn!(session = name, "it is let go: when this agent started, the keeper was away");
                state.let_go(&name);
            }
        }
    }

    /// Connects, and gives it all that there is; what it had kept.
    fn connect(&self, state: &mut State) -> Vec<Kept> {
        let Some(socket) = self.socket.as_deref() else { return Vec::new() };
        match Client::connect(socket).and_then(|client| Ok((client.list()?, client))) {
            Ok((kept, client)) => {
                tracing::info!(socket = %socket.display(), kept = kept.len(), "the keeper is there");
                state.client = Some(client);
                state.is_told = false;
                for id in state.sessions.keys().cloned().collect::<Vec<_>>() {
                    state.give(&id);
                }
                kept
            }
            Err(error) => {
                if !std::mem::replace(&mut state.is_told, true) {
                    tracing::warn!(
                        socket = %socket.display(),
                        "no keeper: FUSE views end with this agent, and containers that read them have to be started again; is the DaemonSet hearth-keeper running? ({error})"
                    );
                }
                Vec::new()
            }
        }
    }

    /// How many sessions are kept now.
    pub(super) fn count(&self) -> usize {
        let state = self.state.lock();
        state.client.as_ref().filter(|client| client.is_connected()).map_or(0, |_| state.sessions.len())
    }
}

impl State {
    fn let_go(&mut self, name: &str) {
        let Some(client) = &self.client else { return };
        if let Err(error) = client.forget(name) {
            // It looks for itself what is unmounted. A late answer would be taken for that
            // to the next call.
            tracing::debug!("the keeper is not told of the end of {name}: {error}");
            self.client = None;
        }
    }

    fn give(&mut self, id: &Id) {
        let (Some(client), Some(descriptors)) = (&self.client, self.sessions.get(id)) else { return };
        let given = client.keep(&id.to_string(), descriptors.device.as_fd(), descriptors.memory.as_fd());
        if let Err(error) = given {
            tracing::warn!(session = %id, "a FUSE view ends with this agent: {error}");
            self.client = None;
        }
    }
}

/// The keeper's user owns it, and nobody else gets in.
fn make_directory(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    match geteuid().is_root() {
        true => chown(directory, Some(USER), Some(USER)),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::time::Duration;

    fn anything() -> OwnedFd {
        memfd_create("anything", MemfdFlags::CLOEXEC).unwrap()
    }

    fn names(socket: &Path) -> Vec<String> {
        Client::connect(socket).unwrap().list().unwrap().into_iter().map(|kept| kept.name).collect()
    }

    #[test]
    fn what_comes_too_late_to_be_taken_over_is_let_go() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("keeper.sock");
        let (keeper, kept) = Keeper::find(Some(socket.clone()));
        assert_eq!((kept.len(), keeper.count()), (0, 0), "it is away");
        let id = Id::parse("ours@0:7").unwrap();
        keeper.keep(&id, Descriptors { device: anything(), memory: anything() });

        let listener = hearth_keeper::listen(&socket).unwrap();
        std::thread::spawn(move || hearth_keeper::Keeper::new(listener, Duration::from_secs(300)).run());
        let earlier = Client::connect(&socket).unwrap();
        earlier.keep("earlier@0:6", anything().as_fd(), anything().as_fd()).unwrap();
        drop(earlier);
        keeper.look_after();
        assert_eq!(keeper.count(), 1);
        drop(keeper);
        assert_eq!(names(&socket), ["ours@0:7"]);

        let (keeper, kept) = Keeper::find(Some(socket.clone()));
        assert_eq!(kept.len(), 1, "the next agent takes it over");
        keeper.forget(&id);
        drop(keeper);
        assert!(names(&socket).is_empty());
    }
}
