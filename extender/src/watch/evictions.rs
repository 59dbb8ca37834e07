//! Evictions: what nodes are to give up, once.

use super::follow::Follower;
use super::known::Known;
use crate::state::State;
use hearth_api::{Eviction, EvictionWhat, InvalidSpec};
use hearth_core::index::{DatasetName, EvictionFacts, EvictionNodes};
use hearth_core::wire::eviction::Evicts;
use kube::ResourceExt;
use std::collections::HashSet;
use std::sync::Arc;

pub(super) struct Evictions {
    state: Arc<State>,
    known: Arc<Known>,
}

impl Evictions {
    pub(super) fn new(state: Arc<State>, known: Arc<Known>) -> Self {
        Self { state, known }
    }

    fn remove(&self, gone: impl Fn(&str) -> bool) {
        for eviction in self.known.remove_evictions(gone) {
            self.state.write(|index| index.remove_eviction(&eviction.uid().unwrap_or_default()));
            self.state.wake_all();
        }
    }
}

impl Follower<Eviction> for Evictions {
    const KIND: &'static str = "Eviction";

    fn apply(&mut self, mut eviction: Eviction) {
        let uid = eviction.uid().unwrap_or_default();
        let facts = facts_of(&eviction);
        let finished = eviction.is_finished();
        eviction.metadata.managed_fields = None;
        let before = self.known.set_eviction(uid.clone(), eviction.clone());
        // Most changes are of what the leader itself writes into the status.
        if before.is_some_and(|before| before.spec == eviction.spec && before.is_finished() == finished) {
            return;
        }
        self.state.write(|index| match facts {
            Ok(facts) if !finished => index.set_eviction(&uid, facts),
            // The leader says so in the status.
            Ok(_) | Err(_) => index.remove_eviction(&uid),
        });
        self.state.wake_all();
    }

    fn delete(&mut self, eviction: Eviction) {
        let gone = eviction.uid().unwrap_or_default();
        self.remove(|uid| uid == gone);
    }

    fn retain(&mut self, uids: &HashSet<String>) {
        self.remove(|uid| !uids.contains(uid));
    }
}

fn facts_of(eviction: &Eviction) -> Result<EvictionFacts, InvalidSpec> {
    let nodes = eviction.spec.nodes.clone().unwrap_or_default();
    Ok(EvictionFacts {
        dataset: DatasetName::new(
            eviction.namespace().unwrap_or_default(),
            eviction.spec.dataset.name.clone(),
        ),
        selection: eviction.selection()?,
        nodes: match nodes.names.is_empty() {
            true => EvictionNodes::Labelled(nodes.node_selector),
            false => EvictionNodes::Named(nodes.names.into_iter().collect()),
        },
        what: match eviction.spec.what {
            EvictionWhat::Data => Evicts::Data,
            EvictionWhat::Metadata => Evicts::Metadata,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use hearth_core::index::Settings;

    #[test]
    fn an_eviction_is_carried_out_until_it_is_finished_or_gone() {
        let state = Arc::new(State::new(Settings::default(), Metrics::new().unwrap()));
        let known = Arc::new(Known::default());
        let mut evictions = Evictions::new(state.clone(), known.clone());
        let eviction = |paths: &[&str], finished: Option<&str>| -> Eviction {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "hearth.dev/v1alpha1", "kind": "Eviction",
                "metadata": {"name": "e", "namespace": "n", "uid": "u"},
                "spec": {"dataset": {"name": "d"}, "paths": paths, "nodes": {"names": ["a"]}},
                "status": {"finishedAt": finished},
            }))
            .unwrap()
        };
        let facts = facts_of(&eviction(&["train/**"], None)).unwrap();
        assert_eq!((facts.dataset, facts.what), (DatasetName::new("n", "d"), Evicts::Data));
        assert_eq!(facts.nodes, EvictionNodes::Named(["a".to_owned()].into()));
        let carried_out = || state.read(|index| index.eviction_progress("u", []).is_some());
        evictions.apply(eviction(&[], None));
        assert!(carried_out());
        evictions.apply(eviction(&[], Some("2026-01-01T00:00:00Z")));
        assert!(!carried_out() && known.evictions().len() == 1);
        evictions.retain(&HashSet::new());
        assert!(known.evictions().is_empty());
        evictions.apply(eviction(&["{a"], None));
        assert!(!carried_out() && known.evictions().len() == 1, "a bad spec is kept for its status only");
        evictions.delete(eviction(&[], None));
        assert!(known.evictions().is_empty());
    }
}
