//! Warm-ups: what is to be cached ahead of use, and where.

use super::follow::Follower;
use super::known::Known;
use super::runs::owner_of;
use crate::state::State;
use hearth_api::{InvalidSpec, Warmup, WarmupWhat};
use hearth_core::index::{DatasetName, WarmupFacts};
use kube::ResourceExt;
use std::collections::HashSet;
use std::sync::Arc;

pub(super) struct Warmups {
    state: Arc<State>,
    known: Arc<Known>,
}

impl Warmups {
    pub(super) fn new(state: Arc<State>, known: Arc<Known>) -> Self {
        Self { state, known }
    }

    fn remove(&self, gone: impl Fn(&str) -> bool) {
        for warmup in self.known.remove_warmups(gone) {
            self.state.write(|index| index.remove_warmup(&warmup.uid().unwrap_or_default()));
            self.state.wake_all();
        }
    }
}

impl Follower<Warmup> for Warmups {
    const KIND: &'static str = "Warmup";

    fn apply(&mut self, mut warmup: Warmup) {
        let uid = warmup.uid().unwrap_or_default();
        let facts = facts_of(&warmup);
        warmup.metadata.managed_fields = None;
        let before = self.known.set_warmup(uid.clone(), warmup.clone());
        // Most changes are of what the leader itself writes into the status.
        let is_same =
            |before: &Warmup| before.spec == warmup.spec && before.is_stopped() == warmup.is_stopped();
        if before.is_some_and(|before| is_same(&before)) {
            return;
        }
        self.state.write(|index| match facts {
            Ok(facts) if !warmup.is_stopped() => index.set_warmup(&uid, facts),
            // The leader says so in the status.
            Ok(_) | Err(_) => index.remove_warmup(&uid),
        });
        self.state.wake_all();
    }

    fn delete(&mut self, warmup: Warmup) {
        let gone = warmup.uid().unwrap_or_default();
        self.remove(|uid| uid == gone);
    }

    fn retain(&mut self, uids: &HashSet<String>) {
        self.remove(|uid| !uids.contains(uid));
    }
}

fn facts_of(warmup: &Warmup) -> Result<WarmupFacts, InvalidSpec> {
    let nodes = warmup.spec.nodes.clone().unwrap_or_default();
    // Those of one CronWarmup warm the same nodes, one after the other.
    let subject = owner_of(warmup).map_or_else(|| warmup.uid().unwrap_or_default(), str::to_owned);
    Ok(WarmupFacts {
        subject,
        dataset: DatasetName::new(warmup.namespace().unwrap_or_default(), warmup.spec.dataset.name.clone()),
        selection: match warmup.spec.what {
            WarmupWhat::Data => Some(warmup.selection()?),
            WarmupWhat::Metadata => None,
        },
        node_selector: nodes.node_selector,
        replicas: nodes.replicas.map(|replicas| usize::try_from(replicas).unwrap_or(0)),
        pending_pods: nodes.pending_pods,
        priority: warmup.spec.priority,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use hearth_api::DEADLINE_EXCEEDED;
    use hearth_core::index::Settings;

    fn warmup(paths: &[&str]) -> Warmup {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "hearth.dev/v1alpha1", "kind": "Warmup",
            "metadata": {"name": "w", "namespace": "n", "uid": "u", "generation": 1},
            "spec": {"dataset": {"name": "d"}, "paths": paths, "nodes": {"replicas": 2}, "priority": -5},
        }))
        .unwrap()
    }

    #[test]
    fn a_warm_up_comes_and_goes() {
        let facts = facts_of(&warmup(&["train/**"])).unwrap();
        assert_eq!(
            (facts.dataset, facts.replicas, facts.priority),
            (DatasetName::new("n", "d"), Some(2), -5)
        );

        let state = Arc::new(State::new(Settings::default(), Metrics::new().unwrap()));
        let known = Arc::new(Known::default());
        let mut warmups = Warmups::new(state.clone(), known.clone());
        let carried_out = || state.warmup_progress("u").is_some();
        warmups.apply(warmup(&["train/**"]));
        assert!(carried_out());
        warmups.apply(warmup(&["{a"]));
        assert!(!carried_out() && known.warmups().len() == 1, "a bad spec is kept for its status only");
        warmups.apply(warmup(&[]));
        assert!(carried_out());
        let mut late = warmup(&[]);
        late.status = serde_json::from_value(serde_json::json!({"observedGeneration": 1, "conditions": [
            {"type": "Complete", "status": "False", "reason": DEADLINE_EXCEEDED, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        ]}))
        .unwrap();
        warmups.apply(late.clone());
        assert!(!carried_out(), "its deadline has passed");
        late.metadata.generation = Some(2);
        warmups.apply(late.clone());
        assert!(carried_out(), "it was raised");
        late.spec.suspend = true;
        warmups.apply(late);
        assert!(!carried_out());
        let mut done = warmup(&[]);
        done.status = serde_json::from_value(serde_json::json!({"observedGeneration": 1, "conditions": [
            {"type": "Complete", "status": "True", "reason": "Complete", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        ]}))
        .unwrap();
        warmups.apply(done.clone());
        assert!(carried_out(), "it is kept warm");
        done.spec.keep_warm = Some(false);
        warmups.apply(done);
        assert!(!carried_out(), "that was all");
        warmups.apply(warmup(&[]));
        assert!(carried_out());
        warmups.retain(&HashSet::new());
        assert!(!carried_out() && known.warmups().is_empty());
    }
}
