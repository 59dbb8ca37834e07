//! The planner against a small API server: single cases by name, and any sequence of
//! changes, after which all is as it should be.

use super::group::{Claim, Group, Source, Volume};
use super::objects::{Place, read_claim, read_volume};
use super::plan::{Action, plan};
use super::world::{Namespace, World};
use hearth_core::index::DatasetName;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashSet};

fn source(uid: &str, shared_with: &[&str]) -> Source {
    let shared_with = shared_with.iter().map(|with| (*with).to_owned()).collect();
    Source { uid: uid.to_owned(), shared_with, bytes: Some(1), ending: false }
}

fn claim(uid: &str, of: &str, owner: Option<&str>) -> Claim {
    Claim { uid: uid.into(), of: of.into(), owner: owner.map(str::to_owned), volume: None, ending: false }
}

fn place(namespace: &str, of: &str, uid: &str) -> Place {
    Place { namespace: namespace.into(), dataset: DatasetName::new(of, "d"), uid: uid.into() }
}

fn with_sources(sources: &[(&str, Source)]) -> Group {
    let sources = sources.iter().map(|(namespace, source)| ((*namespace).to_owned(), source.clone()));
    Group { sources: sources.collect(), ..Group::default() }
}

fn actions(group: &Group) -> Vec<Action> {
    plan("d", group, |namespace| namespace != "absent").actions
}

#[test]
fn a_claim_comes_first_then_its_volume_and_that_when_the_dataset_is_listed() {
    let mut group = with_sources(&[("n", source("u", &["m", "absent"]))]);
    assert_eq!(
        actions(&group),
        [Action::MakeClaim(place("m", "n", "u")), Action::MakeClaim(place("n", "n", "u"))]
    );
    group.claims.insert("n".into(), claim("c", "n", Some("u")));
    group.claims.insert("m".into(), claim("e", "n", None));
    let volume = |namespace, claim: &str| Action::MakeVolume {
        place: place(namespace, "n", "u"),
        claim_uid: claim.into(),
        bytes: 1,
    };
    assert_eq!(actions(&group), [volume("m", "e"), volume("n", "c")]);
    let made = Volume { uid: "v".into(), namespace: "n".into(), claim_uid: "c".into(), ending: false };
    group.volumes.insert(place("n", "n", "u").volume_name(), made);
    let bind = Action::Bind { claim: DatasetName::new("n", "d"), uid: "c".into(), volume_uid: "v".into() };
    assert_eq!(actions(&group), [volume("m", "e"), bind]);
    group.claims.get_mut("n").unwrap().volume = Some("v".into());
    assert_eq!(actions(&group), [volume("m", "e")]);
    group.sources.insert("n".into(), Source { bytes: None, ..source("u", &["m"]) });
    assert_eq!(actions(&group), []);
}

#[test]
fn a_volume_goes_after_its_claim_and_not_before() {
    let volume = Volume { uid: "v".into(), namespace: "n".into(), claim_uid: "c".into(), ending: false };
    let mut group = Group::default();
    group.claims.insert("n".into(), claim("c", "n", Some("u")));
    group.volumes.insert("hearth-v".into(), volume);
    let drop_claim = Action::DropClaim { claim: DatasetName::new("n", "d"), uid: "c".into() };
    assert_eq!(actions(&group), [drop_claim]);
    group.claims.get_mut("n").unwrap().ending = true;
    assert_eq!(actions(&group), [], "a pod uses it");
    group.claims.clear();
    assert!(matches!(&actions(&group)[..], [Action::DropVolume { uid, .. }] if uid == "v"));
    // A claim that was made again can never be bound to the volume of the one before.
    group.sources.insert("n".into(), source("u", &[]));
    group.claims.insert("n".into(), claim("another", "n", Some("u")));
    let own = place("n", "n", "u").volume_name();
    let stale = group.volumes.remove("hearth-v").unwrap();
    group.volumes.insert(own, stale);
    assert!(matches!(&actions(&group)[..], [Action::DropVolume { uid, .. }] if uid == "v"));
}

#[test]
fn a_claim_of_a_dataset_that_was_made_again_is_made_again() {
    let mut group = with_sources(&[("n", source("new", &[]))]);
    group.claims.insert("n".into(), claim("c", "n", Some("old")));
    assert!(matches!(&actions(&group)[..], [Action::DropClaim { uid, .. }] if uid == "c"));
    group.sources.get_mut("n").unwrap().ending = true;
    group.claims.clear();
    assert_eq!(actions(&group), [], "what is about to go gets nothing new");
}

#[test]
fn who_has_no_claim_is_told_in_one_sentence() {
    let group =
        with_sources(&[("n", source("u", &["m", "z"])), ("m", source("w", &[])), ("y", source("x", &["z"]))]);
    let told = plan("d", &group, |_| true).problems;
    let told: Vec<(String, &str)> =
        told.iter().map(|problem| (problem.dataset.to_string(), problem.note.as_str())).collect();
    assert_eq!(
        told,
        [
            (
                "n/d".to_owned(),
                "in namespace m the claim hearth-d is of a Dataset of its own of that name: mount this one there by a csi volume with dataset: n:d, or rename one of the two"
            ),
            (
                "y/d".to_owned(),
                "in namespace z the claim hearth-d is of another Dataset of that name: mount this one there by a csi volume with dataset: y:d, or rename one of the two"
            ),
        ]
    );
    let long = plan(&"x".repeat(64), &group, |_| true);
    assert!(long.actions.is_empty() && long.problems.len() == 3, "{long:?}");
}

/// The names that the changes below are made of.
const NAMESPACES: [&str; 3] = ["a", "b", "c"];
const NAMES: [&str; 2] = ["d", "e.f"];

#[derive(Clone, Debug)]
enum Step {
    Namespace {
        at: usize,
        there: bool,
    },
    Dataset {
        at: usize,
        name: usize,
        shared_with: Vec<usize>,
        listed: bool,
    },
    DatasetGoes {
        at: usize,
        name: usize,
    },
    Ending {
        at: usize,
        name: usize,
    },
    /// Of somebody else, under the name of a claim.
    Foreign {
        at: usize,
        name: usize,
    },
    /// A pod uses a claim, or ends.
    Pod {
        at: usize,
        name: usize,
        uses: bool,
    },
    /// A user deletes a claim.
    ClaimGoes {
        at: usize,
        name: usize,
    },
    /// The API server's garbage collector comes by.
    Garbage,
    /// The leader looks, and then writes so much of what it plans; it may be another one.
    Leader {
        looks: bool,
        anew: bool,
        writes: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (at, name) = (0..NAMESPACES.len(), 0..NAMES.len());
    let which = (at.clone(), name.clone());
    let shared = prop::collection::vec(at.clone(), 0..3);
    prop_oneof![
        2 => (at.clone(), any::<bool>()).prop_map(|(at, there)| Step::Namespace { at, there }),
        4 => (at, name, shared, any::<bool>())
            .prop_map(|(at, name, shared_with, listed)| Step::Dataset { at, name, shared_with, listed }),
        2 => which.clone().prop_map(|(at, name)| Step::DatasetGoes { at, name }),
        1 => which.clone().prop_map(|(at, name)| Step::Ending { at, name }),
        1 => which.clone().prop_map(|(at, name)| Step::Foreign { at, name }),
        2 => (which.clone(), any::<bool>()).prop_map(|((at, name), uses)| Step::Pod { at, name, uses }),
        3 => which.prop_map(|(at, name)| Step::ClaimGoes { at, name }),
        1 => Just(Step::Garbage),
        12 => (prop::bool::weighted(0.8), prop::bool::weighted(0.1), 0usize..6)
            .prop_map(|(looks, anew, writes)| Step::Leader { looks, anew, writes }),
    ]
}

/// A claim as the API server has it.
#[derive(Clone, Debug)]
struct Kept {
    /// `None`: somebody else's.
    ours: Option<Claim>,
    in_use: bool,
}

/// What the API server has.
#[derive(Default)]
struct Cluster {
    uids: usize,
    namespaces: BTreeMap<String, Namespace>,
    datasets: BTreeMap<DatasetName, Source>,
    claims: BTreeMap<DatasetName, Kept>,
    volumes: BTreeMap<String, (String, Volume)>,
}

fn named(at: usize, name: usize) -> DatasetName {
    DatasetName::new(NAMESPACES[at], NAMES[name])
}

impl Cluster {
    fn uid(&mut self) -> String {
        self.uids += 1;
        self.uids.to_string()
    }

    fn change(&mut self, step: &Step) {
        match step {
            Step::Namespace { at, there: true } => {
                let uid = self.uid();
                let namespace = Namespace { uid, ending: false };
                self.namespaces.entry(NAMESPACES[*at].to_owned()).or_insert(namespace);
            }
            Step::Namespace { at, there: false } => {
                self.namespaces.remove(NAMESPACES[*at]);
                self.datasets.retain(|name, _| name.namespace != NAMESPACES[*at]);
                self.claims.retain(|name, _| name.namespace != NAMESPACES[*at]);
            }
            Step::Dataset { at, name, shared_with, listed } => {
                let name = named(*at, *name);
                if !self.namespaces.contains_key(&name.namespace) {
                    return;
                }
                let uid = match self.datasets.get(&name) {
                    Some(source) => source.uid.clone(),
                    None => self.uid(),
                };
                let shared: Vec<&str> = shared_with.iter().map(|at| NAMESPACES[*at]).collect();
                let bytes = listed.then_some(1);
                self.datasets.insert(name, Source { bytes, ..source(&uid, &shared) });
            }
            Step::DatasetGoes { at, name } => drop(self.datasets.remove(&named(*at, *name))),
            Step::Ending { at, name } => {
                if let Some(source) = self.datasets.get_mut(&named(*at, *name)) {
                    source.ending = true;
                }
            }
            Step::Foreign { at, name } => {
                if self.namespaces.contains_key(NAMESPACES[*at]) {
                    let kept = Kept { ours: None, in_use: false };
                    self.claims.entry(named(*at, *name)).or_insert(kept);
                }
            }
            Step::Pod { at, name, uses } => {
                if let Some(kept) = self.claims.get_mut(&named(*at, *name)) {
                    kept.in_use = *uses;
                }
                // What was only held by its pod goes now.
                self.claims
                    .retain(|_, kept| kept.in_use || kept.ours.as_ref().is_none_or(|ours| !ours.ending));
            }
            Step::ClaimGoes { at, name } => self.delete_claim(&named(*at, *name)),
            Step::Garbage => {
                let uids: HashSet<&String> = self.datasets.values().map(|source| &source.uid).collect();
                let garbage = |kept: &Kept| {
                    let owner = kept.ours.as_ref().and_then(|ours| ours.owner.as_ref());
                    owner.is_some_and(|owner| !uids.contains(owner))
                };
                let gone: Vec<DatasetName> = self
                    .claims
                    .iter()
                    .filter(|(_, kept)| garbage(kept))
                    .map(|(name, _)| name.clone())
                    .collect();
                gone.iter().for_each(|name| self.delete_claim(name));
            }
            Step::Leader { .. } => {}
        }
    }

    fn delete_claim(&mut self, name: &DatasetName) {
        match self.claims.get_mut(name) {
            Some(Kept { ours: Some(ours), in_use: true }) => ours.ending = true,
            _ => drop(self.claims.remove(name)),
        }
    }

    fn carry_out(&mut self, action: &Action) {
        let uid = self.uid();
        match action {
            Action::MakeClaim(place) => {
                let mut metadata = place.claim().metadata;
                metadata.uid = Some(uid);
                let (name, claim) = read_claim(&metadata).unwrap();
                if self.namespaces.contains_key(&place.namespace) {
                    self.claims.entry(name).or_insert(Kept { ours: Some(claim), in_use: false });
                }
            }
            Action::MakeVolume { place, claim_uid, bytes } => {
                let mut metadata = place.volume(claim_uid, *bytes).metadata;
                metadata.uid = Some(uid);
                let (dataset, name, volume) = read_volume(&metadata).unwrap();
                self.volumes.entry(name).or_insert((dataset, volume));
            }
            Action::Bind { claim, uid, volume_uid } => {
                let seen = self.claims.get_mut(claim).and_then(|kept| kept.ours.as_mut());
                if let Some(seen) = seen.filter(|seen| seen.uid == *uid) {
                    seen.volume = Some(volume_uid.clone());
                }
            }
            Action::DropClaim { claim, uid } => {
                let seen = self.claims.get(claim).and_then(|kept| kept.ours.as_ref());
                if seen.is_some_and(|seen| seen.uid == *uid) {
                    self.delete_claim(claim);
                }
            }
            Action::DropVolume { name, uid, claim, claim_uid } => {
                let claim = self.claims.get(claim).and_then(|kept| kept.ours.as_ref());
                let used = claim.is_some_and(|claim| claim.uid == *claim_uid);
                if !used && self.volumes.get(name).is_some_and(|(_, volume)| volume.uid == *uid) {
                    self.volumes.remove(name);
                }
            }
        }
    }

    /// Lets the world see all that is here.
    fn show(&self, world: &mut World, before: &mut BTreeMap<DatasetName, Source>) {
        let uids: HashSet<&str> = self.namespaces.values().map(|namespace| namespace.uid.as_str()).collect();
        world.remove_namespaces(|uid| !uids.contains(uid));
        self.namespaces.iter().for_each(|(name, namespace)| world.set_namespace(name, namespace.clone()));
        let ours = || self.claims.iter().filter_map(|(name, kept)| Some((name, kept.ours.as_ref()?)));
        let uids: HashSet<&str> = ours().map(|(_, claim)| claim.uid.as_str()).collect();
        world.remove_claims(|uid| !uids.contains(uid));
        ours().for_each(|(name, claim)| world.set_claim(name, claim.clone()));
        let uids: HashSet<&str> = self.volumes.values().map(|(_, volume)| volume.uid.as_str()).collect();
        world.remove_volumes(|uid| !uids.contains(uid));
        self.volumes
            .iter()
            .for_each(|(name, (dataset, volume))| world.set_volume(dataset, name, volume.clone()));
        for (name, source) in std::mem::replace(before, self.datasets.clone()) {
            world.remove_source(&name, &source.uid);
        }
        self.datasets.iter().for_each(|(name, source)| world.set_source(name, source.clone()));
    }

    /// The claims that there should be, worked out the long way.
    fn right(&self) -> Vec<Place> {
        let mut right = Vec::new();
        for (namespace, name) in NAMESPACES.iter().flat_map(|n| NAMES.iter().map(move |name| (*n, *name))) {
            let usable = self.datasets.iter().filter(|(of, source)| {
                let shared = source.shared_with.iter().any(|with| with == namespace);
                of.name == name && (of.namespace == namespace || shared)
            });
            let usable: Vec<_> = usable.collect();
            let own = usable.iter().find(|(of, _)| of.namespace == namespace);
            let Some((dataset, source)) = own.or(usable.first()) else { continue };
            if self.namespaces.contains_key(namespace) && !source.ending {
                let dataset = (*dataset).clone();
                right.push(Place { namespace: namespace.to_owned(), dataset, uid: source.uid.clone() });
            }
        }
        right
    }
}

fn plans(world: &mut World) -> Vec<Action> {
    std::iter::from_fn(|| world.next(&HashSet::new())).flat_map(|(_, plan)| plan.actions).collect()
}

proptest! {
    /// Whatever has happened, and whoever was interrupted when: once it is quiet, all
    /// Datasets have their claims and their volumes, and there are no others.
    #[test]
    fn any_sequence_of_changes_ends_well(steps in prop::collection::vec(step(), 0..100)) {
        let mut cluster = Cluster::default();
        let mut world = World::default();
        let mut before = BTreeMap::new();
        for step in &steps {
            cluster.change(step);
            if let Step::Leader { looks, anew, writes } = step {
                if *anew {
                    (world, before) = (World::default(), BTreeMap::new());
                }
                // A leader that has not seen everything once plans nothing.
                if *looks || *anew {
                    cluster.show(&mut world, &mut before);
                }
                plans(&mut world).iter().take(*writes).for_each(|action| cluster.carry_out(action));
            }
        }

        cluster.claims.retain(|_, kept| kept.ours.is_some());
        for (at, name) in (0..NAMESPACES.len()).flat_map(|at| (0..NAMES.len()).map(move |name| (at, name))) {
            cluster.change(&Step::Pod { at, name, uses: false });
        }
        let mut rounds = 0;
        loop {
            cluster.show(&mut world, &mut before);
            NAMES.iter().for_each(|name| world.mark((*name).to_owned()));
            let actions = plans(&mut world);
            if actions.is_empty() {
                break;
            }
            rounds += 1;
            prop_assert!(rounds < 10, "it goes on for ever: {actions:?}");
            actions.iter().for_each(|action| cluster.carry_out(action));
        }

        let right = cluster.right();
        let there: BTreeSet<DatasetName> = cluster.claims.keys().cloned().collect();
        let wanted = right.iter().map(|place| DatasetName::new(&place.namespace, &place.dataset.name));
        prop_assert_eq!(there, wanted.collect::<BTreeSet<_>>());
        let mut volumes = BTreeMap::new();
        for place in &right {
            let kept = &cluster.claims[&DatasetName::new(&place.namespace, &place.dataset.name)];
            let claim = kept.ours.as_ref().unwrap();
            prop_assert!(place.has(claim) && !claim.ending, "{:?} is not the claim of {:?}", claim, place);
            if cluster.datasets[&place.dataset].bytes.is_some() {
                volumes.insert(place.volume_name(), claim.uid.clone());
                let volume = cluster.volumes.get(&place.volume_name());
                prop_assert_eq!(claim.volume.as_ref(), volume.map(|(_, volume)| &volume.uid));
            }
        }
        // A volume stays when its Dataset is listed by a new spec that has no version yet.
        let bound = |volume: &Volume| cluster.claims.values().any(|kept| {
            kept.ours.as_ref().is_some_and(|claim| claim.uid == volume.claim_uid)
        });
        for (name, claim_uid) in &volumes {
            prop_assert_eq!(cluster.volumes.get(name).map(|(_, volume)| &volume.claim_uid), Some(claim_uid));
        }
        prop_assert!(cluster.volumes.values().all(|(_, volume)| bound(volume)), "{:?}", cluster.volumes);
    }
}
