//! Which node this is, as the agent's own ServiceAccount token says it.
//!
//! Read without verifying: the extender verifies the same token and holds its
//! claim against what is reported.

use anyhow::{Context, ensure};
use serde::Deserialize;

#[derive(Deserialize)]
struct Claims {
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

#[derive(Deserialize)]
struct Kubernetes {
    node: Option<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    name: String,
    uid: String,
}

/// The UID of the node that a bound token names.
pub fn node_uid(token: &str, node_name: &str) -> anyhow::Result<String> {
    let payload = token.trim().split('.').nth(1).context("the token of tokenFile is no JSON web token")?;
    let bytes = base64url(payload).context("the token of tokenFile is no JSON web token")?;
    let claims: Claims =
        serde_json::from_slice(&bytes).context("the token of tokenFile is no ServiceAccount token")?;
    let node = claims.kubernetes.node.context(
        "the token of tokenFile names no node: it must be bound to the agent's pod (Kubernetes 1.31 or later)",
    )?;
    ensure!(
        node.name == node_name,
        "the token of tokenFile is of a pod on node {}, and nodeName is {node_name}",
        node.name
    );
    Ok(node.uid)
}

/// Decodes base64url; padding is optional.
fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0u32);
    for digit in text.trim_end_matches('=').bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `{"kubernetes.io":{"node":{"name":"n1","uid":"u-1"}}}`
    const TOKEN: &str = "e30.eyJrdWJlcm5ldGVzLmlvIjp7Im5vZGUiOnsibmFtZSI6Im4xIiwidWlkIjoidS0xIn19fQ.x";

    #[test]
    fn the_claim_is_read() {
        assert_eq!(node_uid(TOKEN, "n1").unwrap(), "u-1");
        assert_eq!(
            node_uid(TOKEN, "n2").unwrap_err().to_string(),
            "the token of tokenFile is of a pod on node n1, and nodeName is n2"
        );
        // `{"kubernetes.io":{}}`: a token that is not bound to a pod.
        assert!(
            node_uid("e30.eyJrdWJlcm5ldGVzLmlvIjp7fX0.x", "n1")
                .unwrap_err()
                .to_string()
                .contains("names no node")
        );
    }

    proptest! {
        #[test]
        fn garbage_is_an_error(token: String) {
            prop_assert!(node_uid(&token, "n").is_err());
        }
    }
}
