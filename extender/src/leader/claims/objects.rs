//! The claims and volumes as the API server has them, and what is read back from their
//! metadata: nothing else of them is watched.

use super::group::{Claim, Volume};
use hearth_api::Dataset;
use hearth_core::annotation::{CLAIM_PREFIX, CSI_DRIVER};
use hearth_core::index::DatasetName;
use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, ObjectReference, PersistentVolume, PersistentVolumeClaim,
    PersistentVolumeClaimSpec, PersistentVolumeSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use std::collections::BTreeMap;

const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const MANAGER: &str = "hearth";
/// Label: name of the Dataset.
const DATASET: &str = "hearth.dev/dataset";
/// Label: namespace of the Dataset.
const NAMESPACE: &str = "hearth.dev/namespace";
/// Annotation of a volume: the claim that it is for, `namespace/name`.
const CLAIM: &str = "hearth.dev/claim";
/// Annotation of a volume: the UID of that claim.
const CLAIM_UID: &str = "hearth.dev/claim-uid";
/// Annotation of a claim: the UID of its volume, once that is there.
pub(super) const VOLUME_UID: &str = "hearth.dev/volume-uid";

/// Selects what we have made.
pub(super) const SELECTOR: &str = "app.kubernetes.io/managed-by=hearth,hearth.dev/namespace";

const GIB: u64 = 1 << 30;
/// What every claim asks for. It cannot be changed later, so it does not depend on the
/// data, which can grow and shrink.
const REQUEST: &str = "1Gi";
/// Longest value of a label, bytes.
const MAX_LABEL: usize = 63;

/// A claim that is to be: where, and of which Dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Namespace of the claim.
    pub(super) namespace: String,
    pub(super) dataset: DatasetName,
    /// UID of the Dataset.
    pub(super) uid: String,
}

impl Place {
    pub(super) fn claim_name(&self) -> String {
        format!("{CLAIM_PREFIX}{}", self.dataset.name)
    }

    /// Volumes have no namespace, and two names together may be longer than one may be.
    pub(super) fn volume_name(&self) -> String {
        let mut hash = blake3::Hasher::new();
        for part in [&self.namespace, &self.dataset.namespace, &self.dataset.name] {
            hash.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        format!("{CLAIM_PREFIX}{}", &hash.finalize().to_hex()[..32])
    }

    fn is_shared(&self) -> bool {
        self.namespace != self.dataset.namespace
    }

    /// Whether the claim that is there is the one that is to be.
    pub(super) fn has(&self, claim: &Claim) -> bool {
        let owner = (!self.is_shared()).then_some(&self.uid);
        claim.of == self.dataset.namespace && claim.owner.as_ref() == owner
    }

    pub(super) fn claim(&self) -> PersistentVolumeClaim {
        let owner = OwnerReference {
            api_version: Dataset::api_version(&()).into_owned(),
            kind: Dataset::kind(&()).into_owned(),
            name: self.dataset.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        };
        PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(self.claim_name()),
                namespace: Some(self.namespace.clone()),
                labels: Some(self.labels()),
                owner_references: (!self.is_shared()).then(|| vec![owner]),
                ..ObjectMeta::default()
            },
            spec: Some(PersistentVolumeClaimSpec {
                access_modes: Some(vec!["ReadOnlyMany".to_owned()]),
                storage_class_name: Some(String::new()),
                // Without it the claim would be bound to any volume that fits.
                volume_name: Some(self.volume_name()),
                resources: Some(VolumeResourceRequirements {
                    requests: Some(storage(Quantity(REQUEST.to_owned()))),
                    limits: None,
                }),
                ..PersistentVolumeClaimSpec::default()
            }),
            status: None,
        }
    }

    pub(super) fn volume(&self, claim_uid: &str, bytes: u64) -> PersistentVolume {
        let dataset = match self.is_shared() {
            true => format!("{}:{}", self.dataset.namespace, self.dataset.name),
            false => self.dataset.name.clone(),
        };
        let annotations = [
            (CLAIM.to_owned(), format!("{}/{}", self.namespace, self.claim_name())),
            (CLAIM_UID.to_owned(), claim_uid.to_owned()),
        ];
        PersistentVolume {
            metadata: ObjectMeta {
                name: Some(self.volume_name()),
                labels: Some(self.labels()),
                annotations: Some(BTreeMap::from(annotations)),
                ..ObjectMeta::default()
            },
            spec: Some(PersistentVolumeSpec {
                access_modes: Some(vec!["ReadOnlyMany".to_owned()]),
                // Written once: kubelet takes a volume that is larger than its claim says
                // for a file system that it has to grow.
                capacity: Some(storage(capacity(bytes))),
                claim_ref: Some(ObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("PersistentVolumeClaim".to_owned()),
                    namespace: Some(self.namespace.clone()),
                    name: Some(self.claim_name()),
                    uid: Some(claim_uid.to_owned()),
                    ..ObjectReference::default()
                }),
                csi: Some(CSIPersistentVolumeSource {
                    driver: CSI_DRIVER.to_owned(),
                    read_only: Some(true),
                    volume_attributes: Some(BTreeMap::from([("dataset".to_owned(), dataset)])),
                    volume_handle: self.volume_name(),
                    ..CSIPersistentVolumeSource::default()
                }),
                // The origin's data is nobody's to delete here.
                persistent_volume_reclaim_policy: Some("Retain".to_owned()),
                storage_class_name: Some(String::new()),
                ..PersistentVolumeSpec::default()
            }),
            status: None,
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let DatasetName { namespace, name } = &self.dataset;
        BTreeMap::from([
            (MANAGED_BY.to_owned(), MANAGER.to_owned()),
            (DATASET.to_owned(), label(name)),
            (NAMESPACE.to_owned(), namespace.clone()),
        ])
    }
}

fn storage(quantity: Quantity) -> BTreeMap<String, Quantity> {
    BTreeMap::from([("storage".to_owned(), quantity)])
}

/// In whole GiB, and never less than is asked for.
fn capacity(bytes: u64) -> Quantity {
    Quantity(format!("{}Gi", bytes.div_ceil(GIB).max(1)))
}

/// The name of a Dataset as a label can have it: a long one ends with a hash.
fn label(name: &str) -> String {
    if name.len() <= MAX_LABEL {
        return name.to_owned();
    }
    let hash = blake3::hash(name.as_bytes()).to_hex();
    format!("{}-{}", &name[..name.floor_char_boundary(MAX_LABEL - 17)], &hash[..16])
}

/// Whether we have made the object.
pub(super) fn is_ours(metadata: &ObjectMeta) -> bool {
    let labels = metadata.labels.as_ref();
    labels.is_some_and(|labels| {
        labels.get(MANAGED_BY).is_some_and(|by| by == MANAGER) && labels.contains_key(NAMESPACE)
    })
}

/// The claim that this is the metadata of; its name, in its namespace, is that of a Dataset.
pub(super) fn read_claim(metadata: &ObjectMeta) -> Option<(DatasetName, Claim)> {
    let name = metadata.name.as_ref()?.strip_prefix(CLAIM_PREFIX)?;
    let owners = metadata.owner_references.iter().flatten();
    let mut owners = owners.filter(|owner| owner.kind == Dataset::kind(&()));
    let claim = Claim {
        uid: metadata.uid.clone()?,
        of: metadata.labels.as_ref()?.get(NAMESPACE)?.clone(),
        owner: owners.next().map(|owner| owner.uid.clone()),
        volume: metadata.annotations.as_ref().and_then(|annotations| annotations.get(VOLUME_UID).cloned()),
        ending: metadata.deletion_timestamp.is_some(),
    };
    Some((DatasetName::new(metadata.namespace.as_ref()?, name), claim))
}

/// The volume that this is the metadata of: the Dataset's name, its own, and it.
pub(super) fn read_volume(metadata: &ObjectMeta) -> Option<(String, String, Volume)> {
    let annotations = metadata.annotations.as_ref()?;
    let (namespace, claim) = annotations.get(CLAIM)?.split_once('/')?;
    let volume = Volume {
        uid: metadata.uid.clone()?,
        namespace: namespace.to_owned(),
        claim_uid: annotations.get(CLAIM_UID)?.clone(),
        ending: metadata.deletion_timestamp.is_some(),
    };
    Some((claim.strip_prefix(CLAIM_PREFIX)?.to_owned(), metadata.name.clone()?, volume))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(namespace: &str, of: &str, name: &str) -> Place {
        Place { namespace: namespace.into(), dataset: DatasetName::new(of, name), uid: "d".into() }
    }

    #[test]
    fn what_was_made_is_read_back() {
        for (place, owner, attribute) in
            [(place("n", "n", "d"), Some("d"), "d"), (place("m", "n", "d"), None, "n:d")]
        {
            let mut claim = place.claim().metadata;
            claim.uid = Some("c".into());
            let (name, seen) = read_claim(&claim).unwrap();
            assert_eq!((name, seen.owner.as_deref()), (DatasetName::new(&place.namespace, "d"), owner));
            assert!(is_ours(&claim) && place.has(&seen));
            let made_again = Place { uid: "another".into(), ..place.clone() };
            assert_eq!(made_again.has(&seen), owner.is_none(), "one that is shared is found by name");

            let mut volume = place.volume("c", 1);
            let csi = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref()).unwrap();
            assert_eq!(csi.volume_attributes.as_ref().unwrap()["dataset"], attribute);
            volume.metadata.uid = Some("v".into());
            let (name, own, seen) = read_volume(&volume.metadata).unwrap();
            assert_eq!((name.as_str(), own), ("d", place.volume_name()));
            assert_eq!((seen.namespace, seen.claim_uid.as_str()), (place.namespace, "c"));
        }
    }

    #[test]
    fn names_are_valid_and_differ() {
        let names = [("a", "a", "b"), ("a", "b", "a"), ("b", "a", "a"), ("a", "a", "b.c"), ("aa", "a", "b")];
        let mut names: Vec<String> =
            names.iter().map(|(namespace, of, name)| place(namespace, of, name).volume_name()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 5);
        assert_eq!(names[0].len(), CLAIM_PREFIX.len() + 32);

        let long = format!("{}.{}", "a".repeat(45), "b".repeat(60));
        assert_eq!(label("short.name"), "short.name");
        assert_eq!(label(&long).len(), MAX_LABEL);
        assert_ne!(label(&long), label(&format!("{long}c")));
    }

    #[test]
    fn capacity_is_never_below_what_is_asked_for() {
        for (bytes, gib) in [(0, "1Gi"), (GIB, "1Gi"), (GIB + 1, "2Gi"), (u64::MAX, "17179869184Gi")] {
            assert_eq!(capacity(bytes).0, gib);
        }
    }

    #[test]
    fn what_is_not_ours_is_not_read() {
        let metadata = ObjectMeta { name: Some("hearth-d".into()), ..ObjectMeta::default() };
        assert!(!is_ours(&metadata) && read_claim(&metadata).is_none() && read_volume(&metadata).is_none());
    }
}
