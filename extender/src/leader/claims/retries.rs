//! When what failed is tried again: ever more rarely, and not all at once.

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::StreamExt;
use std::collections::HashMap;
use std::time::Duration;
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;

const FIRST: Duration = Duration::from_millis(500);
/// Nobody tells when a claim that is in the way has gone, so that is how long it takes to
/// be seen; jitter may double it.
const AT_MOST: Duration = Duration::from_secs(30);

struct Failed {
    pauses: ExponentialBackoff,
    key: Key,
}

/// The names that have failed.
#[derive(Default)]
pub(super) struct Retries {
    queue: DelayQueue<String>,
    failed: HashMap<String, Failed>,
}

impl Retries {
    /// It failed, perhaps not for the first time.
    pub(super) fn failed(&mut self, name: &str) {
        let mut pauses = self.take(name).unwrap_or_else(|| {
            let pauses = ExponentialBuilder::default().with_min_delay(FIRST).with_max_delay(AT_MOST);
            pauses.without_max_times().with_jitter().build()
        });
        let pause = pauses.next().unwrap_or(AT_MOST);
        let key = self.queue.insert(name.to_owned(), pause);
        self.failed.insert(name.to_owned(), Failed { pauses, key });
    }

    /// It is well: the next failure is its first.
    pub(super) fn succeeded(&mut self, name: &str) {
        self.take(name);
    }

    fn take(&mut self, name: &str) -> Option<ExponentialBackoff> {
        let Failed { pauses, key } = self.failed.remove(name)?;
        self.queue.try_remove(&key);
        Some(pauses)
    }

    /// Whether it has failed when it was last tried.
    pub(super) fn has(&self, name: &str) -> bool {
        self.failed.contains_key(name)
    }

    /// The next name that is to be tried again; never, while there is none.
    pub(super) async fn due(&mut self) -> String {
        match self.queue.next().await {
            Some(due) => due.into_inner(),
            None => std::future::pending().await,
        }
    }
}
