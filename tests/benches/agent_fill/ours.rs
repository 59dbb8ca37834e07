//! The agent's fill into its store, started by a want as an extender sends it. Only
//! the API server is not real: one Dataset is all that is asked of it.

use crate::job::{CONCURRENCY, Job, Measured, Stopwatch};
use anyhow::Context;
use hearth_api::Dataset;
use hearth_core::manifest::{ListedObject, ManifestBuilder, ManifestHash, SkipReason};
use hearth_core::object::Validator;
use hearth_core::wire::report::{POD_PRIORITY, Want};
use hearth_node_agent::accounts::Accounts;
use hearth_node_agent::blocks::Blocks;
use hearth_node_agent::config::OriginConfig;
use hearth_node_agent::credentials::Secrets;
use hearth_node_agent::datasets::Datasets;
use hearth_node_agent::fill::{Demands, Fill, FillParts};
use hearth_node_agent::manifests::Manifests;
use hearth_node_agent::metrics::Metrics;
use hearth_node_agent::origin::{Address, Allowed, OriginError, Origins, Sink};
use hearth_node_agent::store::{Store, StoreConfig};
use hearth_tests::s3::{ACCESS_KEY, REGION, SECRET_KEY};
use kube::client::Body;
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "bench";
const SECRET: &str = "s3";
/// Longest time for a turn.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) async fn fetch(job: &Job) -> anyhow::Result<Measured> {
    let dataset = dataset(job)?;
    let metrics = Arc::new(Metrics::new()?);
    let config = OriginConfig { concurrency: CONCURRENCY, ..OriginConfig::default() };
    let origins =
        Arc::new(Origins::new(&config, Allowed::default(), secrets(), Accounts::none(), metrics.clone())?);
    let manifest = list(&origins, &dataset).await?;
    let encoding = manifest.encode();
    let hash = ManifestHash::of(&encoding);
    let blocks = u64::from(manifest.blocks());

    let store = Store::open(&StoreConfig::at(&job.directory))?;
    store.put_manifest(hash, &format!("{NAMESPACE}/{}", job.folder), &encoding)?;
    let parts = FillParts {
        store: store.clone(),
        datasets: Datasets::new(api_server(&dataset)?),
        manifests: Manifests::new(store.clone(), watch::channel(Vec::new()).1),
        origins,
        metrics,
        demands: Demands::default(),
        blocks: Arc::new(Blocks::new(store.clone())),
        room: Arc::new(store.home().clone()),
    };
    let (fill, status) = Fill::new(&config, parts);
    let (wants, receiver) = watch::channel(Vec::new());
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(fill.run(receiver, shutdown.clone()));

    let stopwatch = Stopwatch::start()?;
    wants.send_replace(vec![Want {
        namespace: NAMESPACE.to_owned(),
        dataset: job.folder.clone(),
        uid: "uid".to_owned(),
        generation: 1,
        manifest: hash,
        globs: Vec::new(),
        priority: POD_PRIORITY,
    }]);
    let all_held = async {
        let (_, news) = store.subscribe();
        while store.held(&hash).is_none_or(|held| held.len() < blocks) {
            news.changed().await;
            news.take_changes();
        }
    };
    tokio::time::timeout(PATIENCE, all_held)
        .await
        .with_context(|| format!("not in time: {:?}", status.borrow().troubles))?;
    let measured = stopwatch.stop()?;
    shutdown.cancel();
    task.await??;
    Ok(measured)
}

fn dataset(job: &Job) -> anyhow::Result<Dataset> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "hearth.dev/v1alpha1", "kind": "Dataset",
        "metadata": {"namespace": NAMESPACE, "name": job.folder, "uid": "uid", "generation": 1},
        "spec": {"refresh": "10m", "origins": [{
            "uri": format!("s3://{}/{}", job.bucket, job.folder), "secretRef": {"name": SECRET},
            "options": {"endpoint": job.endpoint, "region": REGION},
        }]},
    }))?)
}

fn secrets() -> Secrets {
    Secrets::new(|_, _| {
        let values = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];
        let values = values.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()));
        Box::pin(std::future::ready(Ok(values.into())))
    })
}

/// An API server that answers everything with the Dataset.
fn api_server(dataset: &Dataset) -> anyhow::Result<kube::Client> {
    let text = serde_json::to_vec(dataset)?;
    let service = tower::service_fn(move |_: axum::http::Request<Body>| {
        let text = text.clone();
        async move { Ok::<_, Infallible>(axum::http::Response::new(Body::from(text))) }
    });
    Ok(kube::Client::new(service, NAMESPACE))
}

async fn list(origins: &Origins, dataset: &Dataset) -> anyhow::Result<hearth_core::manifest::Manifest> {
    let [spec] = dataset.spec.origins.as_slice() else { anyhow::bail!("one origin is meant") };
    let mut taker = Taker(ManifestBuilder::new(vec![Address::listed(NAMESPACE, spec)?]));
    origins.open(NAMESPACE, spec).await?.list(&mut taker).await?;
    Ok(taker.0.finish()?.0)
}

struct Taker(ManifestBuilder);

impl Sink for Taker {
    fn object(
        &mut self,
        path: &str,
        size: u64,
        modified: i64,
        validator: Validator,
    ) -> Result<(), OriginError> {
        let path = path.to_owned();
        self.0.push(ListedObject { origin: 0, path, size, modified, validator, unlisted: false });
        Ok(())
    }

    fn skip(&mut self, key: &str, reason: SkipReason) {
        self.0.skip(key, reason);
    }
}
