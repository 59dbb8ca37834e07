//! When a request to an origin is tried again: the one policy of the agent.
//!
//! Each request has its own few tries with growing, jittered pauses. All requests to one
//! origin together have a budget: a retry costs one token, a request earns a fraction of
//! one, so that an origin in trouble gets little more than its ordinary load.

use super::OriginError;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::time::Duration;

/// The longest that an origin's own wish for a pause is followed within one request.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const GROWN_PAUSE: Duration = Duration::from_secs(5);
/// Retries that may come in one burst.
const BURST: f64 = 100.0;

/// The `origin.retry` section of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RetryConfig {
    /// How often one request is tried again before its failure counts, 0 to 20.
    pub attempts: usize,
    /// Retries of all requests to an origin as a share of these, 0.0 to 1.0.
    pub budget: f64,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { attempts: 5, budget: 0.2 }
    }
}

/// The policy with what is left of an origin's budget.
#[derive(Debug)]
pub struct Retries {
    config: RetryConfig,
    tokens: Mutex<f64>,
}

impl Retries {
    /// A policy with a full budget.
    pub fn new(config: RetryConfig) -> Self {
        Self { config, tokens: Mutex::new(BURST) }
    }

    /// The pauses of one request that begins now.
    pub fn begin(&self) -> Pauses<'_> {
        let mut tokens = self.tokens.lock();
        *tokens = (*tokens + self.config.budget).min(BURST);
        Pauses { retries: self, backoff: self.backoff() }
    }

    /// Runs a request until it succeeds, cannot, or has used up its tries.
    pub async fn run<T, F>(&self, mut request: impl FnMut() -> F) -> Result<T, OriginError>
    where
        F: Future<Output = Result<T, OriginError>>,
    {
        let mut pauses = self.begin();
        loop {
            match request().await {
                Ok(answer) => return Ok(answer),
                Err(error) => match pauses.after(&error) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(error),
                },
            }
        }
    }

    fn backoff(&self) -> ExponentialBackoff {
        ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(GROWN_PAUSE)
            .with_max_times(self.config.attempts)
            .build()
    }

    fn take(&self) -> bool {
        let mut tokens = self.tokens.lock();
        let granted = *tokens >= 1.0;
        if granted {
            *tokens -= 1.0;
        }
        granted
    }
}

/// The pauses between the tries of one request.
#[derive(Debug)]
pub struct Pauses<'a> {
    retries: &'a Retries,
    backoff: ExponentialBackoff,
}

impl Pauses<'_> {
    /// How long to wait after this failure; `None`: it stands.
    pub fn after(&mut self, error: &OriginError) -> Option<Duration> {
        if !error.is_transient() {
            return None;
        }
        let pause = self.backoff.next()?;
        self.retries.take().then(|| match error.retry_after() {
            Some(wished) => pause.max(wished.min(LONGEST_PAUSE)),
            None => pause,
        })
    }

    /// The request got further than before: its tries count from the start.
    pub fn progressed(&mut self) {
        self.backoff = self.retries.backoff();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down() -> OriginError {
        OriginError::Unavailable("down".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_has_few_tries() {
        let retries = Retries::new(RetryConfig { attempts: 3, budget: 1.0 });
        let mut tries = 0;
        let result: Result<(), _> = retries
            .run(|| {
                tries += 1;
                std::future::ready(Err(down()))
            })
            .await;
        assert_eq!((result, tries), (Err(down()), 4));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_succeed_is_tried_once() {
        let retries = Retries::new(RetryConfig::default());
        let mut tries = 0;
        let changed = OriginError::Changed("other".to_owned());
        let result: Result<(), _> = retries
            .run(|| {
                tries += 1;
                std::future::ready(Err(changed.clone()))
            })
            .await;
        assert_eq!((result, tries), (Err(changed), 1));
    }

    #[test]
    fn an_origin_that_is_down_gets_little_more_than_its_requests() {
        let retries = Retries::new(RetryConfig { attempts: 10, budget: 0.1 });
        let mut granted = 0;
        for _ in 0..1000 {
            let mut pauses = retries.begin();
            while pauses.after(&down()).is_some() {
                granted += 1;
            }
        }
        assert!((150..=201).contains(&granted), "{granted} retries for 1,000 requests");
    }

    #[test]
    fn the_origins_wish_is_honoured_within_reason() {
        let retries = Retries::new(RetryConfig::default());
        let throttled = |seconds| OriginError::Throttled {
            message: String::new(),
            retry_after: Some(Duration::from_secs(seconds)),
        };
        assert_eq!(retries.begin().after(&throttled(7)), Some(Duration::from_secs(7)));
        assert_eq!(retries.begin().after(&throttled(10_000)), Some(LONGEST_PAUSE));
    }
}
