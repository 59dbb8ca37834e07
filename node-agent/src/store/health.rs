//! Whether a tier's disk works. One sector that cannot be read is no reason to do without
//! all the others; one failure after another is.

use super::engine::{Engine, Shared};
use super::error::StoreError;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// So many failures with nothing that works between them, and the disk counts as failed.
const MOST: u32 = 16;
const PROBE: &[u8] = b"does this disk keep what is written?";

#[derive(Debug, Default)]
pub(super) struct Health {
    failures: AtomicU32,
    failed: AtomicBool,
}

impl Health {
    /// The disk has done what it was asked.
    pub(super) fn worked(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    pub(super) fn works(&self) -> bool {
        !self.failed.load(Ordering::Acquire)
    }

    /// Whether this failure was one too many.
    fn failed(&self) -> bool {
        self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= MOST && !self.failed.swap(true, Ordering::AcqRel)
    }
}

impl Shared {
    /// Notes that the disk has failed, if it is the disk's fault. A failed disk's blocks count
    /// as missing, and come from elsewhere.
    pub(super) fn note_failure(&self, error: &StoreError) {
        let is_disks =
            matches!(error, StoreError::Io { .. } | StoreError::Index { .. } | StoreError::TimedOut { .. });
        if is_disks && self.health.failed() {
            let directory = self.layout.root().display();
            tracing::error!(%directory, %error, "the disk fails again and again: nothing is read from it or written to it any more");
            self.inventory.withhold_all(true);
        }
    }
}

impl Engine {
    /// Takes a failed disk up again if it works now.
    pub(super) fn look_after(&self) {
        let shared = &self.shared;
        if shared.health.works() {
            return;
        }
        match self.probe() {
            Ok(()) => {
                let directory = shared.layout.root().display();
                tracing::info!(%directory, "the disk works again: what it holds counts again");
                shared.health.worked();
                shared.health.failed.store(false, Ordering::Release);
                shared.inventory.withhold_all(false);
            }
            Err(error) => tracing::debug!(%error, "the disk still fails"),
        }
    }

    /// Whether the disk keeps what is written, and the index can be read.
    fn probe(&self) -> Result<(), StoreError> {
        self.settle()?;
        let (shared, path) = (&self.shared, self.shared.layout.probe());
        let kept = || {
            let (file, _) = shared.disk.open(&path, true)?;
            file.write_at(0, PROBE)?;
            file.sync_data()?;
            let mut read = vec![0; PROBE.len()];
            shared.disk.open_past_cache(&path)?.read_at(0, &mut read)?;
            shared.disk.remove(&path)?;
            Ok(read == PROBE)
        };
        match kept().map_err(|error| StoreError::io(&path, error))? {
            true => Ok(()),
            false => Err(StoreError::Damaged {
                what: path.display().to_string(),
                why: "it is not as it was just written".into(),
            }),
        }
    }
}
