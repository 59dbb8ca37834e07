//! Warmups by schedule: what CronWarmups ask for is planned (`hearth_core::cron`) whenever
//! one of them or of their Warmups changes, or a time has come.

mod objects;
mod status;

use super::pauses::Pause;
use super::{Duties, FIELD_MANAGER, apply_status, delete_seen};
use crate::answer::{Answer, answer};
use crate::watch::{Follower, follow, owner_of};
use futures::StreamExt;
use hearth_api::{CronWarmup, Warmup};
use hearth_core::cron::{Plan, plan};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::PostParams;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch as channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// CronWarmups that are worked on at one time.
const AT_ONCE: usize = 8;
/// Shortest time between two looks.
const GAP: Duration = Duration::from_millis(250);
/// How often it is looked whether a time has come. Clocks may be set, so nothing sleeps until one.
const EVERY: Duration = Duration::from_secs(1);

/// The CronWarmups as the API server has them, by UID.
#[derive(Default)]
struct Desk {
    crons: Mutex<HashMap<String, Arc<CronWarmup>>>,
    changed: Notify,
}

struct Watch(Arc<Desk>);

impl Follower<CronWarmup> for Watch {
    const KIND: &'static str = "CronWarmup";

    fn apply(&mut self, mut cron: CronWarmup) {
        cron.metadata.managed_fields = None;
        self.0.crons.lock().insert(cron.uid().unwrap_or_default(), Arc::new(cron));
        self.0.changed.notify_one();
    }

    fn delete(&mut self, cron: CronWarmup) {
        self.0.crons.lock().remove(&cron.uid().unwrap_or_default());
    }

    fn retain(&mut self, uids: &HashSet<String>) {
        self.0.crons.lock().retain(|uid, _| uids.contains(uid));
    }
}

/// What is remembered of one, for as long as this replica leads.
struct Memory {
    /// What it was planned by.
    cron: Arc<CronWarmup>,
    change_of_runs: u64,
    /// When the next is due.
    next: Option<Timestamp>,
    /// The time of the last that was made, whatever the watch and the status say yet.
    made: Option<Timestamp>,
    /// After a failure.
    pause: Option<Pause>,
}

impl Memory {
    /// Whether it is to be planned for again.
    fn is_due(&self, cron: &Arc<CronWarmup>, change_of_runs: u64, now: Timestamp) -> bool {
        match &self.pause {
            // What it writes about a failure is no reason to try again.
            Some(pause) => {
                pause.is_over(Instant::now()) || self.cron.metadata.generation != cron.metadata.generation
            }
            None => {
                !Arc::ptr_eq(&self.cron, cron)
                    || self.change_of_runs != change_of_runs
                    || self.next.is_some_and(|next| next <= now)
            }
        }
    }
}

impl Duties {
    pub(super) async fn cron_warmups(&self) {
        // Who does not know all Warmups would make those again that there are.
        self.synced().await;
        let desk = Arc::new(Desk::default());
        let (done, mut synced) = channel::channel(false);
        let watch = follow(self.client.clone(), Watch(desk.clone()), done, CancellationToken::new());
        let work = async {
            if synced.wait_for(|synced| *synced).await.is_err() {
                // Its watch has ended, and that is told below.
                std::future::pending::<()>().await;
            }
            let mut memory = HashMap::new();
            loop {
                self.look(&desk, &mut memory).await;
                tokio::time::sleep(GAP).await;
                tokio::select! {
                    () = desk.changed.notified() => {}
                    () = self.known.runs_changed() => {}
                    () = tokio::time::sleep(EVERY) => {}
                }
            }
        };
        tokio::select! {
            ended = watch => if let Err(error) = ended {
                tracing::warn!("no Warmups are made by schedule: {error}");
            },
            () = work => {}
        }
    }

    async fn look(&self, desk: &Desk, memory: &mut HashMap<String, Memory>) {
        let now = Timestamp::now();
        let due: Vec<(String, Arc<CronWarmup>, u64)> = {
            let crons = desk.crons.lock();
            memory.retain(|uid, _| crons.contains_key(uid));
            let all = crons.iter().map(|(uid, cron)| (uid, cron, self.known.change_of_runs(uid)));
            let is_due = |uid: &String, cron, change| {
                memory.get(uid).is_none_or(|memory| memory.is_due(cron, change, now))
            };
            all.filter(|(uid, cron, change)| is_due(uid, cron, *change))
                .map(|(uid, cron, change)| (uid.clone(), cron.clone(), change))
                .collect()
        };
        let work = due.into_iter().map(|(uid, cron, change)| {
            let made = memory.get(&uid).and_then(|memory| memory.made);
            async move {
                let outcome = self.keep_schedule(&cron, &uid, made, now).await;
                (uid, cron, change, outcome)
            }
        });
        // One that waits for its answer holds nobody up but the next look.
        let outcomes: Vec<_> = futures::stream::iter(work).buffer_unordered(AT_ONCE).collect().await;
        for (uid, cron, change_of_runs, outcome) in outcomes {
            let before = memory.remove(&uid);
            let (made, pause) = before.map_or((None, None), |before| (before.made, before.pause));
            let pause = outcome.failed.then(|| Pause::after(pause, Instant::now()));
            let made = outcome.made.max(made);
            memory.insert(uid, Memory { cron, change_of_runs, next: outcome.next, made, pause });
        }
    }

    /// Does for one CronWarmup what is to be done now.
    async fn keep_schedule(
        &self,
        cron: &CronWarmup,
        uid: &str,
        made: Option<Timestamp>,
        now: Timestamp,
    ) -> Outcome {
        let mut warmups = self.known.runs_of(uid);
        let (plan, said) = match cron.schedule() {
            Ok(schedule) => {
                let facts = objects::facts_of(cron, &schedule, made);
                let runs: Vec<_> = warmups.iter().map(|warmup| objects::run_of(warmup)).collect();
                let plan = plan(&facts, &runs, now);
                let said = status::Said::of(cron, &plan);
                (plan, said)
            }
            Err(invalid) => (Plan::default(), status::Said::Invalid(invalid.to_string())),
        };
        let outcome = self.carry_out_plan(cron, &plan, &mut warmups).await;
        let mut failed = outcome.is_err();
        let (made_now, said) = match outcome {
            Ok(made_now) => (made_now, said),
            Err(why) => {
                tracing::warn!(cronwarmup = cron.name_any(), "{why}");
                (None, status::Said::Failed(why))
            }
        };
        let next = status::status_of(cron, &warmups, made_now.or(made), plan.next, &said, now);
        if cron.status.as_ref() != Some(&next)
            && let Err(why) = apply_status(&self.api_of(cron), &cron.name_any(), &next).await
        {
            tracing::warn!(cronwarmup = cron.name_any(), "its status was not written: {why}");
            failed = true;
        }
        Outcome { failed, made: made_now, next: plan.next }
    }

    /// Deletes and makes what the plan says; the time of the one that was made. `warmups` is
    /// what is there afterwards.
    async fn carry_out_plan(
        &self,
        cron: &CronWarmup,
        plan: &Plan,
        warmups: &mut Vec<Arc<Warmup>>,
    ) -> Result<Option<Timestamp>, String> {
        for name in &plan.delete {
            let Some(at) = warmups.iter().position(|warmup| warmup.name_any() == *name) else { continue };
            let deleted = delete_seen(&self.api_of(&*warmups[at]), &*warmups[at]).await;
            deleted
                .map_err(|why| format!("its Warmup {name} was not deleted, which is tried again: {why}"))?;
            tracing::info!(cronwarmup = cron.name_any(), warmup = name, "deleted: it is superfluous");
            warmups.swap_remove(at);
        }
        let Some(time) = plan.make else { return Ok(None) };
        let warmup = objects::warmup_of(cron, time);
        let name = warmup.name_any();
        let api = self.api_of(&warmup);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let there = match answer(api.create(&params, &warmup)).await {
            Ok(made) => {
                tracing::info!(cronwarmup = cron.name_any(), warmup = name, "made, as scheduled for {time}");
                made
            }
            // Made before, by one who has not seen it yet or led before, or in the way.
            Err(Answer::Code(409, _)) => match answer(api.get(&name)).await {
                Ok(there) if owner_of(&there) == cron.uid().as_deref() => there,
                Ok(_) => {
                    return Err(format!(
                        "the Warmup {name}, due at {time}, cannot be made, since another of that name is in the way: delete it"
                    ));
                }
                Err(why) => return Err(format!("the Warmup {name} cannot be looked up: {why}")),
            },
            Err(why) => {
                return Err(format!(
                    "the Warmup {name}, due at {time}, was not made, which is tried again: {why}"
                ));
            }
        };
        if !warmups.iter().any(|warmup| warmup.uid() == there.uid()) {
            warmups.push(Arc::new(there));
        }
        Ok(Some(time))
    }
}

struct Outcome {
    failed: bool,
    made: Option<Timestamp>,
    next: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use crate::events;
    use crate::metrics::Metrics;
    use crate::state::State;
    use crate::watch::Known;
    use hearth_core::index::Settings;
    use serde_json::json;

    /// A leader whose requests are answered so by their method.
    fn leader(answers: testing::Answers) -> Duties {
        let state = Arc::new(State::new(Settings::default(), Metrics::new().unwrap()));
        Duties {
            client: testing::client(answers),
            namespace: "hearth-system".to_owned(),
            recorder: events::channel(false, state.clone()).0,
            known: Arc::new(Known::default()),
            state,
            removal_patience: Duration::ZERO,
        }
    }

    fn hourly() -> CronWarmup {
        serde_json::from_value(json!({
            "apiVersion": "hearth.dev/v1alpha1", "kind": "CronWarmup",
            "metadata": {"name": "c", "namespace": "n", "uid": "u", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"schedule": "@hourly", "warmupTemplate": {"spec": {"dataset": {"name": "d"}}}},
        }))
        .unwrap()
    }

    const OURS: &str = r#"{"metadata": {"name": "c-1", "uid": "w", "ownerReferences": [{"apiVersion": "hearth.dev/v1alpha1", "kind": "CronWarmup", "name": "c", "uid": "u", "controller": true}]}, "spec": {"dataset": {"name": "d"}}}"#;
    const FOREIGN: &str = r#"{"metadata": {"name": "c-1", "uid": "w"}, "spec": {"dataset": {"name": "d"}}}"#;

    #[tokio::test]
    async fn what_is_made_a_second_time_is_found_and_what_is_in_the_way_is_said() {
        let make = async |answers| {
            let plan = Plan { make: Some(Timestamp::UNIX_EPOCH), ..Plan::default() };
            let mut warmups = Vec::new();
            let outcome = leader(answers).carry_out_plan(&hourly(), &plan, &mut warmups).await;
            outcome.map(|made| (made, warmups.len()))
        };
        let made = Ok((Some(Timestamp::UNIX_EPOCH), 1));
        assert_eq!(make(&[("POST", 201, OURS)]).await, made);
        assert_eq!(make(&[("POST", 409, ""), ("GET", 200, OURS)]).await, made);
        let blocked = make(&[("POST", 409, ""), ("GET", 200, FOREIGN)]).await.unwrap_err();
        assert!(
            blocked.starts_with("the Warmup c-0, due at 1970-01-01T00:00:00Z, cannot be made"),
            "{blocked}"
        );
        let refused = make(&[("POST", 403, "exceeded quota")]).await.unwrap_err();
        assert!(refused.ends_with("was not made, which is tried again: exceeded quota"), "{refused}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_is_tried_again_later_and_a_new_spec_at_once() {
        let duties = leader(&[("POST", 503, "away"), ("PATCH", 503, "away")]);
        let (desk, mut memory) = (Desk::default(), HashMap::new());
        desk.crons.lock().insert("u".to_owned(), Arc::new(hourly()));
        duties.look(&desk, &mut memory).await;
        let is_due = |memory: &HashMap<String, Memory>, cron: &Arc<CronWarmup>| {
            memory["u"].is_due(cron, 0, Timestamp::now())
        };
        let cron = desk.crons.lock()["u"].clone();
        assert!(!is_due(&memory, &cron), "it has just failed");
        tokio::time::advance(2 * crate::leader::pauses::FIRST).await;
        assert!(is_due(&memory, &cron));
        duties.look(&desk, &mut memory).await;
        let mut changed = hourly();
        changed.metadata.generation = Some(2);
        assert!(!is_due(&memory, &cron) && is_due(&memory, &Arc::new(changed)));
    }
}
