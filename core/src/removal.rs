//! When a Dataset that is being deleted may go, and what its owner is told until then.

use crate::explain::{self, few, names};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Who still holds something of a Dataset that is being deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    /// Nodes that answer and are giving it up, with the bytes that are left there.
    pub letting_go: Vec<(Arc<str>, u64)>,
    /// Nodes that hold only what their pods read: these keep it until they end.
    pub reading: Vec<Arc<str>>,
    /// Nodes that hold some, or may, and do not answer.
    pub silent: Vec<Arc<str>>,
}

impl Holders {
    /// Puts all in the order in which they are told.
    pub(crate) fn sort(&mut self) {
        self.letting_go.sort_unstable();
        self.reading.sort_unstable();
        self.silent.sort_unstable();
    }

    fn nodes(&self) -> impl Iterator<Item = &Arc<str>> {
        let letting_go = self.letting_go.iter().map(|(node, _)| node);
        letting_go.chain(&self.reading).chain(&self.silent)
    }
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nodes are giving it up; with a sentence that says how far they are.
    Wait(String),
    /// It may go: no node holds anything but what its pods read; with a sentence that names
    /// those, if there are any.
    Done(Option<String>),
    /// It has been waited for long enough, and it goes all the same; with a sentence that names
    /// the nodes that have not let go.
    GiveUp(String),
}

/// One Dataset's way out, for as long as one leader watches it.
#[derive(Clone, Debug, Default)]
pub struct Removal {
    /// All nodes that have been seen to hold some.
    seen: BTreeSet<Arc<str>>,
}

impl Removal {
    /// What is to be done, `waited` after the end was asked for. Nodes are waited for no longer
    /// than `patience`.
    pub fn next(&mut self, holders: &Holders, waited: Duration, patience: Duration) -> Step {
        self.seen.extend(holders.nodes().cloned());
        if holders.letting_go.is_empty() && holders.silent.is_empty() {
            let reading = (!holders.reading.is_empty()).then(|| {
                format!(
                    "pods on {} read what they mounted until they end, and their nodes let go of it then",
                    names(&holders.reading)
                )
            });
            return Step::Done(reading);
        }
        if waited >= patience {
            let left: Vec<Arc<str>> =
                holders.letting_go.iter().map(|(node, _)| node).chain(&holders.silent).cloned().collect();
            return Step::GiveUp(format!(
                "{} did not let go within {}: what is there is given up when they answer again",
                names(&left),
                explain::duration(patience.as_secs_f64())
            ));
        }
        Step::Wait(self.sentence(holders, patience))
    }

    fn sentence(&self, holders: &Holders, patience: Duration) -> String {
        let gone = self.seen.len() - holders.nodes().collect::<BTreeSet<_>>().len();
        let mut parts = vec![format!("{gone} of {} nodes have let go", self.seen.len())];
        if !holders.letting_go.is_empty() {
            let shown = holders.letting_go.iter().map(|(node, bytes)| match bytes {
                0 => node.to_string(),
                bytes => format!("{node} ({})", explain::bytes(*bytes)),
            });
            parts.push(format!("some is left on {}", few(shown)));
        }
        if !holders.silent.is_empty() {
            parts.push(format!(
                "waiting up to {} for {}, which {} not answer",
                explain::duration(patience.as_secs_f64()),
                names(&holders.silent),
                if holders.silent.len() == 1 { "does" } else { "do" }
            ));
        }
        if !holders.reading.is_empty() {
            parts.push(format!("pods on {} read it until they end", names(&holders.reading)));
        }
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATIENCE: Duration = Duration::from_secs(300);

    fn holders(letting_go: &[(&str, u64)], reading: &[&str], silent: &[&str]) -> Holders {
        Holders {
            letting_go: letting_go.iter().map(|(node, bytes)| (Arc::from(*node), *bytes)).collect(),
            reading: reading.iter().map(|node| Arc::from(*node)).collect(),
            silent: silent.iter().map(|node| Arc::from(*node)).collect(),
        }
    }

    #[test]
    fn it_is_told_how_far_it_is() {
        let mut removal = Removal::default();
        let mut next =
            |holders: Holders, waited| removal.next(&holders, Duration::from_secs(waited), PATIENCE);
        let all = holders(&[("a", 5_000), ("b", 1_200_000_000), ("c", 0)], &[], &[]);
        assert_eq!(
            next(all, 0),
            Step::Wait("0 of 3 nodes have let go; some is left on a (5.0 kB), b (1.2 GB), c".into())
        );
        assert_eq!(
            next(holders(&[("b", 1_000)], &["d"], &["c"]), 9),
            Step::Wait(
                "1 of 4 nodes have let go; some is left on b (1.0 kB); waiting up to 5 min for c, which does not answer; pods on d read it until they end".into()
            )
        );
        let Step::GiveUp(why) = next(holders(&[("b", 1_000)], &["d"], &["c"]), 300) else { panic!() };
        assert!(why.starts_with("b, c did not let go within 5 min"), "{why}");
        let Step::Done(Some(reading)) = next(holders(&[], &["d"], &[]), 9) else { panic!() };
        assert!(reading.starts_with("pods on d read what they mounted until they end"), "{reading}");
        assert_eq!(next(Holders::default(), 9), Step::Done(None));
    }

    #[test]
    fn a_sentence_names_a_few_nodes_and_counts_the_others() {
        let many: Vec<String> = (0..5_000).map(|node| format!("n{node}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let Step::GiveUp(why) = Removal::default().next(&holders(&[], &[], &many), PATIENCE, PATIENCE) else {
            panic!()
        };
        assert!(why.starts_with("n0, n1, n2 and 4997 more did not let go"), "{why}");
    }

    proptest! {
        /// Whoever answers and holds some is waited for, though not for ever; and nobody else is.
        #[test]
        fn it_goes_when_all_have_let_go_or_the_time_is_over(
            steps in prop::collection::vec((0_u64..600, any::<[u8; 6]>()), 1..20),
        ) {
            let mut removal = Removal::default();
            for (waited, nodes) in steps {
                let mut seen = Holders::default();
                for (number, state) in nodes.iter().enumerate() {
                    let node: Arc<str> = format!("n{number}").into();
                    match state % 4 {
                        0 => seen.letting_go.push((node, u64::from(*state))),
                        1 => seen.reading.push(node),
                        2 => seen.silent.push(node),
                        _ => {}
                    }
                }
                let waits = !seen.letting_go.is_empty() || !seen.silent.is_empty();
                match removal.next(&seen, Duration::from_secs(waited), PATIENCE) {
                    Step::Wait(_) => prop_assert!(waits && waited < 300),
                    Step::GiveUp(_) => prop_assert!(waits && waited >= 300),
                    Step::Done(reading) => prop_assert!(!waits && reading.is_some() != seen.reading.is_empty()),
                }
            }
        }
    }
}
