//! Warmups that CronWarmups have made, by whose they are.

use hearth_api::{CronWarmup, Warmup};
use kube::{Resource, ResourceExt};
use std::collections::HashMap;
use std::sync::Arc;

/// Warmups by UID of the CronWarmup that controls them.
#[derive(Default)]
pub(super) struct Runs {
    by_owner: HashMap<String, Owned>,
    changes: u64,
}

#[derive(Default)]
struct Owned {
    /// Grows with every change.
    change: u64,
    warmups: HashMap<String, Arc<Warmup>>,
}

impl Runs {
    /// Whether it is anybody's.
    pub(super) fn set(&mut self, warmup: &Arc<Warmup>) -> bool {
        self.change(warmup, |warmups, uid| {
            warmups.insert(uid, warmup.clone());
        })
    }

    /// Whether it was anybody's.
    pub(super) fn remove(&mut self, warmup: &Warmup) -> bool {
        self.change(warmup, |warmups, uid| {
            warmups.remove(&uid);
        })
    }

    pub(super) fn of(&self, owner: &str) -> Vec<Arc<Warmup>> {
        let owned = self.by_owner.get(owner);
        owned.map(|owned| owned.warmups.values().cloned().collect()).unwrap_or_default()
    }

    /// A number that is another after a change.
    pub(super) fn change_of(&self, owner: &str) -> u64 {
        self.by_owner.get(owner).map_or(0, |owned| owned.change)
    }

    fn change(
        &mut self,
        warmup: &Warmup,
        change: impl FnOnce(&mut HashMap<String, Arc<Warmup>>, String),
    ) -> bool {
        let Some(owner) = owner_of(warmup) else { return false };
        self.changes += 1;
        let owned = self.by_owner.entry(owner.to_owned()).or_default();
        owned.change = self.changes;
        change(&mut owned.warmups, warmup.uid().unwrap_or_default());
        if owned.warmups.is_empty() {
            self.by_owner.remove(owner);
        }
        true
    }
}

/// The UID of the CronWarmup that has made it.
pub(crate) fn owner_of(warmup: &Warmup) -> Option<&str> {
    let owner = warmup.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    let is_ours = owner.kind == CronWarmup::kind(&()) && owner.api_version == CronWarmup::api_version(&());
    is_ours.then_some(owner.uid.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn warmup(uid: &str, owner: Option<&str>) -> Arc<Warmup> {
        let owner = owner.map(|uid| {
            json!({"apiVersion": "hearth.dev/v1alpha1", "kind": "CronWarmup", "name": "c", "uid": uid, "controller": true})
        });
        let warmup = json!({
            "apiVersion": "hearth.dev/v1alpha1", "kind": "Warmup",
            "metadata": {"name": uid, "namespace": "n", "uid": uid, "ownerReferences": owner.into_iter().collect::<Vec<_>>()},
            "spec": {"dataset": {"name": "d"}},
        });
        Arc::new(serde_json::from_value(warmup).unwrap())
    }

    #[test]
    fn runs_are_known_by_whose_they_are() {
        let mut runs = Runs::default();
        assert!(!runs.set(&warmup("a", None)));
        assert!(runs.set(&warmup("b", Some("x"))) && runs.set(&warmup("c", Some("x"))));
        let first = runs.change_of("x");
        assert_eq!((runs.of("x").len(), runs.of("y").len(), runs.change_of("y")), (2, 0, 0));
        assert!(runs.remove(&warmup("b", Some("x"))));
        assert!(runs.change_of("x") > first);
        runs.remove(&warmup("c", Some("x")));
        assert!(runs.by_owner.is_empty());
    }
}
