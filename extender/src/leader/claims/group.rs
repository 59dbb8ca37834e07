//! What is known of the Datasets of one name and of their claims.

use hearth_api::Dataset;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// A Dataset, as far as its claims depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) uid: String,
    /// Namespaces that may use it besides its own.
    pub(super) shared_with: Vec<String>,
    /// Bytes of its version, once it is listed.
    pub(super) bytes: Option<u64>,
    /// Somebody has asked for its end.
    pub(super) ending: bool,
}

/// A PersistentVolumeClaim of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) uid: String,
    /// Namespace of the Dataset that it is of.
    pub(super) of: String,
    /// UID of the Dataset that owns it, which one of another namespace cannot.
    pub(super) owner: Option<String>,
    /// UID of the volume that Kubernetes was told of.
    pub(super) volume: Option<String>,
    /// Somebody has asked for its end; while a pod uses it, it stays.
    pub(super) ending: bool,
}

/// A PersistentVolume of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Volume {
    pub(super) uid: String,
    /// Namespace of the claim that it is for.
    pub(super) namespace: String,
    /// UID of that claim: one that is made again under the name cannot be bound to it.
    pub(super) claim_uid: String,
    /// Somebody has asked for its end.
    pub(super) ending: bool,
}

/// All that has to do with Datasets of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    /// The Datasets, by namespace.
    pub(super) sources: BTreeMap<String, Source>,
    /// Their claims, by namespace.
    pub(super) claims: BTreeMap<String, Claim>,
    /// Their volumes, by name.
    pub(super) volumes: BTreeMap<String, Volume>,
}

impl Group {
    pub(super) fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.claims.is_empty() && self.volumes.is_empty()
    }
}

impl Source {
    pub(super) fn is_shared_with(&self, namespace: &str) -> bool {
        self.shared_with.iter().any(|with| with == namespace)
    }

    pub(super) fn of(dataset: &Dataset) -> Self {
        let version = dataset.status.as_ref().and_then(|status| status.version.as_ref());
        let share_with = dataset.spec.share_with.as_ref();
        Self {
            uid: dataset.uid().unwrap_or_default(),
            shared_with: share_with.map(|with| with.namespaces.clone()).unwrap_or_default(),
            bytes: version.map(|version| u64::try_from(version.bytes).unwrap_or(0)),
            ending: dataset.metadata.deletion_timestamp.is_some(),
        }
    }
}
