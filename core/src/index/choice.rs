//! Which version of a dataset a pod gets: the current one, one that is held for its
//! owner, or one that it names.

use super::datasets::Dataset;
use super::{ClusterIndex, DatasetName, Problem};
use crate::hold::{self, MOST_HELD, Need};
use crate::manifest::ManifestHash;
use crate::pod::{Asked, Demand};
use crate::wire::report::Choice;

impl Dataset {
    /// The versions that can be held.
    fn known(&self) -> hold::Known<'_> {
        hold::Known { current: self.facts.manifest, previous: self.previous, held: &self.facts.held }
    }

    /// The version that a pod gets whatever becomes current; `None` when there is none.
    fn fixed(&self, demand: &Demand, name: &DatasetName) -> Result<Option<ManifestHash>, Problem> {
        if self.facts.ending.is_some() {
            return Err(Problem::Ending(name.clone()));
        }
        if let Some(version) = demand.pins.as_ref().ok().and_then(|pins| pins.get(name)) {
            return match self.known().has(version) {
                true => Ok(Some(*version)),
                false => Err(Problem::UnknownVersion { dataset: name.clone(), version: *version }),
            };
        }
        Ok(demand.owner.as_ref().and_then(|owner| self.facts.held.get(owner)).copied())
    }

    /// The version that a pod gets, as far as anybody can tell now.
    pub(super) fn version(&self, demand: &Demand, name: &DatasetName) -> Result<ManifestHash, Problem> {
        let version = self.fixed(demand, name)?.or(self.facts.manifest);
        version.ok_or_else(|| Problem::NotListed(name.clone()))
    }

    /// What the node of a pod is told.
    pub(super) fn choice(&self, demand: &Demand, name: &DatasetName) -> Choice {
        let names = match &demand.pins {
            Ok(pins) => pins.contains_key(name),
            Err(why) => return Choice::Refused(why.clone()),
        };
        match (self.fixed(demand, name), &demand.owner) {
            (Err(problem), _) => Choice::Refused(problem.to_string()),
            (Ok(Some(version)), _) if names => Choice::Named(version),
            (Ok(Some(_)), Some(owner)) => Choice::Held(owner.clone()),
            // Nobody is going to make room for it.
            (Ok(None), Some(_)) if self.facts.held.len() < MOST_HELD => Choice::Undecided,
            (Ok(_), _) => Choice::Current,
        }
    }
}

impl ClusterIndex {
    /// The version that a pod gets of what it asks for, and whether that stays so; `None`
    /// while there is none.
    pub fn version_for(&self, demand: &Demand, asked: &Asked) -> Option<(ManifestHash, bool)> {
        let (name, dataset) = self.resolve(&demand.namespace, asked).ok()?;
        let fixed = dataset.fixed(demand, &name).ok()?;
        Some((fixed.or(dataset.facts.manifest)?, fixed.is_some()))
    }

    /// What is to be held for a pod; `starts` says that it has not started yet. Nothing of
    /// what it may not read, or what is being deleted.
    pub fn needs(&self, demand: &Demand, starts: bool) -> Vec<(DatasetName, Need)> {
        let Ok(pins) = &demand.pins else { return Vec::new() };
        let needs = demand.asked.iter().filter_map(|asked| {
            let (name, _) = self
                .resolve(&demand.namespace, asked)
                .ok()
                .filter(|(_, dataset)| dataset.facts.ending.is_none())?;
            let version = pins.get(&name).copied();
            let owner = version.as_ref().map(hold::named).or_else(|| demand.owner.clone())?;
            Some((name, Need { owner, version, starts }))
        });
        needs.collect()
    }

    /// The version of a Dataset that was current before the present one.
    pub fn previous_version(&self, name: &DatasetName) -> Option<ManifestHash> {
        self.datasets.get(name)?.previous
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cluster, dataset, delta, held, manifest, name, snapshot};
    use super::*;
    use crate::hold::Held;
    use crate::index::{Affected, DatasetFacts, Millis};
    use crate::pod::PodFacts;
    use crate::wire::report::Orders;

    fn demand(owner: Option<&str>, version: Option<&str>) -> Demand {
        let owners = owner.map(|uid| serde_json::json!([{"uid": uid, "controller": true}]));
        let pod: PodFacts = serde_json::from_value(serde_json::json!({"metadata": {"namespace": "ns",
            "annotations": {"hearth.dev/datasets": "set", "hearth.dev/version": version}, "ownerReferences": owners}}))
        .unwrap();
        pod.demand(DatasetName::clone).unwrap()
    }

    fn holding(current: ManifestHash, held: &[(&str, ManifestHash)]) -> DatasetFacts {
        let held: Held = held.iter().map(|(owner, version)| ((*owner).to_owned(), *version)).collect();
        DatasetFacts { held, ..dataset(current) }
    }

    /// What a node is told of its one pod, and which version it is to fetch for it.
    fn told(orders: &Orders) -> (Choice, Vec<ManifestHash>) {
        let [version] = orders.versions.as_deref().unwrap() else { panic!("{orders:?}") };
        assert_eq!((version.pod.as_str(), version.dataset.as_str()), ("p", "ns/set"));
        (version.choice.clone(), orders.wants.iter().map(|want| want.manifest).collect())
    }

    #[test]
    fn an_owners_pods_get_what_is_held_and_others_what_is_current() {
        let (mut index, old, _) = cluster(&["a"]);
        index.apply(Millis(0), snapshot("a", &[]));
        index.bind_pod("p", "a", demand(Some("job"), None));
        let orders = |index: &mut ClusterIndex| told(&index.orders(Millis(0), "a").0);
        assert_eq!(orders(&mut index), (Choice::Undecided, vec![old]));
        let affected = index.set_dataset(&name(), holding(old, &[("job", old), ("other", old)]));
        assert_eq!(affected, Affected::Nodes(vec!["a".into()]));
        assert_eq!(orders(&mut index), (Choice::Held("job".into()), vec![old]));
        let (new, _) = manifest(&["1", "changed", "3"], &["4"]);
        assert_eq!(index.set_dataset(&name(), holding(new, &[("job", old)])), Affected::All);
        assert_eq!(orders(&mut index), (Choice::Held("job".into()), vec![old]));
        index.bind_pod("p", "a", demand(None, None));
        assert_eq!(orders(&mut index), (Choice::Current, vec![new]));
    }

    #[test]
    fn a_named_version_is_one_that_is_known() {
        let (mut index, old, _) = cluster(&["a"]);
        index.apply(Millis(0), snapshot("a", &[]));
        let (new, _) = manifest(&["1", "changed", "3"], &["4"]);
        let (newest, _) = manifest(&["1", "changed", "again"], &["4"]);
        let named = |index: &mut ClusterIndex, text: &str| {
            index.bind_pod("p", "a", demand(Some("job"), Some(text)));
            told(&index.orders(Millis(0), "a").0)
        };
        let version = old.to_string();
        assert_eq!(named(&mut index, &version), (Choice::Named(old), vec![old]));
        index.set_dataset(&name(), dataset(new));
        assert_eq!(
            named(&mut index, &version),
            (Choice::Named(old), vec![old]),
            "the one before is still here"
        );
        index.set_dataset(&name(), dataset(newest));
        let (choice, wants) = named(&mut index, &version);
        let Choice::Refused(why) = choice else { panic!("{choice:?}") };
        assert!(why.contains("neither its current version") && wants.is_empty(), "{why}");
        let problems = index.weigh(Millis(0), &demand(None, Some(&version))).problems;
        assert_eq!(problems, [Problem::UnknownVersion { dataset: name(), version: old }]);
        index.set_dataset(&name(), holding(newest, &[("another", old)]));
        assert_eq!(named(&mut index, &version).0, Choice::Named(old));
        assert!(
            matches!(named(&mut index, "newest").0, Choice::Refused(why) if why.contains("hearth.dev/version"))
        );
    }

    #[test]
    fn a_full_list_of_holds_leaves_others_with_the_current_version() {
        let (mut index, hash, _) = cluster(&[]);
        let held = (0..MOST_HELD).map(|number| (number.to_string(), hash)).collect();
        index.set_dataset(&name(), DatasetFacts { held, ..dataset(hash) });
        let choice = |owner| index.datasets[&name()].choice(&demand(Some(owner), None), &name());
        assert_eq!((choice("7"), choice("late")), (Choice::Held("7".into()), Choice::Current));
    }

    #[test]
    fn a_held_version_is_weighed_known_and_kept() {
        let (mut index, old, _) = cluster(&["a", "b"]);
        index.set_datasets_synced();
        let (new, to) = manifest(&["x", "y", "z"], &["4"]);
        index.apply(Millis(0), snapshot("a", &[(old, &[0, 1])]));
        index.set_dataset(&name(), holding(new, &[("job", old)]));
        index.add_manifest(new, to);
        index.apply(Millis(0), delta("a", 1, new, &[], &[]));
        index.apply(Millis(0), snapshot("b", &[(new, &[2, 3])]));
        let warm = |index: &ClusterIndex, owner| held(index, 0, &demand(owner, None))[0].0.clone();
        assert_eq!((warm(&index, Some("job")), warm(&index, None)), ("a".to_owned(), "b".to_owned()));
        index.set_dataset(&name(), holding(new, &[("job", old)]));
        assert_eq!(index.orders(Millis(60_000), "a").0.retire, []);
        index.set_dataset(&name(), dataset(new));
        assert_eq!(index.orders(Millis(60_000), "a").0.retire, [old]);

        // A replica that starts asks for its manifest, and is ready without it.
        let mut fresh = ClusterIndex::new(crate::index::Settings::default());
        fresh.set_dataset(&name(), holding(new, &[("job", old)]));
        fresh.apply(Millis(0), snapshot("a", &[(old, &[0])]));
        assert_eq!(fresh.missing_manifests_of("a"), [old]);
        assert_eq!(fresh.missing_current_manifests(), [new]);
    }

    #[test]
    fn only_pods_that_may_read_a_dataset_have_it_held() {
        let (mut index, hash, _) = cluster(&[]);
        let mut stranger = demand(Some("job"), None);
        let need = Need { owner: "job".into(), version: None, starts: true };
        assert_eq!(index.needs(&stranger, true), [(name(), need)]);
        stranger.namespace = "other".into();
        assert_eq!(index.needs(&stranger, true), []);
        assert_eq!(index.needs(&demand(None, None), true), []);
        let text = hash.to_string();
        let need = Need { owner: hold::named(&hash), version: Some(hash), starts: false };
        assert_eq!(index.needs(&demand(Some("job"), Some(&text)), false), [(name(), need)]);
        index.remove_dataset(&name());
        assert_eq!(index.needs(&demand(Some("job"), None), true), []);
    }
}
