//! CronWarmups and their Warmups as the plan wants them, and the Warmup that it asks for.

use hearth_api::{ConcurrencyPolicy, CronWarmup, Warmup};
use hearth_core::cron::{Facts, Policy, Run, RunState, Schedule, name_of_run};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt};

/// Annotation of a Warmup: the time that it is of.
const SCHEDULED_AT: &str = "hearth.dev/scheduled-at";

/// `made` is the time of the last that was made, if that is remembered.
pub(super) fn facts_of<'a>(cron: &CronWarmup, schedule: &'a Schedule, made: Option<Timestamp>) -> Facts<'a> {
    let spec = &cron.spec;
    let written = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    let count = |limit: i32| usize::try_from(limit).unwrap_or(0);
    Facts {
        schedule,
        policy: match spec.concurrency_policy {
            ConcurrencyPolicy::Allow => Policy::Allow,
            ConcurrencyPolicy::Forbid => Policy::Forbid,
            ConcurrencyPolicy::Replace => Policy::Replace,
        },
        suspended: spec.suspend || cron.metadata.deletion_timestamp.is_some(),
        starting_deadline: spec.starting_deadline_seconds,
        keep_succeeded: count(spec.successful_warmups_history_limit),
        keep_failed: count(spec.failed_warmups_history_limit),
        made: cron.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        last: written.map(|time| time.0),
        remembered: made,
    }
}

pub(super) fn run_of(warmup: &Warmup) -> Run {
    Run { name: warmup.name_any(), scheduled: scheduled_at(warmup), state: state_of(warmup) }
}

/// The time that it is of.
pub(super) fn scheduled_at(warmup: &Warmup) -> Timestamp {
    let noted = warmup.annotations().get(SCHEDULED_AT).and_then(|text| text.parse().ok());
    let created = || warmup.metadata.creation_timestamp.as_ref().map(|time| time.0);
    // Somebody may have taken the note away.
    noted.or_else(created).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Once it has ended it stays so, though it may be kept warm since then.
pub(super) fn state_of(warmup: &Warmup) -> RunState {
    let finished = warmup.status.as_ref().is_some_and(|status| status.finished_at.is_some());
    match (warmup.has_missed_deadline(), finished) {
        (true, _) => RunState::Failed,
        (false, true) => RunState::Succeeded,
        (false, false) => RunState::Active,
    }
}

/// The Warmup of a time.
pub(super) fn warmup_of(cron: &CronWarmup, time: Timestamp) -> Warmup {
    let template = &cron.spec.warmup_template;
    let mut annotations = template.metadata.annotations.clone();
    annotations.insert(SCHEDULED_AT.to_owned(), time.to_string());
    let mut spec = template.spec.clone();
    spec.keep_warm.get_or_insert(false);
    Warmup {
        metadata: ObjectMeta {
            name: Some(name_of_run(&cron.name_any(), time)),
            namespace: cron.namespace(),
            labels: Some(template.metadata.labels.clone()),
            annotations: Some(annotations),
            // Without blockOwnerDeletion, which would take the right to change their finalizers.
            owner_references: cron.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_warmup_is_its_crons_and_of_its_time() {
        let cron: CronWarmup = serde_json::from_value(json!({
            "apiVersion": "hearth.dev/v1alpha1", "kind": "CronWarmup",
            "metadata": {"name": "nightly", "namespace": "n", "uid": "u", "creationTimestamp": "2026-11-26T00:00:00Z"},
            "spec": {"schedule": "@daily", "warmupTemplate": {
                "metadata": {"labels": {"team": "vision"}, "annotations": {"note": "x"}},
                "spec": {"dataset": {"name": "d"}}}},
            "status": {"lastScheduleTime": "2026-11-26T00:00:00Z"},
        }))
        .unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let mut warmup = warmup_of(&cron, at("2026-11-27T00:00:00Z"));
        assert_eq!(warmup.name_any(), "nightly-29928960");
        assert_eq!(
            (warmup.labels()["team"].as_str(), warmup.annotations()["note"].as_str()),
            ("vision", "x")
        );
        assert_eq!(warmup.spec.keep_warm, Some(false));
        assert_eq!(crate::watch::owner_of(&warmup), Some("u"));
        let run = run_of(&warmup);
        assert_eq!((run.scheduled, run.state), (at("2026-11-27T00:00:00Z"), RunState::Active));
        warmup.status = serde_json::from_value(json!({"finishedAt": "2026-11-27T01:00:00Z"})).unwrap();
        assert_eq!(state_of(&warmup), RunState::Succeeded);

        let schedule = cron.schedule().unwrap();
        let facts = |made| facts_of(&cron, &schedule, made);
        assert_eq!(
            (facts(None).policy, facts(None).keep_succeeded, facts(None).keep_failed),
            (Policy::Forbid, 3, 1)
        );
        let facts = facts(Some(at("2026-11-27T00:00:00Z")));
        assert_eq!(facts.last, Some(at("2026-11-26T00:00:00Z")));
        assert_eq!(facts.remembered, Some(at("2026-11-27T00:00:00Z")));
    }
}
