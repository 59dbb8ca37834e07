//! What is to be done about the runs of one schedule. Pure: the time is an argument.

use super::Schedule;
use jiff::{SignedDuration, Timestamp};

/// What becomes of a run that is due while an earlier one has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// It is made all the same.
    Allow,
    /// It is not made before the earlier one has ended.
    Forbid,
    /// The earlier one is deleted, and it takes its place.
    Replace,
}

/// What is wished for, and what is known.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// When runs are due.
    pub schedule: &'a Schedule,
    /// What if one is due while another has not ended.
    pub policy: Policy,
    /// Whether none is made for now.
    pub suspended: bool,
    /// Seconds after its time from which a run is not made any more; any time when `None`.
    pub starting_deadline: Option<i64>,
    /// Runs that are kept after they have succeeded, the newest.
    pub keep_succeeded: usize,
    /// Runs that are kept after they have failed, the newest.
    pub keep_failed: usize,
    /// When the schedule was made: nothing before is due.
    pub made: Timestamp,
    /// The time of the last run that was made, as it is written down.
    pub last: Option<Timestamp>,
    /// The same as it is remembered, which may be ahead of what is written and seen.
    pub remembered: Option<Timestamp>,
}

/// One run that there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its name.
    pub name: String,
    /// The time that it is of.
    pub scheduled: Timestamp,
    /// What has become of it.
    pub state: RunState,
}

/// What has become of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// It has not ended.
    Active,
    /// It has done what it was to do.
    Succeeded,
    /// It has given up.
    Failed,
}

/// What is to be done, in this order: deletions first, and the run only if they went well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Names of the runs to delete.
    pub delete: Vec<String>,
    /// The time to make a run of.
    pub make: Option<Timestamp>,
    /// Why the one that is due is not made.
    pub untimely: Option<Untimely>,
    /// When the next is due.
    pub next: Option<Timestamp>,
}

/// Why a run that is due is not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Untimely {
    /// Another has not ended.
    Waits {
        /// Its time.
        due: Timestamp,
        /// The other's name.
        active: String,
    },
    /// Its time has passed by too much.
    TooLate {
        /// Its time.
        due: Timestamp,
    },
}

/// The name of the run of a time: whoever makes it again finds that it is there.
pub fn name_of_run(schedule: &str, time: Timestamp) -> String {
    format!("{schedule}-{}", time.as_second().div_euclid(60))
}

/// What is to be done now. Of the times that have passed since the last run only the latest counts.
pub fn plan(facts: &Facts<'_>, runs: &[Run], now: Timestamp) -> Plan {
    let last = runs.iter().map(|run| run.scheduled).chain(facts.last).chain(facts.remembered).max();
    let mut plan = Plan { delete: superfluous(facts, runs), ..Plan::default() };
    if facts.suspended {
        return plan;
    }
    plan.next = facts.schedule.next(now);
    let since = last.unwrap_or(facts.made);
    let Some(due) = facts.schedule.latest(since, now) else { return plan };
    let late = now.duration_since(due);
    if facts.starting_deadline.is_some_and(|seconds| late > SignedDuration::from_secs(seconds)) {
        plan.untimely = Some(Untimely::TooLate { due });
        return plan;
    }
    let active = || runs.iter().filter(|run| run.state == RunState::Active);
    match (facts.policy, active().max_by_key(|run| run.scheduled)) {
        (Policy::Forbid, Some(run)) => {
            plan.untimely = Some(Untimely::Waits { due, active: run.name.clone() });
            return plan;
        }
        (Policy::Replace, _) => plan.delete.extend(active().map(|run| run.name.clone())),
        (Policy::Allow, _) | (Policy::Forbid, None) => {}
    }
    plan.make = Some(due);
    plan
}

/// The runs that have ended and are more than are kept. One whose time is not written down yet stays: without
/// either, it would be made again.
fn superfluous(facts: &Facts<'_>, runs: &[Run]) -> Vec<String> {
    let mut superfluous = Vec::new();
    for (state, keep) in [(RunState::Succeeded, facts.keep_succeeded), (RunState::Failed, facts.keep_failed)]
    {
        let mut ended: Vec<&Run> = runs.iter().filter(|run| run.state == state).collect();
        ended.sort_by(|a, b| b.scheduled.cmp(&a.scheduled).then_with(|| a.name.cmp(&b.name)));
        let written = |run: &&&Run| facts.last.is_some_and(|last| run.scheduled <= last);
        superfluous.extend(ended.iter().skip(keep).filter(written).map(|run| run.name.clone()));
    }
    superfluous
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, HashSet};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn run(minute: i64, state: RunState) -> Run {
        let scheduled = at(minute * 60);
        Run { name: name_of_run("w", scheduled), scheduled, state }
    }

    fn facts(schedule: &Schedule) -> Facts<'_> {
        Facts {
            schedule,
            policy: Policy::Forbid,
            suspended: false,
            starting_deadline: None,
            keep_succeeded: 3,
            keep_failed: 1,
            made: at(30),
            last: None,
            remembered: None,
        }
    }

    #[test]
    fn only_the_latest_of_those_that_were_missed_is_made_and_only_in_time() {
        let schedule = Schedule::new("* * * * *", None).unwrap();
        let facts = facts(&schedule);
        assert_eq!(plan(&facts, &[], at(59)), Plan { next: Some(at(60)), ..Plan::default() });
        let made = plan(&facts, &[], at(610));
        assert_eq!((made.make, made.next), (Some(at(600)), Some(at(660))));
        let again = plan(&Facts { last: Some(at(600)), ..facts }, &[], at(610));
        assert_eq!(again.make, None);
        assert_eq!(plan(&Facts { remembered: Some(at(600)), ..facts }, &[], at(610)).make, None);
        assert_eq!(plan(&facts, &[run(10, RunState::Succeeded)], at(610)).make, None, "it is there");

        let schedule = Schedule::new("@hourly", None).unwrap();
        let hourly = Facts { schedule: &schedule, starting_deadline: Some(60), ..facts };
        assert_eq!(plan(&hourly, &[], at(3_660)).make, Some(at(3_600)));
        let late = plan(&hourly, &[], at(3_661));
        assert_eq!((late.make, late.untimely), (None, Some(Untimely::TooLate { due: at(3_600) })));
        assert_eq!(plan(&Facts { suspended: true, ..hourly }, &[], at(3_600)), Plan::default());
    }

    #[test]
    fn what_happens_while_another_has_not_ended_is_the_policys() {
        let schedule = Schedule::new("* * * * *", None).unwrap();
        let runs = [run(1, RunState::Active), run(2, RunState::Active)];
        let with = |policy| plan(&Facts { policy, last: Some(at(120)), ..facts(&schedule) }, &runs, at(200));
        let forbidden = with(Policy::Forbid);
        assert_eq!((forbidden.make, forbidden.delete.len()), (None, 0));
        assert_eq!(forbidden.untimely, Some(Untimely::Waits { due: at(180), active: "w-2".to_owned() }));
        let allowed = with(Policy::Allow);
        assert_eq!((allowed.make, allowed.delete.len()), (Some(at(180)), 0));
        let replaced = with(Policy::Replace);
        assert_eq!(
            (replaced.make, replaced.delete),
            (Some(at(180)), vec!["w-1".to_owned(), "w-2".to_owned()])
        );
    }

    #[test]
    fn the_newest_of_those_that_have_ended_are_kept() {
        let schedule = Schedule::new("@hourly", None).unwrap();
        let runs: Vec<Run> = (1..6)
            .map(|minute| run(minute, RunState::Succeeded))
            .chain((6..9).map(|minute| run(minute, RunState::Failed)))
            .collect();
        let delete = |last| plan(&Facts { last, ..facts(&schedule) }, &runs, at(600)).delete;
        assert_eq!(delete(Some(at(480))), ["w-2", "w-1", "w-7", "w-6"]);
        assert_eq!(delete(Some(at(60))), ["w-1"], "the others' times are not written down");
        assert!(delete(None).is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Pass {
            seconds: i64,
        },
        End {
            which: prop::sample::Index,
            well: bool,
        },
        Suspend(bool),
        /// One acts by what it sees. What it writes may get lost, and it may see what was.
        Act {
            writes_status: bool,
            creates: bool,
            deletes: bool,
            sees_late: bool,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        let act = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
        prop_oneof![
            3 => (0i64..200).prop_map(|seconds| Step::Pass { seconds }),
            2 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(which, well)| Step::End { which, well }),
            1 => any::<bool>().prop_map(Step::Suspend),
            6 => act.prop_map(|(writes_status, creates, deletes, sees_late)| Step::Act { writes_status, creates, deletes, sees_late }),
        ]
    }

    proptest! {
        /// Whatever is lost, late or tried again: one run at most for each time, of the schedule and in time.
        #[test]
        fn no_time_has_two_runs(
            policy in prop::sample::select(vec![Policy::Allow, Policy::Forbid, Policy::Replace]),
            starting_deadline in prop::option::of(1i64..300),
            keep_succeeded in 0usize..3,
            keep_failed in 0usize..3,
            steps in prop::collection::vec(step(), 1..80),
        ) {
            let schedule = Schedule::new("*/2 * * * *", None).unwrap();
            let mut now = at(1_000);
            let mut facts = Facts { policy, starting_deadline, keep_succeeded, keep_failed, made: now, ..facts(&schedule) };
            let mut runs: BTreeMap<String, Run> = BTreeMap::new();
            let mut ever: HashSet<String> = HashSet::new();
            let mut before: (Option<Timestamp>, Vec<Run>) = (None, Vec::new());
            for step in steps {
                match step {
                    Step::Pass { seconds } => now = at(now.as_second() + seconds),
                    Step::End { which, well } => {
                        let mut active: Vec<&mut Run> = runs.values_mut().filter(|run| run.state == RunState::Active).collect();
                        if !active.is_empty() {
                            let index = which.index(active.len());
                            active[index].state = if well { RunState::Succeeded } else { RunState::Failed };
                        }
                    }
                    Step::Suspend(suspended) => facts.suspended = suspended,
                    Step::Act { writes_status, creates, deletes, sees_late } => {
                        let current = (facts.last, runs.values().cloned().collect::<Vec<_>>());
                        let (last, seen) = if sees_late { before.clone() } else { current.clone() };
                        let found = plan(&Facts { last, ..facts }, &seen, now);
                        before = current;
                        prop_assert!(found.make.is_none() || found.untimely.is_none());
                        prop_assert!(!facts.suspended || found.make.is_none());
                        if !deletes && !found.delete.is_empty() {
                            continue;
                        }
                        for name in &found.delete {
                            runs.remove(name);
                        }
                        if let Some(time) = found.make {
                            prop_assert!(time <= now && time > facts.made && time.as_second() % 120 == 0);
                            prop_assert!(starting_deadline.is_none_or(|most| now.as_second() - time.as_second() <= most));
                            prop_assert!(now.as_second() - time.as_second() < 120, "a later one has passed");
                            if !creates {
                                continue;
                            }
                            let name = name_of_run("w", time);
                            // The API server refuses a second one of the name, while the first is there.
                            if !runs.contains_key(&name) {
                                prop_assert!(ever.insert(name.clone()), "{name} a second time");
                                runs.insert(name.clone(), Run { name, scheduled: time, state: RunState::Active });
                            }
                            let active = runs.values().filter(|run| run.state == RunState::Active).count();
                            prop_assert!(sees_late || policy == Policy::Allow || active == 1, "{active} active");
                        }
                        // What was seen and made is written down, and never less than before.
                        if writes_status {
                            let times = runs.values().map(|run| run.scheduled);
                            facts.last = times.chain(facts.last).max();
                        }
                    }
                }
            }
            // Once nothing gets lost any more, no more are kept than asked for.
            facts.last = runs.values().map(|run| run.scheduled).chain(facts.last).max();
            facts.suspended = true;
            let seen: Vec<Run> = runs.values().cloned().collect();
            for name in plan(&facts, &seen, now).delete {
                runs.remove(&name);
            }
            let count = |state| runs.values().filter(|run| run.state == state).count();
            prop_assert!(count(RunState::Succeeded) <= keep_succeeded && count(RunState::Failed) <= keep_failed);
        }
    }
}
