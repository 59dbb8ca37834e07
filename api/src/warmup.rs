//! `Warmup`: an order to cache part of a dataset ahead of use.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An order to cache part of a dataset on some nodes ahead of use, and, unless it says
/// otherwise, to keep it there as long as the Warmup exists.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "hearth.dev",
    version = "v1alpha1",
    kind = "Warmup",
    plural = "warmups",
    shortname = "hwu",
    category = "hearth",
    namespaced,
    status = "WarmupStatus",
    printcolumn(name = "Dataset", type_ = "string", json_path = ".spec.dataset.name"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes.summary"),
    printcolumn(name = "Done", type_ = "string", json_path = ".status.percent"),
    printcolumn(name = "Rate", type_ = "string", json_path = ".status.rate"),
    printcolumn(name = "ETA", type_ = "string", json_path = ".status.eta"),
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
    ),
    // Of the Warmup and not of its spec, which is also the template of a CronWarmup, and that can be changed.
    validation = Rule::new("self.spec.dataset == oldSelf.spec.dataset && self.spec.paths == oldSelf.spec.paths && self.spec.what == oldSelf.spec.what").message("dataset, paths and what cannot be changed: make another Warmup")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.what == 'Data' || size(self.paths) == 0").message("paths are for data; metadata is the list of all files"))]
pub struct WarmupSpec {
    /// What to cache.
    pub dataset: WarmupDataset,

    /// Globs of the files to cache; all files when empty.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 1024)))]
    pub paths: Vec<String>,

    /// What of the files to cache: Data, or Metadata, which is the list of them all, with sizes
    /// and times: a pod whose node has it can begin to read at once.
    #[serde(default)]
    pub what: WarmupWhat,

    /// Where to cache it; on every node when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<WarmupNodes>,

    /// Higher goes first, from -1000 to 1000. What running pods read goes before any Warmup.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,

    /// Whether nothing is fetched for it for now. What is there stays while nothing else needs
    /// the room; the deadline begins anew when it goes on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,

    /// Whether it goes on once it is complete, for as long as it exists: what is given up is fetched
    /// again, and so is what a new version brings. When false, what it cached stays while nothing
    /// else needs the room. True when absent, and false in a CronWarmup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_warm: Option<bool>,

    /// Seconds from its start after which nothing more is fetched for it, done or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub active_deadline_seconds: Option<i64>,

    /// Seconds from its end after which the Warmup is deleted; kept when absent. What it
    /// cached stays while nothing else needs the room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<i64>,
}

/// Reason of the condition `Complete` of a Warmup whose deadline has passed.
pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";

impl Warmup {
    /// Whether nothing is to be fetched for it: it is suspended, its deadline has passed, or it
    /// is complete and that was all.
    pub fn is_stopped(&self) -> bool {
        self.spec.suspend || self.has_missed_deadline() || self.is_done()
    }

    /// Whether its status says of its present generation that all wanted nodes hold all of it.
    pub fn is_complete(&self) -> bool {
        self.says(|complete| complete.status == "True")
    }

    /// Whether it is complete, and does not go on for that.
    pub fn is_done(&self) -> bool {
        self.spec.keep_warm == Some(false) && self.is_complete()
    }

    /// Whether its status says so of its present generation: raising the deadline mends it.
    pub fn has_missed_deadline(&self) -> bool {
        self.says(|complete| complete.reason == DEADLINE_EXCEEDED)
    }

    /// Whether its status says so in the condition Complete, of its present generation.
    fn says(&self, what: impl Fn(&Condition) -> bool) -> bool {
        self.status.as_ref().is_some_and(|status| {
            status.observed_generation == self.metadata.generation
                && status.conditions.iter().any(|condition| condition.type_ == "Complete" && what(condition))
        })
    }
}

/// Names a Dataset in the Warmup's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct WarmupDataset {
    /// Name of the Dataset.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What of a dataset's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum WarmupWhat {
    /// Their bytes, and what Metadata is.
    #[default]
    Data,
    /// The list of them.
    Metadata,
}

/// Which nodes get warm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.pendingPods) || !self.pendingPods || !has(self.replicas)").message("replicas and pendingPods exclude each other: with pendingPods it is the pods that say how many nodes there are"))]
pub struct WarmupNodes {
    /// Labels that they must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub node_selector: BTreeMap<String, String>,

    /// How many of them; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub replicas: Option<i32>,

    /// Whether only nodes on which pods are pending that want some of the dataset: pods that are
    /// bound to the node and do not run yet, those that the scheduler has nominated it for, and
    /// those without a node that may be put there by their nodeSelector, required node affinity
    /// and tolerations. Once the pods run their nodes are not wanted any more; what is there stays
    /// while nothing else needs the room. Excludes replicas.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pending_pods: bool,
}

/// How far a warm-up is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WarmupStatus {
    /// The generation of the spec that the rest is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Nodes wanted and done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCounts>,

    /// Bytes that the nodes hold of what is asked for, added up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_done: Option<i64>,

    /// Bytes that they will hold in the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<i64>,

    /// Files that they hold wholly, added up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_done: Option<i64>,

    /// Files that they will hold in the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_total: Option<i64>,

    /// Files that they tried to fetch in vain and still lack, added up; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_failed: Option<i64>,

    /// Percent of the bytes, such as 83%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<String>,

    /// Bytes per second of late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<i64>,

    /// The same for people, such as 120 MB/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,

    /// About how long it will take at this rate, such as 3 min.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<String>,

    /// When it was first looked at; absent while it is suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,

    /// When all nodes first held all of it, or the deadline passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,

    /// What keeps nodes from fetching all of it, at most five of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub troubles: Vec<WarmupTrouble>,

    /// The first twenty, by path, of the files that could not be fetched. One that is fetched after
    /// all goes from here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub failed_files: Vec<WarmupFailedFile>,

    /// Complete: all wanted nodes hold all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Nodes wanted and done.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCounts {
    /// Nodes that are to get warm.
    pub wanted: i64,
    /// Of those, nodes that hold all of it.
    pub done: i64,
    /// Both, such as 2/3.
    pub summary: String,
}

/// What keeps one node from fetching all of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WarmupTrouble {
    /// The node.
    pub node: String,
    /// What it has to do with: NoSpace, Credentials, Origin, Changed (files that are not as they
    /// were listed) or Store.
    pub reason: String,
    /// One sentence, with how many files and one of them where it is about files.
    pub message: String,
}

/// A file that could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WarmupFailedFile {
    /// Its path in the dataset.
    pub path: String,
    /// The node that could not fetch it, or one of them.
    pub node: String,
    /// How many nodes name it among the first that they could not fetch.
    pub nodes: i64,
    /// Why: Changed (it is not as it was listed), Gone, Denied, NotFound (the bucket or directory is
    /// not there), Throttled, Unavailable, Malformed or Refused.
    pub reason: String,
    /// One sentence, with the origin's own words.
    pub message: String,
}
