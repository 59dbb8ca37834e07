//! Secrets with credentials of origins: read when a Dataset names them, kept for a minute,
//! never shown.

use crate::lent::{Lent, Request};
use crate::origin::{Destination, OriginError};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

type Values = BTreeMap<String, Vec<u8>>;
type Read = dyn Fn(String, String) -> BoxFuture<'static, Result<Values, OriginError>> + Send + Sync;

/// The key that says which endpoints a Secret is for.
const ENDPOINTS: &str = "HEARTH_ENDPOINTS";

/// Reads Secrets of Datasets' namespaces. Clones share what is kept.
#[derive(Clone)]
pub struct Secrets {
    read: Arc<Read>,
    kept: Arc<Lent<SecretValues>>,
}

impl Secrets {
    /// Reads them from the API server; `account` is the agents' ServiceAccount as
    /// `namespace:name`, for the sentence that says how to grant access.
    pub fn of_cluster(client: kube::Client, account: String) -> Self {
        Self::new(move |namespace, name| {
            let (client, account) = (client.clone(), account.clone());
            Box::pin(async move {
                let api: Api<Secret> = Api::namespaced(client, &namespace);
                let request = Request {
                    verb: "read",
                    kind: "Secret",
                    namespace: &namespace,
                    name: &name,
                    role: "hearth-secret-reader",
                    agents: &account,
                };
                let secret = request.answer(api.get(&name)).await?;
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
        let read = async {
            let values = (self.read)(namespace.to_owned(), name.to_owned()).await?;
            Ok(SecretValues::new(namespace, name, values))
        };
        self.kept.get(namespace, name, read, parse).await
    }

    /// A store refused what a Secret has.
    pub(crate) fn doubt(&self, namespace: &str, name: &str) {
        self.kept.doubt(namespace, name);
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

    /// Refuses endpoints that the Secret is not for; `as_it_is` when what is sent there is of
    /// use to whoever is sent it.
    pub(crate) fn allow(&self, to: &Destination, as_it_is: bool) -> Result<(), OriginError> {
        let named = || (format!("Secret {}", self.0.of), format!("key {ENDPOINTS}"));
        to.check(self.document(ENDPOINTS), as_it_is, named)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lent::{KEPT, REFUSAL_KEPT};
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
        // So is what a store refused.
        for _ in 0..2 {
            secrets.doubt("ns", "s");
            secrets.get("ns", "s", |_| Ok(())).await.unwrap();
        }
        tokio::time::advance(REFUSAL_KEPT).await;
        secrets.get("ns", "s", |_| Ok(())).await.unwrap();
        assert_eq!(reads.load(Ordering::SeqCst), 4);
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
