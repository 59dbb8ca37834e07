//! Deleted Datasets stay until no node holds their bytes, and say how far that is.
//!
//! A finalizer keeps them, which is put on every Dataset and taken off by this alone. So it
//! is also taken off when Hearth itself is uninstalled, which its namespace tells before
//! anything else goes: nobody would be left to do it.

use super::dataset_status::{Numbers, Part};
use super::pauses::Pauses;
use super::{Duties, SETTLED_AFTER, apply_status};
use crate::answer::{Answer, answer};
use crate::watch::{is_ending, name_of};
use futures::{StreamExt, TryStreamExt};
use hearth_api::{CACHED_DATA, ConditionStatus, Dataset};
use hearth_core::removal::{Removal, Step};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Who puts the finalizer on and takes it off, in managedFields: not the one of the status,
/// whose parts are applied.
const FIELD_MANAGER: &str = "hearth-extender-removal";
/// Shortest time between two looks.
const GAP: Duration = Duration::from_millis(100);
/// How often Datasets that are being deleted are looked at when none changes: nodes let go.
const EVERY: Duration = Duration::from_secs(1);
/// Writes at one time. When Hearth is uninstalled its rights go soon after its namespace.
const WRITES: usize = 32;

/// The Datasets that are being deleted, by UID, for as long as this replica leads.
#[derive(Default)]
struct Watched {
    removals: HashMap<String, (Removal, Instant)>,
    /// Of those that could not be let go.
    pauses: Pauses,
}

impl Duties {
    pub(super) async fn removals(&self) {
        // To a leader that does not know all Datasets yet, what they share would seem nobody's.
        self.synced().await;
        let (tell, leaving) = watch::channel(false);
        tokio::join!(self.watch_own_namespace(tell), self.remove_deleted(leaving));
    }

    /// Tells when Hearth's own namespace is being deleted.
    async fn watch_own_namespace(&self, leaving: watch::Sender<bool>) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let seen = watcher::watch_object(namespaces, &self.namespace).default_backoff();
        let mut seen = std::pin::pin!(seen);
        loop {
            match seen.try_next().await {
                Ok(Some(namespace)) => {
                    let is_leaving =
                        namespace.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some());
                    leaving.send_if_modified(|before| std::mem::replace(before, is_leaving) != is_leaving);
                }
                Ok(None) => return std::future::pending().await,
                Err(error) => tracing::debug!("the namespace {} cannot be seen: {error}", self.namespace),
            }
        }
    }

    async fn remove_deleted(&self, mut leaving: watch::Receiver<bool>) {
        let mut changes = self.known.dataset_changes();
        let (mut unguarded, mut watched) = (Pauses::default(), Watched::default());
        loop {
            changes.mark_unchanged();
            if *leaving.borrow_and_update() {
                self.let_all_go().await;
            } else {
                // Side by side: what answers slowly delays its own kind only.
                let looks = async {
                    tokio::join!(self.guard_new(&mut unguarded), self.look_at_removals(&mut watched));
                };
                tokio::select! {
                    () = looks => {}
                    _ = leaving.changed() => leaving.mark_changed(),
                }
            }
            tokio::time::sleep(GAP).await;
            tokio::select! {
                _ = changes.changed() => {}
                _ = leaving.changed() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// Hearth is being uninstalled.
    async fn let_all_go(&self) {
        let mut datasets = self.known.datasets();
        datasets.retain(|dataset| is_guarded(dataset));
        if !datasets.is_empty() {
            tracing::info!(
                datasets = datasets.len(),
                "Hearth is being uninstalled: no Dataset waits for it any more"
            );
        }
        self.guard(datasets, false).await;
    }

    /// Guards the Datasets that are new.
    async fn guard_new(&self, pauses: &mut Pauses) {
        let mut datasets = self.known.datasets();
        datasets.retain(|dataset| !is_ending(dataset) && !is_guarded(dataset));
        let uids: HashSet<String> = datasets.iter().map(|dataset| uid_of(dataset).to_owned()).collect();
        pauses.keep(|uid| uids.contains(uid));
        datasets.retain(|dataset| pauses.allow(uid_of(dataset), Instant::now()));
        for (dataset, written) in self.guard(datasets, true).await {
            pauses.tried(uid_of(&dataset), written, Instant::now());
        }
    }

    async fn look_at_removals(&self, watched: &mut Watched) {
        // To an extender that has just started nobody seems to hold anything.
        if self.state.readiness(SETTLED_AFTER).is_err() {
            return;
        }
        let now = self.state.now().monotonic;
        let agents: Vec<String> = self.state.agents(|agents| agents.nodes.iter().cloned().collect());
        let holders = self.state.read(|index| index.holders(now, agents.iter().map(String::as_str)));
        let Watched { removals, pauses } = watched;
        let mut before = std::mem::take(removals);
        let mut steps = Vec::new();
        let is_removed = |dataset: &Arc<Dataset>| is_ending(dataset) && is_guarded(dataset);
        for dataset in self.known.datasets().into_iter().filter(is_removed) {
            let uid = uid_of(&dataset).to_owned();
            let (mut removal, since) = before.remove(&uid).unwrap_or((Removal::default(), Instant::now()));
            // Nodes are not told before somebody leads.
            let waited = waited(&dataset, Timestamp::now()).min(since.elapsed());
            // None before the index knows that it is being deleted.
            if let Some(holders) = holders.get(&name_of(&dataset)) {
                steps.push((dataset, removal.next(holders, waited, self.removal_patience)));
            }
            removals.insert(uid, (removal, since));
        }
        pauses.keep(|uid| removals.contains_key(uid));
        steps.retain(|(dataset, step)| {
            matches!(step, Step::Wait(_)) || pauses.allow(uid_of(dataset), Instant::now())
        });
        let steps = futures::stream::iter(steps).map(|(dataset, step)| async move {
            let lets_go = !matches!(step, Step::Wait(_));
            let taken = self.take(&dataset, step).await.inspect_err(|why| {
                tracing::warn!(dataset = %name_of(&dataset), "its removal cannot go on yet: {why}");
            });
            (dataset, lets_go, taken.is_ok())
        });
        for (dataset, lets_go, taken) in steps.buffer_unordered(WRITES).collect::<Vec<_>>().await {
            // What it says meanwhile delays nothing.
            if lets_go {
                pauses.tried(uid_of(&dataset), taken, Instant::now());
            }
        }
    }

    async fn take(&self, dataset: &Dataset, step: Step) -> Result<(), String> {
        let outcome = match &step {
            Step::Wait(message) => return self.say(dataset, message.clone()).await,
            Step::Done(_) => "done",
            Step::GiveUp(_) => "given-up",
        };
        if !self.write_guard(dataset, false).await? {
            return Ok(());
        }
        let (name, uid) = (name_of(dataset), dataset.uid().unwrap_or_default());
        match step {
            Step::Done(Some(by)) => self.recorder.still_read(&name, &uid, by),
            Step::GiveUp(left) => {
                tracing::warn!(dataset = %name, "it is deleted, and its bytes are not all gone: {left}");
                self.recorder.left(&name, &uid, left);
            }
            Step::Wait(_) | Step::Done(None) => {}
        }
        self.state.metrics.removals.with_label_values(&[outcome]).inc();
        tracing::info!(dataset = %name, outcome, "let go after it was deleted");
        Ok(())
    }

    async fn say(&self, dataset: &Dataset, message: String) -> Result<(), String> {
        let condition = (ConditionStatus::False, "Deleting", message);
        let Some(part) = Part::with(dataset, Numbers::default(), condition, Timestamp::now()) else {
            return Ok(());
        };
        apply_status(&self.api_of(dataset), &dataset.name_any(), &part).await
    }

    /// Puts the finalizer on this very state of a Dataset, or takes it off; whether it was
    /// still in this state.
    async fn write_guard(&self, dataset: &Dataset, guarded: bool) -> Result<bool, String> {
        let api = self.api_of(dataset);
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(patch(dataset, guarded));
        match answer(api.patch(&dataset.name_any(), &params, &patch)).await {
            Ok(_) => Ok(true),
            // Gone, or changed: its watch tells of it in a moment.
            Err(Answer::Code(404 | 409, _)) => Ok(false),
            Err(answer) => Err(answer.to_string()),
        }
    }

    /// Writes the finalizer of each; which of them could be written, or had changed meanwhile.
    async fn guard(&self, datasets: Vec<Arc<Dataset>>, guarded: bool) -> Vec<(Arc<Dataset>, bool)> {
        let writes = futures::stream::iter(datasets).map(|dataset| async move {
            let written = self.write_guard(&dataset, guarded).await.inspect_err(|why| {
                tracing::warn!(dataset = %name_of(&dataset), guarded, "its finalizer was not written: {why}");
            });
            (dataset, written.is_ok())
        });
        writes.buffer_unordered(WRITES).collect().await
    }
}

fn uid_of(dataset: &Dataset) -> &str {
    dataset.metadata.uid.as_deref().unwrap_or_default()
}

fn is_guarded(dataset: &Dataset) -> bool {
    dataset.finalizers().iter().any(|finalizer| finalizer == CACHED_DATA)
}

/// How long ago its end was asked for.
fn waited(dataset: &Dataset, now: Timestamp) -> Duration {
    let asked = dataset.metadata.deletion_timestamp.as_ref();
    asked.and_then(|asked| Duration::try_from(now.duration_since(asked.0)).ok()).unwrap_or_default()
}

/// The merge patch that makes these the finalizers of this very state of a Dataset.
fn patch(dataset: &Dataset, guarded: bool) -> serde_json::Value {
    let others = dataset.finalizers().iter().filter(|finalizer| *finalizer != CACHED_DATA).cloned();
    let finalizers: Vec<String> = others.chain(guarded.then(|| CACHED_DATA.to_owned())).collect();
    json!({"metadata": {
        "uid": dataset.uid(),
        "resourceVersion": dataset.resource_version(),
        "finalizers": finalizers,
    }})
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn dataset(finalizers: &[&str]) -> Dataset {
        serde_json::from_value(json!({
            "apiVersion": "hearth.dev/v1alpha1", "kind": "Dataset",
            "metadata": {"name": "d", "namespace": "n", "uid": "u", "resourceVersion": "7", "finalizers": finalizers},
            "spec": {"origins": [{"uri": "s3://bucket"}]},
        }))
        .unwrap()
    }

    #[test]
    fn the_finalizers_of_others_stay() {
        let finalizers = |before: &[&str], guarded| {
            let patch = patch(&dataset(before), guarded);
            assert_eq!(
                (&patch["metadata"]["uid"], &patch["metadata"]["resourceVersion"]),
                (&json!("u"), &json!("7"))
            );
            patch["metadata"]["finalizers"].clone()
        };
        assert_eq!(finalizers(&[], true), json!([CACHED_DATA]));
        assert_eq!(finalizers(&["x/y"], true), json!(["x/y", CACHED_DATA]));
        assert_eq!(finalizers(&[CACHED_DATA, "x/y"], true), json!(["x/y", CACHED_DATA]));
        assert_eq!(finalizers(&[CACHED_DATA, "x/y"], false), json!(["x/y"]));
        assert_eq!(finalizers(&[CACHED_DATA], false), json!([]));
        assert!(is_guarded(&dataset(&["x/y", CACHED_DATA])) && !is_guarded(&dataset(&["x/y"])));
    }

    #[test]
    fn it_is_waited_from_when_the_end_was_asked_for_also_by_a_clock_that_is_behind() {
        let mut dataset = dataset(&[]);
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(waited(&dataset, at(100)), Duration::ZERO);
        dataset.metadata.deletion_timestamp = Some(Time(at(90)));
        assert_eq!(waited(&dataset, at(100)), Duration::from_secs(10));
        assert_eq!(waited(&dataset, at(80)), Duration::ZERO);
    }
}
