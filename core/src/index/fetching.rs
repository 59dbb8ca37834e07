//! Which nodes have been told to fetch which part of a dataset, counted, so that
//! weighing a pod does not look at every other pod.

use super::DatasetName;
use crate::selection::Selection;
use hashbrown::{HashMap, HashSet};
use std::sync::Arc;

/// How many orders each node has for a selection.
type Orders = HashMap<Arc<str>, usize>;

#[derive(Default)]
pub(super) struct Fetching {
    by_dataset: HashMap<DatasetName, HashMap<Selection, Orders>>,
}

impl Fetching {
    pub(super) fn add(&mut self, dataset: DatasetName, selection: &Selection, node: &Arc<str>) {
        let selections = self.by_dataset.entry(dataset).or_default();
        *selections.entry(selection.clone()).or_default().entry(node.clone()).or_default() += 1;
    }

    pub(super) fn remove(&mut self, dataset: &DatasetName, selection: &Selection, node: &str) {
        let Some(selections) = self.by_dataset.get_mut(dataset) else { return };
        let Some(orders) = selections.get_mut(selection) else { return };
        if let Some(count) = orders.get_mut(node) {
            *count -= 1;
            if *count == 0 {
                orders.remove(node);
            }
        }
        if orders.is_empty() {
            selections.remove(selection);
        }
        if selections.is_empty() {
            self.by_dataset.remove(dataset);
        }
    }

    /// The nodes that fetch all of a selection, each once.
    pub(super) fn nodes(&self, dataset: &DatasetName, selection: &Selection) -> HashSet<&Arc<str>> {
        let selections = self.by_dataset.get(dataset).into_iter().flatten();
        selections
            .filter(|(other, _)| other.is_all() || *other == selection)
            .flat_map(|(_, orders)| orders.keys())
            .collect()
    }
}
