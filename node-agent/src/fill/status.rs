//! How fetching does, for reports and metrics.

use super::job::Job;
use crate::metrics::Metrics;
use hearth_core::wire::failed_files::{FailedFiles, MAX_WANTS};
use hearth_core::wire::report::{MAX_TROUBLES, Trouble, TroubleKind};

/// How fetching does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FillStatus {
    /// Bytes per second of late; `None` before the first fetch.
    pub origin_bytes_per_second: Option<u64>,
    /// What keeps the node from getting warm, the most urgent first.
    pub troubles: Vec<Trouble>,
    /// Files that could not be fetched, of the most urgent wants first.
    pub failed_files: Vec<FailedFiles>,
}

impl FillStatus {
    pub(super) fn new<'a>(rate: Option<u64>, jobs: impl Iterator<Item = &'a Job>) -> Self {
        let mut jobs: Vec<&Job> = jobs.collect();
        jobs.sort_by_key(|job| std::cmp::Reverse(job.want.priority));
        let failed_files = jobs.iter().filter_map(|job| job.failed_files()).take(MAX_WANTS).collect();
        let mut troubles: Vec<Trouble> = Vec::new();
        for trouble in jobs.into_iter().flat_map(Job::troubles) {
            if troubles.len() == MAX_TROUBLES {
                break;
            }
            // Two wants of one dataset mostly have the same trouble.
            if !troubles.contains(&trouble) {
                troubles.push(trouble);
            }
        }
        Self { origin_bytes_per_second: rate, troubles, failed_files }
    }

    pub(super) fn count(&self, metrics: &Metrics) {
        for (kind, label) in [
            (TroubleKind::NoSpace, "no_space"),
            (TroubleKind::Credentials, "credentials"),
            (TroubleKind::Origin, "origin"),
            (TroubleKind::Changed, "changed"),
            (TroubleKind::Store, "store"),
        ] {
            let count = self.troubles.iter().filter(|trouble| trouble.kind == kind).count();
            metrics.troubles.with_label_values(&[label]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
