//! Which versions pods read: they are kept until the last of them ends.

use hearth_core::manifest::ManifestHash;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Retiring a version of millions of files takes its time.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct State {
    used: BTreeMap<ManifestHash, usize>,
    retiring: BTreeSet<ManifestHash>,
}

/// Keeps those who use a version and those who forget it apart. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct InUse {
    state: Arc<Mutex<State>>,
    retired: Arc<Notify>,
}

/// A version is in use for as long as one of these lives.
#[derive(Debug)]
pub struct Use {
    in_use: InUse,
    hash: ManifestHash,
}

/// A version is being forgotten for as long as this lives.
#[derive(Debug)]
pub struct Retiring {
    in_use: InUse,
    hash: ManifestHash,
}

impl InUse {
    /// Uses a version; waits while it is being forgotten. `None` when that takes too long.
    pub async fn acquire(&self, hash: ManifestHash) -> Option<Use> {
        let acquired = async {
            loop {
                let retired = self.retired.notified();
                if let Some(used) = self.try_acquire(hash) {
                    return used;
                }
                retired.await;
            }
        };
        tokio::time::timeout(PATIENCE, acquired).await.ok()
    }

    /// Uses a version, unless it is being forgotten.
    pub fn try_acquire(&self, hash: ManifestHash) -> Option<Use> {
        let mut state = self.state.lock();
        if state.retiring.contains(&hash) {
            return None;
        }
        *state.used.entry(hash).or_default() += 1;
        Some(Use { in_use: self.clone(), hash })
    }

    /// Leave to forget a version, unless somebody uses it or forgets it already.
    pub fn try_retire(&self, hash: ManifestHash) -> Option<Retiring> {
        let mut state = self.state.lock();
        let free = !state.used.contains_key(&hash) && state.retiring.insert(hash);
        free.then(|| Retiring { in_use: self.clone(), hash })
    }

    /// Whether somebody uses a version.
    pub fn uses(&self, hash: &ManifestHash) -> bool {
        self.state.lock().used.contains_key(hash)
    }

    /// The versions that are in use.
    pub fn versions(&self) -> Vec<ManifestHash> {
        self.state.lock().used.keys().copied().collect()
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut state = self.in_use.state.lock();
        if let Some(count) = state.used.get_mut(&self.hash) {
            *count -= 1;
            if *count == 0 {
                state.used.remove(&self.hash);
            }
        }
    }
}

impl Drop for Retiring {
    fn drop(&mut self) {
        self.in_use.state.lock().retiring.remove(&self.hash);
        self.in_use.retired.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_version_is_used_or_forgotten_and_never_both() {
        let in_use = InUse::default();
        let hash = ManifestHash([1; 32]);
        let (one, two) = (in_use.acquire(hash).await.unwrap(), in_use.acquire(hash).await.unwrap());
        drop(one);
        assert!(in_use.try_retire(hash).is_none());
        drop(two);
        let retiring = in_use.try_retire(hash).unwrap();
        assert!(in_use.try_retire(hash).is_none() && in_use.try_acquire(hash).is_none());
        assert!(in_use.acquire(hash).await.is_none(), "it waits, and not for ever");
        let (used, ()) = tokio::join!(in_use.acquire(hash), async { drop(retiring) });
        assert!(used.is_some());
        assert_eq!(in_use.versions(), [hash]);
    }
}
