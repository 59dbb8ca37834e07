//! Keeps what this node asks of an origin within what its Dataset allows.

use super::connection::Limits;
use super::{ByteStream, OriginError, Retries, RetryConfig, Turn, Urgency};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;
use prometheus::IntCounter;
use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Weak};
use tokio::sync::Semaphore;

/// Bytes that are waited for at one time: small enough that streams take turns.
const SLICE: u32 = 64 << 10;

/// Bytes per second that each of some requests should have, or they take all too long.
const OF_ONE_REQUEST: u32 = 4 << 20;

/// What may still be asked of one origin.
pub(super) struct Budget {
    /// When something is asked again.
    pub(super) retries: Retries,
    at_once: Option<Arc<Semaphore>>,
    /// Where requests stand that nobody waits for: only the first of them is among the others.
    background: tokio::sync::Mutex<()>,
    /// Requests that make sense at one time.
    most: usize,
    requests: Option<DefaultDirectRateLimiter>,
    bytes: Option<(DefaultDirectRateLimiter, NonZeroU32)>,
}

impl Budget {
    fn new(limits: Limits, retry: RetryConfig) -> Self {
        let per_second = |rate: NonZeroU32, burst: NonZeroU32| {
            RateLimiter::direct(Quota::per_second(rate).allow_burst(burst))
        };
        let by_rate = limits.bytes_per_second.map(|rate| (rate.get() / OF_ONE_REQUEST).max(1) as usize);
        let by_count = limits.at_once.map(|count| count.get() as usize);
        Self {
            retries: Retries::new(retry),
            most: by_rate.into_iter().chain(by_count).min().unwrap_or(usize::MAX),
            at_once: limits.at_once.map(|count| Arc::new(Semaphore::new(count.get() as usize))),
            background: tokio::sync::Mutex::default(),
            requests: limits.requests_per_second.map(|rate| per_second(rate, NonZeroU32::MIN)),
            bytes: limits.bytes_per_second.map(|rate| {
                let slice = NonZeroU32::new(SLICE).unwrap_or(NonZeroU32::MIN).min(rate);
                (per_second(rate, slice), slice)
            }),
        }
    }

    /// Waits until one more request may be under way.
    pub(super) async fn turn(&self, urgency: Urgency) -> Turn {
        let Some(at_once) = &self.at_once else { return Turn::default() };
        let _first = match urgency {
            Urgency::Reader => None,
            Urgency::Background => Some(self.background.lock().await),
        };
        Turn { _permit: at_once.clone().acquire_owned().await.ok() }
    }

    /// Requests that make sense at one time.
    pub(super) fn most_at_once(&self) -> usize {
        self.most
    }

    /// Waits until one more request may be sent.
    pub(super) async fn request(&self) {
        if let Some(requests) = &self.requests {
            requests.until_ready().await;
        }
    }

    /// The bytes of an answer, no faster than is allowed and counted as they come.
    pub(super) fn paced(
        self: &Arc<Self>,
        chunks: impl Stream<Item = Result<Bytes, OriginError>> + Send + 'static,
        counter: IntCounter,
    ) -> ByteStream {
        let budget = self.clone();
        let paced = chunks.then(move |chunk| {
            let budget = budget.clone();
            let length = chunk.as_ref().map_or(0, Bytes::len);
            counter.inc_by(length as u64);
            async move {
                budget.came(length).await;
                chunk
            }
        });
        paced.boxed()
    }

    /// Waits until bytes that have come would have come at the rate that is allowed.
    async fn came(&self, bytes: usize) {
        let Some((limiter, slice)) = &self.bytes else { return };
        let mut left = bytes;
        while let Some(next) = NonZeroU32::new(u32::try_from(left).unwrap_or(u32::MAX).min(slice.get())) {
            // A slice is never more than the burst.
            if limiter.until_n_ready(next).await.is_err() {
                return;
            }
            left -= next.get() as usize;
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Budget(…)")
    }
}

/// The budgets in use, by the origin's canonical URI and what is allowed: all that read one origin
/// under the same limits share them.
#[derive(Debug)]
pub(super) struct Budgets {
    retry: RetryConfig,
    known: Mutex<HashMap<(String, Limits), Weak<Budget>>>,
}

impl Budgets {
    pub(super) fn new(retry: RetryConfig) -> Self {
        Self { retry, known: Mutex::default() }
    }

    pub(super) fn of(&self, uri: String, limits: Limits) -> Arc<Budget> {
        let mut known = self.known.lock();
        known.retain(|_, budget| budget.strong_count() > 0);
        let entry = known.entry((uri, limits)).or_default();
        entry.upgrade().unwrap_or_else(|| {
            let budget = Arc::new(Budget::new(limits, self.retry.clone()));
            *entry = Arc::downgrade(&budget);
            budget
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn budget(limits: Limits) -> Budget {
        Budget::new(limits, RetryConfig::default())
    }

    #[tokio::test]
    async fn who_shares_an_origin_shares_its_budget() {
        let budgets = Budgets::new(RetryConfig::default());
        let limits = Limits { at_once: NonZeroU32::new(2), ..Limits::default() };
        let (a, b) = (budgets.of("s3://a".into(), limits), budgets.of("s3://a".into(), limits));
        let turn = |budget: &Budget| budget.turn(Urgency::Background).now_or_never();
        let (first, _second) = (turn(&a).unwrap(), turn(&b).unwrap());
        assert!(turn(&a).is_none());
        assert!(turn(&budgets.of("s3://b".into(), limits)).is_some());
        drop(first);
        assert!(turn(&b).is_some());
        assert!(turn(&budgets.of("s3://a".into(), Limits::default())).is_some());
    }

    #[test]
    fn an_origin_in_trouble_takes_no_retries_of_another() {
        let budgets = Budgets::new(RetryConfig { attempts: 1, budget: 0.0 });
        let (bad, good) =
            (budgets.of("s3://a".into(), Limits::default()), budgets.of("s3://b".into(), Limits::default()));
        let down = OriginError::Unavailable("down".to_owned());
        while bad.retries.begin().after(&down).is_some() {}
        assert!(good.retries.begin().after(&down).is_some());
    }

    #[tokio::test]
    async fn whoever_waits_goes_before_all_but_one_that_nobody_waits_for() {
        let budget = budget(Limits { at_once: NonZeroU32::new(1), ..Limits::default() });
        let mut held = budget.turn(Urgency::Background).await;
        let waiting = |urgency| {
            let mut turn = Box::pin(budget.turn(urgency));
            assert!(turn.as_mut().now_or_never().is_none());
            turn
        };
        let first = waiting(Urgency::Background);
        let mut second = waiting(Urgency::Background);
        let reader = waiting(Urgency::Reader);
        drop(held);
        held = first.await;
        drop(held);
        held = reader.await;
        assert!(second.as_mut().now_or_never().is_none());
        drop(held);
        second.await;
    }

    #[tokio::test]
    async fn more_than_is_allowed_waits() {
        let limits = Limits {
            requests_per_second: NonZeroU32::new(1),
            bytes_per_second: NonZeroU32::new(1),
            ..Limits::default()
        };
        let limited = budget(limits);
        assert!(limited.request().now_or_never().is_some());
        assert!(limited.request().now_or_never().is_none());
        assert!(limited.came(1).now_or_never().is_some());
        assert!(limited.came(2).now_or_never().is_none());
        assert!(budget(Limits::default()).came(usize::MAX).now_or_never().is_some());
    }
}
