//! What has to be done so that every Dataset has its claims and no claim is left without
//! one. Pure: from what is known to what is to be done next.

use super::group::{Group, Source};
use super::objects::Place;
use hearth_core::annotation;
use hearth_core::claim;
use hearth_core::index::DatasetName;
use std::collections::BTreeSet;

/// One write. Each stands for itself; what has to follow is planned when it is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Make a claim.
    MakeClaim(Place),
    /// Make the volume of a claim that is there.
    MakeVolume {
        /// Whose.
        place: Place,
        /// UID of the claim.
        claim_uid: String,
        /// How large.
        bytes: u64,
    },
    /// Change a claim whose volume is there, so that Kubernetes binds the two at once: of a
    /// volume that comes after its claim it hears only when it looks, every 15 seconds.
    Bind {
        /// Namespace and name of the claim's Dataset in it.
        claim: DatasetName,
        /// UID of the claim.
        uid: String,
        /// UID of its volume.
        volume_uid: String,
    },
    /// Delete a claim.
    DropClaim {
        /// Namespace and name of the claim's Dataset in it.
        claim: DatasetName,
        /// UID of the claim.
        uid: String,
    },
    /// Delete a volume whose claim is gone.
    DropVolume {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
        /// Namespace and name of the claim's Dataset in it.
        claim: DatasetName,
        /// UID of the claim.
        claim_uid: String,
    },
}

/// What the owner of a Dataset should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) dataset: DatasetName,
    /// UID of the Dataset.
    pub(super) uid: String,
    /// One sentence.
    pub(super) note: String,
}

/// What is to be done, and said, about the Datasets of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) actions: Vec<Action>,
    pub(super) problems: Vec<Problem>,
}

/// Plans for the Datasets of `name`; `takes` tells whether a namespace is there to stay.
pub(super) fn plan(name: &str, group: &Group, takes: impl Fn(&str) -> bool) -> Plan {
    let mut plan = Plan::default();
    let valid = annotation::is_dataset_name(name);
    if !valid {
        plan.problems.extend(group.sources.iter().map(|(namespace, source)| {
            let note = "it can have no claim, since a part of its name has over 63 characters: make it anew under a shorter name";
            problem(namespace, name, source, note.to_owned())
        }));
    }
    for namespace in namespaces(group) {
        let datasets = group.sources.iter().map(|(of, source)| (of.as_str(), source.shared_with.as_slice()));
        let of = claim::source(namespace, datasets).filter(|_| valid && takes(namespace));
        if let Some(of) = of {
            plan.problems.extend(overshadowed(name, namespace, of, group));
        }
        // One whose end is asked for keeps its place until it is gone, and gets nothing new.
        let source =
            of.and_then(|of| Some((of, group.sources.get(of)?))).filter(|(_, source)| !source.ending);
        plan.actions.extend(action(name, namespace, source, group));
    }
    for (volume, seen) in &group.volumes {
        let claim = group.claims.get(&seen.namespace);
        // While its claim is there, even one that is about to go, a pod may read by it.
        if !seen.ending && claim.is_none_or(|claim| claim.uid != seen.claim_uid) {
            plan.actions.push(Action::DropVolume {
                name: volume.clone(),
                uid: seen.uid.clone(),
                claim: DatasetName::new(&seen.namespace, name),
                claim_uid: seen.claim_uid.clone(),
            });
        }
    }
    plan
}

/// The namespaces that have a claim or might get one.
fn namespaces(group: &Group) -> BTreeSet<&String> {
    let shared = group.sources.values().flat_map(|source| &source.shared_with);
    group.sources.keys().chain(shared).chain(group.claims.keys()).collect()
}

/// The next step towards the right claim in one namespace.
fn action(name: &str, namespace: &str, source: Option<(&str, &Source)>, group: &Group) -> Option<Action> {
    let claim = group.claims.get(namespace);
    let drop = || {
        let claim = claim.filter(|claim| !claim.ending)?;
        Some(Action::DropClaim { claim: DatasetName::new(namespace, name), uid: claim.uid.clone() })
    };
    let Some((of, source)) = source else { return drop() };
    let place = Place {
        namespace: namespace.to_owned(),
        dataset: DatasetName::new(of, name),
        uid: source.uid.clone(),
    };
    let Some(claim) = claim else { return Some(Action::MakeClaim(place)) };
    if claim.ending || !place.has(claim) {
        return drop();
    }
    let Some(volume) = group.volumes.get(&place.volume_name()) else {
        // The claim waits until the Dataset is listed: only then it is known how large it is,
        // and a pod that mounts it can be placed by where the data is.
        let bytes = source.bytes?;
        return Some(Action::MakeVolume { place, claim_uid: claim.uid.clone(), bytes });
    };
    let good = !volume.ending && volume.claim_uid == claim.uid;
    (good && claim.volume.as_ref() != Some(&volume.uid)).then(|| Action::Bind {
        claim: DatasetName::new(namespace, name),
        uid: claim.uid.clone(),
        volume_uid: volume.uid.clone(),
    })
}

/// Tells the Datasets that are shared with a namespace whose claim is of another.
fn overshadowed(name: &str, namespace: &str, of: &str, group: &Group) -> Vec<Problem> {
    let sources = group.sources.iter();
    let others = sources.filter(|(other, source)| *other != of && source.is_shared_with(namespace));
    let told = others.map(|(other, source)| {
        // Whose it is instead is no business of this one's owner.
        let whose = if of == namespace { "a Dataset of its own" } else { "another Dataset" };
        let note = format!(
            "in namespace {namespace} the claim {}{name} is of {whose} of that name: mount this one there by a csi volume with dataset: {other}:{name}, or rename one of the two",
            annotation::CLAIM_PREFIX
        );
        problem(other, name, source, note)
    });
    told.collect()
}

fn problem(namespace: &str, name: &str, source: &Source, note: String) -> Problem {
    Problem { dataset: DatasetName::new(namespace, name), uid: source.uid.clone(), note }
}
