//! Plays kubelet towards the CSI driver of a simulated node's agent: real calls, real mounts, and the real keeper.
//!
//! Mounts are made in a mount namespace of the test's own, so that none outlives it, however it ends.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hearth_node_agent::csi::proto::csi::node_client::NodeClient;
use hearth_node_agent::csi::proto::csi::volume_capability::access_mode::Mode;
use hearth_node_agent::csi::proto::csi::volume_capability::{AccessMode, AccessType, MountVolume};
use hearth_node_agent::csi::proto::csi::{
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest,
    NodeUnpublishVolumeRequest, VolumeCapability,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};

use crate::cluster::{self, Cluster, ClusterOptions};
use crate::datasets::{FETCH, USER};
use crate::process::{Process, Program};
use crate::programs;
use crate::wait::eventually;

/// Set inside the test's own mount namespace.
const INSIDE: &str = "HEARTH_OWN_MOUNTS";

/// Longest time that a benchmark may take.
const BENCH: Duration = Duration::from_secs(7200);

/// kubelet gives a call two minutes.
const CALL: Duration = Duration::from_secs(120);

/// Runs one end-to-end test whose agents mount. Where nobody may mount it says so and passes.
///
/// # Errors
/// Those of the test.
pub fn e2e(options: ClusterOptions, test: impl AsyncFnOnce(&mut Cluster) -> Result<()>) -> Result<()> {
    if has_own_mounts() {
        return cluster::e2e(&mounting(options), test);
    }
    if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
        eprintln!("nothing was mounted, and nothing tested with mounts: it takes root and /dev/fuse");
        return Ok(());
    }
    // libtest names a test's thread after the test.
    let name = std::thread::current().name().context("the test has no name")?.to_owned();
    own_mounts(&["--exact", &name, "--nocapture"])
}

/// Runs a benchmark whose agents mount: this program once more, in a mount namespace of its own.
///
/// # Errors
/// Those of the benchmark.
pub fn bench(options: ClusterOptions, measure: impl AsyncFnOnce(&mut Cluster) -> Result<()>) -> Result<()> {
    match has_own_mounts() {
        true => cluster::e2e(&mounting(options).more_time(BENCH), measure),
        false => own_mounts(&std::env::args().skip(1).collect::<Vec<_>>()),
    }
}

fn mounting(options: ClusterOptions) -> ClusterOptions {
    options.agent_config(&json!({"csi": {"enabled": true}}))
}

/// Whether this program runs in a mount namespace of its own already.
#[must_use]
pub fn has_own_mounts() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs the present program again, in a mount namespace of its own.
///
/// # Errors
/// When it fails there.
pub fn own_mounts(arguments: &[impl AsRef<OsStr>]) -> Result<()> {
    let this = std::env::current_exe().context("cannot find this program's own path")?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--fork", "--kill-child", "--"]);
    let status = command.arg(this).args(arguments).env(INSIDE, "1").process_group(0).status()?;
    ensure!(status.success(), "it failed in its own mount namespace: {status}");
    Ok(())
}

/// The driver of one node.
#[derive(Clone, Debug)]
pub struct Driver {
    dir: PathBuf,
}

impl Driver {
    /// Of a node of this cluster.
    #[must_use]
    pub fn of(cluster: &Cluster, node: &str) -> Self {
        Self { dir: cluster.dir().join(format!("agent-{node}")) }
    }

    /// The driver's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("csi.sock")
    }

    /// Where kubelet would have the volume of a pod.
    #[must_use]
    pub fn target(&self, pod: &str) -> PathBuf {
        self.dir.join("pods").join(pod).join("mount")
    }

    /// Publishes an inline volume with these attributes for a pod of the tests' namespace.
    ///
    /// # Errors
    /// When the driver refuses, or has not done it in time.
    pub async fn publish(&self, pod: &str, attributes: &Value) -> Result<PathBuf> {
        let said = json!({"csi.storage.k8s.io/pod.namespace": USER});
        self.publish_as(pod, attributes, &said).await
    }

    /// Likewise, for a pod that is in the cluster.
    ///
    /// # Errors
    /// When the driver refuses, or has not done it in time.
    pub async fn publish_for(&self, pod: &Pod, attributes: &Value) -> Result<PathBuf> {
        let said = json!({
            "csi.storage.k8s.io/pod.namespace": pod.namespace(),
            "csi.storage.k8s.io/pod.name": pod.name_any(),
            "csi.storage.k8s.io/pod.uid": pod.uid(),
        });
        self.publish_as(&pod.name_any(), attributes, &said).await
    }

    /// Asks once for an inline volume that cannot be had, and returns what the driver says.
    ///
    /// # Errors
    /// When the driver publishes it, or does not answer.
    pub async fn refused(&self, pod: &str, attributes: &Value) -> Result<String> {
        let request = self.request(pod, attributes, &json!({"csi.storage.k8s.io/pod.namespace": USER}))?;
        match self.connect().await?.node_publish_volume(request).await {
            Ok(_) => bail!("{pod}'s volume was published"),
            Err(status) => Ok(status.message().to_owned()),
        }
    }

    async fn publish_as(&self, pod: &str, attributes: &Value, said: &Value) -> Result<PathBuf> {
        let request = self.request(pod, attributes, said)?;
        eventually(&format!("{pod}'s volume to be published"), FETCH, async || {
            self.connect().await?.node_publish_volume(request.clone()).await?;
            Ok(())
        })
        .await?;
        Ok(self.target(pod))
    }

    fn request(&self, pod: &str, attributes: &Value, said: &Value) -> Result<NodePublishVolumeRequest> {
        let mut context = attributes.as_object().context("attributes are a map")?.clone();
        context.extend(said.as_object().cloned().unwrap_or_default());
        context.insert("csi.storage.k8s.io/ephemeral".to_owned(), "true".into());
        let text = |value: &Value| value.as_str().map(str::to_owned).context("an attribute is no string");
        Ok(NodePublishVolumeRequest {
            volume_id: format!("csi-{pod}"),
            target_path: self.target(pod).display().to_string(),
            volume_capability: Some(VolumeCapability {
                access_type: Some(AccessType::Mount(MountVolume {})),
                access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
            }),
            readonly: true,
            volume_context: context
                .iter()
                .map(|(key, value)| Ok((key.clone(), text(value)?)))
                .collect::<Result<_>>()?,
        })
    }

    /// Takes a pod's volume away.
    ///
    /// # Errors
    /// When the driver refuses, or does not answer.
    pub async fn unpublish(&self, pod: &str) -> Result<()> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: format!("csi-{pod}"),
            target_path: self.target(pod).display().to_string(),
        };
        self.connect().await?.node_unpublish_volume(request).await?;
        Ok(())
    }

    /// How a pod's volume is.
    ///
    /// # Errors
    /// When it is not published, or the driver does not answer.
    pub async fn stats(&self, pod: &str) -> Result<NodeGetVolumeStatsResponse> {
        let request = NodeGetVolumeStatsRequest {
            volume_id: format!("csi-{pod}"),
            volume_path: self.target(pod).display().to_string(),
        };
        Ok(self.connect().await?.node_get_volume_stats(request).await?.into_inner())
    }

    /// What a pod's volume is mounted as: its file system's type.
    ///
    /// # Errors
    /// When nothing is mounted there.
    pub fn kind(&self, pod: &str) -> Result<String> {
        let target = self.target(pod);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let line = mounts.lines().find(|line| line.split(' ').nth(4) == target.to_str());
        let kind = line.and_then(|line| line.split(" - ").nth(1)?.split(' ').next());
        Ok(kind.with_context(|| format!("nothing is mounted at {}", target.display()))?.to_owned())
    }

    /// Starts the node's keeper, which lets go what nobody serves for `limit`, such as `5m`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn keeper(&self, cluster: &Cluster, limit: &str) -> Result<Process> {
        let program = Program::new("keeper", programs::hearth("hearth-keeper")?, &cluster.plane.logs());
        let socket = self.dir.join("keeper/keeper.sock");
        let mut keeper = program.flag("socket", &socket).flag("limit", limit).start()?;
        eventually("the keeper to listen", FETCH, async || {
            keeper.check_running()?;
            if socket.exists() { Ok(()) } else { bail!("{} is not there", socket.display()) }
        })
        .await?;
        Ok(keeper)
    }

    async fn connect(&self) -> Result<NodeClient<Channel>> {
        let socket = format!("unix://{}", self.socket().display());
        Ok(NodeClient::new(Endpoint::from_shared(socket)?.timeout(CALL).connect().await?))
    }
}
