//! A cluster of real nodes on this machine: containerd and kubelet in namespaces, Hearth's programs in pods, installed
//! from `manifests/` as it is shipped, and pods that read their data.
//!
//! The control plane's node shares the network of kube-scheduler, as on any cluster made by kubeadm, so the extender's
//! DaemonSet is where the shipped scheduler configuration looks for it.

mod apart;
mod cgroups;
mod command;
mod images;
mod names;
mod network;
mod node;
mod readers;
mod settings;

pub use images::TOOLS;
pub use node::Node;
pub use readers::{Reader, digest, reader};

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Node as ApiNode, Pod};
use k8s_openapi::api::storage::v1::CSINode;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cache;
use crate::cluster::wait_for_policy;
use crate::control_plane::{ControlPlane, Reach};
use crate::datasets::{self, FETCH};
use crate::kube_access::Kube;
use crate::report;
use crate::s3::{Bucket, S3};
use crate::wait::eventually;
use crate::workload::NAMESPACE;
use names::Names;
use network::HOST;
use node::Place;

/// Where Debian's containernetworking-plugins are.
const CNI: &str = "/usr/lib/cni";

const CONTROL_PLANE_ROLE: &str = "node-role.kubernetes.io/control-plane";

/// Long enough for pods to start on a machine whose two cores run five nodes' worth of programs.
pub const PODS: Duration = Duration::from_secs(120);

/// The running cluster. It ends with the process.
#[derive(Debug)]
pub struct RealCluster {
    /// Access as cluster admin.
    pub kube: Kube,
    /// The origin.
    pub s3: S3,
    /// The nodes, by name: `control-plane` and `node-1` to `node-3`.
    pub nodes: BTreeMap<String, Node>,
    plane: ControlPlane,
    _names: Names,
    dir: PathBuf,
}

impl RealCluster {
    /// The control plane, with no nodes yet.
    async fn start(dir: &Path) -> Result<Self> {
        network::host()?;
        let plane = ControlPlane::start_for(dir, Reach::Nodes(HOST)).await?;
        let kube = plane.admin.clone();
        let names = Names::start(HOST, kube.clone()).await?;
        let s3 = S3::start_at(HOST, &dir.join("s3"), &plane.logs()).await?;
        Ok(Self { kube, s3, nodes: BTreeMap::new(), plane, _names: names, dir: dir.to_owned() })
    }

    /// Nodes, with the control plane's as number 0, and Hearth on them.
    async fn install(&mut self, workers: u8) -> Result<()> {
        let images = self.dir.join("images");
        let images = tokio::task::spawn_blocking(move || images::build(&images)).await??;
        let place =
            Place { dir: &self.dir, logs: &self.plane.logs(), ca: self.plane.pki.ca(), images: &images };
        for index in 0..=workers {
            let name = if index == 0 { "control-plane".to_owned() } else { format!("node-{index}") };
            let user = format!("system:node:{name}");
            let kubeconfig = self.plane.pki.kubeconfig(&self.plane.server, &user, Some("system:nodes"))?;
            self.nodes.insert(name.clone(), Node::prepare(&place, index, &name, kubeconfig)?);
        }
        try_join_all(self.nodes.values_mut().map(Node::power_on)).await?;
        for name in self.nodes.keys() {
            wait_for_node(&self.kube, name).await?;
        }
        // A kubelet may not give itself a role.
        let role = Patch::Merge(json!({"metadata": {"labels": {CONTROL_PLANE_ROLE: ""}}}));
        self.kube.all::<ApiNode>().patch("control-plane", &PatchParams::default(), &role).await?;

        let shipped = cache::workspace();
        self.kube.apply_kustomization(&shipped.join("manifests/overlays/control-plane")).await?;
        self.plane.start_scheduler(Some(&shipped.join("scheduler-config/kube-scheduler.yaml"))).await?;
        self.kube.wait_for_default_account(datasets::USER).await?;
        wait_for_policy(&self.kube).await?;
        for index in 1..=workers {
            self.driver_on(&format!("node-{index}")).await?;
        }
        self.rolled_out("hearth-extender").await?;
        self.rolled_out("hearth-keeper").await?;
        self.rolled_out("hearth-node-agent").await
    }

    /// A node.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn node(&mut self, name: &str) -> Result<&mut Node> {
        self.nodes.get_mut(name).with_context(|| format!("there is no {name}"))
    }

    /// A folder for the test's own files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Waits until kubelet has registered the CSI driver of a node.
    ///
    /// # Errors
    /// When it has not in time.
    pub async fn driver_on(&self, node: &str) -> Result<()> {
        eventually(&format!("the CSI driver to be registered on {node}"), PODS, async || {
            let seen = self.kube.all::<CSINode>().get(node).await?;
            ensure!(seen.spec.drivers.iter().any(|driver| driver.name == "hearth.dev"), "{:?}", seen.spec);
            Ok(())
        })
        .await
    }

    /// Waits until all pods of one of Hearth's DaemonSets are of its present template and ready.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn rolled_out(&self, daemon_set: &str) -> Result<()> {
        eventually(&format!("DaemonSet {daemon_set} to be ready"), PODS, async || {
            let args = ["get", "daemonset", daemon_set, "-n", NAMESPACE, "-o", "json"];
            let seen: Value = serde_json::from_str(&self.kube.kubectl(&args, "").await?)?;
            let (generation, status) = (&seen["metadata"]["generation"], &seen["status"]);
            let wanted = &status["desiredNumberScheduled"];
            let done = status["observedGeneration"] == *generation
                && wanted.as_u64() > Some(0)
                && status["updatedNumberScheduled"] == *wanted
                && status["numberAvailable"] == *wanted;
            if done { Ok(()) } else { bail!("{status}") }
        })
        .await
    }

    /// The name of the agent's pod on a node.
    ///
    /// # Errors
    /// When there is none.
    pub async fn agent_of(&self, node: &str) -> Result<String> {
        let only = ListParams::default()
            .labels("app.kubernetes.io/name=hearth-node-agent")
            .fields(&format!("spec.nodeName={node}"));
        let pods = self.kube.api::<Pod>(NAMESPACE).list(&only).await?.items;
        let living = pods.into_iter().find(|pod| pod.metadata.deletion_timestamp.is_none());
        living.and_then(|pod| pod.metadata.name).with_context(|| format!("no agent on {node}"))
    }

    /// Makes a dataset of a folder in a bucket and waits until it is listed.
    ///
    /// # Errors
    /// When it is refused or not listed.
    pub async fn dataset(&self, name: &str, bucket: &Bucket, folder: &str) -> Result<()> {
        self.kube.apply(&datasets::credentials()).await?;
        let origin = datasets::origin(bucket, folder, self.s3.proxy.endpoint());
        let dataset = json!({
            "apiVersion": "hearth.dev/v1alpha1", "kind": "Dataset",
            "metadata": {"name": name, "namespace": datasets::USER},
            "spec": {"origins": [origin]},
        });
        self.kube.apply(&dataset.to_string()).await?;
        self.condition("dataset", name, "Listed").await
    }

    /// Fetches a dataset to one node and waits until it is there.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn warm(&self, dataset: &str, node: &str) -> Result<()> {
        let name = format!("{dataset}-{node}");
        let warmup = json!({
            "apiVersion": "hearth.dev/v1alpha1", "kind": "Warmup",
            "metadata": {"name": name, "namespace": datasets::USER},
            "spec": {
                "dataset": {"name": dataset},
                "nodes": {"nodeSelector": {"kubernetes.io/hostname": node}},
            },
        });
        self.kube.apply(&warmup.to_string()).await?;
        self.condition("warmup", &name, "Complete").await
    }

    /// Waits for a condition of one of Hearth's resources to be true.
    async fn condition(&self, kind: &str, name: &str, condition: &str) -> Result<()> {
        eventually(&format!("{kind} {name} to be {condition}"), FETCH, async || {
            let args = ["get", &format!("{kind}s.hearth.dev"), name, "-n", datasets::USER, "-o", "json"];
            let status =
                serde_json::from_str::<Value>(&self.kube.kubectl(&args, "").await?)?["status"].take();
            let conditions = status["conditions"].as_array();
            let met = conditions
                .is_some_and(|all| all.iter().any(|c| c["type"] == condition && c["status"] == "True"));
            if met { Ok(()) } else { bail!("{status}") }
        })
        .await
    }

    /// All that helps to understand a failure.
    async fn describe(&self) -> String {
        let mut text = report::describe(&self.kube, &self.plane.logs()).await;
        for node in self.nodes.values() {
            let logs = walkdir::WalkDir::new(node.disk("/var/log/pods")).sort_by_file_name();
            for file in logs.into_iter().flatten().filter(|entry| entry.file_type().is_file()) {
                let end = crate::process::tail(file.path(), 40);
                text.push_str(&format!("════ the end of {}\n{end}\n", file.path().display()));
            }
        }
        text
    }
}

/// Waits until a node is ready to take pods.
async fn wait_for_node(kube: &Kube, name: &str) -> Result<()> {
    eventually(&format!("{name} to be ready"), PODS, async || {
        let node = kube.all::<ApiNode>().get(name).await?;
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        ensure!(ready.is_some_and(|condition| condition.status == "True"), "{ready:?}");
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        ensure!(taints.iter().all(|taint| !taint.key.ends_with("not-ready")), "{taints:?}");
        Ok(())
    })
    .await
}

/// Runs one test on a cluster with three workers, in namespaces of its own; when it fails, prints what happened in
/// the cluster. Where no kubelet can run it says so and passes.
///
/// # Errors
/// Those of the test.
pub fn e2e(test: impl AsyncFnOnce(&mut RealCluster) -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let Some(dir) = apart::inside() else {
        if let Some(why) = apart::unfit() {
            eprintln!("no real nodes on this machine, so nothing was tested with them: {why}");
            return Ok(());
        }
        // libtest names a test's thread after the test.
        let name = std::thread::current().name().context("the test has no name")?.to_owned();
        return runtime.block_on(apart::run(&name));
    };
    let mut cluster =
        runtime.block_on(RealCluster::start(&dir)).context("the control plane did not start")?;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            cluster.install(3).await.context("the nodes or Hearth on them did not start")?;
            test(&mut cluster).await
        })
    }));
    if !matches!(outcome, Ok(Ok(()))) {
        eprintln!("{}", runtime.block_on(cluster.describe()));
    }
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}
