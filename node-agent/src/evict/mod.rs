//! Makes room in a tier of the store, and keeps it within its limits.
//!
//! Which version is worth how much is gathered in `standings`; `choose` goes through what
//! the tier holds and lets [`hearth_core::evict`] decide. Here the decisions are carried
//! out, one at a time, so that nothing is given up twice for the same need. What somebody
//! asks to be given up, `on_demand` gives up.

mod batches;
mod choose;
mod on_demand;
mod pace;
mod standings;
#[cfg(test)]
mod tests;

use crate::fill::{NoRoom, Visitor};
use crate::metrics::Metrics;
use crate::reads::Reads;
use crate::store::{Reservation, Store, StoreError, Tier};
use crate::views::{ViewError, Views};
use batches::Reason;
pub(crate) use batches::in_batches;
use choose::Held;
use hearth_core::evict::{Amount, Claim, NotEnough, Shortage, Standing};
use hearth_core::manifest::ManifestHash;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedMutexGuard, oneshot};
use tokio_util::sync::CancellationToken;

pub use on_demand::{OnDemand, OnDemandParts};
pub(crate) use standings::Version;
pub use standings::{StandingParts, Standings};

/// How often it is looked whether others have filled the disk.
const LOOK: Duration = Duration::from_secs(5);
/// Before the first look: by then it has been said what is needed here.
const SETTLE: Duration = Duration::from_secs(30);
/// When to look again after nothing could be done.
const RESIGN: Duration = Duration::from_secs(60);
/// Longest wait for those who make room already.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often room is made that others take, and the pause before the next time.
const ATTEMPTS: usize = 3;
const AGAIN: Duration = Duration::from_secs(1);
/// How long room is left to others who have filled the disk, and which part of the capacity.
const CRAMPED: Duration = Duration::from_secs(600);
const GAP: u64 = 100;
/// How long it holds that nothing yields, at least; and in lengths of the search that found so.
const REFUSED: Duration = Duration::from_secs(5);
const SEARCHES: u32 = 10;
/// How long the file system may take to show what was given up as free: a file that is
/// open keeps its room, and some free it later anyway.
const LATE: Duration = Duration::from_secs(60);

/// What making room needs.
pub struct EvictorParts {
    /// What is held.
    pub store: Store,
    /// Where room is made.
    pub tier: Tier,
    /// What is shown, and by which links.
    pub views: Views,
    /// How it is read.
    pub reads: Reads,
    /// What versions are worth.
    pub standings: Arc<Standings>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the agent is asked to end.
    pub shutdown: CancellationToken,
}

/// Makes room. Clones are the same.
#[derive(Clone)]
pub struct Evictor(Arc<Inner>);

struct Inner {
    store: Store,
    tier: Tier,
    views: Views,
    reads: Reads,
    standings: Arc<Standings>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    /// Whoever makes room.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Told whenever some room was made.
    made: Notify,
    /// Held by each who waits for room.
    waiting: Arc<()>,
    refused: Mutex<Option<Refused>>,
    late: Mutex<Option<Late>>,
    /// Until when room is left to others who fill the disk.
    cramped: Mutex<Option<Instant>>,
}

/// Leave to make room, until it is made: also when nobody waits for it any more.
type Turn = OwnedMutexGuard<()>;

/// What was last refused.
#[derive(Clone, Copy)]
struct Refused {
    until: Instant,
    standing: Standing,
    why: NotEnough,
}

/// What was last given up.
#[derive(Clone, Copy)]
struct Late {
    until: Instant,
    /// Bytes held and free, once the file system shows them.
    sum: u64,
    /// Bytes that were given up: no more can be late.
    given: u64,
}

impl Evictor {
    /// Nothing is given up yet.
    pub fn new(parts: EvictorParts) -> Self {
        Self(Arc::new(Inner {
            store: parts.store,
            tier: parts.tier,
            views: parts.views,
            reads: parts.reads,
            standings: parts.standings,
            metrics: parts.metrics,
            shutdown: parts.shutdown,
            turn: Arc::default(),
            made: Notify::new(),
            waiting: Arc::new(()),
            refused: Mutex::default(),
            late: Mutex::default(),
            cramped: Mutex::default(),
        }))
    }

    /// Keeps within the limits until the agent ends.
    pub async fn run(self) -> anyhow::Result<()> {
        let shutdown = self.0.shutdown.clone();
        let mut pause = SETTLE;
        while shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            pause = match shutdown.run_until_cancelled(self.0.keep_limits()).await {
                Some(Err(why)) => {
                    let directory = self.0.tier.directory().display();
                    tracing::warn!(%directory, "the store is above its limit: {why}");
                    RESIGN
                }
                Some(Ok(())) | None => LOOK,
            };
        }
        Ok(())
    }

    /// Room for `bytes` more of a version, in place of what is of less value.
    pub(crate) async fn reserve(&self, hash: ManifestHash, bytes: u64) -> Result<Reservation, NoRoom> {
        self.0.reserve(hash, bytes).await
    }

    /// See [`MakeRoom::admit`](crate::fill::MakeRoom::admit).
    pub(crate) async fn admit(&self, visitor: Visitor) -> Result<Option<Reservation>, NoRoom> {
        self.0.clone().admit(visitor).await
    }

    /// Room that is there already.
    pub(crate) fn free(&self, bytes: u64) -> Result<Option<Reservation>, StoreError> {
        self.0.free(bytes)
    }
}

impl Inner {
    async fn keep_limits(self: &Arc<Self>) -> Result<(), NoRoom> {
        let known: BTreeSet<String> =
            self.store.manifests().into_iter().map(|(_, dataset)| dataset).collect();
        self.reads.retain(|dataset| known.contains(dataset));
        if !self.tier.works() || self.shortage(Claim::Limit, 0)?.is_none() {
            return Ok(());
        }
        *self.cramped.lock() = Some(Instant::now() + CRAMPED);
        // Whoever makes room does it for the limit, too.
        let Ok(turn) = self.turn.clone().try_lock_owned() else { return Ok(()) };
        let versions = self.standings.of(self.tier.manifests()).await;
        self.make_room(turn, versions, Claim::Limit, 0, Reason::Limit).await
    }

    async fn reserve(self: &Arc<Self>, hash: ManifestHash, bytes: u64) -> Result<Reservation, NoRoom> {
        // Nearly always: looking at all Datasets for each request would cost more than the request.
        if let Some(reservation) = self.free_with_gap(bytes)? {
            return Ok(reservation);
        }
        // Before the turn: to ask the API server takes its time.
        self.standings.of(self.tier.manifests()).await;
        for _ in 0..ATTEMPTS {
            let turn = match self.free_or_turn(bytes).await? {
                Ok(reservation) => return Ok(reservation),
                Err(turn) => turn,
            };
            let versions = self.standings.of(self.tier.manifests()).await;
            self.room_for(turn, versions, &hash, bytes).await?;
            if let Some(reservation) = self.free_with_gap(bytes)? {
                return Ok(reservation);
            }
            // Others have taken it, or the file system does not show it yet.
            tokio::time::sleep(AGAIN).await;
        }
        Ok(self.tier.reserve(bytes)?)
    }

    /// Room, once somebody has made some; or the turn to make it.
    async fn free_or_turn(&self, bytes: u64) -> Result<Result<Reservation, Turn>, NoRoom> {
        let waited = async {
            let _waits = self.waiting.clone();
            let mut turn = std::pin::pin!(self.turn.clone().lock_owned());
            loop {
                let mut made = std::pin::pin!(self.made.notified());
                made.as_mut().enable();
                if let Some(reservation) = self.free_with_gap(bytes)? {
                    return Ok(Ok(reservation));
                }
                tokio::select! {
                    turn = &mut turn => return Ok(Err(turn)),
                    () = made => {}
                }
            }
        };
        let late = |_| NoRoom::Late { seconds: PATIENCE.as_secs() };
        tokio::time::timeout(PATIENCE, waited).await.map_err(late)?
    }

    /// Room that is there already, and some more for a while after others have filled the
    /// disk: what they take next must not cost what was just fetched.
    fn free_with_gap(&self, bytes: u64) -> Result<Option<Reservation>, StoreError> {
        let is_cramped = self.cramped.lock().is_some_and(|until| until > Instant::now());
        let gap = match is_cramped {
            true => self.tier.usage()?.capacity_bytes / GAP,
            false => 0,
        };
        let mut free = self.free(bytes.saturating_add(gap))?;
        if let Some(reservation) = &mut free {
            reservation.release(gap);
        }
        Ok(free)
    }

    /// Does not wait for others: the reader has its block, and it may come again.
    async fn admit(self: Arc<Self>, visitor: Visitor) -> Result<Option<Reservation>, NoRoom> {
        let Visitor { hash, bytes, over_quota, .. } = visitor;
        if !over_quota && let Some(reservation) = self.free(bytes)? {
            return Ok(Some(reservation));
        }
        let Ok(turn) = self.turn.clone().try_lock_owned() else { return Ok(None) };
        let versions = self.standings.of(self.tier.manifests()).await;
        if !over_quota && self.refusal(standing_of(&versions, &hash)).is_none() {
            // What nothing of less value yields for is exchanged when it comes again.
            return match self.room_for(turn, versions, &hash, bytes).await {
                Ok(()) => Ok(self.free(bytes)?),
                Err(NoRoom::NotEnough(_)) => Ok(None),
                Err(error) => Err(error),
            };
        }
        let inner = self.clone();
        blocking(move || {
            let _turn = turn;
            inner.exchange(&versions, &visitor)
        })
        .await
    }

    /// Room in place of what is of the same value and read less.
    fn exchange(&self, versions: &[Version], visitor: &Visitor) -> Result<Option<Reservation>, ViewError> {
        let Visitor { hash, bytes, .. } = *visitor;
        let short = match visitor.over_quota {
            true => bytes,
            false => match self.shortage(Claim::Version(standing_of(versions, &hash)), bytes)? {
                Some(shortage) => shortage.least.bytes,
                None => return Ok(self.free(bytes)?),
            },
        };
        let held = Held { tier: &self.tier, shown: &*self.views.shown()?, reads: &self.reads };
        let chosen = held.displaced(versions, visitor, short)?;
        if chosen.is_empty() {
            return Ok(None);
        }
        self.give_up(versions, &chosen, Reason::Exchange, |_| true)?;
        Ok(self.free(bytes)?)
    }

    /// Room that is there already.
    fn free(&self, bytes: u64) -> Result<Option<Reservation>, StoreError> {
        match self.tier.reserve(bytes) {
            Ok(reservation) => Ok(Some(reservation)),
            Err(error) if error.is_no_space() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn shortage(&self, claim: Claim, bytes: u64) -> Result<Option<Shortage>, StoreError> {
        let late = self.late()?;
        Ok(match claim {
            Claim::Version(_) => self.tier.room(late)?.shortage(Amount { bytes, objects: 1 }),
            // No more than has to be: others may free the disk again.
            Claim::Limit => self
                .tier
                .room_of_held(late)?
                .shortage(Amount::default())
                .map(|shortage| Shortage { wanted: shortage.least, ..shortage }),
        })
    }

    /// Bytes that were given up and that the file system does not show as free yet.
    fn late(&self) -> Result<u64, StoreError> {
        let late = *self.late.lock();
        match late.filter(|late| late.until > Instant::now()) {
            Some(late) => Ok(late.sum.saturating_sub(self.sum()?).min(late.given)),
            None => Ok(0),
        }
    }

    fn sum(&self) -> Result<u64, StoreError> {
        let usage = self.tier.usage()?;
        Ok(usage.used_bytes.saturating_add(usage.free_bytes))
    }

    /// Why there was no room for a version of that standing, if that still holds.
    fn refusal(&self, standing: Standing) -> Option<NotEnough> {
        let refused = *self.refused.lock();
        let holds = |refused: &Refused| refused.until > Instant::now() && standing <= refused.standing;
        refused.filter(holds).map(|refused| refused.why)
    }

    /// Makes room in place of what is of less value than a version.
    async fn room_for(
        self: &Arc<Self>,
        turn: Turn,
        versions: Vec<Version>,
        hash: &ManifestHash,
        bytes: u64,
    ) -> Result<(), NoRoom> {
        let standing = standing_of(&versions, hash);
        match self.refusal(standing) {
            Some(why) => Err(why.into()),
            None => self.make_room(turn, versions, Claim::Version(standing), bytes, Reason::Room).await,
        }
    }

    /// Makes room for `bytes` more. Returns when there is enough; it goes on from there down
    /// to the low watermark.
    async fn make_room(
        self: &Arc<Self>,
        turn: Turn,
        mut versions: Vec<Version>,
        claim: Claim,
        bytes: u64,
        reason: Reason,
    ) -> Result<(), NoRoom> {
        let (sender, enough) = oneshot::channel();
        let inner = self.clone();
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let mut sender = Some(sender);
            let mut tell = |made| _ = sender.take().map(|sender| sender.send(made));
            let made = inner.make_room_now(&mut versions, claim, bytes, reason, || tell(Ok(())));
            tell(made);
        });
        enough.await.map_err(|_| StoreError::Closed)?
    }

    /// Calls `enough` as soon as there is enough room.
    fn make_room_now(
        &self,
        versions: &mut [Version],
        claim: Claim,
        bytes: u64,
        reason: Reason,
        mut enough: impl FnMut(),
    ) -> Result<(), NoRoom> {
        let Some(shortage) = self.shortage(claim, bytes)? else { return Ok(()) };
        let began = Instant::now();
        choose::sort(versions, &self.reads);
        let shown = self.views.shown().map_err(no_room)?;
        let held = Held { tier: &self.tier, shown: &shown, reads: &self.reads };
        let chosen = match held.plan(versions, claim, shortage)? {
            Ok(chosen) => chosen,
            Err(why) => {
                if let Claim::Version(standing) = claim {
                    let until = Instant::now() + REFUSED.max(began.elapsed() * SEARCHES);
                    *self.refused.lock() = Some(Refused { until, standing, why });
                }
                return Err(why.into());
            }
        };
        let so_far = |amount: Amount| {
            let is_enough = amount.covers(shortage.least);
            if is_enough {
                enough();
            }
            // For a limit nobody waits.
            !is_enough && matches!(claim, Claim::Version(_))
        };
        self.give_up(versions, &chosen, reason, so_far).map_err(no_room)
    }
}

/// Of a version for which there is to be room. What it is worth is not guessed in its favour.
fn standing_of(versions: &[Version], hash: &ManifestHash) -> Standing {
    let found = versions.iter().find(|version| version.hash == *hash);
    // One that is not known to the store holds nothing and gets nothing.
    found.map_or_else(Standing::default, |version| match version.is_known {
        true => version.standing,
        false => Standing { pinned: false, ..version.standing },
    })
}

/// Runs what blocks on the disk where blocking is allowed. Once begun it goes on to its end.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ViewError> + Send + 'static,
) -> Result<T, NoRoom> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Closed)?.map_err(no_room)
}

fn no_room(error: ViewError) -> NoRoom {
    match error {
        ViewError::Store(error) => error.into(),
        error => NoRoom::Failed(error.to_string()),
    }
}
