//! Stores that tell of changed objects, in the statuses of the Datasets concerned: whoever lists
//! origins sees it there. Whichever replica hears a notice writes it down.

use crate::answer::{Answer, answer};
use crate::watch::{Known, is_ending, name_of};
use futures::{StreamExt, stream};
use hearth_api::Dataset;
use hearth_core::notice::{self, Changed};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Who writes, in managedFields: not the one of the parts of the status that are applied.
const FIELD_MANAGER: &str = "hearth-extender-notices";
/// Shortest time between two writes of one Dataset: uploads come in crowds.
const GAP: Duration = Duration::from_secs(5);
/// Writes at one time.
const WRITES: usize = 8;
/// Places in one status: what changes in more of them is told by their folders.
const MOST_PLACES: usize = 64;
/// Bytes of the longest of them, which is as long as keys are.
const LONGEST_PLACE: usize = 1100;

/// Where objects of Datasets have changed, by the Datasets' UIDs.
type Told = HashMap<String, BTreeSet<String>>;

/// Datasets of which stores have told. Bounded by the Datasets that there are.
pub struct Notices {
    known: Arc<Known>,
    /// What is to be written down; `None` when nobody will any more.
    told: Mutex<Option<Told>>,
    changed: Notify,
}

impl Notices {
    /// Nothing has been told.
    pub fn new(known: Arc<Known>) -> Self {
        Self { known, told: Mutex::new(Some(HashMap::new())), changed: Notify::new() }
    }

    /// Takes in what has changed; how many Datasets that concerns. `None` when the end has come:
    /// somebody else is to be told.
    pub fn take(&self, changes: &BTreeSet<Changed>) -> Option<usize> {
        let datasets = self.known.datasets().into_iter().filter(|dataset| !is_ending(dataset));
        let concerned: Told = datasets
            .map(|dataset| (dataset.uid().unwrap_or_default(), places(&dataset, changes)))
            .filter(|(_, places)| !places.is_empty())
            .collect();
        let count = concerned.len();
        add(self.told.lock().as_mut()?, concerned);
        self.changed.notify_one();
        Some(count)
    }

    /// Writes down what is told until `shutdown`, and then what was told before.
    pub async fn run(
        self: Arc<Self>,
        client: kube::Client,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = self.changed.notified() => {}
                () = shutdown.cancelled() => break,
            }
            let told = self.told.lock().as_mut().map(std::mem::take);
            for (uid, places) in self.write_all(&client, told.unwrap_or_default()).await {
                if let Some(waiting) = &mut *self.told.lock() {
                    add(waiting, Told::from([(uid, places)]));
                    self.changed.notify_one();
                }
            }
            tokio::select! {
                () = tokio::time::sleep(GAP) => {}
                () = shutdown.cancelled() => break,
            }
        }
        let told = self.told.lock().take();
        // What others wrote meanwhile is not waited for any more: then all is to be listed.
        for uid in self.write_all(&client, told.unwrap_or_default()).await.into_keys() {
            let Some(dataset) = self.known.dataset(&uid) else { continue };
            if let Err(why) = write(&client, &dataset, None, None).await {
                tracing::warn!(dataset = %name_of(&dataset), "a store's notice is lost: {why}");
            }
        }
        Ok(())
    }

    /// What could not be written now.
    async fn write_all(&self, client: &kube::Client, told: Told) -> Told {
        let writes = stream::iter(told).map(|(uid, places)| async move {
            // Gone, or made again and so listed anyway.
            let dataset = self.known.dataset(&uid)?;
            // Nothing may be lost that another replica writes, nor a listing that ends meanwhile.
            let version = dataset.resource_version();
            match write(client, &dataset, notified_of(&dataset, &places), version).await {
                Ok(_) | Err(Answer::Code(404, _)) => return None,
                // Somebody else wrote meanwhile: the watch brings it.
                Err(Answer::Code(409, _)) => {}
                Err(why) => {
                    tracing::warn!(dataset = %name_of(&dataset), "a store's notice was not written: {why}");
                }
            }
            Some((uid, places))
        });
        writes.buffer_unordered(WRITES).filter_map(std::future::ready).collect().await
    }
}

fn add(waiting: &mut Told, told: Told) {
    for (uid, places) in told {
        let before = waiting.remove(&uid).unwrap_or_default();
        waiting.insert(uid, notice::prefixes(before.into_iter().chain(places), MOST_PLACES));
    }
}

/// Where a Dataset's objects have changed.
fn places(dataset: &Dataset, changes: &BTreeSet<Changed>) -> BTreeSet<String> {
    let is_concerned =
        |changed: &&Changed| dataset.spec.origins.iter().any(|origin| changed.concerns(&origin.uri));
    // What is cut is what more objects begin with.
    let place = |changed: &Changed| {
        let mut uri = changed.uri();
        uri.truncate(uri.floor_char_boundary(LONGEST_PLACE));
        uri
    };
    notice::prefixes(changes.iter().filter(is_concerned).map(place), MOST_PLACES)
}

/// What is to be listed again, with what was told before and is not listed yet; `None` when that is anything.
fn notified_of(dataset: &Dataset, places: &BTreeSet<String>) -> Option<BTreeSet<String>> {
    let status = dataset.status.as_ref();
    let told = status.and_then(|status| status.notified_at.as_ref());
    let listed = status.and_then(|status| status.observed_refresh.as_ref()?.notified_at.as_ref());
    match told == listed {
        true => Some(places.clone()),
        false => {
            let before = dataset.notified_of()?.iter();
            Some(notice::prefixes(before.chain(places).cloned(), MOST_PLACES))
        }
    }
}

/// Writes that what begins with one of `prefixes` has changed, or anything when there are none; of no other `version`
/// of the Dataset, if it matters.
async fn write(
    client: &kube::Client,
    dataset: &Dataset,
    prefixes: Option<BTreeSet<String>>,
    version: Option<String>,
) -> Result<Dataset, Answer> {
    let api: Api<Dataset> = Api::namespaced(client.clone(), &dataset.namespace().unwrap_or_default());
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let now = MicroTime(Timestamp::now());
    let mut metadata = json!({"uid": dataset.uid()});
    if let Some(version) = version {
        metadata["resourceVersion"] = version.into();
    }
    let patch = Patch::Merge(json!({
        "metadata": metadata,
        "status": {
            "notifiedAt": now,
            "notifiedOf": prefixes.map(|prefixes| json!({"at": now, "prefixes": prefixes})),
        },
    }));
    answer(api.patch_status(&dataset.name_any(), &params, &patch)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_api::{NotifiedOf, RefreshRequest};

    fn at(second: i64) -> MicroTime {
        MicroTime(Timestamp::from_second(second).unwrap())
    }

    fn bare() -> Dataset {
        let spec = json!({"origins": [{"uri": "s3://b"}]});
        Dataset::new("d", serde_json::from_value(spec).unwrap())
    }

    /// Notified at a second, of `s3://b/1` at another, and listed when it was notified at a third.
    fn dataset(notified: i64, of: i64, listed: i64) -> Dataset {
        let told = NotifiedOf { at: at(of), prefixes: vec!["s3://b/1".to_owned()] };
        let mut dataset = bare();
        dataset.status = Some(hearth_api::DatasetStatus {
            notified_at: Some(at(notified)),
            notified_of: Some(told),
            observed_refresh: Some(RefreshRequest { annotation: None, notified_at: Some(at(listed)) }),
            ..Default::default()
        });
        dataset
    }

    #[test]
    fn what_was_told_is_kept_until_it_is_listed() {
        let of = |dataset: &Dataset| -> Option<Vec<String>> {
            let of = notified_of(dataset, &BTreeSet::from(["s3://b/2".to_owned()]));
            of.map(|prefixes| prefixes.into_iter().collect())
        };
        let (first, second) = ("s3://b/1".to_owned(), "s3://b/2".to_owned());
        assert_eq!(of(&bare()), Some(vec![second.clone()]));
        assert_eq!(of(&dataset(1, 1, 1)), Some(vec![second.clone()]));
        assert_eq!(of(&dataset(2, 2, 1)), Some(vec![first, second]));
        // Whoever wrote last did not say where.
        assert_eq!(of(&dataset(2, 1, 1)), None);
    }
}
