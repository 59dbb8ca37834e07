//! What only one replica does: it writes statuses, holds versions, keeps the datasets'
//! claims, makes Warmups by schedule, lets datasets go when they are deleted, and nudges
//! kube-scheduler.

mod claims;
mod cron;
mod dataset_status;
mod eviction_status;
mod holds;
mod nudge;
mod pauses;
mod removal;
#[cfg(test)]
mod testing;
mod warmup_status;

use crate::answer::{Answer, answer};
use crate::events::Recorder;
use crate::state::State;
use crate::watch::Known;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, ResourceExt};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Who writes, in managedFields.
const FIELD_MANAGER: &str = "hearth-extender";
/// So long after the start, statuses are written whoever is silent.
const SETTLED_AFTER: Duration = Duration::from_secs(15);
/// How often a leader that has just started looks whether the agents have reported, and
/// whether it knows what the API server has.
const SETTLING: Duration = Duration::from_millis(200);

/// The leader's duties and what they live by.
pub struct Duties {
    /// The API server.
    pub client: kube::Client,
    /// Namespace that Hearth is installed in.
    pub namespace: String,
    /// The shared state.
    pub state: Arc<State>,
    /// The objects whose status is written, and whose claims are kept.
    pub known: Arc<Known>,
    /// What is told of claims and of removals.
    pub recorder: Recorder,
    /// Longest time that nodes are waited for when a Dataset is deleted.
    pub removal_patience: Duration,
}

impl Duties {
    /// Does them whenever this replica leads, until `shutdown`.
    pub async fn run(
        self,
        mut leads: watch::Receiver<bool>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        loop {
            if *leads.borrow_and_update() {
                // Dropping them is safe at any point: each write stands for itself.
                tokio::select! {
                    () = self.nudge() => {}
                    () = self.statuses() => {}
                    () = self.holds() => {}
                    () = self.claims() => {}
                    () = self.cron_warmups() => {}
                    () = self.removals() => {}
                    changed = leads.changed() => changed?,
                    () = shutdown.cancelled() => return Ok(()),
                }
            } else {
                tokio::select! {
                    changed = leads.changed() => changed?,
                    () = shutdown.cancelled() => return Ok(()),
                }
            }
        }
    }
}

impl Duties {
    async fn statuses(&self) {
        self.settled().await;
        tokio::join!(self.dataset_statuses(), self.warmup_statuses(), self.eviction_statuses());
    }

    /// Waits until the agents have reported: to an extender that has just started everything
    /// would seem cold, and a warm-up that is complete to begin again.
    async fn settled(&self) {
        while self.state.readiness(SETTLED_AFTER).is_err() {
            tokio::time::sleep(SETTLING).await;
        }
    }

    /// Where an object like this one is written.
    fn api_of<K>(&self, seen: &K) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &seen.namespace().unwrap_or_default())
    }

    /// Waits until all that is watched has been seen once.
    async fn synced(&self) {
        while !self.state.agents(|agents| agents.synced) {
            tokio::time::sleep(SETTLING).await;
        }
    }
}

/// Whether so many seconds have passed since then; not without either.
fn is_over(since: Option<&Time>, seconds: Option<i64>, now: Timestamp) -> bool {
    since.zip(seconds).is_some_and(|(since, seconds)| now.duration_since(since.0).as_secs() >= seconds)
}

/// Deletes the very object that was seen, and no other of its name.
async fn delete_seen<K>(api: &kube::Api<K>, seen: &K) -> Result<(), Answer>
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let preconditions = Preconditions { uid: seen.uid(), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match answer(api.delete(&seen.name_any(), &params)).await {
        // Or somebody else did, or made another one.
        Ok(_) | Err(Answer::Code(404 | 409, _)) => Ok(()),
        Err(why) => Err(why),
    }
}

/// Deletes what has ended and is not to be there any longer.
async fn delete_ended<K>(api: &kube::Api<K>, ended: &K)
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let (kind, name) = (K::kind(&()), ended.name_any());
    match delete_seen(api, ended).await {
        Ok(()) => tracing::info!(%kind, name, "deleted: its time after its end has passed"),
        Err(why) => tracing::warn!(%kind, name, "it was not deleted after its end: {why}"),
    }
}

/// Applies a status with our field manager and gives a sentence when that fails.
async fn apply_status<K>(api: &kube::Api<K>, name: &str, status: &impl Serialize) -> Result<(), String>
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let object = serde_json::json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": name},
        "status": status,
    });
    let params = kube::api::PatchParams::apply(FIELD_MANAGER).force();
    let patch = kube::api::Patch::Apply(&object);
    match answer(api.patch_status(name, &params, &patch)).await {
        Ok(_) | Err(Answer::Code(404, _)) => Ok(()),
        Err(answer) => Err(answer.to_string()),
    }
}
