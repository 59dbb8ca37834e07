//! The decisions behind kube-scheduler's calls: plain data in, replies out.

mod lookup;

use crate::index::{ClusterIndex, Millis, Problem, Weighed, Weighing};
use crate::pod::Demand;
use crate::score;
use crate::wire::scheduler::{Call, Name, PreemptCall, write_filter, write_preempt, write_scores};
use lookup::ByNode;

/// Reason in the scheduler's Event: the node is not warm enough.
pub const REASON_COLD: &str =
    "hearth: too little of the data is here yet, start a Warmup or lower hearth.dev/min-warm";
/// Reason in the scheduler's Event: nobody speaks for the node.
pub const REASON_SILENT: &str = "hearth: no node agent reports from here";
/// Reason in the scheduler's Event: the pod asks for what is not there, or in words that nobody understands.
pub const REASON_PROBLEM: &str =
    "hearth: the pod's datasets cannot be found or understood, see the pod's events";

/// Reason in the scheduler's Event: this replica cannot judge yet.
pub const REASON_NOT_YET: &str =
    "hearth: the file list of the pod's datasets is not here yet, the pod is tried again when it is";

/// The time, twice: for silence and for the age of pods.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic.
    pub monotonic: Millis,
    /// Seconds since 1970.
    pub unix_seconds: i64,
}

/// What was decided for a pod, kept to explain it once the pod is placed.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What the pod asks for.
    pub demand: Demand,
    /// How warm the nodes were.
    pub weighing: Weighing,
}

/// A reply and what it was made of.
#[derive(Debug)]
pub struct Decided {
    /// The body of the reply.
    pub reply: Vec<u8>,
    /// `None` for a pod that has to do with no dataset.
    pub decision: Option<Decision>,
    /// Nodes that were named to choose from.
    pub candidates: usize,
    /// Of those, the ones that got a score or passed.
    pub taken: usize,
}

/// Why `node` may not take the pod; `None` when it may.
///
/// The one rule for filter, preemption, and for whether a waiting pod is worth
/// another try.
pub fn rejection(
    index: &ClusterIndex,
    now: Now,
    demand: &Demand,
    weighing: &Weighing,
    node: &str,
) -> Option<&'static str> {
    Judge::new(index, now, demand, weighing).rejection(node)
}

/// The live nodes that may take the pod, by the same rule.
pub fn passing<'a>(
    index: &'a ClusterIndex,
    now: Now,
    demand: &Demand,
    weighing: &'a Weighing,
) -> impl Iterator<Item = &'a str> {
    let judge = Judge::new(index, now, demand, weighing);
    index.live_nodes(now.monotonic).filter(move |node| judge.rejection(node).is_none())
}

/// Answers prioritize for a pod with this demand.
pub fn prioritize(index: &ClusterIndex, now: Now, call: &Call<'_>, demand: Option<Demand>) -> Decided {
    let candidates = call.nodes.len();
    let Some(demand) = demand else {
        return Decided { reply: write_scores([]), decision: None, candidates, taken: 0 };
    };
    let mut weighing = index.weigh(now.monotonic, &demand);
    let cold_seconds = score::cold_seconds(&weighing);
    let scores: ByNode<'_, (usize, u8)> = weighing
        .nodes
        .iter()
        .enumerate()
        .map(|(at, node)| (&*node.node, (at, score::score(weighing.requested, cold_seconds, node))))
        .collect();
    let mut scored: Vec<(&str, u8)> = Vec::with_capacity(weighing.nodes.len());
    let mut is_candidate = vec![false; weighing.nodes.len()];
    for name in &call.nodes {
        let Some((at, score)) = scores.get(name.as_str()) else { continue };
        is_candidate[*at] = true;
        if *score > 0 {
            scored.push((name.as_str(), *score));
        }
    }
    // Equal scores for all change nothing, so nothing need be said.
    let all_equal = scored.len() == candidates && scored.windows(2).all(|pair| pair[0].1 == pair[1].1);
    if all_equal {
        scored.clear();
    }
    let reply = write_scores(scored.iter().copied());
    let taken = scored.len();
    drop(scores);
    // The runner-up is one that could have been chosen.
    let mut is_candidate = is_candidate.into_iter();
    weighing.nodes.retain(|_| is_candidate.next().unwrap_or(false));
    Decided { reply, decision: Some(Decision { demand, weighing }), candidates, taken }
}

/// Answers filter for a pod with this demand.
pub fn filter(index: &ClusterIndex, now: Now, call: &Call<'_>, demand: Option<Demand>) -> Decided {
    let candidates = call.nodes.len();
    let all: Vec<&str> = call.nodes.iter().map(Name::as_str).collect();
    let Some(demand) = demand.filter(|demand| demand.insists(now.unix_seconds)) else {
        return Decided { reply: write_filter(&all, &[]), decision: None, candidates, taken: candidates };
    };
    let weighing = index.weigh(now.monotonic, &demand);
    let judge = Judge::new(index, now, &demand, &weighing);
    let mut passing = Vec::new();
    let mut rejected = Vec::with_capacity(candidates);
    for name in all {
        match judge.rejection(name) {
            None => passing.push(name),
            Some(why) => rejected.push((name, why)),
        }
    }
    let reply = write_filter(&passing, &rejected);
    let taken = passing.len();
    drop(judge);
    Decided { reply, decision: Some(Decision { demand, weighing }), candidates, taken }
}

/// Answers preempt: no pod shall die on a node that filter would then refuse.
pub fn preempt(index: &ClusterIndex, now: Now, call: &PreemptCall<'_>, demand: Option<Demand>) -> Decided {
    let candidates = call.victims.len();
    let victims = || call.victims.iter().map(|(node, victims)| (&**node, *victims));
    let Some(demand) = demand.filter(|demand| demand.insists(now.unix_seconds)) else {
        return Decided { reply: write_preempt(victims()), decision: None, candidates, taken: candidates };
    };
    let weighing = index.weigh(now.monotonic, &demand);
    let judge = Judge::new(index, now, &demand, &weighing);
    let remaining: Vec<_> = victims().filter(|(node, _)| judge.rejection(node).is_none()).collect();
    let taken = remaining.len();
    let reply = write_preempt(remaining);
    drop(judge);
    Decided { reply, decision: Some(Decision { demand, weighing }), candidates, taken }
}

/// Why no node can take a pod that insists; what goes by itself is no fault of the pod's.
fn hopeless(demand: &Demand, weighing: &Weighing) -> Option<&'static str> {
    let goes_by_itself =
        |problem: &Problem| matches!(problem, Problem::NoManifest(_) | Problem::NotListed(_));
    match (demand.problems.is_empty(), weighing.problems.as_slice()) {
        (true, []) => None,
        (true, problems) if problems.iter().all(goes_by_itself) => Some(REASON_NOT_YET),
        _ => Some(REASON_PROBLEM),
    }
}

/// Judges nodes for one pod.
struct Judge<'a> {
    index: &'a ClusterIndex,
    now: Now,
    insists: bool,
    /// Why no node can take the pod, when it insists.
    hopeless: Option<&'static str>,
    needed: u128,
    weighed: ByNode<'a, &'a Weighed>,
}

impl<'a> Judge<'a> {
    fn new(index: &'a ClusterIndex, now: Now, demand: &Demand, weighing: &'a Weighing) -> Self {
        Self {
            index,
            now,
            insists: demand.insists(now.unix_seconds),
            hopeless: hopeless(demand, weighing),
            needed: u128::from(demand.min_warm_percent) * u128::from(weighing.requested),
            weighed: weighing.nodes.iter().map(|weighed| (&*weighed.node, weighed)).collect(),
        }
    }

    fn rejection(&self, node: &str) -> Option<&'static str> {
        if !self.insists {
            return None;
        }
        if self.hopeless.is_some() {
            return self.hopeless;
        }
        // Only live nodes are weighed, so a weighed node need not be looked up.
        match self.weighed.get(node) {
            Some(weighed) if u128::from(weighed.held) * 100 >= self.needed => None,
            Some(_) => Some(REASON_COLD),
            None if !self.index.is_live_node(node, self.now.monotonic) => Some(REASON_SILENT),
            None if self.needed == 0 => None,
            None => Some(REASON_COLD),
        }
    }
}
