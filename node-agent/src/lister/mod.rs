//! Lists origins for the cluster, while this agent holds the Lease for it.
//!
//! Each Dataset is listed when it is new, when its spec changes, when somebody or its store
//! asks for it, and at its interval; several at a time, so that one slow origin delays no other (`slots`). A version
//! is stored, offered to the extenders and only then named in the status, so that
//! whoever reads the name finds the manifest.

mod agenda;
mod changes;
mod file_list;
pub(crate) mod listing;
mod slots;
mod status;
#[cfg(test)]
mod tests;
mod unpack;

use crate::manifests::Manifests;
use crate::metrics::Metrics;
use crate::origin::{OriginError, Origins};
use agenda::{Agenda, Ending, Extent, Name, name_of};
use bytes::Bytes;
use changes::Changes;
use futures::TryStreamExt;
use hearth_api::{Dataset, DatasetStatus};
use hearth_core::manifest::{LONGEST_ENCODING, ManifestHash};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use listing::{Listed, Listing};
use status::Failure;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Name of the Lease that says who lists.
pub const LEASE: &str = "hearth-lister";
const FIELD_MANAGER: &str = "hearth-lister";
/// A listing that takes longer is given up: ten million keys in pages of a thousand
/// take a quarter of an hour.
const PATIENCE: Duration = Duration::from_secs(3600);
const API_PATIENCE: Duration = Duration::from_secs(15);

/// What listing needs. Cheap to clone.
#[derive(Clone)]
pub struct Lister {
    /// The API server.
    pub client: kube::Client,
    /// Where to list.
    pub origins: Arc<Origins>,
    /// Where manifests go.
    pub manifests: Manifests,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Lister {
    /// Lists whenever `leading` until `shutdown`. Fails only when a task panics.
    pub async fn run(
        self,
        mut leading: watch::Receiver<bool>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        loop {
            let leads = *leading.borrow_and_update();
            self.metrics.lister_leading.set(i64::from(leads));
            tokio::select! {
                result = self.lead(), if leads => result?,
                changed = leading.changed() => if changed.is_err() { return Ok(()) },
                () = shutdown.cancelled() => return Ok(()),
            }
        }
    }

    /// Lists for as long as it is polled; what is under way ends with it.
    async fn lead(&self) -> anyhow::Result<()> {
        tracing::info!("this agent lists origins for the cluster");
        let api: Api<Dataset> = Api::all(self.client.clone());
        let events = watcher(api, watcher::Config::default()).default_backoff();
        let mut events = std::pin::pin!(events);
        let mut agenda = Agenda::default();
        let mut tasks: JoinSet<(Name, Ending)> = JoinSet::new();
        loop {
            while let Some((name, dataset, extent)) = agenda.take_due(Instant::now()) {
                let lister = self.clone();
                tasks.spawn(async move {
                    let ending = lister.one(&name, &dataset, extent).await;
                    (name, ending)
                });
            }
            let due = agenda.next_look(Instant::now());
            tokio::select! {
                event = events.try_next() => match event {
                    Ok(Some(event)) => take(&mut agenda, event),
                    Ok(None) => anyhow::bail!("the watch of Datasets ended"),
                    Err(error) => tracing::warn!("Datasets cannot be watched: {error}"),
                },
                Some(ended) = tasks.join_next() => {
                    let (name, ending) = ended?;
                    agenda.ended(&name, ending, Instant::now());
                }
                () = sleep_until(due) => {}
            }
        }
    }

    async fn one(&self, name: &str, dataset: &Dataset, extent: Extent) -> Ending {
        let timer = self.metrics.listing_seconds.start_timer();
        let outcome = match self.unlisted(name, dataset).await {
            false => {
                timer.stop_and_discard();
                return Ending { written: None, succeeded: true, answered: None, listed: None };
            }
            true => {
                tokio::time::timeout(PATIENCE, self.list(name, dataset, extent)).await.unwrap_or_else(|_| {
                    Err(failure(&OriginError::Unavailable(format!(
                        "listing took longer than {} seconds",
                        PATIENCE.as_secs()
                    ))))
                })
            }
        };
        timer.observe_duration();
        let (outcome, encoding, extent) = match outcome {
            Ok((listed, encoding, extent)) => (Ok(listed), Some(encoding), Some(extent)),
            Err(failure) => (Err(failure), None, None),
        };
        let label = match extent {
            Some(Extent::Whole) => "ok",
            Some(Extent::Changes) => "changes",
            None => "failed",
        };
        self.metrics.listings.with_label_values(&[label]).inc();
        if let Err(failure) = &outcome {
            tracing::warn!(dataset = name, "the origin was not listed: {}", failure.message);
        }
        // A refusal is an answer, and says nothing of others at the same place.
        let answered = match &outcome {
            Ok(_) => Some(true),
            Err(failure) => failure.unanswered.then_some(false),
        };
        let status = status::after(dataset, &outcome, Timestamp::now());
        if let (Ok(Listed { hash, .. }), Some(encoding)) = (&outcome, encoding)
            && !status::is_current(dataset, &status)
        {
            let taken = self.manifests.offer(*hash, &encoding).await;
            tracing::info!(dataset = name, manifest = ?hash, taken, "a version was listed");
        }
        let written = match self.write(dataset, status).await {
            Ok(written) => written,
            Err(error) => {
                tracing::warn!(dataset = name, "the status was not written: {error}");
                return Ending { written: None, succeeded: false, answered, listed: None };
            }
        };
        let hash = outcome.ok().map(|listed| listed.hash);
        // Not before it is named: a version that nobody names is to be forgotten.
        if let Some(hash) = hash
            && let Err(error) = self.manifests.adopted(hash, name).await
        {
            tracing::warn!(dataset = name, "the version is not in this node's inventory: {error}");
        }
        Ending { written, succeeded: extent.is_some(), answered, listed: hash.zip(extent) }
    }

    /// Whether a Dataset is to be listed now. One that is never listed again only
    /// needs its manifest to be known here, so that extenders can ask for it.
    async fn unlisted(&self, name: &str, dataset: &Dataset) -> bool {
        if !matches!(dataset.refresh_interval(), Ok(None)) {
            return true;
        }
        let Some(status) = &dataset.status else { return true };
        let hash = status.version.as_ref().and_then(|version| ManifestHash::parse(&version.manifest));
        let is_as_asked = status.observed_generation == dataset.metadata.generation
            && status.observed_refresh == dataset.refresh_request();
        let Some(hash) = hash.filter(|_| is_as_asked) else { return true };
        match self.manifests.adopted(hash, name).await {
            Ok(_) => false,
            Err(error) => {
                tracing::warn!(dataset = name, "its manifest is lost, it is listed again: {error}");
                true
            }
        }
    }

    async fn list(
        &self,
        name: &str,
        dataset: &Dataset,
        extent: Extent,
    ) -> Result<(Listed, Bytes, Extent), Failure> {
        let changes = Changes::of(dataset).filter(|_| extent == Extent::Changes);
        let changed = match changes {
            Some(changes) => self.relist(dataset, changes).await.map_err(|error| failure(&error))?,
            None => None,
        };
        let (listing, extent) = match changed {
            Some(listing) => (listing, Extent::Changes),
            None => {
                let all = listing::list(&self.origins, &self.client, dataset).await;
                (all.map_err(|error| failure(&error))?, Extent::Whole)
            }
        };
        let (listed, encoding) = Listed::of(listing);
        if encoding.len() > LONGEST_ENCODING {
            return Err(Failure {
                reason: "TooManyFiles",
                message: format!(
                    "the list of its {} files takes {} bytes, and at most {LONGEST_ENCODING} are allowed: split the dataset, or narrow spec.files.include",
                    listed.files + listed.unlisted,
                    encoding.len()
                ),
                unanswered: false,
            });
        }
        self.manifests.put(listed.hash, name, encoding.clone()).await.map_err(|error| Failure {
            reason: "StoreFailed",
            message: format!("the node agent that lists cannot keep the manifest: {error}"),
            unanswered: false,
        })?;
        Ok((listed, encoding, extent))
    }

    /// Lists what has changed; `None` when all is to be listed.
    async fn relist(&self, dataset: &Dataset, changes: Changes) -> Result<Option<Listing>, OriginError> {
        match self.manifests.encoding(changes.since).await {
            Ok(Some(before)) => listing::relist(&self.origins, dataset, before, changes).await,
            Ok(None) => Ok(None),
            Err(error) => {
                tracing::warn!(manifest = ?changes.since, "the version before cannot be read, all is listed: {error}");
                Ok(None)
            }
        }
    }

    /// Writes the lister's part of a status, if it is another than before.
    async fn write(&self, dataset: &Dataset, status: DatasetStatus) -> Result<Option<Dataset>, kube::Error> {
        if status::is_current(dataset, &status) {
            return Ok(None);
        }
        let api: Api<Dataset> =
            Api::namespaced(self.client.clone(), &dataset.namespace().unwrap_or_default());
        let patch = serde_json::json!({
            "apiVersion": Dataset::api_version(&()),
            "kind": Dataset::kind(&()),
            // A Dataset made again under the name is another one.
            "metadata": {"name": dataset.name_any(), "uid": dataset.uid()},
            "status": status,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let name = dataset.name_any();
        let patch = Patch::Apply(&patch);
        let patched = api.patch_status(&name, &params, &patch);
        match tokio::time::timeout(API_PATIENCE, patched).await {
            Ok(Ok(mut written)) => {
                written.metadata.managed_fields = None;
                Ok(Some(written))
            }
            // Deleted meanwhile: nobody is left to tell.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(kube::Error::Service("the API server did not answer in time".into())),
        }
    }
}

fn take(agenda: &mut Agenda, event: Event<Dataset>) {
    let bare = |mut dataset: Dataset| {
        // The larger half of it, and of no use here.
        dataset.metadata.managed_fields = None;
        dataset
    };
    match event {
        Event::Init => agenda.begin(),
        Event::InitApply(dataset) => agenda.listed(bare(dataset)),
        Event::InitDone => agenda.end(Instant::now()),
        Event::Apply(dataset) => agenda.applied(bare(dataset), Instant::now()),
        Event::Delete(dataset) => {
            tracing::info!(dataset = name_of(&dataset), "deleted");
            agenda.deleted(&dataset);
        }
    }
}

fn failure(error: &OriginError) -> Failure {
    let unanswered = matches!(error, OriginError::Unavailable(_));
    Failure { reason: error.reason(), message: error.to_string(), unanswered }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
