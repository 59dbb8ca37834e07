//! How far an Eviction is, and what its owner is told.

use crate::explain::{self, names};
use crate::wire::eviction::{EvictionDone, KeptWhy};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How far an Eviction is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Its Dataset exists.
    pub exists: bool,
    /// Nodes that have done it.
    pub nodes_done: usize,
    /// Nodes that are to do it and have not yet.
    pub waiting: Vec<Arc<str>>,
    /// Files that were given up.
    pub files: u64,
    /// Their bytes that were there.
    pub bytes: u64,
    /// Files and bytes that stay, by why.
    pub kept: BTreeMap<KeptWhy, (u64, u64)>,
    /// Nodes where some of it is wanted, and is fetched again.
    pub again: Vec<Arc<str>>,
    /// What failed, on one of the nodes where something did.
    pub failed: Option<(Arc<str>, String)>,
}

/// What is said of an Eviction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// It is finished, well or not.
    pub finished: bool,
    /// All nodes have done it, and nothing failed.
    pub complete: bool,
    /// One word.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
}

impl Progress {
    /// Nodes that are to do it.
    pub fn nodes_wanted(&self) -> usize {
        self.nodes_done + self.waiting.len()
    }

    /// A node has done it.
    pub fn add(&mut self, node: &Arc<str>, done: &EvictionDone) {
        self.nodes_done += 1;
        // What nodes say is not to be trusted with arithmetic.
        self.files = self.files.saturating_add(done.files);
        self.bytes = self.bytes.saturating_add(done.bytes);
        for kept in &done.kept {
            let (files, bytes) = self.kept.entry(kept.why).or_default();
            *files = files.saturating_add(kept.files);
            *bytes = bytes.saturating_add(kept.bytes);
        }
        if done.again {
            self.again.push(node.clone());
        }
        if let (None, Some(error)) = (&self.failed, &done.error) {
            self.failed = Some((node.clone(), error.clone()));
        }
    }

    /// What is said, when its time is over or is not.
    pub fn say(&self, is_late: bool) -> Said {
        if !self.exists {
            let message = "spec.dataset.name names no Dataset of this namespace: what nodes had of one that was deleted goes by itself".to_owned();
            return Said { finished: true, complete: false, reason: "NoDataset", message };
        }
        if self.nodes_wanted() == 0 {
            let message = "no node with an agent matches: see spec.nodes".to_owned();
            return Said { finished: is_late, complete: false, reason: "NoNodes", message };
        }
        if !self.waiting.is_empty() {
            return match is_late {
                true => Said {
                    finished: true,
                    complete: false,
                    reason: "DeadlineExceeded",
                    message: format!(
                        "{} did not do it within spec.activeDeadlineSeconds: make another Eviction for what they hold",
                        names(&self.waiting)
                    ),
                },
                false => Said {
                    finished: false,
                    complete: false,
                    reason: "Evicting",
                    message: format!("waiting for {}", names(&self.waiting)),
                },
            };
        }
        match &self.failed {
            Some((node, error)) => Said {
                finished: true,
                complete: false,
                reason: "Failed",
                message: format!("{node}: {error}"),
            },
            None => Said { finished: true, complete: true, reason: "Evicted", message: self.outcome() },
        }
    }

    fn outcome(&self) -> String {
        let mut parts = vec![format!("{} of {} files were given up", explain::bytes(self.bytes), self.files)];
        for (why, (files, bytes)) in &self.kept {
            let why = match why {
                KeptWhy::Mounted => "since pods have them mounted",
                KeptWhy::Wanted => "since a pod or a Warmup needs their version",
                KeptWhy::Written => "since they were being written",
            };
            parts.push(format!("{} of {files} files stay {why}", explain::bytes(*bytes)));
        }
        if !self.again.is_empty() {
            parts.push(format!(
                "pods or Warmups want some of it on {}, where it is fetched again within a minute",
                names(&self.again)
            ));
        }
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::eviction::Kept;
    use proptest::prelude::*;

    fn done(bytes: u64, kept: Vec<Kept>, again: bool) -> EvictionDone {
        EvictionDone { id: "e".into(), files: 1, bytes, kept, again, error: None }
    }

    #[test]
    fn it_is_said_what_went_what_stays_and_what_comes_back() {
        let mut progress = Progress { exists: true, ..Progress::default() };
        assert_eq!(progress.say(false).reason, "NoNodes");
        let kept = Kept { why: KeptWhy::Mounted, files: 2, bytes: 3_000 };
        progress.add(&"a".into(), &done(1_000, vec![kept], true));
        progress.add(&"b".into(), &done(500, vec![kept], false));
        assert_eq!(
            progress.say(false),
            Said {
                finished: true,
                complete: true,
                reason: "Evicted",
                message: "1.5 kB of 2 files were given up; 6.0 kB of 4 files stay since pods have them mounted; pods or Warmups want some of it on a, where it is fetched again within a minute".into()
            }
        );
        progress.waiting.push("c".into());
        assert_eq!(
            (progress.say(false).message.as_str(), progress.say(false).finished),
            ("waiting for c", false)
        );
        let late = progress.say(true);
        assert_eq!((late.finished, late.complete, late.reason), (true, false, "DeadlineExceeded"));
        let broken = EvictionDone { error: Some("the disk fails".into()), ..done(0, vec![], false) };
        let mut progress = Progress { exists: true, ..Progress::default() };
        progress.add(&"a".into(), &broken);
        assert_eq!(
            (progress.say(false).complete, progress.say(false).message.as_str()),
            (false, "a: the disk fails")
        );
        assert_eq!(Progress::default().say(false).reason, "NoDataset");
    }

    proptest! {
        /// It ends when all have done it, or in time; and it is complete only when all have.
        #[test]
        fn it_ends_and_claims_nothing_that_was_not_done(
            nodes in prop::collection::vec(0_u8..3, 0..12),
            is_late: bool,
        ) {
            let mut progress = Progress { exists: true, ..Progress::default() };
            for (number, state) in nodes.iter().enumerate() {
                let node: Arc<str> = format!("n{number}").into();
                match state {
                    0 => progress.waiting.push(node),
                    1 => progress.add(&node, &done(1, vec![], false)),
                    _ => progress.add(&node, &EvictionDone { error: Some("no".into()), ..done(1, vec![], false) }),
                }
            }
            let said = progress.say(is_late);
            let all = nodes.iter().all(|state| *state >= 1) && !nodes.is_empty();
            prop_assert_eq!(progress.nodes_wanted(), nodes.len());
            prop_assert_eq!(said.finished, all || is_late);
            prop_assert_eq!(said.complete, all && nodes.iter().all(|state| *state == 1));
        }
    }
}
