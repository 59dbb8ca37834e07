//! Gauges that are read from the state whenever somebody asks for the metrics.

use crate::state::State;
use hearth_core::index::DatasetName;

/// Datasets that have series of their own: the first ones by name, so that a cluster
/// with very many of them does not fill a Prometheus.
pub const DATASETS_SHOWN: usize = 200;

/// Brings the gauges up to date.
pub fn bring_up_to_date(state: &State, leads: bool) {
    let now = state.now().monotonic;
    let metrics = &state.metrics;
    let (live, silent, ending, unlisted, missing, mut names) = state.read(|index| {
        let names: Vec<DatasetName> = index.dataset_names().cloned().collect();
        let facts = || names.iter().filter_map(|name| index.dataset(name));
        let ending = facts().filter(|facts| facts.ending.is_some()).count();
        let unlisted = facts().filter(|facts| facts.manifest.is_none()).count() - ending;
        let missing = index.missing_current_manifests().len();
        (index.live_nodes(now).count(), index.silent_nodes(now), ending, unlisted, missing, names)
    });
    metrics.live_agents.set(gauge(live));
    metrics.silent_agents.set(gauge(silent));
    metrics.expected_agents.set(gauge(state.agents(|agents| agents.nodes.len())));
    metrics.datasets.with_label_values(&["listed"]).set(gauge(names.len() - unlisted - ending));
    metrics.datasets.with_label_values(&["deleting"]).set(gauge(ending));
    metrics.datasets.with_label_values(&["unlisted"]).set(gauge(unlisted));
    metrics.datasets.with_label_values(&["manifest-missing"]).set(gauge(missing));
    metrics.leader.set(i64::from(leads));
    names.sort_unstable();
    names.truncate(DATASETS_SHOWN);
    metrics.dataset_nodes.reset();
    metrics.dataset_bytes.reset();
    for name in names {
        // One at a time: reports get their turn in between.
        let Some(warmth) = state.read(|index| index.dataset_warmth(now, &name)) else { continue };
        let (namespace, dataset) = (name.namespace.as_str(), name.name.as_str());
        let nodes = |held| metrics.dataset_nodes.with_label_values(&[namespace, dataset, held]);
        nodes("whole").set(gauge(warmth.whole));
        nodes("part").set(gauge(warmth.some.saturating_sub(warmth.whole)));
        let bytes = metrics.dataset_bytes.with_label_values(&[namespace, dataset]);
        bytes.set(i64::try_from(warmth.bytes).unwrap_or(i64::MAX));
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use hearth_core::index::{DatasetFacts, Settings};

    #[test]
    fn datasets_are_counted_and_the_series_are_bounded() {
        let state = State::new(Settings::default(), Metrics::new().unwrap());
        state.write(|index| {
            for number in 0..DATASETS_SHOWN + 50 {
                let name = DatasetName::new("n", format!("d{number}"));
                index.set_dataset(&name, DatasetFacts::default());
            }
        });
        bring_up_to_date(&state, true);
        let metrics = &state.metrics;
        assert_eq!(metrics.datasets.with_label_values(&["unlisted"]).get(), 250);
        assert_eq!(metrics.datasets.with_label_values(&["listed"]).get(), 0);
        assert_eq!(metrics.leader.get(), 1);
    }
}
