//! Fetches what is wanted, the most urgent first, each block once.
//!
//! One task decides: it prepares wants, hands out requests to a bounded number of
//! slots, takes back what failed and counts. Requests run beside it. Nothing of
//! what is wanted is kept on disk: after a restart the orders come again, and the
//! store says what is there.

mod courtesy;
mod demands;
mod failures;
mod fetch;
mod job;
mod jobs;
mod plan;
mod processors;
mod quota;
mod rate;
mod room;
mod source;
mod status;
#[cfg(test)]
mod tests;

pub use demands::Demands;
pub use room::{MakeRoom, NoRoom, Visitor};
pub use status::FillStatus;

use crate::blocks::Blocks;
use crate::config::OriginConfig;
use crate::datasets::Datasets;
use crate::manifests::Manifests;
use crate::metrics::Metrics;
use crate::origin::Origins;
use crate::pressure;
use crate::store::Store;
use courtesy::{Answers, Courtesy};
use fetch::{Fetched, Fetcher, Slot};
use hearth_core::manifest::ManifestHash;
use hearth_core::wire::report::{POD_PRIORITY, Want};
use jobs::Jobs;
use plan::{InFlight, Run};
use processors::Processors;
use quota::Quotas;
use rate::Rate;
use source::{FillError, Prepared, Sources};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Wants that are prepared at one time.
const PREPARING: usize = 8;
/// How often rate and gauges move when nothing else happens.
const TICK: Duration = Duration::from_secs(1);
/// Above all that is wanted: somebody waits for it.
const URGENT: i32 = i32::MAX;
/// Bytes of a request that is not cancelled for a more urgent one: it ends soon by itself…
const SHORT: u64 = 1 << 20;
/// …unless it has not by then.
const SOON: Duration = Duration::from_secs(1);

/// What fetching needs.
pub struct FillParts {
    /// Where blocks go.
    pub store: Store,
    /// Where specs come from.
    pub datasets: Datasets,
    /// Where manifests come from.
    pub manifests: Manifests,
    /// Where blocks come from.
    pub origins: Arc<Origins>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who waits for blocks.
    pub demands: Demands,
    /// Where blocks go that are not kept.
    pub blocks: Arc<Blocks>,
    /// Who makes room for the others.
    pub room: Arc<dyn MakeRoom>,
}

/// The task that fetches.
pub struct Fill {
    sources: Sources,
    fetcher: Arc<Fetcher>,
    metrics: Arc<Metrics>,
    slots: Arc<Semaphore>,
    concurrency: usize,
    courtesy: Courtesy,
    processors: Processors,
    /// Until when nothing is begun that no pod waits for.
    paused: Option<Instant>,
    /// When what nobody waits for may go on that would only crowd readers.
    trickles: Option<Instant>,
    /// Held by each request that has a slot and that nobody waits for.
    background: Arc<()>,
    jobs: Jobs,
    running: HashMap<u64, Running>,
    next_id: u64,
    preparing: usize,
    in_flight: InFlight,
    quotas: Quotas,
    rate: Rate,
    /// Since when something has been fetched without its time being counted.
    busy_since: Option<Instant>,
    /// The request that is being cancelled for something more urgent.
    making_room: Option<u64>,
    tasks: JoinSet<Ended>,
    demands: Demands,
    status: watch::Sender<FillStatus>,
}

struct Running {
    /// Which job it is of, which may be gone.
    job: u64,
    hash: ManifestHash,
    /// The Dataset whose quota it was counted against, and the bytes.
    counted: (String, u64),
    run: Run,
    /// Somebody waited for it when it was begun.
    urgent: bool,
    priority: i32,
    since: Instant,
    cancel: CancellationToken,
}

enum Ended {
    Prepared(u64, Result<Prepared, FillError>),
    Fetched(u64, Fetched),
}

impl Fill {
    /// Nothing is wanted yet; the receiver follows rate and troubles.
    pub fn new(config: &OriginConfig, parts: FillParts) -> (Self, watch::Receiver<FillStatus>) {
        let FillParts { store, datasets, manifests, origins, metrics, demands, blocks, room } = parts;
        let (status, receiver) = watch::channel(FillStatus::default());
        let fetcher = Fetcher {
            store: store.clone(),
            metrics: metrics.clone(),
            demands: demands.clone(),
            blocks,
            room,
            buffer: Arc::new(Semaphore::new(fetch::pages(config.buffer.bytes().unwrap_or(0)))),
            freed: Arc::new(Notify::new()),
            came: AtomicU64::new(0),
            answers: Answers::default(),
        };
        let fill = Self {
            sources: Sources { store, datasets, manifests, origins },
            fetcher: Arc::new(fetcher),
            metrics,
            slots: Arc::new(Semaphore::new(config.concurrency)),
            concurrency: config.concurrency,
            courtesy: Courtesy::new(config.concurrency),
            processors: Processors::new(config.busy_cpu_percent),
            paused: None,
            trickles: None,
            background: Arc::new(()),
            jobs: Jobs::default(),
            running: HashMap::new(),
            next_id: 0,
            preparing: 0,
            in_flight: InFlight::default(),
            quotas: Quotas::default(),
            rate: Rate::default(),
            busy_since: None,
            making_room: None,
            tasks: JoinSet::new(),
            demands,
            status,
        };
        (fill, receiver)
    }

    /// Fetches what `wants` asks for until `shutdown`. Fails only when a task panics.
    pub async fn run(
        mut self,
        mut wants: watch::Receiver<Vec<Want>>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let freed = self.fetcher.freed.clone();
        let demands = self.demands.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        wants.mark_changed();
        loop {
            self.prepare_due();
            self.hand_out();
            let due = self.next_due();
            tokio::select! {
                changed = wants.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let wants = wants.borrow_and_update().clone();
                    self.want(wants);
                }
                Some(ended) = self.tasks.join_next() => self.ended(ended?),
                () = freed.notified() => {}
                () = demands.made() => self.urge(),
                () = sleep_until(due) => {}
                _ = tick.tick() => self.publish(),
                () = shutdown.cancelled() => break,
            }
        }
        // What is kept is in the index; the rest is fetched after the next start.
        self.tasks.shutdown().await;
        Ok(())
    }

    /// Takes what readers wait for to the wants that have it.
    fn urge(&mut self) {
        let now = Instant::now();
        self.courtesy.asked(now);
        for (hash, mut blocks) in self.demands.take() {
            for number in self.jobs.of(hash) {
                let urged = self.jobs.change(number, |job| (job.urge(&blocks, now), job.reads(&blocks)));
                let Some((refused, read)) = urged else { continue };
                self.demands.refuse(hash, &refused, now);
                // What is not kept the others would fetch once more.
                blocks -= read;
            }
        }
    }

    /// Takes new orders: what is no longer wanted is cancelled.
    fn want(&mut self, wants: Vec<Want>) {
        for number in self.jobs.want(wants, Instant::now()) {
            let Some(want) = self.jobs.get(number).map(|job| &job.want) else { continue };
            tracing::info!(
                dataset = format!("{}/{}", want.namespace, want.dataset), manifest = ?want.manifest,
                globs = ?want.globs, priority = want.priority, "wanted"
            );
        }
        self.quotas.keep(&self.jobs.iter().map(|job| job.want.uid.as_str()).collect());
        for running in self.running.values_mut() {
            match self.jobs.get(running.job) {
                Some(_) if running.priority == URGENT => {}
                Some(job) => running.priority = job.want.priority,
                None => running.cancel.cancel(),
            }
        }
        self.publish();
    }

    fn prepare_due(&mut self) {
        let now = Instant::now();
        while self.preparing < PREPARING {
            let Some(number) = self.jobs.due(now) else { return };
            let begun = self.jobs.change(number, |job| (job.want.clone(), job.begin_preparing()));
            let Some((want, known)) = begun else { return };
            self.preparing += 1;
            let sources = self.sources.clone();
            self.tasks.spawn(async move {
                let outcome = sources.prepare(&want, known).await;
                Ended::Prepared(number, outcome)
            });
        }
    }

    /// Fills the free slots, the most urgent want first; without one, takes a slot
    /// from what is less urgent. Beside readers it leaves slots free.
    fn hand_out(&mut self) {
        let now = Instant::now();
        self.paused = self.processors.pause(now, pressure::own_time(), pressure::processor_time);
        let came = self.fetcher.came.load(Ordering::Relaxed);
        let is_crowded = self.processors.are_busy() && self.fetcher.answers.come_soon();
        self.courtesy.look(came, is_crowded, now);
        self.trickles = None;
        let mut last = None;
        while let Some(turn) = self.jobs.urgent_after(last) {
            if self.hand_out_of(turn.1, URGENT, now).is_break() {
                return;
            }
            last = Some(turn);
        }
        last = None;
        while let Some(turn) = self.jobs.more_after(last) {
            if self.hand_out_of(turn.1, turn.0.0, now).is_break() {
                return;
            }
            last = Some(turn);
        }
    }

    /// Hands out what one job has. Breaks when nothing of that priority or a lower one can be begun now.
    fn hand_out_of(&mut self, number: u64, priority: i32, now: Instant) -> ControlFlow<()> {
        // A pod waits for what it mounts, though no reader may have come to it yet.
        let yields = priority < POD_PRIORITY && self.processors.are_wanted();
        if yields && self.paused.is_some() {
            return ControlFlow::Break(());
        }
        // Requests that wait for the disk count too; the buffer bounds them before this does.
        let most_running = self.concurrency.saturating_mul(64);
        while let Some(job) = self.jobs.get(number) {
            let has_more = if priority == URGENT { job.has_urgent() } else { job.has_more() };
            let has_all_turns = job.has_all_its_turns();
            // What its origin does not allow yet would only keep others from their slots.
            if !has_more || (has_all_turns && priority != URGENT) {
                break;
            }
            if self.running.len() >= most_running {
                return ControlFlow::Break(());
            }
            let background = Arc::strong_count(&self.background) - 1;
            let limit = self.courtesy.limit(now);
            let limit = if yields { limit.min(courtesy::FEWEST) } else { limit };
            if priority != URGENT && background >= limit {
                self.trickles = self.courtesy.next(now);
                // A slot alone would not let it begin.
                if self.trickles.is_none() {
                    self.make_room(priority, None);
                }
                return ControlFlow::Break(());
            }
            let Ok(permit) = self.slots.clone().try_acquire_owned() else {
                self.make_room(priority, None);
                return ControlFlow::Break(());
            };
            let next = self.jobs.change(number, |job| {
                let request = job.next(&self.in_flight, &mut self.quotas, priority == URGENT, now)?;
                Some((request, job.want.uid.clone()))
            });
            let Some((request, uid)) = next.flatten() else { break };
            let bytes = if request.over_quota { 0 } else { request.source.bytes_of(&request.run) };
            let id = self.next_id;
            self.next_id += 1;
            self.in_flight.begin(&request.run);
            let cancel = CancellationToken::new();
            let running = Running {
                job: number,
                hash: request.source.hash,
                counted: (uid, bytes),
                run: request.run.clone(),
                urgent: request.urgent,
                priority,
                since: now,
                cancel: cancel.clone(),
            };
            self.running.insert(id, running);
            self.busy_since.get_or_insert(now);
            let background = (!request.urgent).then(|| self.background.clone());
            if background.is_some() {
                self.courtesy.begun(now);
            }
            let slot = Slot { _permit: permit, _background: background };
            let fetcher = self.fetcher.clone();
            self.tasks.spawn(async move {
                let fetched = fetcher.fetch(&request, cancel, slot).await;
                Ended::Fetched(id, fetched)
            });
            // Its turn comes when another of the same origins ends.
            if has_all_turns {
                self.make_room(priority, Some(number));
                break;
            }
        }
        ControlFlow::Continue(())
    }

    /// Cancels one request that is less urgent than `priority`, of this job if one is named: its
    /// slot comes free, and what it has read whole stays.
    fn make_room(&mut self, priority: i32, of: Option<u64>) {
        if self.making_room.is_some_and(|id| self.running.contains_key(&id)) {
            return;
        }
        let now = Instant::now();
        let victims = self.running.iter().filter(|(_, running)| {
            let ends_soon = running.counted.1 <= SHORT && now - running.since < SOON;
            let is_one = of.is_none_or(|job| running.job == job);
            // A request that only waits for the disk has no slot, and its token is cancelled.
            is_one && running.priority < priority && !running.cancel.is_cancelled() && !ends_soon
        });
        let Some((id, victim)) = victims.min_by_key(|(_, running)| running.priority) else { return };
        victim.cancel.cancel();
        self.making_room = Some(*id);
    }

    fn ended(&mut self, ended: Ended) {
        let now = Instant::now();
        match ended {
            Ended::Prepared(number, outcome) => {
                self.preparing -= 1;
                self.jobs.change(number, |job| {
                    match &outcome {
                        Ok(prepared) => self.quotas.counted(&job.want.uid, prepared.counted),
                        Err(error) => tracing::warn!(
                            dataset = format!("{}/{}", job.want.namespace, job.want.dataset),
                            "cannot be fetched: {error}"
                        ),
                    }
                    job.prepared(outcome, now);
                });
                self.publish();
            }
            Ended::Fetched(id, fetched) => {
                let Some(running) = self.running.remove(&id) else { return };
                self.in_flight.end(&running.run);
                let (uid, asked) = &running.counted;
                // Beyond the quota a block is kept only in place of others of the dataset.
                self.quotas.ended(uid, *asked, fetched.bytes.min(*asked));
                self.rate.fetched(fetched.bytes + fetched.through);
                if self.running.is_empty() {
                    self.count_busy(now);
                    self.busy_since = None;
                    self.rate.idle();
                }
                let troubled = fetched.error.is_some();
                self.jobs.change(running.job, |job| {
                    if let Some(error) = &fetched.error {
                        tracing::debug!(
                            dataset = format!("{}/{}", job.want.namespace, job.want.dataset),
                            "{error}"
                        );
                    }
                    job.ended(&running.run, running.urgent, &fetched.done, fetched.error.as_ref(), now);
                });
                for other in self.jobs.of(running.hash).into_iter().filter(|other| *other != running.job) {
                    self.jobs.change(other, |job| job.fetched(&fetched.done));
                }
                if troubled || self.running.is_empty() {
                    self.publish();
                }
            }
        }
    }

    fn count_busy(&mut self, now: Instant) {
        if let Some(since) = &mut self.busy_since {
            self.rate.was_busy(now - *since);
            *since = now;
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let prepares = self.jobs.next_due().filter(|_| self.preparing < PREPARING);
        let goes_on = self.paused.into_iter().chain(self.trickles).min();
        let goes_on = goes_on.filter(|_| self.jobs.more_after(None).is_some());
        prepares.into_iter().chain(goes_on).min()
    }

    /// Brings status and gauges up to date.
    fn publish(&mut self) {
        self.count_busy(Instant::now());
        self.demands.set_scarce(self.jobs.full());
        let status = FillStatus::new(self.rate.bytes_per_second(), &self.jobs);
        let metrics = &self.metrics;
        metrics.origin_rate.set(status.origin_bytes_per_second.unwrap_or(0) as f64);
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let done = self.jobs.done();
        metrics.fill_running.set(gauge(self.running.len()));
        metrics.fill_yields.set(i64::from(self.processors.are_wanted()));
        metrics.wants.with_label_values(&["done"]).set(gauge(done));
        metrics.wants.with_label_values(&["pending"]).set(gauge(self.jobs.len() - done));
        metrics.fill_missing_blocks.set(i64::try_from(self.jobs.missing()).unwrap_or(i64::MAX));
        status.count(metrics);
        self.status.send_if_modified(|before| {
            let changed = *before != status;
            *before = status;
            changed
        });
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
