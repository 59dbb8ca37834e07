//! One conversation with one replica: a snapshot, then what changed, again and again.

use super::Shared;
use crate::replicas::{CallError, Replica};
use crate::store::{Subscription, Taken};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use hearth_core::manifest::ManifestHash;
use hearth_core::wire::report::{
    self, Inventory, MAX_HOLD_MILLIS, NodeStatus, OLDEST_PROTOCOL, PROTOCOL, Reply, Report, Verdict,
    WireError,
};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Shortest time between two reports.
const GAP: Duration = Duration::from_millis(250);
/// Reports without a reply: one that is held, and one that tells what came since.
const OUTSTANDING: usize = 2;
const HOLD: Duration = Duration::from_millis(MAX_HOLD_MILLIS as u64);

/// Why a conversation ended; the next one begins with a snapshot.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("its reply cannot be understood: {0}")]
    Wire(#[from] WireError),
    #[error("it asks for a snapshot: {0}")]
    Resync(String),
    #[error("more has changed than is worth telling as changes")]
    Lagged,
}

impl Ended {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Call(CallError::Unreachable(_)) => "unreachable",
            Self::Call(CallError::Protocol { .. }) => "protocol",
            Self::Call(CallError::Refused { .. } | CallError::NotFound) => "refused",
            Self::Wire(_) => "malformed",
            Self::Resync(_) => "resync",
            Self::Lagged => "lagged",
        }
    }
}

/// What is known of a replica from one conversation to the next.
pub(super) struct Session {
    shared: Arc<Shared>,
    replica: Arc<Replica>,
    protocol: u16,
    /// Goes on over conversations, so that a report of an old one never fits into a new one.
    sequence: u64,
    orders_seen: (u64, u64),
}

type Answer<'a> = BoxFuture<'a, (u64, Result<bytes::Bytes, CallError>)>;

impl Session {
    pub(super) fn new(shared: Arc<Shared>, replica: Arc<Replica>) -> Self {
        Self { shared, replica, protocol: PROTOCOL, sequence: 0, orders_seen: (0, 0) }
    }

    /// Speaks with the replica for as long as it is polled.
    pub(super) async fn run(mut self) {
        let mut backoff = backoff();
        loop {
            let begun = self.sequence;
            let ended = self.converse().await;
            self.shared.metrics.reports.with_label_values(&[ended.outcome()]).inc();
            if let Ended::Call(CallError::Protocol { oldest, newest }) = &ended {
                self.speak(*oldest, *newest);
            }
            // More than the snapshot went well: whatever it is, it is new.
            if self.sequence > begun + 1 {
                backoff = self::backoff();
            }
            let pause = backoff.next().unwrap_or(GAP);
            tracing::info!(replica = %self.replica.address(), "reporting starts again: {ended}");
            tokio::time::sleep(pause).await;
        }
    }

    /// Chooses the newest protocol that both know.
    fn speak(&mut self, oldest: u16, newest: u16) {
        let common = newest.min(PROTOCOL);
        if common >= oldest.max(OLDEST_PROTOCOL) {
            self.protocol = common;
        } else {
            self.protocol = PROTOCOL;
            tracing::error!(
                replica = %self.replica.address(),
                "it speaks report protocols {oldest} to {newest}, this agent {OLDEST_PROTOCOL} to {PROTOCOL}: upgrade the older one"
            );
        }
    }

    async fn converse(&mut self) -> Ended {
        let shared = self.shared.clone();
        let replica = self.replica.clone();
        let mut status = shared.fill.clone();
        let (holdings, feed) = shared.store.subscribe();
        let mut inventory = Inventory::Snapshot(holdings);
        let mut answers: FuturesUnordered<Answer<'_>> = FuturesUnordered::new();
        let mut uploads = FuturesUnordered::new();
        let mut uploading: HashSet<ManifestHash> = HashSet::new();
        let mut synced = false;
        loop {
            let told = shared.status();
            let body = self.report(inventory, told.clone());
            let (sequence, sent) = (self.sequence, Instant::now());
            let (call, timed) = (replica.report(body, HOLD), &shared.metrics.report_seconds);
            answers.push(Box::pin(async move {
                let answer = call.await;
                timed.observe(sent.elapsed().as_secs_f64());
                (sequence, answer)
            }));
            let mut news = false;
            loop {
                // Ahead of a reply only what is new goes, and nothing ahead of the snapshot's.
                let may_send = answers.is_empty() || (news && synced && answers.len() < OUTSTANDING);
                tokio::select! {
                    Some((sequence, answer)) = answers.next(), if !answers.is_empty() => {
                        let reply = match self.take(sequence, answer) {
                            Ok(reply) => reply,
                            Err(ended) => return ended,
                        };
                        synced = true;
                        for hash in reply.need_manifests {
                            if uploading.insert(hash) {
                                let (shared, replica) = (shared.clone(), replica.clone());
                                uploads.push(async move {
                                    shared.upload(&replica, hash).await;
                                    hash
                                });
                            }
                        }
                    }
                    Some(hash) = uploads.next(), if !uploads.is_empty() => {
                        uploading.remove(&hash);
                    }
                    () = feed.changed(), if !news => news = true,
                    Ok(()) = status.changed(), if !news => {
                        let status = status.borrow_and_update();
                        news = status.troubles != told.troubles || status.failed_files != told.failed_files;
                    }
                    () = tokio::time::sleep_until(sent + GAP), if may_send => break,
                }
            }
            inventory = match next_delta(&feed) {
                Ok(inventory) => inventory,
                Err(ended) => return ended,
            };
        }
    }

    fn report(&mut self, inventory: Inventory, status: NodeStatus) -> Vec<u8> {
        self.sequence += 1;
        report::encode(&Report {
            protocol: self.protocol,
            speaker: self.shared.speaker.clone(),
            sequence: self.sequence,
            inventory,
            status,
            orders_seen: self.orders_seen.1,
            hold_millis: MAX_HOLD_MILLIS,
        })
    }

    fn take(&mut self, sequence: u64, answer: Result<bytes::Bytes, CallError>) -> Result<Reply, Ended> {
        let mut reply = report::decode_reply(&answer?)?;
        if let Verdict::Resync { reason } = reply.verdict {
            return Err(Ended::Resync(reason));
        }
        self.shared.metrics.reports.with_label_values(&["ok"]).inc();
        let orders = reply.orders.take();
        if let Some(orders) = &orders
            && sequence >= self.orders_seen.0
        {
            self.orders_seen = (sequence, orders.digest());
        }
        self.shared.heard(self.replica.address(), sequence, orders);
        Ok(reply)
    }
}

fn next_delta(feed: &Subscription) -> Result<Inventory, Ended> {
    match feed.take_changes() {
        Taken::Changes(changes) => Ok(Inventory::Delta(changes)),
        Taken::Lagged => Err(Ended::Lagged),
    }
}

fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(2))
        .without_max_times()
        .build()
}
