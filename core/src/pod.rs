//! What a pod asks for: read from its JSON as kube-scheduler sends it, or from
//! what a watch saw of it.

use crate::annotation::{self, CLAIM_PREFIX, CSI_DRIVER, Locality};
use crate::hold;
use crate::index::DatasetName;
use crate::pin::{self, Pins};
use crate::selection::Selection;
use crate::volume::VolumeAttributes;
use serde::Deserialize;
use std::time::Duration;

/// Most bytes of paths and globs in the volumes of one pod: every call of the scheduler
/// waits until they are compiled.
const MAX_VOLUMES_TEXT: usize = 8 << 10;

/// The few fields of a v1 Pod that matter here. Anything may be absent or null:
/// Go writes nil maps and slices as `null`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct PodFacts {
    /// `metadata`.
    #[serde(default)]
    pub metadata: Metadata,
    /// `spec`.
    #[serde(default)]
    pub spec: Spec,
}

/// Of a pod's `metadata`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Name.
    #[serde(default)]
    pub name: String,
    /// Namespace.
    #[serde(default)]
    pub namespace: String,
    /// UID.
    #[serde(default)]
    pub uid: String,
    /// When it was made, RFC 3339.
    #[serde(default)]
    pub creation_timestamp: Option<String>,
    /// Hearth's annotations.
    #[serde(default)]
    pub annotations: Option<Annotations>,
    /// Labels of Kubernetes' controllers.
    #[serde(default)]
    pub labels: Option<Labels>,
    /// Whose it is.
    #[serde(default)]
    pub owner_references: Option<Vec<OwnerReference>>,
}

/// Labels that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Labels {
    /// Which of its templates a StatefulSet or DaemonSet has made the pod of.
    #[serde(rename = "controller-revision-hash")]
    pub revision: Option<String>,
}

/// One of `metadata.ownerReferences`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct OwnerReference {
    /// UID of the owner.
    #[serde(default)]
    pub uid: String,
    /// Whether it is the one that made the pod.
    #[serde(default)]
    pub controller: Option<bool>,
}

/// Hearth's annotations on a pod, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Annotations {
    /// [`annotation::DATASETS`].
    #[serde(rename = "hearth.dev/datasets")]
    pub datasets: Option<String>,
    /// [`annotation::LOCALITY`].
    #[serde(rename = "hearth.dev/locality")]
    pub locality: Option<String>,
    /// [`annotation::MIN_WARM`].
    #[serde(rename = "hearth.dev/min-warm")]
    pub min_warm: Option<String>,
    /// [`annotation::VERSION`].
    #[serde(rename = "hearth.dev/version")]
    pub version: Option<String>,
}

/// Of a pod's `spec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The node that it is bound to.
    #[serde(default)]
    pub node_name: Option<String>,
    /// Its volumes.
    #[serde(default)]
    pub volumes: Option<Vec<Volume>>,
}

/// A volume, if it is of a kind that can be a dataset's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// An inline CSI volume.
    #[serde(default)]
    pub csi: Option<CsiVolume>,
    /// A claim.
    #[serde(default)]
    pub persistent_volume_claim: Option<ClaimVolume>,
}

impl Volume {
    /// Name of the dataset whose claim it is.
    fn claimed(&self) -> Option<&str> {
        self.persistent_volume_claim.as_ref()?.claim_name.strip_prefix(CLAIM_PREFIX)
    }
}

/// An inline CSI volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CsiVolume {
    /// Name of its driver.
    #[serde(default)]
    pub driver: String,
    /// What it asks of the driver.
    #[serde(default)]
    pub volume_attributes: Option<VolumeAttributes>,
}

/// A volume by claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimVolume {
    /// Name of the claim.
    #[serde(default)]
    pub claim_name: String,
}

/// A part of a dataset that a pod reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    /// Namespace of the Dataset.
    pub namespace: String,
    /// Name of the Dataset.
    pub dataset: String,
    /// The part.
    pub selection: Selection,
}

impl Asked {
    /// Names the Dataset.
    pub fn name(&self) -> DatasetName {
        DatasetName::new(&self.namespace, &self.dataset)
    }
}

/// All that a pod reads, and how much it matters where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Namespace of the pod.
    pub namespace: String,
    /// How much it matters.
    pub locality: Locality,
    /// Percent of the bytes that a node must hold for `required` and `wait`.
    pub min_warm_percent: u8,
    /// Which files; each dataset once.
    pub asked: Vec<Asked>,
    /// What could not be understood, a sentence each.
    pub problems: Vec<String>,
    /// When the pod was made, seconds since 1970.
    pub created: Option<i64>,
    /// With whose pods it shares one version, see [`hold::owner`]; `None` for a pod by itself.
    pub owner: Option<String>,
    /// The versions that it names itself, or why nobody can tell.
    pub pins: Result<Pins, String>,
}

impl Demand {
    /// Whether cold nodes are refused at `unix_seconds`.
    pub fn insists(&self, unix_seconds: i64) -> bool {
        match self.locality {
            Locality::Preferred => false,
            Locality::Required => true,
            // A pod of unknown age has waited long enough: waiting for ever
            // would make `wait` stronger than `required`.
            Locality::Wait(wait) => self.deadline(wait).is_some_and(|deadline| unix_seconds < deadline),
        }
    }

    /// When it stops to insist, seconds since 1970; `None`: never, or it never did.
    pub fn gives_in_at(&self) -> Option<i64> {
        match self.locality {
            Locality::Wait(wait) => self.deadline(wait),
            Locality::Preferred | Locality::Required => None,
        }
    }

    fn deadline(&self, wait: Duration) -> Option<i64> {
        let wait = i64::try_from(wait.as_secs()).unwrap_or(i64::MAX);
        Some(self.created?.saturating_add(wait))
    }
}

impl PodFacts {
    /// What the pod asks for; `None` when it has to do with no dataset at all.
    /// `claimed` tells the Dataset that a claim is of from the one of its name in the
    /// pod's own namespace.
    pub fn demand(&self, claimed: impl Fn(&DatasetName) -> DatasetName) -> Option<Demand> {
        let none = Annotations::default();
        let annotations = self.metadata.annotations.as_ref().unwrap_or(&none);
        let mut asked = Merged::default();
        let mut problems = Vec::new();
        if let Some(text) = &annotations.datasets {
            let (datasets, errors) = annotation::parse_datasets(text);
            problems.extend(errors.iter().map(ToString::to_string));
            for dataset in datasets {
                let namespace = dataset.namespace.unwrap_or_else(|| self.metadata.namespace.clone());
                asked.add(Asked { namespace, dataset: dataset.name, selection: dataset.selection });
            }
        }
        let mut mounted = Merged::default();
        let mut volumes_text = 0;
        for volume in self.spec.volumes.iter().flatten() {
            volumes_text += volume
                .csi
                .iter()
                .flat_map(|csi| &csi.volume_attributes)
                .map(VolumeAttributes::text)
                .sum::<usize>();
            if volumes_text > MAX_VOLUMES_TEXT {
                problems.push(format!(
                    "path and files of the pod's volumes of driver {CSI_DRIVER} have over {MAX_VOLUMES_TEXT} bytes together, which is more than is allowed"
                ));
                break;
            }
            match self.of_volume(volume, &claimed) {
                Some(Ok(volume)) => mounted.add(volume),
                Some(Err(problem)) => problems.push(problem),
                None => {}
            }
        }
        // The annotation narrows what a volume of the same dataset asks for.
        mounted.0.retain(|(name, _)| !asked.has(name));
        asked.0.append(&mut mounted.0);
        let asked = asked.joined();
        if asked.is_empty() && problems.is_empty() {
            return None;
        }
        let locality = parsed(annotations.locality.as_deref(), annotation::parse_locality, &mut problems);
        let min_warm = parsed(annotations.min_warm.as_deref(), annotation::parse_min_warm, &mut problems);
        let pins = match &annotations.version {
            Some(text) => {
                pin::parse(text, &self.metadata.namespace, &asked).map_err(|error| error.to_string())
            }
            None => Ok(Pins::new()),
        };
        problems.extend(pins.as_ref().err().cloned());
        let created = self.metadata.creation_timestamp.as_deref();
        Some(Demand {
            namespace: self.metadata.namespace.clone(),
            locality: locality.unwrap_or_default(),
            min_warm_percent: min_warm.unwrap_or(100),
            asked,
            problems,
            created: created
                .and_then(|text| text.parse::<jiff::Timestamp>().ok())
                .map(jiff::Timestamp::as_second),
            owner: self.owner(),
            pins,
        })
    }

    fn owner(&self) -> Option<String> {
        let mut owners = self.metadata.owner_references.iter().flatten();
        let controller = owners.find(|owner| owner.controller == Some(true))?;
        let revision = self.metadata.labels.as_ref().and_then(|labels| labels.revision.as_deref());
        hold::owner(&controller.uid, revision)
    }

    /// Whether the pod mounts claims of datasets, so that what it asks for depends on who
    /// shares what with its namespace.
    pub fn claims(&self) -> bool {
        self.spec.volumes.iter().flatten().any(|volume| volume.claimed().is_some())
    }

    fn of_volume(
        &self,
        volume: &Volume,
        claimed: impl Fn(&DatasetName) -> DatasetName,
    ) -> Option<Result<Asked, String>> {
        if let Some(dataset) = volume.claimed() {
            let DatasetName { namespace, name } =
                claimed(&DatasetName::new(&self.metadata.namespace, dataset));
            return Some(Ok(Asked { namespace, dataset: name, selection: Selection::all() }));
        }
        let csi = volume.csi.as_ref().filter(|csi| csi.driver == CSI_DRIVER)?;
        let none = VolumeAttributes::default();
        Some(csi.volume_attributes.as_ref().unwrap_or(&none).asked(&self.metadata.namespace))
    }
}

fn parsed<T>(
    text: Option<&str>,
    parse: impl Fn(&str) -> Result<T, annotation::AnnotationError>,
    problems: &mut Vec<String>,
) -> Option<T> {
    match parse(text?) {
        Ok(value) => Some(value),
        Err(error) => {
            problems.push(error.to_string());
            None
        }
    }
}

/// Asked parts by dataset, in the order in which they came.
#[derive(Default)]
struct Merged(Vec<(DatasetName, Vec<Selection>)>);

impl Merged {
    fn add(&mut self, asked: Asked) {
        let name = asked.name();
        match self.0.iter_mut().find(|(other, _)| *other == name) {
            Some((_, parts)) => parts.push(asked.selection),
            None => self.0.push((name, vec![asked.selection])),
        }
    }

    fn has(&self, name: &DatasetName) -> bool {
        self.0.iter().any(|(other, _)| other == name)
    }

    /// Each dataset once. The parts of one are compiled together once, not pair by pair.
    fn joined(self) -> Vec<Asked> {
        let join = |(name, parts): (DatasetName, Vec<Selection>)| Asked {
            namespace: name.namespace,
            dataset: name.name,
            selection: Selection::union(&parts),
        };
        self.0.into_iter().map(join).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pod(json: serde_json::Value) -> PodFacts {
        serde_json::from_value(json).unwrap()
    }

    fn asked(namespace: &str, dataset: &str, globs: &[&str]) -> Asked {
        Asked {
            namespace: namespace.into(),
            dataset: dataset.into(),
            selection: Selection::new(globs.iter().copied()).unwrap(),
        }
    }

    #[test]
    fn annotation_and_volumes_together() {
        let demand = pod(serde_json::json!({
            "metadata": {"namespace": "vision", "name": "p", "creationTimestamp": "1970-01-01T00:01:40Z",
                "annotations": {"hearth.dev/datasets": "imagenet/train/**,imagenet/val", "hearth.dev/locality": "wait=20s", "x": "y"}},
            "spec": {"nodeName": "", "volumes": [
                {"name": "a", "csi": {"driver": "hearth.dev", "volumeAttributes": {"dataset": "imagenet"}}},
                {"name": "b", "csi": {"driver": "hearth.dev", "volumeAttributes": {"dataset": "bert", "path": "/a*b/", "files": "*.bin"}}},
                {"name": "c", "csi": {"driver": "other"}},
                {"name": "d", "persistentVolumeClaim": {"claimName": "hearth-weights"}},
                {"name": "e", "persistentVolumeClaim": {"claimName": "mine"}}]},
        }))
        .demand(DatasetName::clone)
        .unwrap();
        assert_eq!(
            demand.asked,
            [
                asked("vision", "imagenet", &["train/**", "val"]),
                asked("vision", "bert", &["a\\*b/*.bin"]),
                asked("vision", "weights", &[]),
            ]
        );
        assert_eq!(demand.problems, Vec::<String>::new());
        assert_eq!(demand.gives_in_at(), Some(120));
        assert!(demand.insists(119) && !demand.insists(120));
    }

    #[test]
    fn a_claim_is_of_whom_it_is_said_to_be_and_narrowed_by_what_names_that_one() {
        let of_n = |own: &DatasetName| DatasetName::new("n", &own.name);
        let mounts = |annotation: &str| {
            pod(serde_json::json!({
                "metadata": {"namespace": "m", "annotations": {"hearth.dev/datasets": annotation}},
                "spec": {"volumes": [{"persistentVolumeClaim": {"claimName": "hearth-d"}}]},
            }))
        };
        assert!(mounts("").claims());
        assert_eq!(mounts("").demand(of_n).unwrap().asked, [asked("n", "d", &[])]);
        assert_eq!(mounts("n:d/train").demand(of_n).unwrap().asked, [asked("n", "d", &["train"])]);
        let both = [asked("m", "d", &["train"]), asked("n", "d", &[])];
        assert_eq!(mounts("d/train").demand(of_n).unwrap().asked, both);
    }

    #[test]
    fn many_parts_of_one_dataset_are_compiled_once_and_so_many_only() {
        let globs: Vec<String> = (0..60).map(|n| format!("d{n}/**")).collect();
        let text = globs.iter().map(|glob| format!("d/{glob}")).collect::<Vec<_>>().join(",");
        let of = |text: &str| {
            let annotations = serde_json::json!({"hearth.dev/datasets": text});
            pod(serde_json::json!({"metadata": {"namespace": "n", "annotations": annotations}}))
                .demand(DatasetName::clone)
                .unwrap()
        };
        let globs: Vec<&str> = globs.iter().map(String::as_str).collect();
        assert_eq!(of(&text).asked, [asked("n", "d", &globs)]);
        let long = of(&format!("d/{}", "{a,b}".repeat(2000)));
        assert!(
            long.asked.is_empty() && long.problems[0].contains("8192 are allowed"),
            "{:?}",
            long.problems
        );
        let volume = serde_json::json!({"csi": {"driver": "hearth.dev", "volumeAttributes": {"dataset": "d", "files": "x".repeat(1000)}}});
        let many = pod(serde_json::json!({"spec": {"volumes": vec![volume; 20]}}))
            .demand(DatasetName::clone)
            .unwrap();
        assert_eq!(many.problems.len(), 1, "{:?}", many.problems);
    }

    #[test]
    fn pods_without_datasets_ask_for_nothing() {
        assert_eq!(
            pod(serde_json::json!({"metadata": {"annotations": null}, "spec": {"volumes": null}}))
                .demand(DatasetName::clone),
            None
        );
        assert_eq!(pod(serde_json::json!({})).demand(DatasetName::clone), None);
        let only_locality =
            serde_json::json!({"metadata": {"annotations": {"hearth.dev/locality": "required"}}});
        assert_eq!(pod(only_locality).demand(DatasetName::clone), None);
    }

    #[test]
    fn a_bad_annotation_is_a_problem_and_not_nothing() {
        let demand = pod(serde_json::json!({"metadata": {"namespace": "n", "annotations":
            {"hearth.dev/datasets": "No!", "hearth.dev/locality": "must", "hearth.dev/min-warm": "lots"}}}))
        .demand(DatasetName::clone)
        .unwrap();
        assert_eq!(demand.problems.len(), 3);
        assert_eq!(demand.locality, Locality::Preferred);
    }

    #[test]
    fn pods_of_one_controller_and_template_have_one_owner() {
        let owner = |metadata: serde_json::Value| {
            let mut metadata = metadata;
            metadata["annotations"] = serde_json::json!({"hearth.dev/datasets": "d"});
            pod(serde_json::json!({"metadata": metadata})).demand(DatasetName::clone).unwrap().owner
        };
        let owners = serde_json::json!([{"uid": "other"}, {"uid": "job", "controller": true, "kind": "Job"}]);
        assert_eq!(owner(serde_json::json!({"ownerReferences": owners})).as_deref(), Some("job"));
        let labels = serde_json::json!({"controller-revision-hash": "web-1", "app": "web"});
        let both = serde_json::json!({"ownerReferences": owners, "labels": labels});
        assert_eq!(owner(both).as_deref(), Some("job/web-1"));
        assert_eq!(owner(serde_json::json!({"ownerReferences": [{"uid": "other"}], "labels": null})), None);
        assert_eq!(owner(serde_json::json!({"ownerReferences": null})), None);
    }

    #[test]
    fn a_version_that_nobody_understands_is_a_problem() {
        let demand = |version: &str| {
            let annotations = serde_json::json!({"hearth.dev/datasets": "d", "hearth.dev/version": version});
            pod(serde_json::json!({"metadata": {"namespace": "n", "annotations": annotations}}))
                .demand(DatasetName::clone)
                .unwrap()
        };
        let good = demand(&"07".repeat(32));
        assert_eq!((good.pins.unwrap().len(), good.problems.len()), (1, 0));
        let bad = demand("newest");
        assert_eq!(bad.problems, [bad.pins.unwrap_err()]);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(a in "\\PC{0,60}", b in "\\PC{0,20}", c in "\\PC{0,20}", d in "\\PC{0,20}") {
            let demand = pod(serde_json::json!({
                "metadata": {"namespace": "n", "creationTimestamp": d, "annotations":
                    {"hearth.dev/datasets": a, "hearth.dev/locality": b, "hearth.dev/min-warm": c}},
                "spec": {"volumes": [
                    {"csi": {"driver": "hearth.dev", "volumeAttributes": {"dataset": a, "path": b, "files": c}}},
                    {"persistentVolumeClaim": {"claimName": format!("hearth-{d}")}}]}}))
            .demand(DatasetName::clone);
            if let Some(demand) = demand {
                prop_assert!((1..=100).contains(&demand.min_warm_percent));
            }
        }
    }
}
