//! Files of one want that could not be fetched, until they are. Pure.

use super::plan::Plan;
use crate::origin::OriginError;
use hearth_core::manifest::{File, Manifest};
use hearth_core::wire::failed_files::{FailedFile, MAX_FILES};
use roaring::RoaringBitmap;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct Failures {
    /// Once there has been a plan.
    manifest: Option<Arc<Manifest>>,
    /// All of them, by their number in the manifest.
    files: RoaringBitmap,
    /// Of those, the ones that are not as they were listed.
    changed: RoaringBitmap,
    /// Of those, the ones that are only read: they are not missing.
    shown: RoaringBitmap,
    /// What is told of the first ones. Of those behind them no more is known than that they
    /// failed, until they fail again.
    told: BTreeMap<u32, FailedFile>,
}

impl Failures {
    /// There is a new plan: what it does not lack has come meanwhile.
    pub(super) fn planned(&mut self, manifest: &Arc<Manifest>, plan: &Plan) {
        self.manifest = Some(manifest.clone());
        let come = |number: &u32| file(manifest, *number).is_none_or(|file| !plan.lacks(file.blocks()));
        for number in self.files.iter().filter(come).collect::<Vec<_>>() {
            self.remove(number);
        }
    }

    /// A request for blocks of a file has failed.
    pub(super) fn failed(&mut self, index: usize, error: &OriginError) {
        let Ok(number) = u32::try_from(index) else { return };
        let Some(file) = self.manifest.as_ref().and_then(|manifest| manifest.file(index)) else { return };
        if file.unlisted {
            // Whoever reads it is told, and asks again.
            if !error.is_of_the_object() {
                return;
            }
            self.shown.insert(number);
        }
        self.told.insert(number, FailedFile::new(file.path, error.reason(), &error.to_string()));
        if self.told.len() > MAX_FILES {
            self.told.pop_last();
        }
        self.files.insert(number);
        match error.is_of_the_object() {
            true => self.changed.insert(number),
            false => self.changed.remove(number),
        };
    }

    /// Blocks of a file have come: with the last one that was missing it has not failed.
    pub(super) fn fetched(&mut self, done: &RoaringBitmap, plan: &Plan) {
        // The common case, and asked with every request.
        if self.files.is_empty() {
            return;
        }
        let first = done.min().zip(self.manifest.as_ref());
        let Some(file) = first.and_then(|(first, manifest)| manifest.file_of_block(first)) else { return };
        if !plan.lacks(file.blocks()) {
            self.remove(u32::try_from(file.index).unwrap_or(u32::MAX));
        }
    }

    fn remove(&mut self, number: u32) {
        self.files.remove(number);
        self.changed.remove(number);
        self.shown.remove(number);
        self.told.remove(&number);
    }

    /// All has come.
    pub(super) fn clear(&mut self) {
        self.files.clear();
        self.changed.clear();
        self.shown.clear();
        self.told.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// How many there are that the node lacks.
    pub(super) fn count(&self) -> u64 {
        self.files.len() - self.shown.len()
    }

    /// The first of these.
    pub(super) fn told(&self) -> impl Iterator<Item = &FailedFile> {
        self.told.iter().filter(|(number, _)| !self.shown.contains(**number)).map(|(_, file)| file)
    }

    /// How many are not as they were listed, and what is said of one of them.
    pub(super) fn changed(&self) -> Option<(u64, Option<&str>)> {
        let example = self.told.iter().find(|(number, _)| self.changed.contains(**number));
        let example = example.map(|(_, file)| file.message.as_str());
        (!self.changed.is_empty()).then(|| (self.changed.len(), example))
    }
}

fn file(manifest: &Manifest, number: u32) -> Option<File<'_>> {
    manifest.file(usize::try_from(number).ok()?)
}

#[cfg(test)]
mod tests {
    use super::super::plan::InFlight;
    use super::super::plan::tests::{manifest, manifest_showing};
    use super::*;
    use hearth_core::block::BLOCK_SIZE;

    fn paths(failures: &Failures) -> Vec<&str> {
        failures.told().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn a_file_has_failed_until_its_last_block_has_come() {
        let manifest = Arc::new(manifest(&[3 * BLOCK_SIZE, BLOCK_SIZE]));
        let (mut plan, mut failures) = (Plan::new((0..4).collect()), Failures::default());
        let down = OriginError::Unavailable("it is down".into());
        failures.failed(0, &down);
        assert_eq!(failures.count(), 0, "nobody knows yet which file that is");
        failures.planned(&manifest, &plan);
        failures.failed(0, &down);
        failures.failed(1, &OriginError::Gone("it is gone".into()));
        assert_eq!((failures.count(), failures.changed()), (2, Some((1, Some("it is gone")))));
        assert_eq!(paths(&failures), ["0000", "0001"]);
        let first = plan.next(&manifest, &InFlight::default(), false).unwrap().0;
        failures.fetched(&first.numbers.collect(), &plan);
        assert_eq!(failures.count(), 2, "one block of it is missing");
        let last = plan.next(&manifest, &InFlight::default(), false).unwrap().0;
        failures.fetched(&last.numbers.collect(), &plan);
        assert_eq!(paths(&failures), ["0001"]);
        // It is there again, only nobody gives it.
        failures.failed(1, &OriginError::Denied("no".into()));
        assert_eq!((failures.count(), failures.changed()), (1, None));
        failures.planned(&manifest, &Plan::new((0..2).collect()));
        assert_eq!((failures.count(), paths(&failures).len()), (0, 0));
    }

    #[test]
    fn what_is_only_read_is_not_lacking() {
        let manifest = Arc::new(manifest_showing(&[1, 1], &[1]));
        let plan = || Plan::new((0..1).collect()).showing(manifest.unlisted_blocks().collect());
        let mut failures = Failures::default();
        failures.planned(&manifest, &plan());
        failures.failed(1, &OriginError::Unavailable("it is down".into()));
        assert_eq!((failures.count(), failures.changed()), (0, None));
        failures.failed(1, &OriginError::Changed("it is another".into()));
        assert_eq!((failures.count(), paths(&failures).len()), (0, 0));
        assert_eq!(failures.changed(), Some((1, Some("it is another"))));
        failures.planned(&manifest, &plan());
        assert_eq!(failures.changed(), None, "it may be listed anew");
    }

    #[test]
    fn of_very_many_the_first_are_told() {
        let manifest = Arc::new(manifest(&[1; 100]));
        let (plan, mut failures) = (Plan::new((0..100).collect()), Failures::default());
        failures.planned(&manifest, &plan);
        for index in (0..100).rev() {
            failures.failed(index, &OriginError::Changed(index.to_string()));
        }
        assert_eq!((failures.count(), failures.changed()), (100, Some((100, Some("0")))));
        assert_eq!((paths(&failures).len(), paths(&failures)[MAX_FILES - 1]), (MAX_FILES, "0019"));
        let kept = Plan::new((50..100).collect());
        failures.planned(&manifest, &kept);
        assert_eq!((failures.count(), failures.changed()), (50, Some((50, None))));
        failures.clear();
        assert_eq!((failures.count(), failures.changed()), (0, None));
    }
}
