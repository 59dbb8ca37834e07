//! How warm each dataset is, in its status.

use super::{Duties, apply_status};
use crate::watch::{is_ending, name_of};
use hearth_api::{ConditionStatus, Dataset, ReplicasStatus, WarmStatus, set_condition};
use hearth_core::index::{ClusterIndex, DatasetName, DatasetWarmth, Replicas};
use hearth_core::scaling::Scaling;
use hearth_core::score;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Statuses are looked at so often: changes in between are written as one.
const EVERY: Duration = Duration::from_secs(2);

/// Our part of a Dataset's status; the one who lists writes the rest.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Part {
    #[serde(flatten)]
    numbers: Numbers,
    conditions: Vec<Condition>,
}

/// What a Part says in numbers.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Numbers {
    warm: Option<WarmStatus>,
    replicas: Option<ReplicasStatus>,
}

impl Part {
    /// What a Dataset has of our part but the condition, and with that; `None` when all of it
    /// stands there already.
    pub(super) fn with(
        dataset: &Dataset,
        numbers: Numbers,
        (status, reason, message): (ConditionStatus, &str, String),
        now: Timestamp,
    ) -> Option<Self> {
        let before = dataset.status.as_ref();
        let numbers_before =
            before.map(|status| Numbers { warm: status.warm.clone(), replicas: status.replicas.clone() });
        let said = before.map(|status| status.conditions.as_slice()).unwrap_or_default();
        let mut conditions: Vec<Condition> =
            said.iter().filter(|condition| condition.type_ == "Ready").cloned().collect();
        set_condition(&mut conditions, "Ready", status, reason, message, dataset.metadata.generation, now);
        let same =
            numbers_before.unwrap_or_default() == numbers && conditions.iter().all(|one| said.contains(one));
        (!same).then_some(Self { numbers, conditions })
    }
}

impl Duties {
    pub(super) async fn dataset_statuses(&self) {
        let mut scalings: HashMap<String, Scaling> = HashMap::new();
        loop {
            // What is said of those that are being deleted, `removal` says.
            let mut datasets = self.known.datasets();
            datasets.retain(|dataset| !is_ending(dataset));
            let mut wanted = self.replicas_wanted(&datasets, &mut scalings);
            for dataset in &datasets {
                self.dataset_status(dataset, wanted.remove(&name_of(dataset))).await;
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// How many replicas there are to be of the datasets that are to have any.
    fn replicas_wanted(
        &self,
        datasets: &[Arc<Dataset>],
        scalings: &mut HashMap<String, Scaling>,
    ) -> HashMap<DatasetName, usize> {
        let bounds = datasets.iter().filter_map(|dataset| Some((dataset, dataset.replica_bounds()?)));
        let bounds: Vec<_> = bounds.collect();
        if bounds.is_empty() {
            scalings.clear();
            return HashMap::new();
        }
        let now = self.state.now().monotonic;
        let readers = self.state.read(ClusterIndex::reading_nodes);
        let mut before = std::mem::take(scalings);
        let wanted = bounds.into_iter().map(|(dataset, bounds)| {
            let (name, uid) = (name_of(dataset), dataset.uid().unwrap_or_default());
            let mut scaling = before.remove(&uid).unwrap_or_default();
            let reading = readers.get(&name).copied().unwrap_or(0);
            let wanted = scaling.next(now, bounds, dataset.replicas_wanted(), reading);
            scalings.insert(uid, scaling);
            (name, wanted)
        });
        wanted.collect()
    }

    async fn dataset_status(&self, dataset: &Dataset, replicas: Option<usize>) {
        let name = name_of(dataset);
        let now = self.state.now().monotonic;
        let (warmth, there) =
            self.state.read(|index| (index.dataset_warmth(now, &name), index.replicas(now, &name)));
        let replicas = replicas.map(|wanted| replicas_status(wanted, there.unwrap_or_default()));
        let Some(part) = changed(dataset, warmth.as_ref(), replicas, Timestamp::now()) else { return };
        if let Err(why) = apply_status(&self.api_of(dataset), &name.name, &part).await {
            tracing::warn!(dataset = %name, "its status was not written: {why}");
        }
    }
}

fn replicas_status(wanted: usize, there: Replicas) -> ReplicasStatus {
    let [wanted, nodes, warm] =
        [wanted, there.chosen, there.whole].map(|count| i32::try_from(count).unwrap_or(i32::MAX));
    ReplicasStatus { wanted, nodes, warm, summary: format!("{warm}/{wanted}") }
}

/// Our part of the status as it should be, when it is not so yet.
fn changed(
    dataset: &Dataset,
    warmth: Option<&DatasetWarmth>,
    replicas: Option<ReplicasStatus>,
    now: Timestamp,
) -> Option<Part> {
    let before = dataset.status.as_ref();
    let warm = warmth.map(|warmth| WarmStatus {
        nodes: i64::try_from(warmth.whole).unwrap_or(i64::MAX),
        partly: i64::try_from(warmth.some).unwrap_or(i64::MAX),
        most: format!("{}%", score::percent(warmth.most, warmth.bytes)),
    });
    let said = before.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let listed = said.iter().find(|condition| condition.type_ == "Listed");
    let condition = match warmth {
        None if before.is_none_or(|status| status.version.is_none()) => {
            let why =
                listed.map_or("waiting for an agent to list the origin", |condition| &condition.message);
            (ConditionStatus::False, "NotListed", why.to_owned())
        }
        None => (
            ConditionStatus::False,
            "ManifestMissing",
            "waiting for an agent to send the manifest".to_owned(),
        ),
        Some(warmth) => match warmth.troubles.as_slice() {
            [] => (ConditionStatus::True, "Listed", "pods are placed by where its data is".to_owned()),
            [(node, trouble), others @ ..] => {
                let more =
                    if others.is_empty() { String::new() } else { format!(", and {} more", others.len()) };
                (ConditionStatus::True, "FetchTrouble", format!("{node}: {}{more}", trouble.message))
            }
        },
    };
    Part::with(dataset, Numbers { warm, replicas }, condition, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_api::{DatasetSpec, DatasetStatus};

    #[test]
    fn a_status_is_written_only_when_it_changes() {
        let spec: DatasetSpec =
            serde_json::from_value(serde_json::json!({"origins": [{"uri": "s3://bucket"}]})).unwrap();
        let mut dataset = Dataset::new("d", spec);
        let part = changed(&dataset, None, None, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(
            (part.conditions[0].status.as_str(), part.conditions[0].reason.as_str()),
            ("False", "NotListed")
        );
        dataset.status = Some(DatasetStatus { conditions: part.conditions, ..DatasetStatus::default() });
        assert_eq!(changed(&dataset, None, None, Timestamp::now()), None);
        let warmth = DatasetWarmth { bytes: 100, whole: 1, some: 2, most: 100, troubles: Vec::new() };
        let replicas = replicas_status(3, Replicas { chosen: 2, whole: 1 });
        assert_eq!((replicas.nodes, replicas.summary.as_str()), (2, "1/3"));
        let part = changed(&dataset, Some(&warmth), Some(replicas.clone()), Timestamp::now()).unwrap();
        assert_eq!(part.conditions[0].status, "True");
        assert_eq!(
            part.numbers.warm.as_ref().map(|warm| (warm.nodes, warm.most.as_str())),
            Some((1, "100%"))
        );
    }
}
