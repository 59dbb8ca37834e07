//! Signs tokens as an API server does, for tests.

use super::Expected;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) const ISSUER: &str = "https://kubernetes.default.svc";

/// A key of an API server.
pub(crate) struct Signer {
    id: String,
    key: EncodingKey,
}

impl Signer {
    /// A new key of this name.
    pub(crate) fn new(id: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        Self { id: id.to_owned(), key: EncodingKey::from_ec_pem(key.as_bytes()).unwrap() }
    }

    /// What the API server publishes of it.
    pub(crate) fn jwk(&self) -> Jwk {
        let mut jwk = Jwk::from_encoding_key(&self.key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some(self.id.clone());
        jwk
    }

    /// The published keys, when it is the only one.
    pub(crate) fn jwks(&self) -> JwkSet {
        JwkSet { keys: vec![self.jwk()] }
    }

    /// A token with these claims.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.clone()), ..Header::new(Algorithm::ES256) };
        encode(&header, claims, &self.key).unwrap()
    }
}

/// What tests expect of tokens.
pub(crate) fn expected() -> Expected {
    Expected {
        audience: "hearth-extender".to_owned(),
        issuer: Some(ISSUER.to_owned()),
        namespace: "hearth-system".to_owned(),
        service_account: "hearth-node-agent".to_owned(),
    }
}

/// Claims of an agent on this node, good for ten minutes.
pub(crate) fn claims(node: &str) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    json!({
        "iss": ISSUER, "aud": ["hearth-extender"], "exp": now + 600, "nbf": now, "iat": now,
        "sub": "system:serviceaccount:hearth-system:hearth-node-agent",
        "kubernetes.io": {
            "namespace": "hearth-system",
            "serviceaccount": {"name": "hearth-node-agent", "uid": "account-uid"},
            "pod": {"name": format!("agent-{node}"), "uid": format!("pod-of-{node}")},
            "node": {"name": node, "uid": format!("uid-of-{node}")},
        },
    })
}
