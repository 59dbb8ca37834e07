//! How far each Eviction is, in its status.

use super::{Duties, apply_status, delete_ended, is_over};
use hearth_api::{
    ConditionStatus, Eviction, EvictionKept, EvictionNodeCounts, EvictionStatus, set_condition,
};
use hearth_core::eviction::{Progress, Said};
use hearth_core::explain;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use std::time::Duration;

/// Statuses are looked at so often.
const EVERY: Duration = Duration::from_secs(1);

impl Duties {
    pub(super) async fn eviction_statuses(&self) {
        loop {
            for eviction in self.known.evictions() {
                let now = Timestamp::now();
                let api = self.api_of(&*eviction);
                if eviction.is_finished() {
                    if is_past_ttl(&eviction, now) {
                        delete_ended(&api, &*eviction).await;
                    }
                } else if let Some(status) = self.eviction_status(&eviction, now)
                    && eviction.status.as_ref() != Some(&status)
                    && let Err(why) = apply_status(&api, &eviction.name_any(), &status).await
                {
                    tracing::warn!(eviction = eviction.name_any(), "its status was not written: {why}");
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// `None` before the index knows of it.
    fn eviction_status(&self, eviction: &Eviction, now: Timestamp) -> Option<EvictionStatus> {
        if let Err(error) = eviction.selection() {
            let message = error.to_string();
            let said = Said { finished: true, complete: false, reason: "InvalidSpec", message };
            return Some(status_of(eviction, &Progress::default(), said, now));
        }
        let uid = eviction.uid().unwrap_or_default();
        let agents: Vec<String> = self.state.agents(|agents| agents.nodes.iter().cloned().collect());
        let agents = agents.iter().map(String::as_str);
        let progress = self.state.read(|index| index.eviction_progress(&uid, agents))?;
        let said = progress.say(is_late(eviction, now));
        Some(status_of(eviction, &progress, said, now))
    }
}

fn is_late(eviction: &Eviction, now: Timestamp) -> bool {
    let started = eviction.status.as_ref().and_then(|status| status.started_at.as_ref());
    is_over(started, Some(eviction.spec.active_deadline_seconds), now)
}

fn is_past_ttl(eviction: &Eviction, now: Timestamp) -> bool {
    let finished = eviction.status.as_ref().and_then(|status| status.finished_at.as_ref());
    is_over(finished, eviction.spec.ttl_seconds_after_finished, now)
}

/// The status as it should be.
fn status_of(eviction: &Eviction, progress: &Progress, said: Said, now: Timestamp) -> EvictionStatus {
    let before = eviction.status.clone().unwrap_or_default();
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let count = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    let condition = if said.complete { ConditionStatus::True } else { ConditionStatus::False };
    let mut conditions = before.conditions;
    let generation = eviction.metadata.generation;
    set_condition(&mut conditions, "Complete", condition, said.reason, said.message, generation, now);
    let kept = progress.kept.iter().map(|(why, (files, bytes))| EvictionKept {
        why: format!("{why:?}"),
        files: number(*files),
        bytes: number(*bytes),
    });
    EvictionStatus {
        nodes: Some(EvictionNodeCounts {
            wanted: count(progress.nodes_wanted()),
            done: count(progress.nodes_done),
            summary: format!("{}/{}", progress.nodes_done, progress.nodes_wanted()),
        }),
        files: Some(number(progress.files)),
        bytes: Some(number(progress.bytes)),
        freed: Some(explain::bytes(progress.bytes)),
        kept: kept.collect(),
        started_at: before.started_at.or(Some(Time(now))),
        finished_at: said.finished.then_some(Time(now)),
        conditions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::wire::eviction::{EvictionDone, Kept, KeptWhy};

    #[test]
    fn a_status_tells_what_went_and_when_it_ended() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut eviction: Eviction = serde_json::from_value(serde_json::json!({
            "apiVersion": "hearth.dev/v1alpha1", "kind": "Eviction",
            "metadata": {"name": "e", "namespace": "n", "uid": "u", "generation": 1},
            "spec": {"dataset": {"name": "d"}, "ttlSecondsAfterFinished": 10},
        }))
        .unwrap();
        assert_eq!(eviction.spec.active_deadline_seconds, 300);
        let mut progress = Progress { exists: true, ..Progress::default() };
        progress.waiting.push("b".into());
        let status = |eviction: &Eviction, progress: &Progress, now| {
            status_of(eviction, progress, progress.say(is_late(eviction, now)), now)
        };
        eviction.status = Some(status(&eviction, &progress, at(100)));
        let seen = eviction.status.as_ref().unwrap();
        assert_eq!((&seen.finished_at, seen.conditions[0].reason.as_str()), (&None, "Evicting"));
        assert_eq!(status(&eviction, &progress, at(399)), *seen, "nothing is written while nothing changes");
        let late = status(&eviction, &progress, at(400));
        assert_eq!(
            (late.finished_at, late.conditions[0].reason.as_str()),
            (Some(Time(at(400))), "DeadlineExceeded")
        );

        let mut progress = Progress { exists: true, ..Progress::default() };
        let kept = vec![Kept { why: KeptWhy::Mounted, files: 1, bytes: 7 }];
        let done = EvictionDone { id: "u".into(), files: 2, bytes: 1_500, kept, ..EvictionDone::default() };
        progress.add(&"b".into(), &done);
        eviction.status = Some(status(&eviction, &progress, at(200)));
        let seen = eviction.status.as_ref().unwrap();
        assert_eq!((seen.freed.as_deref(), seen.files), (Some("1.5 kB"), Some(2)));
        assert_eq!(seen.kept, [EvictionKept { why: "Mounted".into(), files: 1, bytes: 7 }]);
        assert_eq!(
            (seen.started_at.clone(), seen.conditions[0].status.as_str()),
            (Some(Time(at(100))), "True")
        );
        assert!(
            eviction.is_finished() && !is_past_ttl(&eviction, at(209)) && is_past_ttl(&eviction, at(210))
        );
    }
}
