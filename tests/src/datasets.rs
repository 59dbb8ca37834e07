//! Datasets, credentials and warmth, as a user of the cluster makes and sees them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::pods::pod;
use crate::s3::{ACCESS_KEY, Bucket, REGION, SECRET_KEY};
use crate::wait::eventually;
use crate::workload::overlay;

/// The namespace of the tests' datasets and pods.
pub const USER: &str = "default";

/// Longest time for an agent to list or fetch what a test uses, on a busy machine.
pub const FETCH: Duration = Duration::from_secs(60);

/// What the extender says about a pod.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Bytes that the pod asks for.
    pub requested_bytes: u64,
    /// Warm nodes, warmest first.
    pub nodes: Vec<Row>,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
}

/// One node's warmth for a pod.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The node.
    pub node: String,
    /// Percent of the bytes asked for that it holds.
    pub percent: u8,
    /// Bytes that it holds.
    pub held_bytes: u64,
}

impl Explanation {
    /// Percent of the bytes asked for that a node holds.
    #[must_use]
    pub fn percent(&self, node: &str) -> u8 {
        self.nodes.iter().find(|r| r.node == node).map_or(0, |r| r.percent)
    }

    /// Bytes asked for that a node holds.
    #[must_use]
    pub fn held(&self, node: &str) -> u64 {
        self.nodes.iter().find(|r| r.node == node).map_or(0, |r| r.held_bytes)
    }
}

impl Cluster {
    /// Makes a dataset of a folder in a bucket, with credentials in a Secret that the agents are granted, and waits until it is listed.
    ///
    /// # Errors
    /// When it is refused or not listed.
    pub async fn s3_dataset(&self, name: &str, bucket: &Bucket, folder: &str) -> Result<Value> {
        self.s3_dataset_with(name, bucket, folder, json!({})).await
    }

    /// Likewise, with more in its `spec`.
    ///
    /// # Errors
    /// When it is refused or not listed.
    pub async fn s3_dataset_with(
        &self,
        name: &str,
        bucket: &Bucket,
        folder: &str,
        spec: Value,
    ) -> Result<Value> {
        self.kube.apply(&credentials()).await?;
        let mut all = json!({
            "origins": [origin(bucket, folder, self.s3.proxy.endpoint())],
        });
        overlay(&mut all, &spec);
        self.dataset(name, all).await?;
        self.listed(name).await
    }

    /// Likewise, from another address of the origin than the proxy's.
    ///
    /// # Errors
    /// When it is refused or not listed.
    pub async fn s3_dataset_at(
        &self,
        name: &str,
        bucket: &Bucket,
        folder: &str,
        endpoint: String,
    ) -> Result<Value> {
        self.kube.apply(&credentials()).await?;
        self.dataset(name, json!({"origins": [origin(bucket, folder, endpoint)]})).await?;
        self.listed(name).await
    }

    /// Makes a dataset of a local folder and waits until it is listed.
    ///
    /// # Errors
    /// When it is refused or not listed.
    pub async fn file_dataset(&self, name: &str, dir: &Path) -> Result<Value> {
        self.dataset(name, json!({"origins": [{"uri": format!("file://{}", dir.display())}]})).await?;
        self.listed(name).await
    }

    /// Applies a dataset as it is written.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn dataset(&self, name: &str, spec: Value) -> Result<()> {
        let dataset = json!({
            "apiVersion": "hearth.dev/v1alpha1", "kind": "Dataset",
            "metadata": {"name": name, "namespace": USER},
            "spec": spec,
        });
        self.kube.apply(&dataset.to_string()).await
    }

    /// A dataset `images` of eight files of 1 MiB, half of which a pod has had fetched to `node-1`; the origin
    /// answers no more GETs until they are released.
    ///
    /// # Errors
    /// When it does not come so far in time.
    pub async fn images_half_fetched(&self) -> Result<()> {
        let bucket = self.s3.bucket("data")?;
        for i in 0..8 {
            bucket.put(&format!("images/{i}.bin"), vec![i; 1 << 20]).await?;
        }
        self.s3_dataset("images", &bucket, "images").await?;
        self.s3.proxy.hold_gets_after(4);
        self.place("trainer", "images").await?;
        self.warm("images", "node-1", 50).await?;
        Ok(())
    }

    /// Waits until a dataset's present generation is listed and returns its status.
    ///
    /// # Errors
    /// When it is not listed in time; the message has its conditions.
    pub async fn listed(&self, name: &str) -> Result<Value> {
        self.condition("dataset", name, "Listed", "True").await
    }

    /// Waits for a condition of one of Hearth's resources and returns the whole status.
    ///
    /// # Errors
    /// When it does not come in time; the message has the conditions that are there.
    pub async fn condition(&self, kind: &str, name: &str, condition: &str, status: &str) -> Result<Value> {
        eventually(&format!("{kind} {name} to have {condition}={status}"), FETCH, async || {
            let seen = self.resource(kind, name).await?;
            let conditions = seen["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let generation = &seen["metadata"]["generation"];
            let met = conditions.iter().any(|c| {
                c["type"] == condition && c["status"] == status && c["observedGeneration"] == *generation
            });
            if met { Ok(seen["status"].clone()) } else { bail!("{}", seen["status"]) }
        })
        .await
    }

    /// One of Hearth's resources as kubectl shows it.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn resource(&self, kind: &str, name: &str) -> Result<Value> {
        let kind = format!("{kind}s.hearth.dev");
        let text = self.kube.kubectl(&["get", &kind, name, "-n", USER, "-o", "json"], "").await?;
        serde_json::from_str(&text).context("kubectl printed no JSON")
    }

    /// Asks the first extender where a pod with these datasets would go.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn explain(&self, datasets: &str) -> Result<Explanation> {
        self.extenders.first().context("no extender runs")?.explain(datasets).await
    }

    /// Waits until `node` holds at least `percent` of what a pod with these datasets asks for.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn warm(&self, datasets: &str, node: &str, percent: u8) -> Result<()> {
        eventually(&format!("{node} to hold {percent} % of {datasets}"), FETCH, async || {
            let seen = self.explain(datasets).await?;
            if seen.requested_bytes == 0 || seen.percent(node) < percent {
                bail!("{seen:?}");
            }
            Ok(())
        })
        .await
    }

    /// Makes a node warm as ordinary use does: a pod that asks for the data is put there, and ends when it has it.
    ///
    /// # Errors
    /// When the node does not get warm in time.
    pub async fn warm_up(&self, datasets: &str, node: &str) -> Result<()> {
        let what: String = datasets.chars().filter(char::is_ascii_alphanumeric).collect();
        let name = format!("warms-{node}-{what}").to_lowercase();
        pod(&name).datasets(datasets).on_node(node).create(&self.kube).await?;
        self.warm(datasets, node, 100).await?;
        self.kube.delete_pod(USER, &name).await
    }

    /// Makes a warm-up of a dataset; `spec` says what and where.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn warmup(&self, name: &str, dataset: &str, spec: Value) -> Result<()> {
        let mut all = json!({"dataset": {"name": dataset}});
        overlay(&mut all, &spec);
        let warmup = json!({
            "apiVersion": "hearth.dev/v1alpha1", "kind": "Warmup",
            "metadata": {"name": name, "namespace": USER},
            "spec": all,
        });
        self.kube.apply(&warmup.to_string()).await
    }

    /// Waits until every replica explains a pod with these datasets alike.
    ///
    /// # Errors
    /// When they still differ after a while.
    pub async fn all_replicas_agree(&self, datasets: &str) -> Result<()> {
        eventually("all replicas to explain alike", FETCH, async || {
            let mut said = Vec::new();
            for extender in &self.extenders {
                said.push(extender.explain(datasets).await?);
            }
            ensure!(said.windows(2).all(|pair| pair[0] == pair[1]), "{said:?}");
            Ok(())
        })
        .await
    }

    /// Creates a pod that asks for these datasets and returns the node that the scheduler puts it on.
    ///
    /// # Errors
    /// When it is put nowhere in time.
    pub async fn place(&self, name: &str, datasets: &str) -> Result<String> {
        pod(name).datasets(datasets).create(&self.kube).await?;
        self.kube.node_of(USER, name, crate::kube_access::PATIENCE).await
    }
}

/// A pod in the shape in which kube-scheduler sends it, for calls that need no pod in the cluster.
///
/// # Errors
/// Never with a valid string.
pub fn imagined(datasets: &str) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": "imagined", "namespace": USER, "uid": "imagined",
            "annotations": {"hearth.dev/datasets": datasets}},
        "spec": {"containers": [{"name": "main", "image": "none"}]},
    }))?)
}

/// An origin as a Dataset names it, with the credentials of [`credentials`].
pub fn origin(bucket: &Bucket, folder: &str, endpoint: impl Into<Value>) -> Value {
    json!({
        "uri": bucket.uri(folder),
        "secretRef": {"name": "s3-credentials"},
        "options": {"endpoint": endpoint.into(), "region": REGION},
    })
}

/// The Secret for the S3 server, and the grant to the agents to read it.
#[must_use]
pub fn credentials() -> String {
    secret("s3-credentials", &json!({"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}))
}

/// A Secret, and the grant to the agents to read Secrets.
#[must_use]
pub fn secret(name: &str, values: &Value) -> String {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name, "namespace": USER},
        "stringData": values,
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "hearth-reads-secrets", "namespace": USER},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "hearth-secret-reader"},
        "subjects": [{"kind": "ServiceAccount", "name": crate::agent::ACCOUNT, "namespace": crate::workload::NAMESPACE}],
    });
    format!("{secret}\n---\n{binding}\n")
}
