//! One want on its way: when it is prepared, what it still lacks, what keeps it. Pure.

use super::failures::Failures;
use super::plan::{InFlight, Plan, Run};
use super::quota::Quotas;
use super::source::{FillError, Prepared, Source};
use crate::origin::{OriginError, shown};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use hearth_core::manifest::ManifestHash;
use hearth_core::wire::failed_files::{self, FailedFiles};
use hearth_core::wire::report::{Trouble, TroubleKind, Want};
use roaring::RoaringBitmap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often what is all here is looked at again: a damaged block leaves by itself.
const RECHECK: Duration = Duration::from_secs(60);
/// When to look again for what another want is fetching.
const ELSEWHERE: Duration = Duration::from_secs(1);

/// Longest pause after a failure while somebody waits.
const HURRIED: Duration = Duration::from_secs(5);

/// What tells wants apart, whoever asks and how urgently.
pub(super) type Key = (ManifestHash, Vec<String>);

pub(super) fn key(want: &Want) -> Key {
    (want.manifest, want.globs.clone())
}

#[derive(Debug)]
enum Phase {
    /// To be prepared at that time.
    Waiting(Instant),
    /// A task prepares it.
    Preparing,
    /// Its plan is good.
    Active,
    /// All of it is handed out: to be prepared at that time. What is only read is read meanwhile.
    Resting(Instant),
}

/// One want on its way.
pub(super) struct Job {
    pub(super) want: Want,
    phase: Phase,
    source: Option<Arc<Source>>,
    plan: Plan,
    /// What somebody waits for, until there is a plan.
    urged: RoaringBitmap,
    running: usize,
    /// Of those, what nothing is kept of.
    reading: usize,
    backoff: ExponentialBackoff,
    trouble: Option<(TroubleKind, String)>,
    failures: Failures,
    done: bool,
    /// The Dataset is another one since then than that of the source.
    stale: Option<Instant>,
    /// One of its several origins fails: which, and how long that is put off.
    failing: Option<(u16, ExponentialBackoff)>,
    failing_until: Option<Instant>,
    /// One of them refuses: they are opened anew when it is looked at again.
    reopens: bool,
    /// There is no room for what nobody waits for, until it is looked at again.
    full_until: Option<Instant>,
}

/// A request to make.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) source: Arc<Source>,
    pub(super) run: Run,
    /// Somebody waits for it.
    pub(super) urgent: bool,
    /// The dataset's quota has no room for it.
    pub(super) over_quota: bool,
}

/// One to sixty seconds, with jitter, without end.
fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_secs(1))
        .with_max_delay(Duration::from_secs(60))
        .without_max_times()
        .build()
}

impl Job {
    pub(super) fn new(want: Want, now: Instant) -> Self {
        Self {
            want,
            phase: Phase::Waiting(now),
            source: None,
            plan: Plan::default(),
            urged: RoaringBitmap::new(),
            running: 0,
            reading: 0,
            backoff: backoff(),
            trouble: None,
            failures: Failures::default(),
            done: false,
            stale: None,
            failing: None,
            failing_until: None,
            reopens: false,
            full_until: None,
        }
    }

    /// The want as it is asked for now.
    pub(super) fn update(&mut self, want: Want, now: Instant) {
        let same_spec = self.want.uid == want.uid && self.want.generation == want.generation;
        self.want = want;
        if !same_spec {
            self.stale = Some(now);
            if matches!(self.phase, Phase::Waiting(_) | Phase::Resting(_)) {
                self.phase = Phase::Waiting(now);
                self.backoff = backoff();
            }
        }
    }

    /// When it wants to be prepared; `None` while it need not.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting(at) if !self.fetches() => Some(at),
            Phase::Resting(at) if !self.fetches() => {
                Some(self.failing_until.map_or(at, |until| until.min(at)))
            }
            // What takes room is counted again.
            Phase::Active => [self.stale, self.full_until, self.failing_until].into_iter().flatten().min(),
            _ => None,
        }
    }

    /// Its preparation begins; with what is known already.
    pub(super) fn begin_preparing(&mut self) -> Option<Arc<Source>> {
        self.phase = Phase::Preparing;
        let reopens = std::mem::take(&mut self.reopens);
        match self.stale.take() {
            Some(_) => None,
            None => self.source.clone().filter(|_| !reopens),
        }
    }

    pub(super) fn prepared(&mut self, outcome: Result<Prepared, FillError>, now: Instant) {
        match outcome {
            Ok(prepared) => {
                self.phase = Phase::Active;
                self.full_until = None;
                self.failing_until = None;
                self.plan = Plan::new(prepared.missing).showing(prepared.shown);
                self.plan.urge(&std::mem::take(&mut self.urged));
                self.failures.planned(&prepared.source.manifest, &self.plan);
                self.source = Some(prepared.source);
                if !self.plan.has_more() {
                    self.settle(now);
                }
            }
            Err(error) => self.failed(&error, now),
        }
    }

    /// Hands out its next request, of what somebody waits for alone if `only_urgent`.
    pub(super) fn next(
        &mut self,
        in_flight: &InFlight,
        quotas: &mut Quotas,
        only_urgent: bool,
        now: Instant,
    ) -> Option<Request> {
        let source = self.source.clone().filter(|_| self.serves())?;
        let only_urgent = only_urgent || !matches!(self.phase, Phase::Active) || self.is_full();
        let next = self.plan.next(&source.manifest, in_flight, only_urgent);
        let Some((run, urgent)) = next else {
            self.settle(now);
            return None;
        };
        let taken = quotas.take(&self.want.uid, source.bytes_of(&run));
        if let (Err(quota), false) = (taken, urgent) {
            self.plan.put_back(run.numbers);
            self.failed(&FillError::Quota(quota), now);
            return None;
        }
        self.urged.remove_range(run.numbers.clone());
        self.running += 1;
        self.reading += usize::from(run.unlisted);
        Some(Request { source, run, urgent, over_quota: taken.is_err() })
    }

    /// Whether there is no room for what nobody waits for.
    pub(super) fn is_full(&self) -> bool {
        self.full_until.is_some()
    }

    /// Whether readers are served: also while it is prepared anew, and, of what is only read,
    /// before.
    fn serves(&self) -> bool {
        !matches!(self.phase, Phase::Waiting(_)) && self.source.is_some()
    }

    /// Whether something is under way that it waits for.
    fn fetches(&self) -> bool {
        self.running > self.reading
    }

    /// Those of these blocks that it reads for whoever waits, and that are not kept.
    pub(super) fn reads(&self, blocks: &RoaringBitmap) -> RoaringBitmap {
        if self.serves() { self.plan.shown(blocks) } else { RoaringBitmap::new() }
    }

    /// Somebody waits for these blocks. What was all here is looked at again, and what
    /// failed sooner than it would be. Those of them that cannot come, as their objects
    /// are not what was listed.
    pub(super) fn urge(&mut self, blocks: &RoaringBitmap, now: Instant) -> RoaringBitmap {
        match self.phase {
            Phase::Active => self.plan.urge(blocks),
            Phase::Preparing => {
                self.urged |= blocks;
                self.plan.urge(blocks);
            }
            Phase::Waiting(at) => self.phase = Phase::Waiting(self.hurried(at, blocks, now)),
            Phase::Resting(at) => {
                self.plan.read(blocks);
                if !blocks.is_subset(&self.plan.shown(blocks)) {
                    self.phase = Phase::Resting(self.hurried(at, blocks, now));
                }
            }
        }
        self.plan.changed(blocks)
    }

    /// When it is to be prepared for these blocks, instead of at that time.
    fn hurried(&mut self, at: Instant, blocks: &RoaringBitmap, now: Instant) -> Instant {
        self.urged |= blocks;
        let pause = if std::mem::take(&mut self.done) { Duration::ZERO } else { HURRIED };
        at.min(now + pause)
    }

    /// Whether as many of its requests are under way as its origins allow.
    pub(super) fn has_all_its_turns(&self) -> bool {
        self.source.as_ref().is_some_and(|source| self.running >= source.most_at_once())
    }

    /// Whether somebody waits for a request that it has to hand out.
    pub(super) fn has_urgent(&self) -> bool {
        self.serves() && self.plan.has_urgent()
    }

    /// Whether it may have a request to hand out that nobody waits for.
    pub(super) fn has_more(&self) -> bool {
        matches!(self.phase, Phase::Active) && self.plan.has_more() && !self.is_full()
    }

    /// A request has ended; `done` are the blocks that are kept.
    pub(super) fn ended(
        &mut self,
        run: &Run,
        urgent: bool,
        done: &RoaringBitmap,
        error: Option<&FillError>,
        now: Instant,
    ) {
        self.running -= 1;
        self.reading -= usize::from(run.unlisted);
        self.plan.ended(run);
        // What a reader waited for may have come in exchange for something else.
        if !done.is_empty() && (!urgent || !self.is_full()) {
            self.backoff = backoff();
            self.trouble = self.trouble.take().filter(|_| self.plan.has_put_off());
        }
        // The plan may be newer than the request.
        self.fetched(done);
        let rest = ranges_without(run, done);
        if let Some(FillError::Origin(error)) = error {
            self.failures.failed(run.file, error);
        }
        match (error, &self.source) {
            (Some(FillError::Origin(error)), Some(source)) if error.is_of_the_object() => {
                let manifest = source.manifest.clone();
                for range in rest {
                    self.plan.put_aside(&manifest, run, range);
                }
            }
            (error, _) => match (error, self.one_of_several(run)) {
                (Some(FillError::Origin(error)), Some(origin)) => {
                    self.plan.fails(origin, rest);
                    self.origin_failed(origin, error, now);
                }
                (error, origin) => {
                    for range in rest {
                        self.plan.put_back(range);
                    }
                    if let Some(error) = error {
                        self.failed(error, now);
                    } else if let Some(origin) = origin.filter(|_| !done.is_empty()) {
                        self.failing.take_if(|(failing, _)| *failing == origin);
                        self.plan.answers(origin);
                    }
                }
            },
        }
        self.settle(now);
    }

    /// These have been fetched, for this or another want of the same manifest.
    pub(super) fn fetched(&mut self, done: &RoaringBitmap) {
        for number in done {
            self.plan.fetched(number..number + 1);
        }
        self.failures.fetched(done, &self.plan);
    }

    /// When nothing is left to hand out or to wait for: looks again later.
    fn settle(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Active) || self.plan.has_more() || self.fetches() {
            return;
        }
        let after = if self.plan.waits_for_others() {
            ELSEWHERE
        } else if self.plan.has_put_off() {
            self.failing_until.map_or(RECHECK, |until| until.saturating_duration_since(now))
        } else if self.plan.has_changed() {
            self.backoff.next().unwrap_or(RECHECK).max(Duration::from_secs(10))
        } else {
            self.done = true;
            self.trouble = None;
            self.failures.clear();
            self.backoff = backoff();
            RECHECK
        };
        self.phase = Phase::Resting(now + after);
    }

    fn failed(&mut self, error: &FillError, now: Instant) {
        self.done = false;
        self.trouble = Some((error.kind(), error.to_string()));
        // What is wrong with the origin or the Secret may be mended: look at both again.
        if matches!(error, FillError::Origin(error) if !error.is_transient()) {
            self.source = None;
        }
        // Readers are served on, only nothing of theirs is kept.
        let cannot_keep = match error.kind() {
            TroubleKind::NoSpace => self.serves(),
            // Unless it cannot even be prepared.
            TroubleKind::Store => matches!(self.phase, Phase::Active),
            _ => false,
        };
        if cannot_keep {
            if !self.is_full() {
                self.full_until = Some(now + self.backoff.next().unwrap_or(RECHECK));
            }
            return;
        }
        // One failure of many requests at a time counts once.
        if !matches!(self.phase, Phase::Waiting(until) if until > now) {
            self.phase = Phase::Waiting(now + self.backoff.next().unwrap_or(RECHECK));
        }
    }

    /// The origin that a run is from, if there are others.
    fn one_of_several(&self, run: &Run) -> Option<u16> {
        let source = self.source.as_ref().filter(|source| source.has_several_origins())?;
        Some(source.manifest.file(run.file)?.origin)
    }

    /// What the others have goes on coming.
    fn origin_failed(&mut self, origin: u16, error: &OriginError, now: Instant) {
        self.done = false;
        self.trouble = Some((error.trouble(), error.to_string()));
        // One that could not be opened is not asked at all before it is.
        let is_closed = self.source.as_ref().is_some_and(|source| source.origin(origin).is_err());
        self.reopens |= is_closed || !error.is_transient();
        // Requests that were under way together count once.
        if self.failing_until.is_none() {
            let same = self.failing.take().filter(|(failing, _)| *failing == origin);
            let (_, pauses) = self.failing.insert(same.unwrap_or_else(|| (origin, backoff())));
            self.failing_until = Some(now + pauses.next().unwrap_or(RECHECK));
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Blocks that it still lacks, as far as it is known.
    pub(super) fn missing(&self) -> u64 {
        self.plan.missing()
    }

    /// Whether there are troubles or failed files to tell of.
    pub(super) fn fails(&self) -> bool {
        self.trouble.is_some() || !self.failures.is_empty()
    }

    /// What keeps it, for a person.
    pub(super) fn troubles(&self) -> impl Iterator<Item = Trouble> + '_ {
        let changed = self.failures.changed().map(|(count, example)| {
            let example = example.map(|why| format!(", for example: {}", shown(why))).unwrap_or_default();
            (TroubleKind::Changed, format!("{count} objects are not as they were listed{example}"))
        });
        self.trouble.clone().into_iter().chain(changed).map(|(kind, message)| Trouble {
            dataset: format!("{}/{}", self.want.namespace, self.want.dataset),
            manifest: self.want.manifest,
            kind,
            message,
        })
    }

    /// Files of it that could not be fetched; `None` when there are none.
    pub(super) fn failed_files(&self) -> Option<FailedFiles> {
        (self.failures.count() > 0).then(|| FailedFiles {
            manifest: self.want.manifest,
            part: failed_files::part(&self.want.globs),
            count: self.failures.count(),
            files: self.failures.told().cloned().collect(),
        })
    }
}

/// The numbers of a run that are not done, as ranges.
fn ranges_without(run: &Run, done: &RoaringBitmap) -> Vec<std::ops::Range<u32>> {
    run.numbers.clone().filter(|number| !done.contains(*number)).map(|number| number..number + 1).collect()
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
