//! Hearth's custom resources as Rust types.
//!
//! The CustomResourceDefinitions in `manifests/base/crds/` are generated from them:
//! `cargo run -p hearth-api --bin generate-crds`.

// kube's and schemars' derives repeat the items' visibility where it cannot be reached.
#![allow(unreachable_pub)]
// Each printer column has a name and a path; clippy takes the columns for one attribute.
#![allow(clippy::duplicated_attributes)]

mod conditions;
pub mod crds;
mod cron_warmup;
mod dataset;
mod dataset_status;
mod eviction;
mod origin;
mod validation;
mod warmup;

pub use conditions::{ConditionStatus, set_condition};
pub use cron_warmup::{
    ConcurrencyPolicy, CronWarmup, CronWarmupSpec, CronWarmupStatus, TemplateMetadata, WarmupTemplate,
};
pub use dataset::{
    CacheSpec, ConfigMapKey, Dataset, DatasetSpec, FileListSource, FilesSpec, Medium, ShareWith, Unlisted,
};
pub use dataset_status::{
    DatasetStatus, HeldVersion, MissingFiles, NotifiedOf, RefreshRequest, ReplicasStatus, SkippedKeys,
    VersionStatus, WarmStatus,
};
pub use eviction::{
    Eviction, EvictionDataset, EvictionKept, EvictionNodeCounts, EvictionNodes, EvictionSpec, EvictionStatus,
    EvictionWhat,
};
pub use origin::{Addressing, Origin, OriginOptions, SecretReference};
pub use validation::InvalidSpec;
pub use warmup::{
    DEADLINE_EXCEEDED, NodeCounts, Warmup, WarmupDataset, WarmupFailedFile, WarmupNodes, WarmupSpec,
    WarmupStatus, WarmupTrouble, WarmupWhat,
};

/// API group of all resources.
pub const GROUP: &str = "hearth.dev";

/// Annotation of a Dataset: whenever it gets another value, of which 64 characters count, the
/// origins are listed at once.
pub const REFRESH: &str = "hearth.dev/refresh";

/// Finalizer of Datasets: some of their bytes may be on nodes.
pub const CACHED_DATA: &str = "hearth.dev/cached-data";
