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
    /// Those that are to be written down, by UID.
    told: Mutex<HashMap<String, Arc<Dataset>>>,
    changed: Notify,
}

impl Notices {
    /// Nothing has been told.
    pub fn new(known: Arc<Known>) -> Self {
        Self { known, told: Mutex::default(), changed: Notify::new() }
    }

    /// Takes in what has changed; how many Datasets that concerns.
    pub fn take(&self, changes: &BTreeSet<Changed>) -> usize {
        let mut concerned = self.known.datasets();
        concerned.retain(|dataset| !is_ending(dataset) && is_concerned(dataset, changes));
        let count = concerned.len();
        self.told
            .lock()
            .extend(concerned.into_iter().map(|dataset| (dataset.uid().unwrap_or_default(), dataset)));
        self.changed.notify_one();
        count
    }

    /// Writes down what is told until `shutdown`.
    pub async fn run(
        self: Arc<Self>,
        client: kube::Client,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = self.changed.notified() => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            let told = std::mem::take(&mut *self.told.lock());
            let (this, client) = (&self, &client);
            let writes = stream::iter(told).map(|(uid, dataset)| async move {
                if let Err(why) = write(client, &dataset).await {
                    tracing::warn!(dataset = %name_of(&dataset), "a store's notice was not written, and will be: {why}");
                    this.told.lock().entry(uid).or_insert(dataset);
                    this.changed.notify_one();
                }
            });
            writes.buffer_unordered(WRITES).collect::<()>().await;
            tokio::select! {
                () = tokio::time::sleep(GAP) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
        }
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
