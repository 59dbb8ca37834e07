//! Sessions in the hands of the keeper, from where the next agent takes them up.

use super::session::Id;
use hearth_keeper::{Client, Kept, USER};
use parking_lot::Mutex;
use rustix::process::geteuid;
use std::collections::BTreeMap;
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
        let kept = keeper.connect(&mut keeper.state.lock()).unwrap_or_default();
        (keeper, kept)
    }

    /// Has a session kept for as long as it is not forgotten.
    pub(super) fn keep(&self, id: &Id, descriptors: Descriptors) {
        let mut state = self.state.lock();
        state.sessions.insert(id.clone(), descriptors);
        if state.client.is_some() {
            state.give(id);
        } else {
            self.connect(&mut state);
        }
    }

    /// Has a session let go.
    pub(super) fn forget(&self, id: &Id) {
        let mut state = self.state.lock();
        state.sessions.remove(id);
        if let Some(client) = &state.client
            && let Err(error) = client.forget(&id.to_string())
        {
            // It looks for itself what is unmounted.
            tracing::debug!("the keeper is not told of the end of {id}: {error}");
        }
    }

    /// Finds the keeper again when it was away.
    pub(super) fn look_after(&self) {
        let mut state = self.state.lock();
        if state.client.as_ref().is_some_and(|client| !client.is_connected()) {
            tracing::warn!("the keeper is gone");
            state.client = None;
        }
        if state.client.is_none() {
            self.connect(&mut state);
        }
    }

    /// Connects, and gives it all that there is; what it had kept.
    fn connect(&self, state: &mut State) -> Option<Vec<Kept>> {
        let socket = self.socket.as_deref()?;
        match Client::connect(socket).and_then(|client| Ok((client.list()?, client))) {
            Ok((kept, client)) => {
                tracing::info!(socket = %socket.display(), kept = kept.len(), "the keeper is there");
                state.client = Some(client);
                state.is_told = false;
                for id in state.sessions.keys().cloned().collect::<Vec<_>>() {
                    state.give(&id);
                }
                Some(kept)
            }
            Err(error) => {
                if !std::mem::replace(&mut state.is_told, true) {
                    tracing::warn!(
                        socket = %socket.display(),
                        "no keeper: FUSE views end with this agent, and containers that read them have to be started again; is the DaemonSet hearth-keeper running? ({error})"
                    );
                }
                None
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
