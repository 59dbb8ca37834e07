//! Which versions the node's pods get, as the replicas of the extender say.

use hearth_core::wire::report::{Choice, Orders};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// Longest wait for a word about a pod: kubelet may see it before the extender does, and
/// an agent that has just started has not been told anything. A pod whose volume the
/// extender does not recognise as a dataset's waits so long for nothing.
const WORD: Duration = Duration::from_secs(10);
/// Longest wait while a version is about to be held: another replica takes over from the
/// one that writes holds within 20 seconds. kubelet gives a call two minutes.
const DECISION: Duration = Duration::from_secs(40);

/// What all replicas together say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// By UID of the pod and `namespace/name` of the Dataset.
    choices: BTreeMap<(String, String), Choice>,
    /// Replicas speak, and none of them is of a release that says anything of versions.
    mute: bool,
}

impl Told {
    /// What these replicas say: whoever knows more is right, as the others lag behind.
    pub fn together(orders: &[&Orders]) -> Self {
        let mute = !orders.is_empty() && orders.iter().all(|orders| orders.versions.is_none());
        let mut choices: BTreeMap<(String, String), Choice> = BTreeMap::new();
        for version in orders.iter().flat_map(|orders| orders.versions.iter().flatten()) {
            let key = (version.pod.clone(), version.dataset.clone());
            let known = choices.entry(key).or_insert_with(|| version.choice.clone());
            if knowledge(&version.choice) > knowledge(known) {
                version.choice.clone_into(known);
            }
        }
        Self { choices, mute }
    }
}

fn knowledge(choice: &Choice) -> u8 {
    match choice {
        Choice::Current => 0,
        Choice::Refused(_) => 1,
        Choice::Undecided => 2,
        Choice::Held(_) | Choice::Named(_) => 3,
    }
}

/// Asks for versions. Clones ask the same.
#[derive(Clone, Debug)]
pub struct Versions(watch::Receiver<Told>);

/// Whoever reports tells; whoever mounts asks.
pub fn channel() -> (watch::Sender<Told>, Versions) {
    let (sender, receiver) = watch::channel(Told::default());
    (sender, Versions(receiver))
}

impl Versions {
    /// What is said of the pod `pod` and the Dataset `namespace/name`, once that is settled;
    /// `None` when it is not in time.
    pub async fn of(&self, pod: &str, dataset: &str) -> Option<Choice> {
        let mut told = self.0.clone();
        let key = (pod.to_owned(), dataset.to_owned());
        let begun = Instant::now();
        loop {
            let (choice, mute) = {
                let told = told.borrow_and_update();
                (told.choices.get(&key).cloned(), told.mute)
            };
            let patience = match choice {
                Some(Choice::Undecided) => DECISION,
                Some(settled) => return Some(settled),
                None if mute => return None,
                None => WORD,
            };
            // Out of time, or nobody is left to tell.
            if !matches!(timeout_at(begun + patience, told.changed()).await, Ok(Ok(()))) {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::manifest::ManifestHash;
    use hearth_core::wire::report::PodVersion;

    fn orders(choices: &[(&str, Choice)]) -> Orders {
        let versions = choices.iter().map(|(pod, choice)| PodVersion {
            pod: (*pod).to_owned(),
            dataset: "ns/d".to_owned(),
            choice: choice.clone(),
        });
        Orders { versions: Some(versions.collect()), ..Orders::default() }
    }

    fn told(choices: &[(&str, Choice)]) -> Told {
        Told::together(&[&orders(choices)])
    }

    #[test]
    fn a_replica_that_lags_behind_is_not_heeded() {
        let held = || Choice::Held("job".into());
        let ahead =
            orders(&[("a", held()), ("b", Choice::Undecided), ("c", Choice::Named(ManifestHash([1; 32])))]);
        let behind =
            orders(&[("a", Choice::Undecided), ("b", Choice::Current), ("c", Choice::Refused("why".into()))]);
        let older = Orders::default();
        assert_eq!(Told::together(&[&ahead, &behind, &older]), Told::together(&[&behind, &ahead]));
        assert_eq!(Told::together(&[&behind, &ahead]).choices, Told::together(&[&ahead]).choices);
        assert!(Told::together(&[&older]).mute && !Told::together(&[]).mute);
    }

    /// The clock stands still unless everybody waits for it.
    #[tokio::test(start_paused = true)]
    async fn a_word_is_waited_for_and_not_for_ever() {
        let (sender, versions) = channel();
        let begun = Instant::now();
        assert_eq!(versions.of("p", "ns/d").await, None);
        assert_eq!(begun.elapsed(), WORD);
        sender.send_replace(told(&[("p", Choice::Undecided)]));
        let deciding = async {
            tokio::time::advance(WORD * 2).await;
            sender.send_replace(told(&[("p", Choice::Held("job".into()))]));
        };
        let (choice, ()) = tokio::join!(versions.of("p", "ns/d"), deciding);
        assert_eq!(choice, Some(Choice::Held("job".into())));
        let begun = Instant::now();
        sender.send_replace(told(&[("p", Choice::Undecided)]));
        assert_eq!((versions.of("p", "ns/d").await, begun.elapsed()), (None, DECISION));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_who_will_not_speak() {
        let (sender, versions) = channel();
        let begun = Instant::now();
        sender.send_replace(Told::together(&[&Orders::default()]));
        assert_eq!(versions.of("p", "ns/d").await, None);
        drop(sender);
        assert_eq!((versions.of("p", "ns/d").await, begun.elapsed()), (None, Duration::ZERO));
    }
}
