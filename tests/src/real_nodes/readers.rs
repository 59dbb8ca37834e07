//! Pods that read datasets and say what they saw.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::{PODS, RealCluster, TOOLS, command};
use crate::datasets::USER;
use crate::kube_access::Kube;
use crate::wait::eventually;

/// A digest of all files of the present folder, by name.
const DIGEST: &str = "find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -d' ' -f1";

/// The digest of a folder of this machine; a pod that reads the same files prints the same.
///
/// # Errors
/// When they cannot be read.
pub fn digest(dir: &Path) -> Result<String> {
    let dir = dir.to_str().context("the folder's path is not UTF-8")?;
    Ok(command::run("sh", &["-c", &format!("cd '{dir}' && {DIGEST}")], "")?.trim().to_owned())
}

/// A pod of common tools, with each dataset below `/data`.
#[derive(Debug, Clone)]
pub struct Reader {
    namespace: String,
    pod: Value,
    datasets: Vec<String>,
}

/// A pod that prints the digest of each of its datasets, one a line, and ends.
#[must_use]
pub fn reader(name: &str) -> Reader {
    Reader {
        namespace: USER.to_owned(),
        pod: json!({
            "metadata": {"name": name},
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "main", "image": TOOLS, "command": ["/bin/sh", "-c"], "volumeMounts": [],
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                }],
                "volumes": [],
            },
        }),
        datasets: Vec::new(),
    }
}

impl Reader {
    /// Into another namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// With an inline volume of a dataset at `/data/DATASET`.
    #[must_use]
    pub fn mounts(self, dataset: &str) -> Self {
        self.mounts_with(dataset, &json!({"dataset": dataset}))
    }

    /// With an inline volume at `/data/DATASET` that has these attributes, whatever they say.
    #[must_use]
    pub fn mounts_with(self, dataset: &str, attributes: &Value) -> Self {
        let csi = json!({"driver": "hearth.dev", "readOnly": true, "volumeAttributes": attributes});
        self.volume(dataset, json!({"name": dataset, "csi": csi}))
    }

    /// With the claim `hearth-DATASET` at `/data/DATASET`.
    #[must_use]
    pub fn claims(self, dataset: &str) -> Self {
        let claim = json!({"claimName": format!("hearth-{dataset}"), "readOnly": true});
        self.volume(dataset, json!({"name": dataset, "persistentVolumeClaim": claim}))
    }

    fn volume(mut self, dataset: &str, volume: Value) -> Self {
        let spec = &mut self.pod["spec"];
        if let Some(volumes) = spec["volumes"].as_array_mut() {
            volumes.push(volume);
        }
        if let Some(mounts) = spec["containers"][0]["volumeMounts"].as_array_mut() {
            mounts.push(json!({"name": dataset, "mountPath": format!("/data/{dataset}")}));
        }
        self.datasets.push(dataset.to_owned());
        self
    }

    /// As anybody but root, with a group for its volumes as clusters often demand.
    #[must_use]
    pub fn as_nobody(mut self) -> Self {
        self.pod["spec"]["securityContext"] =
            json!({"runAsUser": 65534, "runAsGroup": 65534, "runAsNonRoot": true, "fsGroup": 2000});
        self
    }

    /// Only for one node.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        self
    }

    /// With this script instead.
    #[must_use]
    pub fn script(mut self, script: &str) -> Self {
        self.pod["spec"]["containers"][0]["args"] = json!([script]);
        self
    }

    /// Reads its datasets again and again until it is deleted, a line each time; ends at the first wrong byte, and is
    /// started again only where its node was.
    #[must_use]
    pub fn for_ever(mut self, digests: &BTreeMap<String, String>) -> Self {
        let mut round = String::new();
        for dataset in &self.datasets {
            let right = digests.get(dataset).map_or("unknown", String::as_str);
            round.push_str(&format!(
                "cd /data/{dataset}; seen=$({DIGEST}); \
                 [ \"$seen\" = {right} ] || {{ echo \"{dataset}: $seen is not {right}\"; exit 1; }}; "
            ));
        }
        self.pod["spec"]["restartPolicy"] = "Always".into();
        self.script(&format!("while :; do {round} echo read; sleep 0.2; done"))
    }

    /// Creates it.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn create(mut self, kube: &Kube) -> Result<Pod> {
        if self.pod["spec"]["containers"][0]["args"].is_null() {
            let each: Vec<String> =
                self.datasets.iter().map(|dataset| format!("cd /data/{dataset} && {DIGEST}")).collect();
            self = self.script(&format!("{{ {}; }} >/dev/termination-log", each.join("; ")));
        }
        kube.create(&self.namespace, self.pod).await
    }
}

impl RealCluster {
    /// Waits until a reader has ended well and returns what it printed, and on which node.
    ///
    /// # Errors
    /// When it does not end, or ends badly.
    pub async fn ended(&self, pod: &str) -> Result<(String, String)> {
        let mut failed = None;
        let seen = eventually(&format!("pod {pod} to end"), PODS, async || {
            let seen = self.kube.api::<Pod>(USER).get(pod).await?;
            let status = seen.status.as_ref().context("no status yet")?;
            match status.phase.as_deref() {
                Some("Succeeded") => Ok(Some(seen)),
                Some("Failed") => {
                    failed = Some(format!("{:?}", status.container_statuses));
                    Ok(None)
                }
                _ => bail!("{:?}; {:?}", status.phase, self.kube.events(USER, pod).await?),
            }
        })
        .await?;
        let seen = seen.with_context(|| format!("pod {pod} failed: {}", failed.unwrap_or_default()))?;
        let statuses = seen.status.and_then(|status| status.container_statuses).unwrap_or_default();
        let message = statuses
            .into_iter()
            .next()
            .and_then(|status| status.state?.terminated?.message)
            .unwrap_or_default();
        let node = seen.spec.and_then(|spec| spec.node_name).unwrap_or_default();
        Ok((message.trim().to_owned(), node))
    }

    /// Waits until a reader that reads for ever has read `more` times from now on, without having been started again.
    ///
    /// # Errors
    /// When it stands still, or read a wrong byte.
    pub async fn goes_on(&self, pod: &Pod, more: usize) -> Result<()> {
        let (name, mut from) = (pod.name_any(), None);
        eventually(&format!("pod {name} to read {more} times more"), PODS, async || {
            let (rounds, starts) = self.rounds(pod).await?;
            let (first, started) = *from.get_or_insert((rounds, starts));
            ensure!(starts == started, "it was started again: {:?}", self.kube.events(USER, &name).await?);
            ensure!(
                rounds >= first + more,
                "{rounds} rounds, {first} before; {:?}",
                self.kube.events(USER, &name).await?
            );
            Ok(())
        })
        .await
    }

    /// How often a reader has read everything since it last started, and how often it was started.
    ///
    /// # Errors
    /// When it is on no node yet.
    pub async fn rounds(&self, pod: &Pod) -> Result<(usize, usize)> {
        let name = pod.name_any();
        let node = self.kube.node_of(USER, &name, Duration::from_secs(1)).await?;
        let node = self.nodes.get(&node).with_context(|| format!("{name} is on {node}"))?;
        let uid = pod.uid().unwrap_or_default();
        let logs = node.disk("/var/log/pods").join(format!("{USER}_{name}_{uid}")).join("main");
        // One file a start, numbered.
        let mut files: Vec<_> = std::fs::read_dir(&logs)
            .with_context(|| format!("{name} has not started"))?
            .flatten()
            .map(|entry| entry.path())
            .collect();
        files.sort();
        let last = files.last().context("it has no log yet")?;
        let text = std::fs::read_to_string(last)?;
        let wrong: Vec<&str> = text.lines().filter(|line| !line.ends_with(" read")).collect();
        ensure!(wrong.is_empty(), "{name} says {wrong:?}");
        Ok((text.lines().count(), files.len()))
    }

    /// Deletes a pod and waits until it and its volumes are gone.
    ///
    /// # Errors
    /// When its node does not let it go in time.
    pub async fn delete(&self, pod: &str) -> Result<()> {
        let pods = self.kube.api::<Pod>(USER);
        pods.delete(pod, &DeleteParams::default()).await?;
        eventually(&format!("pod {pod} to be gone"), PODS, async || match pods.get_opt(pod).await? {
            None => Ok(()),
            Some(seen) => bail!("{:?}", seen.status.and_then(|status| status.phase)),
        })
        .await
    }
}
