//! Stores that tell of changed objects, in the statuses of the Datasets concerned: whoever lists
//! origins sees it there. Whichever replica hears a notice writes it down.

use crate::answer::{Answer, answer};
use crate::watch::{Known, is_ending, name_of};
use futures::{StreamExt, stream};
use hearth_api::{Dataset, DatasetStatus};
use hearth_core::notice::{self, Changed};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::hash_map::Entry;
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
/// Others write into the status too: so often it is read again.
const TRIES: usize = 5;

/// What was told of a Dataset and is to be written down.
struct Told {
    dataset: Arc<Dataset>,
    places: BTreeSet<String>,
}

/// Datasets of which stores have told. Bounded by the Datasets that there are.
pub struct Notices {
    known: Arc<Known>,
    /// By UID; `None` when nobody will write any more.
    told: Mutex<Option<HashMap<String, Told>>>,
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
        let concerned = self.known.datasets().into_iter().filter(|dataset| !is_ending(dataset));
        let concerned: Vec<Told> = concerned
            .map(|dataset| Told { places: places(&dataset, changes), dataset })
            .filter(|told| !told.places.is_empty())
            .collect();
        let count = concerned.len();
        let mut waiting = self.told.lock();
        let waiting = waiting.as_mut()?;
        for told in concerned {
            add(waiting, told);
        }
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
            self.write_all(&client, told.unwrap_or_default()).await;
            tokio::select! {
                () = tokio::time::sleep(GAP) => {}
                () = shutdown.cancelled() => break,
            }
        }
        let told = self.told.lock().take();
        self.write_all(&client, told.unwrap_or_default()).await;
        Ok(())
    }

    async fn write_all(&self, client: &kube::Client, told: HashMap<String, Told>) {
        let writes = stream::iter(told.into_values()).map(|told| async move {
            if let Err(why) = write(client, &told).await {
                tracing::warn!(dataset = %name_of(&told.dataset), "a store's notice was not written: {why}");
                if let Some(waiting) = &mut *self.told.lock() {
                    add(waiting, told);
                    self.changed.notify_one();
                }
            }
        });
        writes.buffer_unordered(WRITES).collect::<()>().await;
    }
}

fn add(waiting: &mut HashMap<String, Told>, told: Told) {
    match waiting.entry(told.dataset.uid().unwrap_or_default()) {
        Entry::Vacant(entry) => {
            entry.insert(told);
        }
        Entry::Occupied(mut entry) => {
            let before = std::mem::take(&mut entry.get_mut().places);
            entry.get_mut().places = notice::prefixes(before.into_iter().chain(told.places), MOST_PLACES);
        }
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

/// What a status is to say, with what it has that was told before and is not listed yet; nothing when
/// that is anything.
fn notified_of(status: Option<&DatasetStatus>, places: &BTreeSet<String>) -> BTreeSet<String> {
    let Some(status) = status else { return places.clone() };
    let listed = status.observed_refresh.as_ref().and_then(|refresh| refresh.notified_at.as_ref());
    match status.notified_at.as_ref() == listed {
        true => places.clone(),
        false if status.notified_of.is_empty() => BTreeSet::new(),
        false => notice::prefixes(status.notified_of.iter().chain(places).cloned(), MOST_PLACES),
    }
}

async fn write(client: &kube::Client, told: &Told) -> Result<(), Answer> {
    let Told { dataset, places } = told;
    let api: Api<Dataset> = Api::namespaced(client.clone(), &dataset.namespace().unwrap_or_default());
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let mut current = dataset.clone();
    for _ in 1..TRIES {
        let notified_of = notified_of(current.status.as_ref(), places);
        let patch = Patch::Merge(json!({
            // Nothing may be lost that another replica writes, nor a listing that ends meanwhile.
            "metadata": {"uid": current.uid(), "resourceVersion": current.resource_version()},
            "status": {
                "notifiedAt": MicroTime(Timestamp::now()),
                "notifiedOf": (!notified_of.is_empty()).then_some(notified_of),
            },
        }));
        match answer(api.patch_status(&dataset.name_any(), &params, &patch)).await {
            // Gone.
            Ok(_) | Err(Answer::Code(404, _)) => return Ok(()),
            Err(Answer::Code(409, _)) => {}
            Err(why) => return Err(why),
        }
        match answer(api.get(&dataset.name_any())).await {
            // Made again, and so listed anyway.
            Ok(other) if other.uid() != dataset.uid() => return Ok(()),
            Ok(newer) => current = Arc::new(newer),
            Err(Answer::Code(404, _)) => return Ok(()),
            Err(why) => return Err(why),
        }
    }
    Err(Answer::Code(409, "others write into the status all the time".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_api::RefreshRequest;

    fn at(second: i64) -> Option<MicroTime> {
        Some(MicroTime(Timestamp::from_second(second).unwrap()))
    }

    fn status(notified: i64, of: &[&str], listed: i64) -> DatasetStatus {
        DatasetStatus {
            notified_at: at(notified),
            notified_of: of.iter().map(|uri| (*uri).to_owned()).collect(),
            observed_refresh: Some(RefreshRequest { annotation: None, notified_at: at(listed) }),
            ..DatasetStatus::default()
        }
    }

    #[test]
    fn what_was_told_is_kept_until_it_is_listed() {
        let of = |status: Option<DatasetStatus>| -> Vec<String> {
            notified_of(status.as_ref(), &BTreeSet::from(["s3://b/2".to_owned()])).into_iter().collect()
        };
        assert_eq!(of(None), ["s3://b/2"]);
        assert_eq!(of(Some(DatasetStatus::default())), ["s3://b/2"]);
        assert_eq!(of(Some(status(1, &["s3://b/1"], 1))), ["s3://b/2"]);
        assert_eq!(of(Some(status(2, &["s3://b/1"], 1))), ["s3://b/1", "s3://b/2"]);
        // Whoever wrote that did not say where.
        assert_eq!(of(Some(status(2, &[], 1))), Vec::<String>::new());
    }
}
