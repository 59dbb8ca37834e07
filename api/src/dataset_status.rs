//! The status of a `Dataset`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is known of a dataset.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatasetStatus {
    /// The generation of the spec that the version was listed by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The current version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionStatus>,

    /// Versions that pods go on to get, whatever becomes current: all pods of one owner get
    /// the version that was current when the first of them came.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["owner"]))]
    pub held: Vec<HeldVersion>,

    /// Keys of the origin that cannot be files of a tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<SkippedKeys>,

    /// What spec.files.list names and no origin has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<MissingFiles>,

    /// When a store last told the extender that objects of an origin had changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notified_at: Option<MicroTime>,

    /// What it told of, with what was told before and not listed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notified_of: Option<NotifiedOf>,

    /// What had asked for the last listing, besides time and the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_refresh: Option<RefreshRequest>,

    /// How warm the current version is in the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<WarmStatus>,

    /// The nodes that keep it as spec.cache.replicas wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<ReplicasStatus>,

    /// Listed: the origin was listed. Ready: pods can be placed by it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// One version of a dataset.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionStatus {
    /// Name of the manifest: the hash of its content.
    pub manifest: String,
    /// Files that it takes: those that are cached.
    pub files: i64,
    /// Further files that are shown and not cached, as spec.files.unlisted says; all that is
    /// counted here is without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlisted: Option<i64>,
    /// Bytes of all files.
    pub bytes: i64,
    /// Bytes of all files, for people.
    pub size: String,
    /// Blocks of all files.
    pub blocks: i64,
    /// When the origin was listed and this version found.
    pub listed_at: Time,
}

/// What asks for a listing now: one that is as the last one was asks for none.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefreshRequest {
    /// The value of the annotation hearth.dev/refresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub annotation: Option<String>,
    /// The store's notice: what status.notifiedAt was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notified_at: Option<MicroTime>,
}

/// Where objects of a dataset's origins have changed.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotifiedOf {
    /// What status.notifiedAt was then. When it is another, objects may have changed anywhere.
    pub at: MicroTime,
    /// URIs of objects, or what those of several begin with.
    #[schemars(length(max = 64), inner(length(max = 2048)))]
    pub prefixes: Vec<String>,
}

/// A version that the pods of one owner get.
///
/// Of a controller whose pods run to completion, such as a Job, all pods get it, until none
/// has been there for 15 minutes. Of one whose pods run for ever, such as a Deployment or
/// StatefulSet, those of one revision get it while they start: 15 minutes after all are
/// ready, the next one gets the current version, as does a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldVersion {
    /// UID of the controller that made the pods, with the revision of its template when it
    /// is a StatefulSet or DaemonSet; or version/MANIFEST for pods that name the version
    /// by the annotation hearth.dev/version.
    #[schemars(length(min = 1, max = 128))]
    pub owner: String,
    /// Name of the manifest.
    #[schemars(length(min = 1, max = 64))]
    pub manifest: String,
}

/// Keys that cannot be files of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SkippedKeys {
    /// How many.
    pub count: i64,
    /// One of them.
    pub example: String,
    /// Why it was skipped.
    pub reason: String,
}

/// Files that a list names and no origin has.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MissingFiles {
    /// How many.
    pub count: i64,
    /// One of them.
    pub example: String,
}

/// How warm a dataset is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WarmStatus {
    /// Nodes that hold all of it.
    pub nodes: i64,
    /// Nodes that hold some of it, the former included.
    pub partly: i64,
    /// How much the warmest node holds, such as 83%.
    pub most: String,
}

/// Nodes that keep all of a dataset, pods or not.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicasStatus {
    /// How many there are to be.
    pub wanted: i32,
    /// Nodes that are to hold all of it: as many as wanted, or as may.
    pub nodes: i32,
    /// Of those, nodes that do.
    pub warm: i32,
    /// Warm and wanted, such as 2/3.
    pub summary: String,
}
