//! `Eviction`: an order to give up what nodes have cached of a dataset, once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An order to give up what nodes have cached of a dataset. Each node carries it out once; what
/// a Warmup or a pod wants there is fetched again soon.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "hearth.dev",
    version = "v1alpha1",
    kind = "Eviction",
    plural = "evictions",
    shortname = "hev",
    category = "hearth",
    namespaced,
    status = "EvictionStatus",
    printcolumn(name = "Dataset", type_ = "string", json_path = ".spec.dataset.name"),
    printcolumn(name = "What", type_ = "string", json_path = ".spec.what"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes.summary"),
    printcolumn(name = "Files", type_ = "integer", json_path = ".status.files"),
    printcolumn(name = "Freed", type_ = "string", json_path = ".status.freed"),
    printcolumn(
        name = "Complete",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Complete\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Complete\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.dataset == oldSelf.dataset && self.paths == oldSelf.paths && self.what == oldSelf.what").message("dataset, paths and what cannot be changed: make another Eviction"),
    validation = Rule::new("self.what != 'Metadata' || size(self.paths) == 0").message("paths are for what: Data; the metadata of a version goes as a whole")
)]
pub struct EvictionSpec {
    /// Of what.
    pub dataset: EvictionDataset,

    /// Globs of the files to give up; all files when empty.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 1024)))]
    pub paths: Vec<String>,

    /// On which nodes; on every node when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<EvictionNodes>,

    /// Data: the bytes of files, of all versions. Metadata: versions as a whole, bytes and list
    /// of files, that no pod and no Warmup needs on the node.
    #[serde(default)]
    pub what: EvictionWhat,

    /// Nodes that have not done it after so many seconds are not waited for.
    #[serde(default = "five_minutes")]
    #[schemars(range(min = 1, max = 86_400))]
    pub active_deadline_seconds: i64,

    /// The Eviction is deleted so many seconds after its end; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i64>,
}

fn five_minutes() -> i64 {
    300
}

/// Names a Dataset in the Eviction's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct EvictionDataset {
    /// Name of the Dataset.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What is given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum EvictionWhat {
    /// The bytes of files.
    #[default]
    Data,
    /// Versions as a whole.
    Metadata,
}

/// On which nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.names) != has(self.nodeSelector)").message("nodes takes either names or nodeSelector"))]
pub struct EvictionNodes {
    /// Names of nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 1024), inner(length(min = 1, max = 253)))]
    pub names: Vec<String>,

    /// Labels that they have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("minProperties" = 1, "maxProperties" = 16))]
    pub node_selector: BTreeMap<String, String>,
}

/// How far an eviction is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvictionStatus {
    /// Nodes that are to do it and that have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<EvictionNodeCounts>,

    /// Files of which bytes were given up, added up over the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<i64>,

    /// Bytes that were given up, added up over the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,

    /// The same for people, such as 12 GB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freed: Option<String>,

    /// What stays all the same, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["why"]))]
    pub kept: Vec<EvictionKept>,

    /// When it was first looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,

    /// When the last node had done it, or was not waited for any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,

    /// Complete: all nodes have done it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Nodes that are to give up something, and that have.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvictionNodeCounts {
    /// Nodes that are to do it.
    pub wanted: i64,
    /// Of those, nodes that have done it.
    pub done: i64,
    /// Both, such as 2/3.
    pub summary: String,
}

/// What stays of what was to be given up.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvictionKept {
    /// Mounted: pods have it mounted without the agent between them and the disk, or, for
    /// Metadata, at all. Wanted: a pod or a Warmup needs the version. Written: bytes were
    /// coming at that moment.
    pub why: String,
    /// Files, added up over the nodes.
    pub files: i64,
    /// Bytes, added up over the nodes.
    pub bytes: i64,
}

impl Eviction {
    /// Whether it has been carried out, or given up.
    pub fn is_finished(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.finished_at.is_some())
    }
}
