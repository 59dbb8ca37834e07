//! Who reports: agents' bound ServiceAccount tokens, verified against the API
//! server's keys, here and without a TokenReview for each.

#[cfg(test)]
pub(crate) mod signer;
#[cfg(test)]
mod tests;

use anyhow::Context;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use lru::LruCache;
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// Verified tokens that are remembered until they expire.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(50_000).expect("not zero");
/// The API server rotates its keys rarely, and an unknown one is asked for at once.
const REFRESH_EVERY: Duration = Duration::from_secs(600);
/// Forged key ids must not become a stream of requests.
const REFRESH_AT_MOST_EVERY: Duration = Duration::from_secs(5);
/// Clocks of API server and extender may differ by so many seconds.
const LEEWAY: u64 = 10;
/// Longest token that is looked at, bytes.
const MAX_TOKEN: usize = 16 << 10;

/// Whom a token is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Node that its pod runs on.
    pub node: String,
    /// UID of that Node.
    pub node_uid: String,
    /// UID of its pod.
    pub pod_uid: String,
}

/// Why a token is refused; the text is the reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No usable token (401).
    #[error("{0}")]
    Unauthorized(String),
    /// A good token of somebody who may not report (403).
    #[error("{0}")]
    Forbidden(String),
    /// No token can be judged yet (503).
    #[error("the API server's token keys have not been read yet, try again")]
    NotYet,
}

/// What a token must say.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Its audience.
    pub audience: String,
    /// Who issued it; asked of the API server when absent.
    pub issuer: Option<String>,
    /// Namespace of its ServiceAccount.
    pub namespace: String,
    /// Its ServiceAccount.
    pub service_account: String,
}

/// Verifies tokens.
pub struct Verifier {
    expected: Expected,
    issuer: RwLock<Option<String>>,
    keys: RwLock<HashMap<String, (Algorithm, Arc<DecodingKey>)>>,
    remembered: Mutex<LruCache<[u8; 32], (Agent, u64)>>,
    source: KeySource,
    refreshed: tokio::sync::Mutex<Option<Instant>>,
}

/// Where keys come from.
pub enum KeySource {
    /// The API server.
    ApiServer(kube::Client),
    /// Nowhere: the keys were given.
    Given,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
}

#[derive(Deserialize)]
struct Claims {
    exp: u64,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<KubernetesClaims>,
}

#[derive(Deserialize)]
struct KubernetesClaims {
    namespace: String,
    serviceaccount: Reference,
    pod: Option<Reference>,
    node: Option<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    name: String,
    #[serde(default)]
    uid: String,
}

impl Verifier {
    /// A verifier with keys from `source`; none are there before the first refresh.
    pub fn new(expected: Expected, source: KeySource) -> Self {
        Self {
            issuer: RwLock::new(expected.issuer.clone()),
            expected,
            keys: RwLock::default(),
            remembered: Mutex::new(LruCache::new(REMEMBERED)),
            source,
            refreshed: tokio::sync::Mutex::new(None),
        }
    }

    /// Takes these keys and no others.
    pub fn set_keys(&self, set: &JwkSet) {
        let keys = set.keys.iter().filter_map(|jwk| {
            let id = jwk.common.key_id.clone()?;
            let algorithm = match jwk.common.key_algorithm?.to_string().as_str() {
                "RS256" => Algorithm::RS256,
                "ES256" => Algorithm::ES256,
                "ES384" => Algorithm::ES384,
                _ => return None,
            };
            Some((id, (algorithm, Arc::new(DecodingKey::from_jwk(jwk).ok()?))))
        });
        *self.keys.write() = keys.collect();
    }

    /// Keeps the keys fresh until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) -> anyhow::Result<()> {
        loop {
            let pause = match self.refresh().await {
                Ok(()) => REFRESH_EVERY,
                Err(error) => {
                    tracing::warn!(
                        "the API server's token keys cannot be read, tokens may be refused: {error:#}"
                    );
                    REFRESH_AT_MOST_EVERY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
        }
    }

    /// Reads the keys, and who issues tokens, again unless that was done just now.
    async fn refresh(&self) -> anyhow::Result<()> {
        let KeySource::ApiServer(client) = &self.source else { return Ok(()) };
        let mut refreshed = self.refreshed.lock().await;
        if refreshed.is_some_and(|at| at.elapsed() < REFRESH_AT_MOST_EVERY) {
            return Ok(());
        }
        *refreshed = Some(Instant::now());
        if self.expected.issuer.is_none() {
            let text = get(client, "/.well-known/openid-configuration").await?;
            let discovery: Discovery =
                serde_json::from_str(&text).context("the API server's issuer discovery")?;
            *self.issuer.write() = Some(discovery.issuer);
        }
        let text = get(client, "/openid/v1/jwks").await?;
        let set: JwkSet = serde_json::from_str(&text).context("the API server's keys")?;
        self.set_keys(&set);
        Ok(())
    }

    /// Whom the token is of, if it is good.
    pub async fn verify(&self, token: &str) -> Result<Agent, Refused> {
        if token.len() > MAX_TOKEN {
            return Err(Refused::Unauthorized(format!("the token is longer than {MAX_TOKEN} bytes")));
        }
        let name = *blake3::hash(token.as_bytes()).as_bytes();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if let Some((agent, expires)) = self.remembered.lock().get(&name)
            && now < expires + LEEWAY
        {
            return Ok(agent.clone());
        }
        let unreadable =
            |error| Refused::Unauthorized(format!("the token is no ServiceAccount token: {error}"));
        let header = decode_header(token).map_err(unreadable)?;
        let id = header.kid.ok_or_else(|| Refused::Unauthorized("the token names no key".to_owned()))?;
        let (algorithm, key) = match self.key(&id) {
            Some(key) => key,
            None => {
                if let Err(error) = self.refresh().await {
                    tracing::debug!("keys: {error:#}");
                }
                let unknown = "the token is signed by a key that the API server does not have";
                self.key(&id).ok_or_else(|| match self.keys.read().is_empty() {
                    true => Refused::NotYet,
                    false => Refused::Unauthorized(unknown.to_owned()),
                })?
            }
        };
        let issuer = self.issuer.read().clone().ok_or(Refused::NotYet)?;
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY;
        validation.set_audience(&[&self.expected.audience]);
        validation.set_issuer(&[&issuer]);
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        let claims = decode::<Claims>(token, &key, &validation)
            .map_err(|error| Refused::Unauthorized(format!("the token is not good: {error}")))?
            .claims;
        let expires = claims.exp;
        let agent = self.agent(claims)?;
        self.remembered.lock().put(name, (agent.clone(), expires));
        Ok(agent)
    }

    fn agent(&self, claims: Claims) -> Result<Agent, Refused> {
        let Expected { namespace, service_account, .. } = &self.expected;
        let forbidden = |what: &str| Refused::Forbidden(what.to_owned());
        let of = claims.kubernetes.ok_or_else(|| forbidden("the token is of no ServiceAccount"))?;
        if of.namespace != *namespace || of.serviceaccount.name != *service_account {
            return Err(Refused::Forbidden(format!(
                "the token is of ServiceAccount {}/{}, and only {namespace}/{service_account} may report",
                of.namespace, of.serviceaccount.name
            )));
        }
        let unbound = "the token is bound to no pod on a node: use a projected token, or TokenRequest with the pod as bound object";
        match (of.node, of.pod) {
            // Without UIDs it would also speak for whatever takes their names later.
            (Some(node), Some(pod)) if !node.uid.is_empty() && !pod.uid.is_empty() => {
                Ok(Agent { node: node.name, node_uid: node.uid, pod_uid: pod.uid })
            }
            _ => Err(forbidden(unbound)),
        }
    }

    fn key(&self, id: &str) -> Option<(Algorithm, Arc<DecodingKey>)> {
        self.keys.read().get(id).cloned()
    }
}

async fn get(client: &kube::Client, path: &str) -> anyhow::Result<String> {
    let request = http::Request::get(path).body(Vec::new())?;
    let answer = tokio::time::timeout(Duration::from_secs(10), client.request_text(request)).await;
    answer
        .with_context(|| format!("the API server did not answer {path} in time"))?
        .with_context(|| format!("the API server refused {path}"))
}
