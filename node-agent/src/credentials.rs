//! Secrets with credentials of origins: read when a Dataset names them, kept for a minute,
//! never shown.

use crate::origin::{OriginError, shown};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a Secret is believed to be as it was.
const KEPT: Duration = Duration::from_secs(60);
/// How long it is not read again after it could not be, or was of no use.
const REFUSAL_KEPT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(10);

type Values = BTreeMap<String, Vec<u8>>;
type Read = dyn Fn(String, String) -> BoxFuture<'static, Result<Values, OriginError>> + Send + Sync;
type Outcome = Result<SecretValues, OriginError>;
/// What was last read, and when, by namespace and name.
type Kept = HashMap<(String, String), (Instant, Outcome)>;

/// Reads Secrets of Datasets' namespaces. Clones share what is kept.
#[derive(Clone)]
pub struct Secrets {
    read: Arc<Read>,
    kept: Arc<Mutex<Kept>>,
}

impl Secrets {
    /// Reads them from the API server; `account` is the agents' ServiceAccount as
    /// `namespace:name`, for the sentence that says how to grant access.
    pub fn of_cluster(client: kube::Client, account: String) -> Self {
        Self::new(move |namespace, name| {
            let (client, account) = (client.clone(), account.clone());
            Box::pin(async move {
                let api: Api<Secret> = Api::namespaced(client, &namespace);
                let secret = match tokio::time::timeout(PATIENCE, api.get(&name)).await {
                    Ok(Ok(secret)) => secret,
                    Ok(Err(error)) => return Err(unreadable(&namespace, &name, &account, &error)),
                    Err(_) => {
                        return Err(OriginError::Unavailable(
                            "the API server did not answer in time when asked for a Secret".to_owned(),
                        ));
                    }
                };
                Ok(secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect())
            })
        })
    }

    /// Reads them by `read(namespace, name)`.
    pub fn new(
        read: impl Fn(String, String) -> BoxFuture<'static, Result<Values, OriginError>> + Send + Sync + 'static,
    ) -> Self {
        Self { read: Arc::new(read), kept: Arc::default() }
    }

    /// What `parse` makes of a Secret.
    pub async fn get<T>(
        &self,
        namespace: &str,
        name: &str,
        parse: impl Fn(&SecretValues) -> Result<T, OriginError>,
    ) -> Result<T, OriginError> {
        let key = (namespace.to_owned(), name.to_owned());
        let parsed = parse(&self.values(&key).await?);
        if parsed.is_err()
            && let Some((until, _)) = self.kept.lock().get_mut(&key)
        {
            // Somebody mends it now.
            *until = (*until).min(Instant::now() + REFUSAL_KEPT);
        }
        parsed
    }

    async fn values(&self, key: &(String, String)) -> Outcome {
        if let Some((until, outcome)) = self.kept.lock().get(key)
            && Instant::now() < *until
        {
            return outcome.clone();
        }
        let read = (self.read)(key.0.clone(), key.1.clone()).await;
        let outcome = read.map(|values| SecretValues::new(&key.0, &key.1, values));
        let now = Instant::now();
        let until = now + if outcome.is_ok() { KEPT } else { REFUSAL_KEPT };
        let mut kept = self.kept.lock();
        kept.retain(|_, (until, _)| now < *until);
        kept.insert(key.clone(), (until, outcome.clone()));
        outcome
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// What is in a Secret. Cheap to clone; equal when the content is.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValues(Arc<Content>);

#[derive(PartialEq, Eq)]
struct Content {
    /// The Secret, as `namespace/name`.
    of: String,
    values: Values,
}

impl SecretValues {
    fn new(namespace: &str, name: &str, values: Values) -> Self {
        Self(Arc::new(Content { of: format!("{namespace}/{name}"), values }))
    }

    /// A key's text, as it can travel in a header.
    pub fn text(&self, key: &str) -> Result<Option<String>, OriginError> {
        let Some(text) = self.document(key) else { return Ok(None) };
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(self.wrong(key, "is empty or has characters other than visible ASCII"));
        }
        Ok(Some(text.to_owned()))
    }

    /// The text of a key that must be there.
    pub fn needed(&self, key: &str) -> Result<String, OriginError> {
        self.text(key)?.ok_or_else(|| self.lacks(key))
    }

    /// The text of a key that may have several lines, empty if it is no UTF-8.
    pub fn document(&self, key: &str) -> Option<&str> {
        // A line's end sneaks in wherever a file became a Secret.
        Some(std::str::from_utf8(self.0.values.get(key)?).map(str::trim).unwrap_or_default())
    }

    /// The sentence that says what is missing.
    pub fn lacks(&self, what: &str) -> OriginError {
        OriginError::Denied(format!("Secret {} has no key {what}", self.0.of))
    }

    /// The sentence that says what is wrong with a key, which must not show its value.
    pub fn wrong(&self, key: &str, what: &str) -> OriginError {
        OriginError::Denied(format!("key {key} of Secret {} {what}", self.0.of))
    }
}

impl fmt::Debug for SecretValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretValues({}, …)", self.0.of)
    }
}

#[cfg(test)]
pub(crate) fn secret_values(pairs: &[(&str, &str)]) -> SecretValues {
    let values = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()));
    SecretValues::new("ns", "s", values.collect())
}

fn unreadable(namespace: &str, name: &str, account: &str, error: &kube::Error) -> OriginError {
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            OriginError::Denied(format!("Secret {namespace}/{name} does not exist"))
        }
        kube::Error::Api(status) if status.code == 403 => OriginError::Denied(format!(
            "the node agents may not read Secret {namespace}/{name}: grant it with \
             kubectl -n {namespace} create rolebinding hearth-secret-reader --clusterrole=hearth-secret-reader --serviceaccount={account}"
        )),
        error => OriginError::Unavailable(format!(
            "Secret {namespace}/{name} cannot be read: {}",
            shown(&error.to_string())
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(start_paused = true)]
    async fn a_secret_is_kept_for_a_minute_and_never_shown() {
        let reads = Arc::new(AtomicUsize::new(0));
        let counted = reads.clone();
        let secrets = Secrets::new(move |_, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            let values = BTreeMap::from([("KEY".to_owned(), b"hush\n".to_vec())]);
            Box::pin(std::future::ready(Ok(values)))
        });
        for _ in 0..3 {
            let values = secrets.get("ns", "s", |values| Ok(values.clone())).await.unwrap();
            assert_eq!(values.needed("KEY").unwrap(), "hush");
            let shown = format!("{secrets:?} {values:?}");
            assert!(!shown.contains("hush"), "{shown}");
        }
        assert_eq!(reads.load(Ordering::SeqCst), 1);
        tokio::time::advance(KEPT).await;
        secrets.get("ns", "s", |_| Ok(())).await.unwrap();
        assert_eq!(reads.load(Ordering::SeqCst), 2);
        // What is of no use is read again soon, and not at once.
        for _ in 0..2 {
            secrets.get("ns", "s", |values| values.needed("OTHER")).await.unwrap_err();
        }
        tokio::time::advance(REFUSAL_KEPT).await;
        secrets.get("ns", "s", |_| Ok(())).await.unwrap();
        assert_eq!(reads.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn what_is_missing_is_named() {
        let values = secret_values(&[("KEY", "id\r\nx: y"), ("EMPTY", " "), ("GOOD", "a")]);
        assert_eq!(values.needed("NONE").unwrap_err().to_string(), "Secret ns/s has no key NONE");
        for key in ["KEY", "EMPTY"] {
            let sentence =
                format!("key {key} of Secret ns/s is empty or has characters other than visible ASCII");
            assert_eq!(values.needed(key).unwrap_err().to_string(), sentence);
        }
        assert_eq!(values.text("GOOD"), Ok(Some("a".to_owned())));
    }
}
