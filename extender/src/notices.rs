//! Stores that tell of changed objects, in the statuses of the Datasets concerned: whoever lists
//! origins sees it there. Whichever replica hears a notice writes it down.

use crate::answer::{Answer, answer};
use crate::watch::{Known, is_ending, name_of};
use futures::{StreamExt, stream};
use hearth_api::Dataset;
use hearth_core::notice::Changed;
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

/// Datasets of which stores have told. Bounded by the Datasets that there are.
pub struct Notices {
    known: Arc<Known>,
    /// Those that are to be written down, by UID; `None` when nobody will any more.
    told: Mutex<Option<HashMap<String, Arc<Dataset>>>>,
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
        let mut concerned = self.known.datasets();
        concerned.retain(|dataset| !is_ending(dataset) && is_concerned(dataset, changes));
        let count = concerned.len();
        let concerned = concerned.into_iter().map(|dataset| (dataset.uid().unwrap_or_default(), dataset));
        self.told.lock().as_mut()?.extend(concerned);
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

    async fn write_all(&self, client: &kube::Client, told: HashMap<String, Arc<Dataset>>) {
        let writes = stream::iter(told).map(|(uid, dataset)| async move {
            if let Err(why) = write(client, &dataset).await {
                tracing::warn!(dataset = %name_of(&dataset), "a store's notice was not written: {why}");
                if let Some(told) = &mut *self.told.lock() {
                    told.entry(uid).or_insert(dataset);
                    self.changed.notify_one();
                }
            }
        });
        writes.buffer_unordered(WRITES).collect::<()>().await;
    }
}

fn is_concerned(dataset: &Dataset, changes: &BTreeSet<Changed>) -> bool {
    changes.iter().any(|changed| dataset.spec.origins.iter().any(|origin| changed.concerns(&origin.uri)))
}

async fn write(client: &kube::Client, dataset: &Dataset) -> Result<(), Answer> {
    let api: Api<Dataset> = Api::namespaced(client.clone(), &dataset.namespace().unwrap_or_default());
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({
        "metadata": {"uid": dataset.uid()},
        "status": {"notifiedAt": MicroTime(Timestamp::now())},
    }));
    match answer(api.patch_status(&dataset.name_any(), &params, &patch)).await {
        // Gone, or made again and so listed anyway.
        Ok(_) | Err(Answer::Code(404 | 409, _)) => Ok(()),
        Err(why) => Err(why),
    }
}
