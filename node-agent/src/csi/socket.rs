//! Unix sockets that kubelet finds by their path.

use anyhow::Context;
use std::fs;
use std::io;
use std::path::Path;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

/// Listens at `path` in place of whoever did before.
pub(super) fn listen(path: &Path) -> anyhow::Result<UnixListenerStream> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("{} cannot be made", directory.display()))?;
    }
    remove(path);
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))?;
    Ok(UnixListenerStream::new(listener))
}

/// Removes a socket; one that is not there is fine.
pub(super) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a socket cannot be removed");
    }
}
