//! Datasets: which version is current, and who may use it.

use super::follow::Follower;
use super::known::Known;
use crate::state::State;
use hearth_api::Dataset;
use hearth_core::hold::Held;
use hearth_core::index::{ClusterIndex, DatasetFacts, DatasetName};
use hearth_core::manifest::ManifestHash;
use kube::ResourceExt;
use std::collections::HashSet;
use std::sync::Arc;

pub(super) struct Datasets {
    state: Arc<State>,
    known: Arc<Known>,
    synced: bool,
}

impl Datasets {
    pub(super) fn new(state: Arc<State>, known: Arc<Known>) -> Self {
        Self { state, known, synced: false }
    }

    fn remove(&self, gone: impl Fn(&str) -> bool) {
        for dataset in self.known.remove_datasets(gone) {
            let name = name_of(&dataset);
            // One that was made again under the name, unseen, is not gone.
            let uid = dataset.uid().unwrap_or_default();
            if self.state.read(|index| index.dataset(&name).is_some_and(|facts| facts.uid == uid)) {
                self.state.write(|index| index.remove_dataset(&name));
                self.state.wake_all();
            }
        }
    }
}

impl Follower<Dataset> for Datasets {
    const KIND: &'static str = "Dataset";

    fn apply(&mut self, mut dataset: Dataset) {
        let name = name_of(&dataset);
        let facts = facts_of(&dataset);
        dataset.metadata.managed_fields = None;
        self.known.set_dataset(facts.uid.clone(), dataset);
        // Most changes are of what the leader itself writes into the status.
        if self.state.read(|index| index.dataset(&name) != Some(&facts)) {
            self.state.set_dataset(&name, facts);
        }
    }

    fn delete(&mut self, dataset: Dataset) {
        let gone = dataset.uid().unwrap_or_default();
        self.remove(|uid| uid == gone);
    }

    fn retain(&mut self, uids: &HashSet<String>) {
        self.remove(|uid| !uids.contains(uid));
    }

    fn synced(&mut self) {
        if !std::mem::replace(&mut self.synced, true) {
            self.state.write(ClusterIndex::set_datasets_synced);
            self.state.wake_all();
        }
    }
}

pub(crate) fn name_of(dataset: &Dataset) -> DatasetName {
    DatasetName::new(dataset.namespace().unwrap_or_default(), dataset.name_any())
}

/// Whether its end has been asked for.
pub(crate) fn is_ending(dataset: &Dataset) -> bool {
    dataset.metadata.deletion_timestamp.is_some()
}

/// The version that the status names.
pub(crate) fn current_of(dataset: &Dataset) -> Option<ManifestHash> {
    ManifestHash::parse(&dataset.status.as_ref()?.version.as_ref()?.manifest)
}

/// What the status holds.
pub(crate) fn held_of(dataset: &Dataset) -> Held {
    let held = dataset.status.iter().flat_map(|status| &status.held);
    held.filter_map(|held| Some((held.owner.clone(), ManifestHash::parse(&held.manifest)?))).collect()
}

fn facts_of(dataset: &Dataset) -> DatasetFacts {
    let (mut manifest, mut held) = (current_of(dataset), held_of(dataset));
    if manifest.is_none() && dataset.status.as_ref().is_some_and(|status| status.version.is_some()) {
        tracing::warn!(dataset = %name_of(dataset), "status.version.manifest is no manifest's name");
    }
    // Nobody gets what is being deleted any more.
    let ending = is_ending(dataset)
        .then(|| manifest.take().into_iter().chain(std::mem::take(&mut held).into_values()).collect());
    let spec = &dataset.spec;
    DatasetFacts {
        uid: dataset.uid().unwrap_or_default(),
        generation: dataset.metadata.generation.unwrap_or_default(),
        manifest,
        held,
        ending,
        share_with: spec.share_with.as_ref().map(|with| with.namespaces.clone()).unwrap_or_default(),
        replicas: dataset.replicas_wanted(),
        node_selector: spec.cache.as_ref().map(|cache| cache.node_selector.clone()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use hearth_core::index::Settings;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    fn dataset(uid: &str, manifest: Option<&str>) -> Dataset {
        let version = manifest.map(|manifest| {
            serde_json::json!({"manifest": manifest, "files": 1, "bytes": 1, "size": "1 B", "blocks": 1,
                "listedAt": "2026-01-01T00:00:00Z"})
        });
        serde_json::from_value(serde_json::json!({
            "apiVersion": "hearth.dev/v1alpha1", "kind": "Dataset",
            "metadata": {"name": "d", "namespace": "n", "uid": uid, "generation": 3},
            "spec": {"origins": [{"uri": "s3://bucket"}], "shareWith": {"namespaces": ["m"]},
                "cache": {"nodeSelector": {"disk": "nvme"}}},
            "status": {"version": version},
        }))
        .unwrap()
    }

    #[test]
    fn a_dataset_comes_gets_a_version_is_made_again_and_goes() {
        let state = Arc::new(State::new(Settings::default(), Metrics::new().unwrap()));
        let known = Arc::new(Known::default());
        let mut datasets = Datasets::new(state.clone(), known.clone());
        let facts = || state.read(|index| index.dataset(&DatasetName::new("n", "d")).cloned());
        datasets.apply(dataset("u", None));
        assert_eq!(facts().unwrap().manifest, None);
        assert_eq!(facts().unwrap().share_with, ["m"]);
        assert_eq!(facts().unwrap().node_selector["disk"], "nvme");
        datasets.apply(dataset("u", Some("not a hash")));
        assert_eq!(facts().unwrap().manifest, None);
        datasets.apply(dataset("u", Some(&"07".repeat(32))));
        assert_eq!(state.read(ClusterIndex::missing_manifests), [ManifestHash([7; 32])]);
        let mut holding = dataset("u", Some(&"07".repeat(32)));
        let held = [("job", "08".repeat(32)), ("bad", "not a hash".to_owned())];
        holding.status.as_mut().unwrap().held = held
            .map(|(owner, manifest)| hearth_api::HeldVersion { owner: owner.to_owned(), manifest })
            .into();
        datasets.apply(holding.clone());
        assert_eq!(facts().unwrap().held, Held::from([("job".to_owned(), ManifestHash([8; 32]))]));
        holding.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        datasets.apply(holding);
        assert_eq!((facts().unwrap().manifest, facts().unwrap().held), (None, Held::new()));
        let versions = [ManifestHash([7; 32]), ManifestHash([8; 32])];
        assert_eq!(facts().unwrap().ending, Some(versions.into()));

        // Deleted and made again while nobody looked.
        datasets.apply(dataset("v", None));
        datasets.retain(&HashSet::from(["v".to_owned()]));
        assert_eq!(facts().unwrap().uid, "v");
        assert_eq!(known.datasets().len(), 1);
        datasets.delete(dataset("v", None));
        assert_eq!(facts(), None);
        assert!(known.datasets().is_empty());
    }
}
