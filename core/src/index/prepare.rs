//! Selections are found in manifests before they are asked for, so that weighing a
//! pod costs what its answer costs, and the slow part is done outside of locks.

use super::ClusterIndex;
use crate::manifest::{Manifest, ManifestHash, Selected};
use crate::pod::Demand;
use crate::selection::Selection;
use std::sync::Arc;

/// A part of one version of a dataset that nobody has looked up yet.
#[derive(Clone, Debug)]
pub struct Unprepared {
    hash: ManifestHash,
    manifest: Arc<Manifest>,
    selection: Selection,
}

/// A part that was looked up.
#[derive(Clone, Debug)]
pub struct Prepared {
    hash: ManifestHash,
    selection: Selection,
    selected: Selected,
}

impl Unprepared {
    /// Looks at every path of the manifest: not to be done under a lock.
    pub fn find(self) -> Prepared {
        let selected = Selected::find(&self.manifest, &self.selection);
        Prepared { hash: self.hash, selection: self.selection, selected }
    }
}

impl ClusterIndex {
    /// What has to be found before [`Self::weigh`] can answer from counted sums.
    pub fn unprepared(&self, demand: &Demand) -> Vec<Unprepared> {
        let parts = demand.asked.iter().filter_map(|asked| {
            let (name, dataset) = self.resolve(&demand.namespace, asked).ok()?;
            self.unprepared_part(dataset.version(demand, &name).ok()?, &asked.selection)
        });
        parts.collect()
    }

    /// What has to be found before [`Self::warmup_progress`] can answer.
    pub fn unprepared_warmup(&self, uid: &str) -> Option<Unprepared> {
        let facts = &self.warmups.get(uid)?.facts;
        self.unprepared_part(self.datasets.get(&facts.dataset)?.facts.manifest?, facts.selection.as_ref()?)
    }

    fn unprepared_part(&self, hash: ManifestHash, selection: &Selection) -> Option<Unprepared> {
        let version = self.versions.get(&hash)?;
        let manifest = version.manifest.clone()?;
        let unprepared = || Unprepared { hash, manifest, selection: selection.clone() };
        version.counted(selection).is_none().then(unprepared)
    }

    /// Keeps what was found counted from now on.
    pub fn keep(&mut self, prepared: Prepared) {
        self.preparations += 1;
        if let Some(version) = self.versions.get_mut(&prepared.hash) {
            version.count(prepared.selection, prepared.selected, self.preparations);
        }
        self.uncount_the_oldest();
    }

    /// What is counted for `demand` is still of use.
    pub fn touch(&mut self, demand: &Demand) {
        self.preparations += 1;
        let now = self.preparations;
        for asked in &demand.asked {
            let Ok((name, dataset)) = self.resolve(&demand.namespace, asked) else { continue };
            let Ok(hash) = dataset.version(demand, &name) else { continue };
            if let Some(version) = self.versions.get_mut(&hash) {
                version.touch(&asked.selection, now);
            }
        }
    }

    fn uncount_the_oldest(&mut self) {
        let count: usize = self.versions.values().map(|version| version.ages().count()).sum();
        if count <= self.settings.selections_kept {
            return;
        }
        let mut ages: Vec<_> = self
            .versions
            .iter()
            .flat_map(|(hash, version)| {
                version.ages().map(|(selection, age)| (age, *hash, selection.clone()))
            })
            .collect();
        ages.sort_unstable_by_key(|(age, ..)| *age);
        // A tenth at once: sorting them all for each one would cost more than they save.
        let superfluous = count - self.settings.selections_kept + self.settings.selections_kept / 10;
        for (_, hash, selection) in ages.into_iter().take(superfluous) {
            if let Some(version) = self.versions.get_mut(&hash) {
                version.uncount(&selection);
            }
        }
    }
}
