//! Secrets with S3 credentials: read when a Dataset names them, kept for a minute,
//! never shown.

use crate::origin::{OriginError, shown};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use object_store::aws::AwsCredential;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a Secret is believed to be as it was.
const KEPT: Duration = Duration::from_secs(60);
/// How long the API server is not asked again after it refused.
const REFUSAL_KEPT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(10);

const KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET_KEY: &str = "AWS_SECRET_ACCESS_KEY";
const SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";

type Values = BTreeMap<String, Vec<u8>>;
type Read = dyn Fn(String, String) -> BoxFuture<'static, Result<Values, OriginError>> + Send + Sync;
type Outcome = Result<Arc<AwsCredential>, OriginError>;
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

    /// The credentials in a Secret.
    pub async fn get(&self, namespace: &str, name: &str) -> Outcome {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some((until, outcome)) = self.kept.lock().get(&key)
            && Instant::now() < *until
        {
            return outcome.clone();
        }
        let read = (self.read)(key.0.clone(), key.1.clone()).await;
        let outcome = read.and_then(|values| credential(namespace, name, &values).map(Arc::new));
        let now = Instant::now();
        let until = now + if outcome.is_ok() { KEPT } else { REFUSAL_KEPT };
        let mut kept = self.kept.lock();
        kept.retain(|_, (until, _)| now < *until);
        kept.insert(key, (until, outcome.clone()));
        outcome
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

fn credential(namespace: &str, name: &str, values: &Values) -> Result<AwsCredential, OriginError> {
    let value = |key: &str| -> Result<Option<String>, OriginError> {
        let Some(bytes) = values.get(key) else { return Ok(None) };
        // A line's end sneaks in wherever a file became a Secret.
        let text = std::str::from_utf8(bytes).map(str::trim).unwrap_or_default();
        // They travel in headers.
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(OriginError::Denied(format!(
                "key {key} of Secret {namespace}/{name} is empty or has characters other than visible ASCII"
            )));
        }
        Ok(Some(text.to_owned()))
    };
    let needed = |key: &str| {
        value(key)?.ok_or_else(|| OriginError::Denied(format!("Secret {namespace}/{name} has no key {key}")))
    };
    Ok(AwsCredential {
        key_id: needed(KEY_ID)?,
        secret_key: needed(SECRET_KEY)?,
        token: value(SESSION_TOKEN)?,
    })
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

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_is_kept_for_a_minute_and_never_shown() {
        let reads = Arc::new(AtomicUsize::new(0));
        let counted = reads.clone();
        let secrets = Secrets::new(move |_, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            let values = values(&[(KEY_ID, "id\n"), (SECRET_KEY, "hush"), (SESSION_TOKEN, "quiet")]);
            Box::pin(std::future::ready(Ok(values)))
        });
        for _ in 0..3 {
            let credential = secrets.get("ns", "s").await.unwrap();
            assert_eq!((credential.key_id.as_str(), credential.secret_key.as_str()), ("id", "hush"));
            let shown = format!("{secrets:?} {credential:?}");
            assert!(!shown.contains("hush") && !shown.contains("quiet"), "{shown}");
        }
        assert_eq!(reads.load(Ordering::SeqCst), 1);
        tokio::time::advance(KEPT).await;
        secrets.get("ns", "s").await.unwrap();
        assert_eq!(reads.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn what_is_missing_is_named() {
        for (pairs, sentence) in [
            (vec![], "Secret ns/s has no key AWS_ACCESS_KEY_ID"),
            (vec![(KEY_ID, "id")], "Secret ns/s has no key AWS_SECRET_ACCESS_KEY"),
            (
                vec![(KEY_ID, "id\r\nx: y"), (SECRET_KEY, "k")],
                "key AWS_ACCESS_KEY_ID of Secret ns/s is empty or has characters other than visible ASCII",
            ),
        ] {
            let error = credential("ns", "s", &values(&pairs)).unwrap_err();
            assert_eq!(error.to_string(), sentence);
        }
    }
}
