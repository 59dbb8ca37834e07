//! `Dataset`: a named set of objects from one or more origins.

use crate::dataset_status::DatasetStatus;
use crate::origin::Origin;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A named set of objects from one or more origins, cached on nodes and read by pods.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "hearth.dev",
    version = "v1alpha1",
    kind = "Dataset",
    plural = "datasets",
    shortname = "hds",
    category = "hearth",
    namespaced,
    status = "DatasetStatus",
    printcolumn(name = "Files", type_ = "integer", json_path = ".status.version.files"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.version.size"),
    printcolumn(name = "Warm nodes", type_ = "integer", json_path = ".status.warm.nodes"),
    printcolumn(name = "Warmest", type_ = "string", json_path = ".status.warm.most"),
    printcolumn(name = "Replicas", type_ = "string", json_path = ".status.replicas.summary"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version.manifest", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1),
    // The name becomes part of a claim's name and of labels.
    validation = Rule::new("size(self.metadata.name) <= 200").message("metadata.name may have at most 200 characters")
)]
#[serde(rename_all = "camelCase")]
pub struct DatasetSpec {
    /// Where the objects live. The files of several stand in one tree, each origin's below its
    /// path; a file that two of them have is an error that names both.
    #[schemars(length(min = 1, max = 32))]
    pub origins: Vec<Origin>,

    /// Which of the origin's objects belong to the dataset; all when absent. Those that do are
    /// cached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesSpec>,

    /// How often the origin is listed again: a duration such as 30s, 10m or 24h,
    /// at least 10s, or Never. A changed listing makes a new version for pods that
    /// start afterwards, unless others of the same owner got an older one: see status.held.
    #[serde(default = "ten_minutes")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self == 'Never' || (self.matches('^([0-9]+(s|m|h))+$') && duration(self) >= duration('10s'))").message("refresh must be Never or a duration of at least 10s, such as 10m"))]
    pub refresh: String,

    /// Where and how much of it is cached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheSpec>,

    /// Who may use it besides its own namespace; nobody when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_with: Option<ShareWith>,
}

/// New data is seen without anybody asking, at one LIST of the origin each time.
fn ten_minutes() -> String {
    "10m".to_owned()
}

/// Which objects belong to a dataset, by their paths. One that belongs is taken by all that
/// is given here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilesSpec {
    /// Globs of which a path must match one; all paths when empty. `*` stays within
    /// a segment, `**` spans segments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 1024)))]
    pub include: Vec<String>,

    /// Globs of which a path must match none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 1024)))]
    pub exclude: Vec<String>,

    /// An exact list of the dataset's files; all files when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<FileListSource>,

    /// What becomes of the objects that these do not take: Hide, and the dataset does not have
    /// them; or Show, and volumes show them, but no node keeps them. Each read of one goes to its
    /// origin. They count in no size and no warmth, and nothing fetches them ahead of time.
    #[serde(default)]
    pub unlisted: Unlisted,
}

/// What becomes of objects that a dataset does not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Unlisted {
    /// They are not there.
    #[default]
    Hide,
    /// They are read from their origin.
    Show,
}

/// Where an exact list of files is: one path in the dataset's tree a line, as plain text, gzip or
/// zstd, of at most 10 million lines. It is read again whenever the origin is listed, and what
/// becomes of it is a new version. What it names and no origin has is counted in
/// status.missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.configMap) != has(self.path)").message("list must name one of configMap and path"))]
pub struct FileListSource {
    /// A key of a ConfigMap in the Dataset's namespace. Agents may read it only when a
    /// RoleBinding in that namespace grants them the ClusterRole hearth-secret-reader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapKey>,

    /// Path of the list in the dataset's own tree, whether or not include, exclude and the
    /// list itself take that file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub path: Option<String>,
}

/// Names a key of a ConfigMap in the Dataset's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct ConfigMapKey {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in its data or binaryData.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Where and how much of a dataset is cached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.maxReplicas) || (has(self.replicas) && self.maxReplicas >= self.replicas)").message("maxReplicas must be at least replicas, which goes with it"))]
pub struct CacheSpec {
    /// How many nodes keep all of the current version, pods or not; 0 when absent: data comes
    /// with pods and Warmups only. Nodes are chosen among those that take pods, and change as
    /// little as possible when nodes come and go; data is in its new place before the old one
    /// may give it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub replicas: Option<i32>,

    /// With this there are as many replicas as nodes read the dataset at one time in the last
    /// half hour, from replicas to so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_replicas: Option<i32>,

    /// Most bytes of this dataset on any one node, such as 500Gi; no limit of its own
    /// when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))").message("quota must be a positive quantity of bytes, such as 500Gi"))]
    pub quota: Option<String>,

    /// Whether the current version, and those that pods read, stay on nodes that have them
    /// whatever else needs room there. A dataset that is deleted goes anyway.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,

    /// What goes first when a node has no room: of datasets that nobody there needs, and of
    /// those that are needed alike, the ones of lower priority. -1000 to 1000; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: Option<i32>,

    /// What it is best kept on, the best first: it goes to the first that has room for all of
    /// it, and moves up while pods mount it often. Nodes that have none of these media use
    /// what they have. SSD before HDD when empty, and memory only if there is nothing else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    #[x_kube(validation = Rule::new("self.all(medium, self.exists_one(other, other == medium))").message("media must name none twice"))]
    pub media: Vec<Medium>,

    /// Labels that a node must have for replicas and warm-ups to be there; every
    /// node when empty. Pods still read it wherever they run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub node_selector: BTreeMap<String, String>,
}

/// What a directory of a node's store is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Medium {
    /// Memory.
    Mem,
    /// Flash.
    Ssd,
    /// Rotating disks.
    Hdd,
}

impl From<Medium> for hearth_core::tier::Medium {
    fn from(medium: Medium) -> Self {
        match medium {
            Medium::Mem => Self::Mem,
            Medium::Ssd => Self::Ssd,
            Medium::Hdd => Self::Hdd,
        }
    }
}

/// Who may use a dataset besides its own namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct ShareWith {
    /// Names of namespaces. Each gets a claim hearth-NAME, as the Dataset's own has one,
    /// unless it has a Dataset of that name itself.
    #[serde(default)]
    #[schemars(length(max = 256), inner(length(min = 1, max = 63)))]
    pub namespaces: Vec<String>,
}
