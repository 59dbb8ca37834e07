//! How fetching does, for reports and metrics.

use super::job::Job;
use super::jobs::Jobs;
use crate::metrics::Metrics;
use hearth_core::wire::failed_files::{FailedFiles, MAX_WANTS};
use hearth_core::wire::report::{MAX_TROUBLES, Trouble, TroubleKind};

/// Most files that are named in all: each report has them, and nobody reads more.
const MOST_NAMED: usize = 100;

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
    pub(super) fn new(rate: Option<u64>, jobs: &Jobs) -> Self {
        let failed_files = bounded(jobs.failing().filter_map(Job::failed_files));
        let mut troubles: Vec<Trouble> = Vec::new();
        for trouble in jobs.failing().flat_map(Job::troubles) {
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

/// All are counted; of the first ones files are named.
fn bounded(all: impl Iterator<Item = FailedFiles>) -> Vec<FailedFiles> {
    let mut left = MOST_NAMED;
    let mut bounded: Vec<FailedFiles> = all.take(MAX_WANTS).collect();
    for failed in &mut bounded {
        failed.files.truncate(left);
        left -= failed.files.len();
    }
    bounded
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::manifest::ManifestHash;
    use hearth_core::wire::failed_files::FailedFile;

    #[test]
    fn a_report_names_so_many_files_and_counts_them_all() {
        let failed = |part| FailedFiles {
            manifest: ManifestHash([1; 32]),
            part,
            count: 30,
            files: vec![FailedFile::new("a", "Gone", "it is gone"); 15],
        };
        let told = bounded((0..100).map(failed));
        let named: Vec<usize> = told.iter().map(|failed| failed.files.len()).collect();
        assert_eq!((told.len(), named.iter().sum::<usize>()), (MAX_WANTS, MOST_NAMED));
        assert_eq!(named[..8], [15, 15, 15, 15, 15, 15, 10, 0]);
        assert!(told.iter().all(|failed| failed.count == 30));
    }
}
