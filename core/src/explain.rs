//! Decisions in words and numbers: the Event on a placed pod and the explain table.

use crate::annotation::Locality;
use crate::decide::{Decision, Now, rejection};
use crate::index::ClusterIndex;
use crate::score;
use serde::Serialize;
use std::fmt::Write;
use std::sync::Arc;

/// Most nodes that are listed.
const MAX_ROWS: usize = 50;

/// `41 GB`: decimal units, two figures below ten of a unit.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit > 0 && value < 9.95 {
        true => format!("{value:.1} {}", UNITS[unit]),
        false => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// `35 s`, `12 min`, `3 h`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 0.95 => "under 1 s".to_owned(),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.0} h", s / 3600.0),
    }
}

/// The first few of a list, and how many more there are: `a, b, c and 4 more`.
pub fn few(all: impl ExactSizeIterator<Item = String>) -> String {
    const SHOWN: usize = 3;
    let more = all.len().saturating_sub(SHOWN);
    let shown = all.take(SHOWN).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

/// The first few of these nodes, and how many more there are.
pub fn names(nodes: &[Arc<str>]) -> String {
    few(nodes.iter().map(ToString::to_string))
}

/// The Event's text for a pod that was placed on `node`:
/// `node-7 holds 83 % (41 GB of 49 GB); runner-up node-2 61 %`.
pub fn placed(decision: &Decision, node: &str) -> String {
    let weighing = &decision.weighing;
    let mut text = holds(decision, node);
    let runner_up = weighing.ranked().into_iter().find(|other| *other.node != *node && other.held > 0);
    match runner_up {
        Some(other) => {
            let _ = write!(
                text,
                "; runner-up {} {} %",
                other.node,
                score::percent(other.held, weighing.requested)
            );
        }
        None => text.push_str("; no other candidate holds any"),
    }
    text
}

/// What `node` holds of what a pod asks for, and what it has still to fetch:
/// `node-7 holds 83 % (41 GB of 49 GB), 8.0 GB to fetch, about 35 s`.
pub fn holds(decision: &Decision, node: &str) -> String {
    let weighing = &decision.weighing;
    let here = weighing.of(node);
    let mut text = format!(
        "{node} holds {} % ({} of {})",
        score::percent(here.held, weighing.requested),
        bytes(here.held),
        bytes(weighing.requested)
    );
    let missing = weighing.requested.saturating_sub(here.held);
    if missing > 0 {
        let seconds = duration(score::seconds(weighing.requested, &here));
        let _ = write!(text, ", {} to fetch, about {seconds}", bytes(missing));
    }
    text
}

/// How one node stands for a pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The node.
    pub node: String,
    /// Percent of the bytes asked for that it holds, rounded down.
    pub percent: u8,
    /// Bytes that it holds.
    pub held_bytes: u64,
    /// Bytes that it has been told to fetch.
    pub in_flight_bytes: u64,
    /// Seconds until all would be there, at the rate measured or assumed.
    pub seconds: f64,
    /// What prioritize would say.
    pub score: u8,
    /// What filter would say; absent when the node passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<&'static str>,
}

/// Which version of a dataset a pod gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// `namespace/name` of the Dataset.
    pub dataset: String,
    /// The version.
    pub manifest: String,
    /// Whether it stays so when the dataset is refreshed.
    pub held: bool,
}

/// Where a pod would go, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// `preferred`, `required` or `wait`.
    pub locality: &'static str,
    /// Percent that a node must hold when locality insists.
    pub min_warm_percent: u8,
    /// Bytes asked for.
    pub requested_bytes: u64,
    /// The datasets asked for, `namespace/name` with globs.
    pub datasets: Vec<String>,
    /// The versions that the pod gets of them.
    pub versions: Vec<Version>,
    /// Warm nodes, warmest first, at most 50.
    pub nodes: Vec<Row>,
    /// Warm nodes in all.
    pub warm_nodes: usize,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
}

/// Explains a decision as the index stands.
pub fn explain(index: &ClusterIndex, now: Now, decision: &Decision) -> Explanation {
    let Decision { demand, weighing } = decision;
    let cold_seconds = score::cold_seconds(weighing);
    let rows = weighing.ranked().into_iter().take(MAX_ROWS).map(|node| Row {
        node: node.node.to_string(),
        percent: score::percent(node.held, weighing.requested),
        held_bytes: node.held,
        in_flight_bytes: node.in_flight,
        seconds: score::seconds(weighing.requested, node),
        score: score::score(weighing.requested, cold_seconds, node),
        rejected: rejection(index, now, demand, weighing, &node.node),
    });
    let datasets = demand.asked.iter().map(|asked| match asked.selection.is_all() {
        true => asked.name().to_string(),
        false => format!("{}: {}", asked.name(), asked.selection.globs().join(", ")),
    });
    let versions = demand.asked.iter().filter_map(|asked| {
        let (manifest, held) = index.version_for(demand, asked)?;
        Some(Version { dataset: asked.name().to_string(), manifest: manifest.to_string(), held })
    });
    Explanation {
        locality: match demand.locality {
            Locality::Preferred => "preferred",
            Locality::Required => "required",
            Locality::Wait(_) => "wait",
        },
        min_warm_percent: demand.min_warm_percent,
        requested_bytes: weighing.requested,
        datasets: datasets.collect(),
        versions: versions.collect(),
        nodes: rows.collect(),
        warm_nodes: weighing.nodes.len(),
        problems: demand
            .problems
            .iter()
            .cloned()
            .chain(weighing.problems.iter().map(ToString::to_string))
            .collect(),
    }
}

impl Explanation {
    /// The explanation as a table for a terminal.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{} of {}, {}",
            bytes(self.requested_bytes),
            self.datasets.join("; "),
            self.locality
        );
        for version in &self.versions {
            let held = if version.held { ", held" } else { "" };
            let _ = writeln!(text, "version {} of {}{held}", version.manifest, version.dataset);
        }
        for problem in &self.problems {
            let _ = writeln!(text, "problem: {problem}");
        }
        let width = self.nodes.iter().map(|row| row.node.len()).max().unwrap_or(0).max("NODE".len());
        let _ = writeln!(
            text,
            "{:width$}  {:>6}  {:>8}  {:>9}  {:>9}  {:>5}  FILTER",
            "NODE", "WARM", "HELD", "IN FLIGHT", "TO GO", "SCORE"
        );
        for row in &self.nodes {
            let _ = writeln!(
                text,
                "{:width$}  {:>4} %  {:>8}  {:>9}  {:>9}  {:>5}  {}",
                row.node,
                row.percent,
                bytes(row.held_bytes),
                bytes(row.in_flight_bytes),
                duration(row.seconds),
                row.score,
                row.rejected.unwrap_or("passes"),
            );
        }
        if self.nodes.is_empty() {
            text.push_str("no node holds any of it\n");
        } else if self.warm_nodes > self.nodes.len() {
            let _ = writeln!(text, "and {} more", self.warm_nodes - self.nodes.len());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{Weighed, Weighing};
    use crate::pin::Pins;
    use crate::pod::Demand;

    fn decision(requested: u64, nodes: &[(&str, u64)]) -> Decision {
        let nodes = nodes.iter().map(|(node, held)| Weighed {
            node: (*node).into(),
            held: *held,
            in_flight: 0,
            rate: 1_000_000_000,
        });
        Decision {
            demand: Demand {
                namespace: "n".into(),
                locality: Locality::Preferred,
                min_warm_percent: 100,
                asked: vec![],
                problems: vec![],
                created: None,
                owner: None,
                pins: Ok(Pins::new()),
            },
            weighing: Weighing { requested, nodes: nodes.collect(), problems: vec![] },
        }
    }

    #[test]
    fn the_event_says_why() {
        let decision = decision(49_000_000_000, &[("node-2", 30_000_000_000), ("node-7", 41_000_000_000)]);
        assert_eq!(
            placed(&decision, "node-7"),
            "node-7 holds 83 % (41 GB of 49 GB), 8.0 GB to fetch, about 8 s; runner-up node-2 61 %"
        );
        assert_eq!(
            placed(&decision, "cold"),
            "cold holds 0 % (0 B of 49 GB), 49 GB to fetch, about 392 s; runner-up node-7 83 %"
                .replace("392 s", "7 min")
        );
    }

    #[test]
    fn a_whole_node_has_nothing_to_fetch() {
        assert_eq!(
            placed(&decision(1_500, &[("a", 1_500)]), "a"),
            "a holds 100 % (1.5 kB of 1.5 kB); no other candidate holds any"
        );
    }

    #[test]
    fn sizes_and_times_read_well() {
        let sizes = [0, 999, 1_000, 9_949, 9_950, 999_499, 999_500, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0 B", "999 B", "1.0 kB", "9.9 kB", "10 kB", "999 kB", "1.0 MB", "18 EB"]);
        assert_eq!([0.1, 35.0, 600.0, 10_000.0].map(duration), ["under 1 s", "35 s", "10 min", "3 h"]);
    }
}
