//! Which version of a dataset pods share, whatever is refreshed while they start.
//!
//! A hold says that the pods of one owner get one version. Holds stand in the Dataset's
//! status beside the current version, where one replica writes them, and only over the
//! very object that it has read: so a version is held while it is still current, an
//! owner never gets a second hold, and whoever sees a newer version sees the holds of
//! the older one.

use crate::index::Millis;
use crate::manifest::ManifestHash;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Holds of one dataset: who, and which version.
pub type Held = BTreeMap<String, ManifestHash>;

/// Most holds of one dataset: they are written with every change of its status.
pub const MOST_HELD: usize = 256;
/// Longest name of an owner, bytes: a UID, and the value of a label.
pub const LONGEST_OWNER: usize = 128;
/// A hold that no pod needs any more is kept for so long, milliseconds: a Job waits up to
/// ten minutes before it tries again what failed, and a StatefulSet makes its pods one by one.
pub const KEPT: u64 = 15 * 60_000;

/// Who holds a version for the pods that name it themselves. No owner is called so: their
/// names begin with a UID.
pub fn named(version: &ManifestHash) -> String {
    format!("version/{version}")
}

/// Who a controller's pods hold a version for: its UID, and, where it has pods of several
/// templates, the revision: a rollout takes the current version.
pub fn owner(uid: &str, revision: Option<&str>) -> Option<String> {
    let name = match revision {
        Some(revision) => format!("{uid}/{revision}"),
        None => uid.to_owned(),
    };
    let fits = !uid.is_empty() && !uid.contains('/') && name.len() <= LONGEST_OWNER;
    fits.then_some(name)
}

/// What one pod needs held of one dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// For whom.
    pub owner: String,
    /// The version that the pod names itself.
    pub version: Option<ManifestHash>,
    /// It has not started: if nothing is held yet, it is to be now.
    pub starts: bool,
}

/// The versions of a dataset that can be held: nobody knows the others any more.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The current one.
    pub current: Option<ManifestHash>,
    /// The one before.
    pub previous: Option<ManifestHash>,
    /// Those that are held.
    pub held: &'a Held,
}

impl Known<'_> {
    /// Whether `version` is one of them.
    pub fn has(&self, version: &ManifestHash) -> bool {
        [self.current, self.previous].contains(&Some(*version))
            || self.held.values().any(|held| held == version)
    }
}

/// What one who writes holds remembers of a dataset: since when nobody needs which.
#[derive(Debug, Default)]
pub struct Unneeded(HashMap<String, Millis>);

/// Holds as they should be.
#[derive(Debug, PartialEq, Eq)]
pub struct Next {
    /// All of them; `None` when they are so.
    pub held: Option<Held>,
    /// Owners for whom there is no room.
    pub left_out: usize,
}

impl Unneeded {
    /// What is to be held, given what is and what pods need.
    pub fn next(&mut self, now: Millis, known: Known<'_>, needs: &[Need]) -> Next {
        let needed: HashSet<&str> = needs.iter().map(|need| need.owner.as_str()).collect();
        self.0.retain(|owner, _| known.held.contains_key(owner) && !needed.contains(owner.as_str()));
        let mut held = known.held.clone();
        for owner in known.held.keys().filter(|owner| !needed.contains(owner.as_str())) {
            let since = *self.0.entry(owner.clone()).or_insert(now);
            if now.since(since) >= KEPT {
                held.remove(owner);
            }
        }
        let starting = needs.iter().filter(|need| need.starts && !known.held.contains_key(&need.owner));
        let new: BTreeMap<&str, ManifestHash> = starting
            .filter_map(|need| {
                let version = match need.version {
                    Some(version) => known.has(&version).then_some(version),
                    None => known.current,
                };
                Some((need.owner.as_str(), version?))
            })
            .collect();
        let mut left_out = 0;
        for (owner, version) in new {
            if held.len() >= MOST_HELD && !self.make_room(&mut held) {
                left_out += 1;
                continue;
            }
            held.insert(owner.to_owned(), version);
        }
        Next { held: (held != *known.held).then_some(held), left_out }
    }

    /// Drops the hold that has not been needed for longest; whether there was one.
    fn make_room(&self, held: &mut Held) -> bool {
        let unneeded = self.0.iter().filter(|(owner, _)| held.contains_key(*owner));
        let oldest = unneeded.min_by_key(|(owner, since)| (**since, *owner)).map(|(owner, _)| owner.clone());
        oldest.is_some_and(|owner| held.remove(&owner).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(number: u8) -> ManifestHash {
        ManifestHash([number; 32])
    }

    fn starts(owner: &str) -> Need {
        Need { owner: owner.into(), version: None, starts: true }
    }

    fn runs(owner: &str) -> Need {
        Need { starts: false, ..starts(owner) }
    }

    fn next(unneeded: &mut Unneeded, now: u64, current: u8, held: &Held, needs: &[Need]) -> Next {
        let known = Known { current: Some(version(current)), previous: None, held };
        unneeded.next(Millis(now), known, needs)
    }

    #[test]
    fn what_is_current_when_the_first_pod_starts_is_held_until_the_last_is_long_gone() {
        let mut unneeded = Unneeded::default();
        let held = next(&mut unneeded, 0, 1, &Held::new(), &[starts("a"), starts("a")]).held.unwrap();
        assert_eq!(held, Held::from([("a".to_owned(), version(1))]));
        assert_eq!(next(&mut unneeded, 0, 2, &held, &[runs("a"), starts("a")]).held, None);
        assert_eq!(next(&mut unneeded, 1, 2, &held, &[]).held, None);
        assert_eq!(next(&mut unneeded, KEPT, 2, &held, &[runs("a")]).held, None, "needed once more");
        assert_eq!(next(&mut unneeded, KEPT + 1, 2, &held, &[]).held, None);
        assert_eq!(next(&mut unneeded, 2 * KEPT, 2, &held, &[]).held, None);
        assert_eq!(next(&mut unneeded, 2 * KEPT + 1, 2, &held, &[]).held, Some(Held::new()));
    }

    #[test]
    fn a_pod_that_started_without_a_hold_gets_none() {
        let mut unneeded = Unneeded::default();
        assert_eq!(next(&mut unneeded, 0, 1, &Held::new(), &[runs("a")]), Next { held: None, left_out: 0 });
        let unlisted = Known { current: None, previous: None, held: &Held::new() };
        assert_eq!(unneeded.next(Millis(0), unlisted, &[starts("a")]).held, None);
    }

    #[test]
    fn only_a_version_that_is_known_can_be_named() {
        let naming = |number| Need { version: Some(version(number)), ..starts(&named(&version(number))) };
        let held = Held::from([("a".to_owned(), version(1))]);
        let known = Known { current: Some(version(3)), previous: Some(version(2)), held: &held };
        let needs: Vec<Need> = (1..=4).map(naming).collect();
        let next = Unneeded::default().next(Millis(0), known, &needs).held.unwrap();
        assert_eq!(next.len(), 4);
        assert!((1..=3).all(|number| next[&named(&version(number))] == version(number)));
    }

    #[test]
    fn a_full_list_drops_what_nobody_needs_and_nothing_else() {
        let mut unneeded = Unneeded::default();
        let owners: Vec<String> = (0..MOST_HELD).map(|number| format!("{number:03}")).collect();
        let held: Held = owners.iter().map(|owner| (owner.clone(), version(1))).collect();
        let mut needs: Vec<Need> = owners.iter().map(|owner| runs(owner)).collect();
        needs.push(starts("new"));
        assert_eq!(next(&mut unneeded, 0, 2, &held, &needs), Next { held: None, left_out: 1 });
        needs.remove(7);
        let next = next(&mut unneeded, 0, 2, &held, &needs);
        let next_held = next.held.unwrap();
        assert_eq!((next.left_out, next_held.len()), (0, MOST_HELD));
        assert!(!next_held.contains_key("007") && next_held["new"] == version(2));
    }

    #[test]
    fn owners_are_told_apart_by_revision_and_bounded() {
        assert_eq!(owner("u", None).as_deref(), Some("u"));
        assert_eq!(owner("u", Some("web-7f")).as_deref(), Some("u/web-7f"));
        assert_eq!(owner("", None), None);
        assert_eq!(owner(&"u".repeat(LONGEST_OWNER + 1), None), None);
        assert_eq!(owner(&named(&version(1)), None), None, "nobody passes for a version");
    }

    /// One step in the life of a dataset and of two owners' pods, seen by two replicas.
    #[derive(Clone, Debug)]
    enum Step {
        Refresh(u8),
        Start(u8),
        End(u8),
        /// A replica takes itself for the leader and writes what it thinks right.
        Lead(usize),
        /// A replica sees the Dataset as it is.
        See(usize),
        /// kubelet mounts the pods that a replica has a word for.
        Mount(usize),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0u8..5).prop_map(Step::Refresh),
            3 => (0u8..2).prop_map(Step::Start),
            1 => (0u8..2).prop_map(Step::End),
            4 => (0usize..2).prop_map(Step::Lead),
            4 => (0usize..2).prop_map(Step::See),
            4 => (0usize..2).prop_map(Step::Mount),
            1 => (0..2 * KEPT).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// However refreshes, starting pods and changes of the leader fall, the pods of one
        /// owner get one version for as long as it has pods.
        #[test]
        fn pods_of_one_owner_see_one_version(steps in prop::collection::vec(step(), 0..120)) {
            // The object: its resourceVersion, the current version, the holds.
            let mut object = (0u64, 1u8, Held::new());
            let mut seen = [object.clone(), object.clone()];
            let mut unneeded = [Unneeded::default(), Unneeded::default()];
            let mut now = 0;
            // Of each owner: pods that wait, and the versions of those that run.
            let mut waiting = [0usize; 2];
            let mut mounted: [Vec<ManifestHash>; 2] = Default::default();
            let names = ["a", "b"];
            for step in steps {
                match step {
                    Step::Refresh(version) if version != object.1 => object = (object.0 + 1, version, object.2),
                    Step::Refresh(_) => {}
                    Step::Start(owner) => waiting[usize::from(owner)] += 1,
                    Step::End(owner) => (waiting[usize::from(owner)], mounted[usize::from(owner)]) = (0, Vec::new()),
                    Step::See(replica) => seen[replica] = object.clone(),
                    Step::Lead(replica) => {
                        let (revision, current, held) = seen[replica].clone();
                        let mut needs = Vec::new();
                        for (owner, name) in names.iter().enumerate() {
                            needs.extend((0..waiting[owner]).map(|_| starts(name)));
                            needs.extend(mounted[owner].iter().map(|_| runs(name)));
                        }
                        if let Some(held) = next(&mut unneeded[replica], now, current, &held, &needs).held
                            && revision == object.0
                        {
                            object = (object.0 + 1, object.1, held);
                        }
                    }
                    Step::Mount(replica) => {
                        for (owner, name) in names.iter().enumerate() {
                            // The replica says for whom; which version the node reads in the object itself.
                            if seen[replica].2.contains_key(*name)
                                && let Some(version) = object.2.get(*name)
                            {
                                mounted[owner].extend(std::iter::repeat_n(*version, waiting[owner]));
                                waiting[owner] = 0;
                            }
                        }
                    }
                    Step::Wait(millis) => now += millis,
                }
                for versions in &mounted {
                    prop_assert!(versions.windows(2).all(|pair| pair[0] == pair[1]), "{:?}", versions);
                }
            }
        }
    }
}
