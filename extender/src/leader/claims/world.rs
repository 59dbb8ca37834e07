//! All that is known of Datasets, claims, volumes and namespaces, and for which names
//! that has changed since it was last planned for. Pure.

use super::group::{Claim, Group, Source, Volume};
use super::plan::{Plan, plan};
use hearth_core::index::DatasetName;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What is known, by name of Dataset: one name never concerns another.
#[derive(Debug, Default)]
pub(super) struct World {
    groups: HashMap<String, Group>,
    namespaces: BTreeMap<String, Namespace>,
    marked: BTreeSet<String>,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Namespace {
    pub(super) uid: String,
    /// Nothing can be made in it any more.
    pub(super) ending: bool,
}

impl World {
    pub(super) fn set_source(&mut self, dataset: &DatasetName, source: Source) {
        self.change(&dataset.name, |group| put(&mut group.sources, &dataset.namespace, source));
    }

    pub(super) fn remove_source(&mut self, dataset: &DatasetName, uid: &str) {
        self.change(&dataset.name, |group| retain(&mut group.sources, |source| source.uid != uid));
    }

    pub(super) fn set_claim(&mut self, own: &DatasetName, claim: Claim) {
        self.change(&own.name, |group| put(&mut group.claims, &own.namespace, claim));
    }

    pub(super) fn remove_claim(&mut self, own: &DatasetName, uid: &str) {
        self.change(&own.name, |group| retain(&mut group.claims, |claim| claim.uid != uid));
    }

    pub(super) fn remove_claims(&mut self, gone: impl Fn(&str) -> bool) {
        self.change_all(|group| retain(&mut group.claims, |claim| !gone(&claim.uid)));
    }

    pub(super) fn set_volume(&mut self, dataset: &str, name: &str, volume: Volume) {
        self.change(dataset, |group| put(&mut group.volumes, name, volume));
    }

    pub(super) fn remove_volume(&mut self, dataset: &str, uid: &str) {
        self.change(dataset, |group| retain(&mut group.volumes, |volume| volume.uid != uid));
    }

    pub(super) fn remove_volumes(&mut self, gone: impl Fn(&str) -> bool) {
        self.change_all(|group| retain(&mut group.volumes, |volume| !gone(&volume.uid)));
    }

    pub(super) fn set_namespace(&mut self, name: &str, namespace: Namespace) {
        if put(&mut self.namespaces, name, namespace) {
            self.mark_where(|group| group.concerns(name));
        }
    }

    pub(super) fn remove_namespaces(&mut self, gone: impl Fn(&str) -> bool) {
        let (gone, kept) = std::mem::take(&mut self.namespaces)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, namespace)| gone(&namespace.uid));
        self.namespaces = kept;
        for name in gone.keys() {
            self.mark_where(|group| group.concerns(name));
        }
    }

    /// To be planned for again.
    pub(super) fn mark(&mut self, name: String) {
        self.marked.insert(name);
    }

    /// A plan for a name that was marked and is not `busy`.
    pub(super) fn next(&mut self, busy: &HashSet<String>) -> Option<(String, Plan)> {
        let name = self.marked.iter().find(|name| !busy.contains(*name))?.clone();
        self.marked.remove(&name);
        let takes = |namespace: &str| self.namespaces.get(namespace).is_some_and(|seen| !seen.ending);
        let plan = self.groups.get(&name).map(|group| plan(&name, group, takes)).unwrap_or_default();
        Some((name, plan))
    }

    fn mark_where(&mut self, concerned: impl Fn(&Group) -> bool) {
        let names = self.groups.iter().filter(|(_, group)| concerned(group)).map(|(name, _)| name.clone());
        self.marked.extend(names);
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Group) -> bool) {
        let group = self.groups.entry(name.to_owned()).or_default();
        if change(group) {
            self.marked.insert(name.to_owned());
        }
        if group.is_empty() {
            self.groups.remove(name);
        }
    }

    fn change_all(&mut self, change: impl Fn(&mut Group) -> bool) {
        let Self { groups, marked, .. } = self;
        groups.retain(|name, group| {
            if change(group) {
                marked.insert(name.clone());
            }
            !group.is_empty()
        });
    }
}

impl Group {
    /// Whether a namespace has, or would have, a claim of it.
    fn concerns(&self, namespace: &str) -> bool {
        self.sources.contains_key(namespace)
            || self.claims.contains_key(namespace)
            || self.sources.values().any(|source| source.is_shared_with(namespace))
    }
}

/// Puts one in its place; whether that changes anything.
fn put<T: PartialEq>(all: &mut BTreeMap<String, T>, name: &str, one: T) -> bool {
    let changed = all.get(name) != Some(&one);
    all.insert(name.to_owned(), one);
    changed
}

/// Keeps some; whether any went.
fn retain<T>(all: &mut BTreeMap<String, T>, keep: impl Fn(&T) -> bool) -> bool {
    let before = all.len();
    all.retain(|_, one| keep(one));
    all.len() < before
}
