//! Credentials that expire: asked for by one at a time, renewed before they do, and not at once
//! again when they are not given.

use crate::origin::OriginError;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use lru::LruCache;
use parking_lot::Mutex;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Identities whose credentials are kept; those that were used last.
const KEPT: usize = 256;
/// This long before they expire credentials are renewed, or after three quarters of a shorter life.
const EARLY: Duration = Duration::from_secs(600);
/// What a clock that is wrong may say of a life.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(12 * 3600);

/// Credentials, and for how long.
pub(in crate::origin) struct Lease<T> {
    pub(in crate::origin) credentials: T,
    pub(in crate::origin) life: Duration,
}

/// Credentials of many identities, each by all that they depend on.
pub(in crate::origin) struct Sessions<T>(Mutex<LruCache<String, Arc<Renewed<T>>>>);

impl<T> Default for Sessions<T> {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(NonZeroUsize::new(KEPT).unwrap_or(NonZeroUsize::MIN))))
    }
}

impl<T> fmt::Debug for Sessions<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions(…)")
    }
}

impl<T> Sessions<T> {
    /// The credentials of an identity, for which `ask` is asked if need be.
    pub(in crate::origin) async fn get(
        &self,
        identity: String,
        ask: impl Future<Output = Result<Lease<T>, OriginError>>,
    ) -> Result<Arc<T>, OriginError> {
        let renewed = self.0.lock().get_or_insert(identity, Arc::default).clone();
        renewed.get(ask).await
    }
}

struct Renewed<T> {
    state: Mutex<State<T>>,
    /// Held by the one who asks.
    asking: tokio::sync::Mutex<()>,
}

struct State<T> {
    held: Option<Held<T>>,
    /// Why none were given, and until when nobody asks again.
    resting: Option<(Instant, OriginError)>,
    pauses: ExponentialBackoff,
}

struct Held<T> {
    credentials: Arc<T>,
    renew: Instant,
    expire: Instant,
}

impl<T> Default for Renewed<T> {
    fn default() -> Self {
        let state = State { held: None, resting: None, pauses: pauses() };
        Self { state: Mutex::new(state), asking: tokio::sync::Mutex::default() }
    }
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_secs(1))
        .with_max_delay(Duration::from_secs(30))
        .without_max_times()
        .build()
}

impl<T> Renewed<T> {
    async fn get(
        &self,
        ask: impl Future<Output = Result<Lease<T>, OriginError>>,
    ) -> Result<Arc<T>, OriginError> {
        if let Some(known) = self.state.lock().known() {
            return known;
        }
        let valid = self.state.lock().valid();
        let _asking = match (valid, self.asking.try_lock()) {
            (_, Ok(asking)) => asking,
            // Somebody asks, and what there is will do until then.
            (Some(valid), Err(_)) => return Ok(valid),
            (None, Err(_)) => self.asking.lock().await,
        };
        if let Some(known) = self.state.lock().known() {
            return known;
        }
        let answer = ask.await;
        self.state.lock().learn(answer)
    }
}

impl<T> State<T> {
    /// What needs no asking.
    fn known(&self) -> Option<Result<Arc<T>, OriginError>> {
        let now = Instant::now();
        if let Some(held) = self.held.as_ref().filter(|held| now < held.renew) {
            return Some(Ok(held.credentials.clone()));
        }
        let (_, error) = self.resting.as_ref().filter(|(until, _)| now < *until)?;
        Some(self.valid().ok_or_else(|| error.clone()))
    }

    fn valid(&self) -> Option<Arc<T>> {
        let held = self.held.as_ref().filter(|held| Instant::now() < held.expire)?;
        Some(held.credentials.clone())
    }

    fn learn(&mut self, answer: Result<Lease<T>, OriginError>) -> Result<Arc<T>, OriginError> {
        let now = Instant::now();
        match answer {
            Ok(Lease { credentials, life }) => {
                let (credentials, life) = (Arc::new(credentials), life.clamp(SHORTEST, LONGEST));
                let renew = now + life - EARLY.min(life / 4);
                self.held = Some(Held { credentials: credentials.clone(), renew, expire: now + life });
                (self.resting, self.pauses) = (None, pauses());
                Ok(credentials)
            }
            Err(error) => {
                let pause = self.pauses.next().unwrap_or_default();
                self.resting = Some((now + pause, error.clone()));
                self.valid().ok_or(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Counts who asks, and gives each the count.
    #[derive(Default)]
    struct Service(AtomicU32);

    impl Service {
        async fn give(&self, life: u64) -> Result<Lease<u32>, OriginError> {
            tokio::task::yield_now().await;
            let credentials = self.0.fetch_add(1, Ordering::SeqCst) + 1;
            Ok(Lease { credentials, life: Duration::from_secs(life) })
        }

        async fn refuse(&self) -> Result<Lease<u32>, OriginError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Err(OriginError::Denied("no".to_owned()))
        }

        fn asked(&self) -> u32 {
            self.0.load(Ordering::SeqCst)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_asks_for_all_and_again_before_the_end() {
        let (renewed, service) = (Renewed::default(), Service::default());
        let all = futures::future::join_all((0..20).map(|_| renewed.get(service.give(3600)))).await;
        assert!(all.into_iter().all(|given| *given.unwrap() == 1));
        tokio::time::advance(Duration::from_secs(3600) - EARLY - Duration::from_secs(1)).await;
        assert_eq!(*renewed.get(service.give(3600)).await.unwrap(), 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        // Whoever comes while somebody renews is not held up.
        let both =
            futures::future::join(renewed.get(service.give(3600)), renewed.get(service.give(3600))).await;
        assert_eq!((*both.0.unwrap(), *both.1.unwrap(), service.asked()), (2, 1, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_not_asked_for_at_once_again_and_heals() {
        let (renewed, service) = (Renewed::default(), Service::default());
        let all = futures::future::join_all((0..20).map(|_| renewed.get(service.refuse()))).await;
        assert!(all.into_iter().all(|given| given.is_err()));
        assert_eq!(service.asked(), 1);
        for _ in 0..1000 {
            tokio::time::advance(Duration::from_secs(1)).await;
            renewed.get(service.refuse()).await.unwrap_err();
        }
        assert!((15..100).contains(&service.asked()), "{}", service.asked());
        tokio::time::advance(Duration::from_secs(60)).await;
        renewed.get(service.give(3600)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_renewed_is_used_to_its_end() {
        let (renewed, service) = (Renewed::default(), Service::default());
        renewed.get(service.give(100)).await.unwrap();
        tokio::time::advance(Duration::from_secs(99)).await;
        assert_eq!(*renewed.get(service.refuse()).await.unwrap(), 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        renewed.get(service.refuse()).await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_clock_makes_no_storm() {
        let (renewed, service) = (Renewed::default(), Service::default());
        for _ in 0..10 {
            assert_eq!(*renewed.get(service.give(0)).await.unwrap(), 1);
        }
    }

    #[tokio::test]
    async fn identities_are_apart_and_nothing_is_shown() {
        let (sessions, service) = (Sessions::default(), Service::default());
        for (identity, expected) in [("a", 1), ("b", 2), ("a", 1)] {
            assert_eq!(*sessions.get(identity.to_owned(), service.give(3600)).await.unwrap(), expected);
        }
        assert_eq!(format!("{sessions:?}"), "Sessions(…)");
    }
}
