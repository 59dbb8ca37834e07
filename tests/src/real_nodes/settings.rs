//! Configuration of a node's programs: as on any node, but for what several nodes on one machine need.

use std::path::Path;

use serde_json::{Value, json};

use super::{CNI, images, network};

/// containerd's.
pub(super) fn containerd(cni: &Path) -> String {
    format!(
        r#"version = 2
# It would make a directory of the machine's.
disabled_plugins = ["io.containerd.internal.v1.opt"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/{pause}"
  # The machine may not let scores be lowered.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI}"
    conf_dir = "{}"
"#,
        cni.display(),
        pause = images::TOOLS,
    )
}

/// The pods' network: a bridge in the node, addresses of the node's range, no NAT.
pub(super) fn cni(pods: &str) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "pods",
        "plugins": [{
            "type": "bridge", "bridge": "pods", "isGateway": true, "hairpinMode": true,
            // Given back by a power cut, as all that is in /run.
            "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": pods}]],
                "routes": [{"dst": "0.0.0.0/0"}]},
        }],
    })
}

/// kubelet's.
pub(super) fn kubelet(ca: &Path, cgroup: &str, control_plane: bool) -> Value {
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "authentication": {
            "anonymous": {"enabled": false}, "webhook": {"enabled": false}, "x509": {"clientCAFile": ca},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "clusterDNS": [network::HOST], "clusterDomain": "cluster.local", "resolvConf": "",
        // Several nodes on one machine, and whatever control groups that has.
        "cgroupDriver": "cgroupfs", "cgroupRoot": cgroup, "failCgroupV1": false, "enforceNodeAllocatable": [],
        "failSwapOn": false, "oomScoreAdj": 0, "makeIPTablesUtilChains": false,
        // A directory of the machine's otherwise.
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        // The machine's disk is not the nodes' affair.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
    });
    if control_plane {
        config["registerWithTaints"] = json!([{"key": super::CONTROL_PLANE_ROLE, "effect": "NoSchedule"}]);
    }
    config
}
