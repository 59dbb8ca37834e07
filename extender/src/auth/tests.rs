use super::signer::{ISSUER, Signer, claims, expected};
use super::*;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

fn verifier(signer: &Signer) -> Verifier {
    let verifier = Verifier::new(expected(), KeySource::Given);
    verifier.set_keys(&signer.jwks());
    verifier
}

/// The claims of an agent on node `a` with one of them changed, or dropped by null.
fn changed(pointer: &str, value: Value) -> Value {
    let mut claims = claims("a");
    *claims.pointer_mut(pointer).unwrap() = value;
    claims
}

#[tokio::test]
async fn a_bound_token_says_which_node_it_speaks_for() {
    let signer = Signer::new("k");
    let verifier = verifier(&signer);
    let token = signer.sign(&claims("a"));
    let agent =
        Agent { node: "a".to_owned(), node_uid: "uid-of-a".to_owned(), pod_uid: "pod-of-a".to_owned() };
    assert_eq!(verifier.verify(&token).await, Ok(agent.clone()));
    // Remembered: the key is not even looked at again.
    verifier.set_keys(&JwkSet { keys: Vec::new() });
    assert_eq!(verifier.verify(&token).await, Ok(agent));
    assert_eq!(verifier.verify(&signer.sign(&claims("b"))).await, Err(Refused::NotYet));
}

#[tokio::test]
async fn tokens_that_are_not_good_are_refused() {
    let signer = Signer::new("k");
    let verifier = verifier(&signer);
    let seconds = claims("a")["iat"].as_u64().unwrap();
    for wrong in [
        changed("/aud", json!(["https://kubernetes.default.svc"])),
        changed("/iss", json!("https://elsewhere")),
        changed("/exp", json!(seconds - 60)),
        changed("/nbf", json!(seconds + 300)),
        changed("/exp", Value::Null),
    ] {
        let refused = verifier.verify(&signer.sign(&wrong)).await.unwrap_err();
        assert!(matches!(refused, Refused::Unauthorized(_)), "{wrong}: {refused}");
    }
    for garbage in ["", "a.b.c", "a", &"x".repeat(MAX_TOKEN + 1)] {
        assert!(matches!(verifier.verify(garbage).await, Err(Refused::Unauthorized(_))));
    }
}

#[tokio::test]
async fn a_key_of_another_is_refused_even_under_the_right_name() {
    let verifier = verifier(&Signer::new("k"));
    for id in ["k", "unknown"] {
        let forged = Signer::new(id).sign(&claims("a"));
        assert!(matches!(verifier.verify(&forged).await, Err(Refused::Unauthorized(_))), "{id}");
    }
}

#[tokio::test]
async fn a_token_without_signature_is_refused() {
    let signer = Signer::new("k");
    let good = signer.sign(&claims("a"));
    let (_, rest) = good.split_once('.').unwrap();
    let (payload, _) = rest.split_once('.').unwrap();
    // {"alg":"none","kid":"k"}
    let unsigned = format!("eyJhbGciOiJub25lIiwia2lkIjoiayJ9.{payload}.");
    assert!(matches!(verifier(&signer).verify(&unsigned).await, Err(Refused::Unauthorized(_))));
}

#[tokio::test]
async fn others_and_unbound_tokens_may_not_report() {
    let signer = Signer::new("k");
    let verifier = verifier(&signer);
    for (wrong, word) in [
        (changed("/kubernetes.io/namespace", json!("default")), "default/hearth-node-agent"),
        (changed("/kubernetes.io/serviceaccount/name", json!("other")), "hearth-system/other"),
        (changed("/kubernetes.io/node", Value::Null), "bound"),
        (changed("/kubernetes.io/pod", Value::Null), "bound"),
        (changed("/kubernetes.io/node/uid", json!("")), "bound"),
        (changed("/kubernetes.io", Value::Null), "no ServiceAccount"),
    ] {
        let refused = verifier.verify(&signer.sign(&wrong)).await.unwrap_err();
        assert!(matches!(refused, Refused::Forbidden(_)), "{wrong}: {refused}");
        assert!(refused.to_string().contains(word), "{refused}");
    }
}

/// An API server with one key, that counts how often it is asked for keys.
fn api_server(signer: &Signer, asked: Arc<AtomicUsize>) -> kube::Client {
    let keys = serde_json::to_string(&signer.jwks()).unwrap();
    kube::Client::new(
        tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let text = match request.uri().path() {
                "/openid/v1/jwks" => {
                    asked.fetch_add(1, Ordering::Relaxed);
                    keys.clone()
                }
                "/.well-known/openid-configuration" => json!({"issuer": ISSUER}).to_string(),
                other => panic!("{other} is asked for"),
            };
            async move { Ok::<_, Infallible>(http::Response::new(kube::client::Body::from(text.into_bytes()))) }
        }),
        "default",
    )
}

#[tokio::test]
async fn an_unknown_key_is_asked_for_once_and_not_by_every_forged_token() {
    let (signer, asked) = (Signer::new("k"), Arc::new(AtomicUsize::new(0)));
    let source = KeySource::ApiServer(api_server(&signer, asked.clone()));
    let verifier = Verifier::new(Expected { issuer: None, ..expected() }, source);
    assert!(verifier.verify(&signer.sign(&claims("a"))).await.is_ok());
    for number in 0..10 {
        let forged = Signer::new(&format!("forged-{number}")).sign(&claims("a"));
        assert!(matches!(verifier.verify(&forged).await, Err(Refused::Unauthorized(_))));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}
