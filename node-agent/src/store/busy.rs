//! One change of one manifest at a time.

use super::error::StoreError;
use hearth_core::manifest::ManifestHash;
use parking_lot::{Condvar, Mutex};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Freeing ten million files takes minutes.
const PATIENCE: Duration = Duration::from_secs(1800);

/// The manifests that someone puts, adopts or retires now.
#[derive(Debug, Default)]
pub(super) struct Busy {
    manifests: Mutex<HashSet<ManifestHash>>,
    changed: Condvar,
}

/// Keeps others away from one manifest.
#[derive(Debug)]
pub(super) struct Turn {
    busy: Arc<Busy>,
    hash: ManifestHash,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.busy.manifests.lock().remove(&self.hash);
        self.busy.changed.notify_all();
    }
}

impl Busy {
    /// Waits until nobody else changes the manifest.
    pub(super) fn turn(self: &Arc<Self>, hash: &ManifestHash) -> Result<Turn, StoreError> {
        let deadline = Instant::now() + PATIENCE;
        let mut manifests = self.manifests.lock();
        while !manifests.insert(*hash) {
            if self.changed.wait_until(&mut manifests, deadline).timed_out() {
                let what = "another change of the same manifest";
                return Err(StoreError::TimedOut { what, seconds: PATIENCE.as_secs() });
            }
        }
        Ok(Turn { busy: Arc::clone(self), hash: *hash })
    }
}
