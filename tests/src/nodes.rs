//! Simulated nodes: Node objects that the scheduler takes for real. No kubelet runs: a pod that is put on one stays Pending.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};

use crate::kube_access::Kube;

/// Makes a schedulable node with room for a hundred pods.
///
/// # Errors
/// When the API server refuses it.
pub async fn create(kube: &Kube, name: &str, labels: &BTreeMap<String, String>) -> Result<Node> {
    let mut all = BTreeMap::from(
        [("kubernetes.io/hostname", name), ("kubernetes.io/os", "linux"), ("kubernetes.io/arch", "amd64")]
            .map(|(k, v)| (k.to_owned(), v.to_owned())),
    );
    all.extend(labels.clone());
    let room = serde_json::json!({"cpu": "64", "memory": "256Gi", "ephemeral-storage": "1Ti", "pods": "110"});
    let node: Node = serde_json::from_value(serde_json::json!({
        "metadata": {"name": name, "labels": all},
        "status": {
            "capacity": room, "allocatable": room,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Simulated", "message": "no kubelet runs here",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": name}],
            "nodeInfo": {"architecture": "amd64", "operatingSystem": "linux", "kubeletVersion": "v1.36.4", "osImage": "",
                "kernelVersion": "", "machineID": name, "systemUUID": name, "bootID": name,
                "containerRuntimeVersion": "", "kubeProxyVersion": ""},
        },
    }))?;
    let nodes = kube.all::<Node>();
    nodes.create(&PostParams::default(), &node).await.with_context(|| format!("cannot make node {name}"))?;
    // Every new node gets the not-ready taint from the API server, and here nobody else takes it away.
    let ready = serde_json::json!({"spec": {"taints": null}});
    Ok(nodes.patch(name, &PatchParams::default(), &Patch::Merge(ready)).await?)
}

/// Makes a node as kubeadm does for control planes: labelled, and tainted so that other pods stay away.
///
/// # Errors
/// When the API server refuses it.
pub async fn create_control_plane(kube: &Kube, name: &str) -> Result<Node> {
    let role = "node-role.kubernetes.io/control-plane";
    create(kube, name, &BTreeMap::from([(role.to_owned(), String::new())])).await?;
    let tainted = serde_json::json!({"spec": {"taints": [{"key": role, "effect": "NoSchedule"}]}});
    Ok(kube.all::<Node>().patch(name, &PatchParams::default(), &Patch::Merge(tainted)).await?)
}

/// Deletes a node, as when a machine is taken away.
///
/// # Errors
/// When the API server refuses.
pub async fn delete(kube: &Kube, name: &str) -> Result<()> {
    kube.all::<Node>().delete(name, &DeleteParams::default()).await?;
    Ok(())
}
