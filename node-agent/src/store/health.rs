//! Whether a tier's disk works. One sector that cannot be read is no reason to do without
//! all the others; one failure after another is.

use super::engine::{Engine, Shared};
use super::error::StoreError;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// So many failures with nothing that works between them, and the disk counts as failed.
const MOST: u32 = 16;
/// So many probes in a row, and the time from one to the next: others may have used up what it takes
/// for a moment.
const PROBES: usize = 3;
const BETWEEN: Duration = Duration::from_secs(1);
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
    fn failed_again(&self) -> bool {
        self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= MOST && self.has_failed()
    }

    /// Whether that is news.
    fn has_failed(&self) -> bool {
        !self.failed.swap(true, Ordering::AcqRel)
    }
}

impl Shared {
    /// Notes that the disk has failed, if it is the disk's fault. A failed disk's blocks count
    /// as missing, and come from elsewhere.
    pub(super) fn note_failure(&self, error: &StoreError) {
        if is_failure(error) && self.health.failed_again() {
            self.do_without(error);
        }
    }

    fn do_without(&self, error: &StoreError) {
        let directory = self.layout.root().display();
        tracing::error!(%directory, %error, "the disk fails again and again: what it holds counts as missing, and nothing more comes to it");
        self.inventory.withhold_all(true);
    }
}

/// Whether an error says that the disk fails. One that is full works.
fn is_failure(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { .. } | StoreError::Index { .. } | StoreError::TimedOut { .. })
}

impl Engine {
    /// Finds out whether the disk works, also while nobody asks anything of it: native views
    /// are read without us. One that had failed and works is taken up again.
    pub(super) fn look_after(&self) {
        let shared = &self.shared;
        let worked = shared.health.works();
        let mut probed = self.probe();
        // One that has failed need not be asked so often.
        for _ in 1..if worked { PROBES } else { 1 } {
            probed = probed.or_else(|_| {
                thread::sleep(BETWEEN);
                self.probe()
            });
        }
        let directory = shared.layout.root().display();
        match probed.err().filter(is_failure) {
            None if worked => shared.health.worked(),
            // One that is full works, too: what is there is good.
            None => {
                // What it was to keep when it failed may not be there.
                if let Err(error) = self.sync() {
                    tracing::debug!(%directory, %error, "the disk works again, but does not sync");
                    return;
                }
                tracing::info!(%directory, "the disk works again: what it holds counts again");
                shared.health.worked();
                shared.health.failed.store(false, Ordering::Release);
                shared.inventory.withhold_all(false);
            }
            Some(error) if shared.health.has_failed() => shared.do_without(&error),
            Some(error) => tracing::debug!(%directory, %error, "the disk still fails"),
        }
    }

    /// A probe does not come back.
    pub(super) fn hangs(&self, seconds: u64) {
        if self.shared.health.has_failed() {
            self.shared.do_without(&StoreError::TimedOut { what: "a probe of its disk", seconds });
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
            false => Err(StoreError::io(&path, io::Error::other("it is not as it was just written"))),
        }
    }
}
