//! Objects of Datasets' namespaces that the agents see only when an owner of the namespace lets
//! them: read when a Dataset names them, kept for a minute.

use crate::origin::{OriginError, shown};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// How long an object is believed to be as it was.
pub(crate) const KEPT: Duration = Duration::from_secs(60);
/// How long it is not read again after it could not be, or was of no use.
pub(crate) const REFUSAL_KEPT: Duration = Duration::from_secs(5);
/// Longest that the API server may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked of the API server, for sentences.
pub(crate) struct Request<'a> {
    /// `read` or `use`.
    pub(crate) verb: &'a str,
    /// Such as `Secret`.
    pub(crate) kind: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// The ClusterRole that lets the agents.
    pub(crate) role: &'a str,
    /// The agents' ServiceAccount as `namespace:name`.
    pub(crate) agents: &'a str,
}

impl Request<'_> {
    /// What the API server answers, or why it does not.
    pub(crate) async fn answer<T>(
        &self,
        asked: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, OriginError> {
        let Self { verb, kind, namespace, name, role, agents } = self;
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                Err(OriginError::Denied(format!("{kind} {namespace}/{name} does not exist")))
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => Err(OriginError::Denied(format!(
                "the node agents may not {verb} {kind} {namespace}/{name}: grant it with \
                 kubectl -n {namespace} create rolebinding {role} --clusterrole={role} --serviceaccount={agents}"
            ))),
            Ok(Err(error)) => Err(OriginError::Unavailable(format!(
                "{kind} {namespace}/{name} is not to be had: {}",
                shown(&error.to_string())
            ))),
            Err(_) => Err(OriginError::Unavailable(format!(
                "the API server did not answer in time when asked for {kind} {namespace}/{name}"
            ))),
        }
    }
}

/// Namespace and name.
type Key = (String, String);

/// What came of reading an object, and until when it counts.
type Outcome<T> = (Instant, Result<T, OriginError>);

/// What was last read of each.
pub(crate) struct Lent<T>(Mutex<HashMap<Key, Outcome<T>>>);

impl<T> Default for Lent<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> fmt::Debug for Lent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lent(…)")
    }
}

impl<T: Clone> Lent<T> {
    /// It was of no use to whoever used it: it is read again soon.
    pub(crate) fn doubt(&self, namespace: &str, name: &str) {
        if let Some((until, _)) = self.0.lock().get_mut(&(namespace.to_owned(), name.to_owned())) {
            // Somebody mends it now.
            *until = (*until).min(Instant::now() + REFUSAL_KEPT);
        }
    }

    /// What `parse` makes of an object, which is read by `read` when none is kept.
    pub(crate) async fn get<P>(
        &self,
        namespace: &str,
        name: &str,
        read: impl Future<Output = Result<T, OriginError>>,
        parse: impl Fn(&T) -> Result<P, OriginError>,
    ) -> Result<P, OriginError> {
        let key = (namespace.to_owned(), name.to_owned());
        let parsed = parse(&self.object(&key, read).await?);
        if parsed.is_err() {
            self.doubt(namespace, name);
        }
        parsed
    }

    async fn object(
        &self,
        key: &Key,
        read: impl Future<Output = Result<T, OriginError>>,
    ) -> Result<T, OriginError> {
        if let Some((until, outcome)) = self.0.lock().get(key)
            && Instant::now() < *until
        {
            return outcome.clone();
        }
        let outcome = read.await;
        let now = Instant::now();
        let until = now + if outcome.is_ok() { KEPT } else { REFUSAL_KEPT };
        let mut kept = self.0.lock();
        kept.retain(|_, (until, _)| now < *until);
        kept.insert(key.clone(), (until, outcome.clone()));
        outcome
    }
}
