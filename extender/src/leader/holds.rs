//! Which versions are held for the pods of owners, in the Datasets' statuses.

use super::Duties;
use crate::answer::{Answer, answer};
use crate::watch::{current_of, held_of, is_ending, name_of};
use hearth_api::{Dataset, HeldVersion};
use hearth_core::hold::{Held, Known, MOST_HELD, Need, Unneeded};
use hearth_core::index::DatasetName;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Who writes holds, in managedFields: not the one of the other parts of the status, which
/// are applied and would take these with them.
const FIELD_MANAGER: &str = "hearth-extender-holds";
/// Shortest time between two looks: the pods of many Jobs that come at once make one write.
const GAP: Duration = Duration::from_millis(250);
/// How often holds are looked at when nothing tells that they have to be others: time
/// passes, and a write may have failed.
const EVERY: Duration = Duration::from_secs(1);

/// What is remembered of the Datasets, by UID, for as long as this replica leads.
type Memory = HashMap<String, Remembered>;

#[derive(Default)]
struct Remembered {
    unneeded: Unneeded,
    /// That there was no room has been said.
    told: bool,
}

impl Duties {
    pub(super) async fn holds(&self) {
        // Who knows only some pods would let go of what the others need.
        self.synced().await;
        let mut memory = Memory::new();
        loop {
            self.hold(&mut memory).await;
            tokio::time::sleep(GAP).await;
            // Too long is fine: it is looked at all the same.
            let _ = tokio::time::timeout(EVERY, self.known.holds_changed()).await;
        }
    }

    async fn hold(&self, memory: &mut Memory) {
        let mut needs: HashMap<DatasetName, Vec<Need>> = HashMap::new();
        for pod in self.known.holding() {
            for (name, need) in self.state.read(|index| index.needs(&pod.demand, pod.starts)) {
                needs.entry(name).or_default().push(need);
            }
        }
        let mut datasets = self.known.datasets();
        // What nobody gets any more need not be held.
        datasets.retain(|dataset| !is_ending(dataset));
        let uids: HashSet<String> = datasets.iter().filter_map(|dataset| dataset.uid()).collect();
        memory.retain(|uid, _| uids.contains(uid));
        for dataset in datasets {
            let needs = needs.remove(&name_of(&dataset)).unwrap_or_default();
            // Nearly all, where there are thousands.
            if needs.is_empty() && dataset.status.as_ref().is_none_or(|status| status.held.is_empty()) {
                continue;
            }
            let remembered = memory.entry(dataset.uid().unwrap_or_default()).or_default();
            self.hold_of(&dataset, &needs, remembered).await;
        }
    }

    async fn hold_of(&self, dataset: &Arc<Dataset>, needs: &[Need], remembered: &mut Remembered) {
        let (name, held) = (name_of(dataset), held_of(dataset));
        let previous = self.state.read(|index| index.previous_version(&name));
        let known = Known { current: current_of(dataset), previous, held: &held };
        let next = remembered.unneeded.next(self.state.now().monotonic, known, needs);
        if next.left_out > 0 && !remembered.told {
            tracing::warn!(
                dataset = %name, owners = next.left_out,
                "{MOST_HELD} owners hold versions, and no more can: pods of further ones get the current version whenever they start"
            );
        }
        remembered.told = next.left_out > 0;
        let Some(next) = next.held else { return };
        if let Err(why) = self.write_holds(dataset, &next).await {
            tracing::warn!(dataset = %name, "its holds were not written: {why}");
        }
    }

    /// Writes the holds of a Dataset over what was read of it and nothing else: what has
    /// changed meanwhile is looked at first.
    async fn write_holds(&self, dataset: &Dataset, held: &Held) -> Result<(), String> {
        let api = self.api_of(dataset);
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let (name, patch) = (dataset.name_any(), Patch::Merge(patch(dataset, held)));
        match answer(api.patch_status(&name, &params, &patch)).await {
            Ok(_) => Ok(()),
            // Gone, or changed: its watch tells of it in a moment.
            Err(Answer::Code(404 | 409, why)) => {
                tracing::debug!(dataset = name, "it has changed since it was read: {why}");
                Ok(())
            }
            Err(answer) => Err(answer.to_string()),
        }
    }
}

/// The merge patch that makes these the holds of this very state of a Dataset.
fn patch(dataset: &Dataset, held: &Held) -> serde_json::Value {
    let held: Vec<HeldVersion> = held
        .iter()
        .map(|(owner, version)| HeldVersion { owner: owner.clone(), manifest: version.to_string() })
        .collect();
    let held = if held.is_empty() { serde_json::Value::Null } else { json!(held) };
    json!({
        "metadata": {"uid": dataset.uid(), "resourceVersion": dataset.resource_version()},
        "status": {"held": held},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::manifest::ManifestHash;

    #[test]
    fn a_write_is_of_the_state_that_was_read() {
        let dataset: Dataset = serde_json::from_value(json!({
            "apiVersion": "hearth.dev/v1alpha1", "kind": "Dataset",
            "metadata": {"name": "d", "namespace": "n", "uid": "u", "resourceVersion": "7"},
            "spec": {"origins": [{"uri": "s3://bucket"}]},
        }))
        .unwrap();
        let held = Held::from([("job".to_owned(), ManifestHash([1; 32]))]);
        let expected = json!({"metadata": {"uid": "u", "resourceVersion": "7"},
            "status": {"held": [{"owner": "job", "manifest": "01".repeat(32)}]}});
        assert_eq!(patch(&dataset, &held), expected);
        assert_eq!(patch(&dataset, &Held::new())["status"], json!({"held": null}));
    }
}
