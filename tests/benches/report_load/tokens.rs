//! Agents' tokens as an API server signs them.

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

const KEY_ID: &str = "bench";
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc";
pub(crate) const AUDIENCE: &str = "hearth-extender";
pub(crate) const NAMESPACE: &str = "hearth-system";
pub(crate) const SERVICE_ACCOUNT: &str = "hearth-node-agent";

/// The UID of the agent's pod on this node.
pub(crate) fn pod_uid(node: &str) -> String {
    format!("pod-on-{node}")
}

/// A new P-256 key, as PEM.
pub(crate) fn new_key() -> anyhow::Result<String> {
    Ok(rcgen::KeyPair::generate()?.serialize_pem())
}

/// What the API server publishes of a key.
pub(crate) fn published(key: &str) -> anyhow::Result<JwkSet> {
    let mut jwk = Jwk::from_encoding_key(&EncodingKey::from_ec_pem(key.as_bytes())?, Algorithm::ES256)?;
    jwk.common.key_id = Some(KEY_ID.to_owned());
    Ok(JwkSet { keys: vec![jwk] })
}

/// Signs with one key.
pub(crate) struct Signer(EncodingKey);

impl Signer {
    pub(crate) fn new(key: &str) -> anyhow::Result<Self> {
        Ok(Self(EncodingKey::from_ec_pem(key.as_bytes())?))
    }

    /// The token of the agent on this node, good for an hour.
    pub(crate) fn token(&self, node: &str, node_uid: &str) -> anyhow::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = json!({
            "iss": ISSUER, "aud": [AUDIENCE], "exp": now + 3600, "nbf": now, "iat": now,
            "sub": format!("system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}"),
            "kubernetes.io": {
                "namespace": NAMESPACE,
                "serviceaccount": {"name": SERVICE_ACCOUNT, "uid": "account"},
                "pod": {"name": "agent", "uid": pod_uid(node)},
                "node": {"name": node, "uid": node_uid},
            },
        });
        let header = Header { kid: Some(KEY_ID.to_owned()), ..Header::new(Algorithm::ES256) };
        Ok(encode(&header, &claims, &self.0)?)
    }
}
