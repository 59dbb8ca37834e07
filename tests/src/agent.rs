//! Node agents as processes: each is one simulated node.

use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::workload::{Workload, node_of, overlay};

/// The agents' ServiceAccount.
pub const ACCOUNT: &str = "hearth-node-agent";

/// For whom the tokens are with which agents report.
pub const AUDIENCE: &str = "hearth-extender";

/// Prepares the agent of the node that `pod` is on.
pub(crate) async fn prepare(
    plane: &ControlPlane,
    dir: &Path,
    pod: Pod,
    extenders: &[String],
    config: &Value,
) -> Result<(String, Workload)> {
    let node = node_of(&pod).context("the agent's pod is on no node")?.to_owned();
    let name = format!("agent-{node}");
    let agent = Workload::prepare(plane, dir, &name, "hearth-node-agent", pod, async |place| {
        let token = place.dir.join("extender-token");
        std::fs::write(&token, plane.admin.pod_token(place.pod, Some(AUDIENCE)).await?)?;
        let mut all = json!({
            "kubeconfig": place.kubeconfig,
            "extenders": extenders,
            "tls": {"caFile": plane.pki.ca()},
            "tokenFile": token,
            // Nodes that share one disk do not each need a fifth of it.
            "store": {"directory": place.dir.join("store"), "minFree": "1Gi"},
            "fileOrigins": {"allowedRoots": [dir]},
            // No kubelet would call it; a test that plays kubelet switches it on.
            "csi": {
                "enabled": false,
                "socket": place.dir.join("csi.sock"),
                "registrationDirectory": place.dir.join("reg"),
            },
            "fuse": {"keeperSocket": place.dir.join("keeper/keeper.sock")},
            "admin": {"listen": place.admin},
        });
        overlay(&mut all, config);
        Ok(all)
    })
    .await?;
    Ok((node, agent))
}
