//! What the status of a CronWarmup says.

use super::objects::{scheduled_at, state_of};
use hearth_api::{ConditionStatus, CronWarmup, CronWarmupStatus, Warmup, set_condition};
use hearth_core::cron::{Plan, RunState, Untimely};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use std::sync::Arc;

/// How things stand with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Nobody can tell when anything is due.
    Invalid(String),
    /// It is not to do anything.
    Suspended,
    /// What was to be done was not.
    Failed(String),
    /// One that is due is not made.
    Untimely(Untimely),
    /// All is as it should be.
    Well,
}

impl Said {
    pub(super) fn of(cron: &CronWarmup, plan: &Plan) -> Self {
        match (cron.spec.suspend, &plan.untimely) {
            (true, _) => Self::Suspended,
            (false, Some(untimely)) => Self::Untimely(untimely.clone()),
            (false, None) => Self::Well,
        }
    }

    fn condition(&self, cron: &CronWarmup) -> (ConditionStatus, &'static str, String) {
        let (ready, not) = (ConditionStatus::True, ConditionStatus::False);
        match self {
            Self::Invalid(why) => (not, "InvalidSpec", why.clone()),
            Self::Suspended => (not, "Suspended", "spec.suspend is true: no Warmups are made".to_owned()),
            Self::Failed(why) => (not, "NotMade", why.clone()),
            Self::Untimely(Untimely::Waits { due, active }) => (
                ready,
                "Waits",
                format!(
                    "the Warmup due at {due} waits for {active} to end, since spec.concurrencyPolicy is Forbid: its status says what it waits for; spec.warmupTemplate.spec.activeDeadlineSeconds ends those that are made from now on"
                ),
            ),
            Self::Untimely(Untimely::TooLate { due }) => (
                ready,
                "Missed",
                format!(
                    "the Warmup due at {due} was not made within spec.startingDeadlineSeconds of {} s",
                    cron.spec.starting_deadline_seconds.unwrap_or_default()
                ),
            ),
            Self::Well => (ready, "Scheduled", "Warmups are made when they are due".to_owned()),
        }
    }
}

/// The status as it should be, with these Warmups there; `made` is the time of the last
/// that was made, if that is remembered.
pub(super) fn status_of(
    cron: &CronWarmup,
    warmups: &[Arc<Warmup>],
    made: Option<Timestamp>,
    next: Option<Timestamp>,
    said: &Said,
    now: Timestamp,
) -> CronWarmupStatus {
    let before = cron.status.clone().unwrap_or_default();
    let of_state = |state| warmups.iter().filter(move |warmup| state_of(warmup) == state);
    let mut active: Vec<String> = of_state(RunState::Active).map(|warmup| warmup.name_any()).collect();
    active.sort_unstable();
    let scheduled = warmups.iter().map(|warmup| scheduled_at(warmup)).chain(made).max();
    let ended = of_state(RunState::Succeeded)
        .filter_map(|warmup| warmup.status.as_ref().and_then(|status| status.finished_at.clone()))
        .max();
    let mut conditions = before.conditions;
    let (status, reason, message) = said.condition(cron);
    let generation = cron.metadata.generation;
    set_condition(&mut conditions, "Ready", status, reason, message, generation, now);
    CronWarmupStatus {
        observed_generation: generation,
        last_schedule_time: before.last_schedule_time.max(scheduled.map(Time)),
        last_successful_time: before.last_successful_time.max(ended),
        next_schedule_time: next.map(Time),
        active,
        conditions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader::cron::objects::warmup_of;
    use serde_json::json;

    #[test]
    fn what_is_so_is_said() {
        let mut cron: CronWarmup = serde_json::from_value(json!({
            "apiVersion": "hearth.dev/v1alpha1", "kind": "CronWarmup", "metadata": {"name": "c", "uid": "u", "generation": 2},
            "spec": {"schedule": "@daily", "startingDeadlineSeconds": 60, "warmupTemplate": {"spec": {"dataset": {"name": "d"}}}},
        }))
        .unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let active = Arc::new(warmup_of(&cron, at(120)));
        let mut ended = warmup_of(&cron, at(60));
        ended.status = serde_json::from_value(json!({"finishedAt": "1970-01-01T00:01:30Z"})).unwrap();
        let warmups = [active, Arc::new(ended)];
        let status = status_of(&cron, &warmups, None, Some(at(180)), &Said::Well, at(130));
        assert_eq!(status.active, ["c-2"]);
        let times = |status: &CronWarmupStatus| {
            [&status.last_schedule_time, &status.last_successful_time, &status.next_schedule_time]
                .map(|time| time.as_ref().map(|time| time.0.as_second()))
        };
        assert_eq!(times(&status), [Some(120), Some(90), Some(180)]);
        cron.status = Some(status.clone());
        assert_eq!(
            status_of(&cron, &warmups, None, Some(at(180)), &Said::Well, at(140)),
            status,
            "nothing to write"
        );
        // What is gone is not forgotten, and what was just made is known.
        let later = status_of(&cron, &[], Some(at(180)), None, &Said::Suspended, at(190));
        assert_eq!(times(&later), [Some(180), Some(90), None]);

        let said = |said: &Said| {
            let condition = status_of(&cron, &[], None, None, said, at(0)).conditions.remove(0);
            (condition.status, condition.reason, condition.message)
        };
        let waits = said(&Said::Untimely(Untimely::Waits { due: at(180), active: "c-2".to_owned() }));
        assert_eq!((waits.0.as_str(), waits.1.as_str()), ("True", "Waits"));
        assert!(
            waits.2.starts_with("the Warmup due at 1970-01-01T00:03:00Z waits for c-2 to end"),
            "{waits:?}"
        );
        let late = said(&Said::Untimely(Untimely::TooLate { due: at(180) }));
        assert!(late.2.ends_with("within spec.startingDeadlineSeconds of 60 s"), "{late:?}");
        assert_eq!(said(&Said::Suspended).1, "Suspended");
        assert_eq!(said(&Said::Invalid("spec.schedule is wrong".to_owned())).2, "spec.schedule is wrong");
        let plan = Plan::default();
        assert_eq!(Said::of(&cron, &plan), Said::Well);
        cron.spec.suspend = true;
        assert_eq!(Said::of(&cron, &plan), Said::Suspended);
    }
}
