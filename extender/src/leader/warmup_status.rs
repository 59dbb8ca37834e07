//! How far each warm-up is, in its status.
//!
//! Progress comes from what the nodes report to hold, so it survives restarts of
//! everything; only the rate is measured anew.

use super::{Duties, apply_status, delete_ended, is_over};
use hearth_api::{
    ConditionStatus, DEADLINE_EXCEEDED, NodeCounts, Warmup, WarmupFailedFile, WarmupStatus, WarmupTrouble,
    set_condition,
};
use hearth_core::explain;
use hearth_core::index::{FailedOn, TooSmall, WarmupProgress};
use hearth_core::score;
use hearth_core::wire::report::Trouble;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Statuses are looked at so often.
const EVERY: Duration = Duration::from_secs(1);
/// Complete ones are looked at once in so many rounds: only a new version, a new
/// node or an eviction changes them.
const COMPLETE_EVERY: u32 = 10;
/// Troubles that a status lists: as many as are read.
const TROUBLES_SHOWN: usize = 5;
/// The newest sample's share of the rate.
const NEWEST: f64 = 0.3;

/// How fast a warm-up has moved of late.
#[derive(Clone, Copy, Debug)]
struct Pace {
    at: Instant,
    bytes_done: u64,
    per_second: f64,
}

impl Pace {
    fn next(before: Option<Self>, at: Instant, bytes_done: u64) -> Self {
        let Some(before) = before else { return Self { at, bytes_done, per_second: 0.0 } };
        let seconds = (at - before.at).as_secs_f64();
        if seconds <= 0.0 {
            return before;
        }
        let sample = bytes_done.saturating_sub(before.bytes_done) as f64 / seconds;
        let per_second = match before.per_second > 0.0 {
            true => before.per_second * (1.0 - NEWEST) + sample * NEWEST,
            false => sample,
        };
        Self { at, bytes_done, per_second }
    }
}

impl Duties {
    pub(super) async fn warmup_statuses(&self) {
        let mut paces: HashMap<String, Pace> = HashMap::new();
        let mut round = 0_u32;
        loop {
            let warmups = self.known.warmups();
            let mut next = HashMap::with_capacity(warmups.len());
            round = round.wrapping_add(1);
            for warmup in warmups {
                let uid = warmup.uid().unwrap_or_default();
                if is_past_ttl(&warmup, Timestamp::now()) {
                    delete_ended(&self.api_of(&*warmup), &*warmup).await;
                    continue;
                }
                if warmup.is_done() || warmup.is_complete() && !round.is_multiple_of(COMPLETE_EVERY) {
                    continue;
                }
                if self.is_still_complete(&warmup, &uid) {
                    continue;
                }
                let pace = self.warmup_status(&warmup, &uid, paces.get(&uid).copied()).await;
                next.extend(pace.map(|pace| (uid, pace)));
            }
            paces = next;
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Whether its status says that it is complete, and nothing has changed that.
    fn is_still_complete(&self, warmup: &Warmup, uid: &str) -> bool {
        let Some(status) = warmup.status.as_ref().filter(|_| warmup.is_complete() && !warmup.spec.suspend)
        else {
            return false;
        };
        let now = self.state.now().monotonic;
        self.state.read(|index| index.warmup_done(now, uid)).is_some_and(|(nodes, bytes)| {
            status.nodes.as_ref().is_some_and(|counts| usize::try_from(counts.wanted) == Ok(nodes))
                && status.bytes_total.and_then(|total| u64::try_from(total).ok()) == Some(bytes)
        })
    }

    async fn warmup_status(&self, warmup: &Warmup, uid: &str, before: Option<Pace>) -> Option<Pace> {
        let now = Timestamp::now();
        if let Some(stop) = Stop::of(warmup, now) {
            self.write_status(warmup, &stop.status(warmup, now)).await;
            return None;
        }
        let progress = match warmup.selection() {
            Ok(_) => {
                let (state, uid) = (self.state.clone(), uid.to_owned());
                // Millions of files may have to be looked at: not on a thread that answers calls.
                tokio::task::spawn_blocking(move || state.warmup_progress(&uid)).await.ok()??
            }
            Err(error) => WarmupProgress { problem: Some(error.to_string()), ..WarmupProgress::default() },
        };
        let pace = Pace::next(before, Instant::now(), progress.bytes_done);
        self.write_status(warmup, &status_of(warmup, &progress, pace.per_second, now)).await;
        Some(pace)
    }

    async fn write_status(&self, warmup: &Warmup, status: &WarmupStatus) {
        if warmup.status.as_ref() != Some(status)
            && let Err(why) = apply_status(&self.api_of(warmup), &warmup.name_any(), status).await
        {
            tracing::warn!(warmup = warmup.name_any(), "its status was not written: {why}");
        }
    }
}

/// Why nothing is fetched for a warm-up that could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Suspended,
    Deadline,
}

impl Stop {
    fn of(warmup: &Warmup, now: Timestamp) -> Option<Self> {
        if warmup.spec.suspend {
            return Some(Self::Suspended);
        }
        // Once it has ended it is kept warm, for as long as it is there.
        let running = warmup.status.as_ref().filter(|status| status.finished_at.is_none());
        let started = running.and_then(|status| status.started_at.as_ref());
        let is_late = is_over(started, warmup.spec.active_deadline_seconds, now);
        (is_late || warmup.has_missed_deadline()).then_some(Self::Deadline)
    }

    /// The status as it was, but for what moves.
    fn status(self, warmup: &Warmup, now: Timestamp) -> WarmupStatus {
        let before = warmup.status.clone().unwrap_or_default();
        let (reason, message) = match self {
            Self::Suspended => ("Suspended", "spec.suspend is true: nothing is fetched for it".to_owned()),
            Self::Deadline => (
                DEADLINE_EXCEEDED,
                format!(
                    "it did not end within spec.activeDeadlineSeconds of {} s: raise that, or make another Warmup; what came stays while nothing else needs the room",
                    warmup.spec.active_deadline_seconds.unwrap_or_default()
                ),
            ),
        };
        let mut conditions = before.conditions;
        let generation = warmup.metadata.generation;
        set_condition(&mut conditions, "Complete", ConditionStatus::False, reason, message, generation, now);
        let (started_at, finished_at) = match self {
            Self::Suspended => (None, None),
            Self::Deadline => (before.started_at, before.finished_at.or(Some(Time(now)))),
        };
        // What is late is left as it was, for a person to see why.
        let (files_failed, failed_files) = match self {
            Self::Suspended => (None, Vec::new()),
            Self::Deadline => (before.files_failed, before.failed_files),
        };
        WarmupStatus {
            observed_generation: generation,
            bytes_per_second: None,
            rate: None,
            eta: None,
            started_at,
            finished_at,
            files_failed,
            troubles: Vec::new(),
            failed_files,
            conditions,
            ..before
        }
    }
}

/// Whether it is to be deleted: it has ended, well or not, and the time after that is over.
fn is_past_ttl(warmup: &Warmup, now: Timestamp) -> bool {
    let status = warmup.status.as_ref().filter(|_| warmup.is_complete() || warmup.has_missed_deadline());
    let finished = status.and_then(|status| status.finished_at.as_ref());
    is_over(finished, warmup.spec.ttl_seconds_after_finished, now)
}

fn trouble((node, trouble): &(Arc<str>, Trouble)) -> WarmupTrouble {
    WarmupTrouble {
        node: node.to_string(),
        // The names of the kinds are CamelCase words, as reasons are.
        reason: format!("{:?}", trouble.kind),
        message: trouble.message.clone(),
    }
}

fn failed_file(FailedOn { file, node, nodes }: &FailedOn) -> WarmupFailedFile {
    WarmupFailedFile {
        path: file.path.clone(),
        node: node.to_string(),
        nodes: i64::try_from(*nodes).unwrap_or(i64::MAX),
        reason: file.reason.clone(),
        message: file.message.clone(),
    }
}

/// Told at once, since no wait helps.
fn does_not_fit(TooSmall { node, capacity, asked, nodes }: &TooSmall) -> String {
    let others = if *nodes > 1 { format!(" and {} others", nodes - 1) } else { String::new() };
    format!(
        "{} are asked for, and the store of {node}{others} may hold {}: name a part in spec.paths, choose nodes with more room by spec.nodes.nodeSelector, or give the stores more; what fits is fetched",
        explain::bytes(*asked),
        explain::bytes(*capacity)
    )
}

/// By bytes; where only lists of files are wanted, by those.
fn percent(progress: &WarmupProgress) -> u8 {
    match progress.bytes_total {
        0 => score::percent(progress.files_done, progress.files_total),
        total => score::percent(progress.bytes_done, total),
    }
}

/// The status as it should be.
fn status_of(warmup: &Warmup, progress: &WarmupProgress, per_second: f64, now: Timestamp) -> WarmupStatus {
    let before = warmup.status.clone().unwrap_or_default();
    let goes_to_pods = warmup.spec.nodes.as_ref().is_some_and(|nodes| nodes.pending_pods);
    // With the pods that run now their nodes went, and nothing has come undone.
    let is_over = goes_to_pods && progress.nodes_wanted == 0 && warmup.is_complete();
    let complete = progress.problem.is_none()
        && (progress.nodes_wanted > 0 || is_over)
        && progress.nodes_done == progress.nodes_wanted;
    let missing = progress.bytes_total.saturating_sub(progress.bytes_done);
    let moving = !complete && per_second >= 1.0;
    let (problem, too_small) = (&progress.problem, &progress.too_small);
    let (condition, reason, message) = match (problem, too_small, progress.troubles.as_slice()) {
        (Some(problem), ..) => (ConditionStatus::False, "CannotStart", problem.clone()),
        _ if progress.nodes_wanted == 0 && !complete => {
            let (reason, message) = match goes_to_pods {
                true => (
                    "NoPendingPods",
                    "no pod that wants the dataset is pending for a schedulable node: it waits for one",
                ),
                false => ("NoNodes", "no schedulable node matches: see spec.nodes.nodeSelector"),
            };
            (ConditionStatus::False, reason, message.to_owned())
        }
        _ if complete => (ConditionStatus::True, "Complete", "all wanted nodes hold all of it".to_owned()),
        (_, Some(too_small), _) => (ConditionStatus::False, "DoesNotFit", does_not_fit(too_small)),
        (.., [(node, trouble), others @ ..]) => {
            let more = if others.is_empty() { String::new() } else { format!(", and {} more", others.len()) };
            (ConditionStatus::False, "FetchTrouble", format!("{node}: {}{more}", trouble.message))
        }
        (.., []) => (ConditionStatus::False, "Fetching", "nodes are fetching".to_owned()),
    };
    let mut conditions = before.conditions;
    // One that was given more time has not ended yet.
    let was_late = conditions.iter().any(|condition| condition.reason == DEADLINE_EXCEEDED);
    let finished_at = before.finished_at.filter(|_| !was_late);
    let generation = warmup.metadata.generation;
    set_condition(&mut conditions, "Complete", condition, reason, message, generation, now);
    let number = |value: u64| Some(i64::try_from(value).unwrap_or(i64::MAX));
    let count = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    let failed = &progress.failed;
    let is_known = progress.problem.is_none() && progress.nodes_wanted > 0;
    WarmupStatus {
        observed_generation: generation,
        nodes: Some(NodeCounts {
            wanted: count(progress.nodes_wanted),
            done: count(progress.nodes_done),
            summary: format!("{}/{}", progress.nodes_done, progress.nodes_wanted),
        }),
        bytes_done: number(progress.bytes_done),
        bytes_total: number(progress.bytes_total),
        files_done: number(progress.files_done),
        files_total: number(progress.files_total),
        files_failed: number(failed.count).filter(|_| failed.count > 0),
        percent: is_known.then(|| format!("{}%", percent(progress))),
        bytes_per_second: moving.then_some(per_second as i64),
        rate: moving.then(|| format!("{}/s", explain::bytes(per_second as u64))),
        eta: moving.then(|| explain::duration(missing as f64 / per_second)),
        started_at: before.started_at.or(Some(Time(now))),
        finished_at: finished_at.or(complete.then_some(Time(now))),
        troubles: progress.troubles.iter().filter(|_| !complete).take(TROUBLES_SHOWN).map(trouble).collect(),
        failed_files: failed.files.iter().map(failed_file).collect(),
        conditions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_api::WarmupSpec;
    use hearth_core::index::Failed;
    use hearth_core::manifest::ManifestHash;
    use hearth_core::wire::failed_files::FailedFile;
    use hearth_core::wire::report::TroubleKind;

    fn warmup() -> Warmup {
        let spec: WarmupSpec = serde_json::from_value(serde_json::json!({"dataset": {"name": "d"}})).unwrap();
        Warmup::new("w", spec)
    }

    fn progress(done: u64) -> WarmupProgress {
        WarmupProgress {
            nodes_wanted: 2,
            nodes_done: usize::from(done == 1_000) * 2,
            bytes_done: done,
            bytes_total: 1_000,
            files_done: done / 100,
            files_total: 10,
            ..WarmupProgress::default()
        }
    }

    fn failed() -> Failed {
        let file = FailedFile::new("a/b", "Gone", "it is gone");
        Failed { count: 3, files: vec![FailedOn { file, node: "n1".into(), nodes: 2 }] }
    }

    #[test]
    fn progress_rate_and_eta() {
        let status = status_of(&warmup(), &progress(400), 10.0, Timestamp::UNIX_EPOCH);
        assert_eq!(status.percent.as_deref(), Some("40%"));
        assert_eq!((status.rate.as_deref(), status.eta.as_deref()), (Some("10 B/s"), Some("60 s")));
        assert_eq!(status.conditions[0].status, "False");
        let mut done = warmup();
        done.status = Some(status);
        let status = status_of(&done, &progress(1_000), 10.0, Timestamp::now());
        assert_eq!(
            (status.rate, status.eta, status.nodes.map(|n| n.summary)),
            (None, None, Some("2/2".to_owned()))
        );
        assert_eq!(
            (status.started_at, status.conditions[0].status.as_str()),
            (Some(Time(Timestamp::UNIX_EPOCH)), "True")
        );
        assert!(status.finished_at.is_some());
    }

    #[test]
    fn what_is_in_the_way_is_said() {
        let mut stuck = progress(0);
        stuck.problem = Some("Dataset n/d does not exist: create it, or name another".to_owned());
        assert_eq!(status_of(&warmup(), &stuck, 0.0, Timestamp::now()).conditions[0].reason, "CannotStart");
        let nowhere = WarmupProgress::default();
        assert_eq!(status_of(&warmup(), &nowhere, 0.0, Timestamp::now()).conditions[0].reason, "NoNodes");
        let mut failing = progress(0);
        failing.troubles = (0..9)
            .map(|node| {
                let (kind, message) =
                    (TroubleKind::Changed, "2 objects are not as they were listed".to_owned());
                let trouble =
                    Trouble { dataset: "n/d".into(), manifest: ManifestHash([1; 32]), kind, message };
                (Arc::from(format!("node-{node}")), trouble)
            })
            .collect();
        let status = status_of(&warmup(), &failing, 0.0, Timestamp::now());
        assert_eq!(
            (status.conditions[0].reason.as_str(), status.troubles.len()),
            ("FetchTrouble", TROUBLES_SHOWN)
        );
        assert_eq!(
            (status.troubles[0].node.as_str(), status.troubles[0].reason.as_str()),
            ("node-0", "Changed")
        );
        assert!(status.files_failed.is_none() && status.failed_files.is_empty());
        failing.failed = failed();
        let status = status_of(&warmup(), &failing, 0.0, Timestamp::now());
        let said = serde_json::to_value(&status).unwrap();
        assert_eq!(said["filesFailed"], 3, "{said}");
        assert_eq!(
            said["failedFiles"],
            serde_json::json!([{"path": "a/b", "node": "n1", "nodes": 2, "reason": "Gone", "message": "it is gone"}])
        );
        let too_small = |nodes| {
            let too_small = TooSmall { node: "n1".into(), capacity: 10_000, asked: 2_500_000, nodes };
            let progress = WarmupProgress { too_small: Some(too_small), ..progress(0) };
            let condition = status_of(&warmup(), &progress, 0.0, Timestamp::now()).conditions.remove(0);
            (condition.reason, condition.message)
        };
        let (reason, message) = too_small(1);
        assert_eq!(reason, "DoesNotFit");
        assert!(
            message.starts_with("2.5 MB are asked for, and the store of n1 may hold 10 kB: "),
            "{message}"
        );
        assert!(too_small(3).1.contains("the store of n1 and 2 others may hold"));
    }

    #[test]
    fn one_that_goes_to_pending_pods_waits_for_them_and_is_complete_when_they_run() {
        let mut warmup = warmup();
        warmup.spec.nodes = serde_json::from_value(serde_json::json!({"pendingPods": true})).unwrap();
        let reason = |status: &WarmupStatus| status.conditions[0].reason.clone();
        let status = |warmup: &Warmup, progress| status_of(warmup, &progress, 0.0, Timestamp::UNIX_EPOCH);
        let waits = status(&warmup, WarmupProgress::default());
        assert_eq!((reason(&waits).as_str(), &waits.percent), ("NoPendingPods", &None));
        warmup.status = Some(status(&warmup, progress(1_000)));
        assert!(warmup.is_complete());
        warmup.status = Some(status(&warmup, WarmupProgress::default()));
        assert_eq!(warmup.status.as_ref().and_then(|status| status.nodes.clone()).unwrap().summary, "0/0");
        assert!(warmup.is_complete(), "the pods run");
        assert_eq!(reason(&status(&warmup, progress(400))), "Fetching", "others have come");
    }

    #[test]
    fn a_warm_up_stops_when_it_is_told_to_or_is_late() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let mut warmup = warmup();
        warmup.metadata.generation = Some(1);
        warmup.spec.active_deadline_seconds = Some(60);
        warmup.spec.ttl_seconds_after_finished = Some(10);
        assert_eq!(Stop::of(&warmup, at(1_000)), None, "it has not begun");
        let failing = WarmupProgress { failed: failed(), ..progress(400) };
        warmup.status = Some(status_of(&warmup, &failing, 10.0, at(1_000)));
        assert_eq!(Stop::of(&warmup, at(1_059)), None);
        assert_eq!(Stop::of(&warmup, at(1_060)), Some(Stop::Deadline));
        warmup.status = Some(Stop::Deadline.status(&warmup, at(1_060)));
        let status = warmup.status.as_ref().unwrap();
        assert_eq!((status.bytes_done, &status.rate), (Some(400), &None));
        assert_eq!((status.files_failed, status.failed_files.len()), (Some(3), 1), "they say why");
        assert!(warmup.is_stopped() && !is_past_ttl(&warmup, at(1_069)) && is_past_ttl(&warmup, at(1_070)));
        // Raised, it goes on.
        (warmup.metadata.generation, warmup.spec.active_deadline_seconds) = (Some(2), Some(600));
        assert!(Stop::of(&warmup, at(1_100)).is_none() && !warmup.is_stopped());
        warmup.status = Some(status_of(&warmup, &progress(400), 10.0, at(1_100)));
        assert_eq!(Stop::of(&warmup, at(1_600)), Some(Stop::Deadline));
        warmup.status = Some(status_of(&warmup, &progress(1_000), 0.0, at(1_200)));
        assert_eq!(Stop::of(&warmup, at(9_999)), None, "it is complete");
        assert!(is_past_ttl(&warmup, at(1_210)));
        warmup.spec.suspend = true;
        let suspended = Stop::of(&warmup, at(1_300)).unwrap().status(&warmup, at(1_300));
        assert_eq!((suspended.started_at, suspended.finished_at), (None, None));
        assert_eq!(suspended.conditions[0].reason, "Suspended");
    }

    #[tokio::test(start_paused = true)]
    async fn the_pace_follows_and_never_runs_backwards() {
        let start = Instant::now();
        let first = Pace::next(None, start, 100);
        assert_eq!(first.per_second, 0.0);
        let second = Pace::next(Some(first), start + Duration::from_secs(2), 300);
        assert_eq!(second.per_second, 100.0);
        let third = Pace::next(Some(second), start + Duration::from_secs(3), 0);
        assert!(third.per_second >= 0.0 && third.per_second < 100.0);
    }
}
