//! Gives objects up some at a time.

use super::choose::Chosen;
use super::pace::Pace;
use super::standings::Version;
use super::{Inner, LATE, Late};
use crate::pressure;
use crate::store::StoreError;
use crate::views::ViewError;
use hearth_core::evict::Amount;
use hearth_core::explain;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// Objects given up in one transaction, and fewer while somebody waits for the room of the first.
const OBJECTS_AT_ONCE: usize = 1024;
const WHILE_AWAITED: usize = 256;
/// Files of which more may be done than to give them up: they may be copied first.
const FILES_AT_ONCE: usize = 256;

/// Why something is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// For what is of more value.
    Room,
    /// For what is of the same value and read more.
    Exchange,
    /// To keep within the limits.
    Limit,
    /// Since somebody asks for it.
    Order,
}

impl Reason {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Room => "room",
            Self::Exchange => "exchange",
            Self::Limit => "limit",
            Self::Order => "order",
        }
    }
}

impl Inner {
    /// Gives objects up, and tells after some how much it is so far; as long as the answer is
    /// that more is waited for, without a rest.
    pub(super) fn give_up(
        &self,
        versions: &[Version],
        chosen: &[Chosen],
        reason: Reason,
        mut so_far: impl FnMut(Amount) -> bool,
    ) -> Result<(), ViewError> {
        let free = self.tier.usage()?.free_bytes;
        let mut pace = Pace::new();
        let is_awaited = so_far(Amount::default());
        pace.set(is_awaited, !is_awaited && pressure::disks_are_busy());
        let at_once = if is_awaited { WHILE_AWAITED } else { OBJECTS_AT_ONCE };
        let late = self.late()?;
        let before = self.sum()?.saturating_add(late);
        let mut all = Amount::default();
        for of_version in chosen.chunk_by(|one, other| one.version == other.version) {
            let version = &versions[of_version[0].version];
            let mut amount = Amount::default();
            for objects in of_version.chunks(at_once) {
                if self.shutdown.is_cancelled() {
                    return Ok(());
                }
                let mut rest = || {
                    if Arc::strong_count(&self.waiting) == 1 && !self.shutdown.is_cancelled() {
                        pace.rest();
                    }
                };
                let files: Vec<usize> = objects.iter().map(|chosen| chosen.file as usize).collect();
                let evicted = self.views.evict_in(&self.tier, &version.hash, &files, &mut rest)?.amount;
                (amount, all) = (amount.plus(evicted), all.plus(evicted));
                self.metrics.evicted_bytes.with_label_values(&[reason.label()]).inc_by(evicted.bytes);
                self.metrics.evicted_objects.with_label_values(&[reason.label()]).inc_by(evicted.objects);
                let given = late.saturating_add(all.bytes);
                *self.late.lock() = Some(Late { until: Instant::now() + LATE, sum: before, given });
                // Nor is there a rest for others who take the disk faster than it is freed, or too much of it.
                let is_awaited = so_far(all)
                    || Arc::strong_count(&self.waiting) > 1
                    || self.tier.usage()?.free_bytes < free
                    || self.tier.is_short()?;
                self.made.notify_waiters();
                pace.set(is_awaited, !is_awaited && pressure::disks_are_busy());
            }
            let (dataset, manifest) = (&version.dataset, version.hash);
            let (files, bytes) = (amount.objects, explain::bytes(amount.bytes));
            match reason {
                // One for each block that comes.
                Reason::Exchange => {
                    tracing::debug!(dataset, ?manifest, files, bytes, "given up for what is read more")
                }
                Reason::Room => {
                    tracing::info!(dataset, ?manifest, files, bytes, "given up for what is of more value")
                }
                Reason::Limit | Reason::Order => {
                    tracing::info!(dataset, ?manifest, files, bytes, "given up to keep to the limit")
                }
            }
        }
        Ok(())
    }
}

/// Gives files up for which nobody waits, until `shutdown`; `give_up` calls what it is given between
/// pieces of work, to rest. Blocks.
pub(crate) fn in_batches(
    files: &[usize],
    shutdown: &CancellationToken,
    mut give_up: impl FnMut(&[usize], &mut dyn FnMut()) -> Result<(), ViewError>,
) -> Result<(), ViewError> {
    let mut pace = Pace::new();
    for batch in files.chunks(FILES_AT_ONCE) {
        if shutdown.is_cancelled() {
            return Err(StoreError::Closed.into());
        }
        pace.set(false, pressure::disks_are_busy());
        give_up(batch, &mut || {
            if !shutdown.is_cancelled() {
                pace.rest();
            }
        })?;
    }
    Ok(())
}
