//! Tokens for Google Cloud Storage of a ServiceAccount: of its workload identity, or of the Google
//! service account that it may speak for.

use crate::origin::OriginError;
use crate::origin::federation::{Exchange, Lease, NamedAccount, Said, plain};
use crate::origin::web::percent::encode;
use http::header::CONTENT_TYPE;
use object_store::gcp::GcpCredential;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// As GKE names the service account.
const GOOGLE_ACCOUNT: &str = "iam.gke.io/gcp-service-account";
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_only";
/// The scope that the token must have with which a service account's is asked for.
const SCOPE_TO_ASK: &str = "https://www.googleapis.com/auth/cloud-platform";

#[derive(Deserialize)]
struct Exchanged {
    access_token: String,
    #[serde(default)]
    expires_in: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Impersonated {
    access_token: String,
    expire_time: jiff::Timestamp,
}

/// The token of a ServiceAccount.
pub(super) async fn credential(account: &NamedAccount) -> Result<Arc<GcpCredential>, OriginError> {
    let google = account.get(|account| Ok(account.text(GOOGLE_ACCOUNT))).await?;
    let identity = format!("{} {}", account.shown(), google.as_deref().unwrap_or_default());
    account.session(&account.federation.gs, identity, ask(account, google.as_deref())).await
}

async fn ask(account: &NamedAccount, google: Option<&str>) -> Result<Lease<GcpCredential>, OriginError> {
    let config = &account.federation.config.gs;
    let audience = config.audience.as_deref().ok_or_else(|| {
        OriginError::Denied(
            "serviceAccountRef needs the cluster's workload identity provider: origin.webIdentity.gs.audience of the node agents' configuration names none"
                .to_owned(),
        )
    })?;
    let token = account.token(&token_audience(audience)).await?;
    let (http, who) = (&account.federation.http, account.shown());
    let request = http.post(format!("{}/v1/token", config.sts_endpoint.trim_end_matches('/'))).form(&[
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("audience", audience),
        ("scope", if google.is_some() { SCOPE_TO_ASK } else { SCOPE }),
        ("subject_token", &token),
    ]);
    let service = format!("the security token service {}", config.sts_endpoint);
    let exchange = Exchange { service: &service, who: &who, token: &token, said };
    let own = exchange.ask(request, exchanged).await?;
    let Some(google) = google else { return Ok(own) };
    let mut url = format!("{}/v1/projects/-/serviceAccounts/", config.iam_endpoint.trim_end_matches('/'));
    encode(&mut url, google, false);
    url.push_str(":generateAccessToken");
    let wanted = serde_json::json!({"scope": [SCOPE], "lifetime": "3600s"}).to_string();
    let request = http
        .post(url)
        .bearer_auth(&own.credentials.bearer)
        .header(CONTENT_TYPE, "application/json")
        .body(wanted);
    let (service, who) = (format!("the service {}", config.iam_endpoint), format!("{who} as {google}"));
    let exchange = Exchange { service: &service, who: &who, token: &own.credentials.bearer, said };
    exchange.ask(request, impersonated).await
}

fn exchanged(body: &str) -> Option<Lease<GcpCredential>> {
    let given: Exchanged = serde_json::from_str(body).ok()?;
    lease(given.access_token, Duration::from_secs(given.expires_in))
}

fn impersonated(body: &str) -> Option<Lease<GcpCredential>> {
    let given: Impersonated = serde_json::from_str(body).ok()?;
    let left = given.expire_time.duration_since(jiff::Timestamp::now());
    lease(given.access_token, Duration::try_from(left).unwrap_or_default())
}

fn lease(bearer: String, life: Duration) -> Option<Lease<GcpCredential>> {
    plain(&bearer).then_some(Lease { credentials: GcpCredential { bearer }, life })
}

/// For whom the ServiceAccount's token is: the pool on GKE, and else the provider.
fn token_audience(provider: &str) -> String {
    match provider.strip_prefix("identitynamespace:") {
        Some(gke) => gke.split(':').next().unwrap_or_default().to_owned(),
        None => format!("https:{provider}"),
    }
}

/// What OAuth says, or Google's other services.
fn said(body: &str) -> Said {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (code, message) = match &body["error"] {
        Value::Object(error) => (text(&error["status"]), text(&error["message"])),
        code => (text(code), text(&body["error_description"])),
    };
    Said { code, message, passing: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::federation::testing::{TokenService, account, form};
    use axum::http::StatusCode;
    use serde_json::json;

    const OWN: &str = r#"{"access_token": "own", "expires_in": 3599, "token_type": "Bearer"}"#;

    #[tokio::test]
    async fn a_token_is_exchanged() {
        let service = TokenService::start().await;
        service.answer(StatusCode::OK, OWN);
        let given = credential(&account(&json!({}), &service.url)).await.unwrap();
        assert_eq!(given.bearer, "own");
        let asked = service.asked();
        assert_eq!((asked.len(), asked[0].path.as_str()), (1, "/v1/token"));
        let sent = form(&asked[0].body);
        assert_eq!(sent["audience"], "//iam.googleapis.com/provider");
        assert_eq!((sent["scope"].as_str(), sent["subject_token"].as_str()), (SCOPE, "account-token"));
    }

    #[tokio::test]
    async fn an_account_speaks_for_a_google_service_account() {
        let service = TokenService::start().await;
        service.answer(StatusCode::OK, OWN);
        service.answer(StatusCode::OK, r#"{"accessToken": "theirs", "expireTime": "2099-01-01T00:00:00Z"}"#);
        let account = account(&json!({GOOGLE_ACCOUNT: "r@p.iam/../x"}), &service.url);
        for _ in 0..2 {
            assert_eq!(credential(&account).await.unwrap().bearer, "theirs");
        }
        let asked = service.asked();
        assert_eq!((asked.len(), form(&asked[0].body)["scope"].as_str()), (2, SCOPE_TO_ASK));
        assert_eq!(asked[1].path, "/v1/projects/-/serviceAccounts/r%40p.iam%2F..%2Fx:generateAccessToken");
        assert_eq!(asked[1].authorization.as_deref(), Some("Bearer own"));
    }

    #[tokio::test]
    async fn what_is_refused_is_said() {
        let service = TokenService::start().await;
        service.answer(StatusCode::OK, OWN);
        let body = r#"{"error": {"code": 403, "message": "may not", "status": "PERMISSION_DENIED"}}"#;
        service.answer(StatusCode::FORBIDDEN, body);
        let error = credential(&account(&json!({GOOGLE_ACCOUNT: "g"}), &service.url)).await.unwrap_err();
        assert_eq!(error.reason(), "Denied");
        let sentence = error.to_string();
        assert!(
            sentence.ends_with("ServiceAccount ns/reader as g (PERMISSION_DENIED: may not)"),
            "{sentence}"
        );

        let service = TokenService::start().await;
        service
            .answer(StatusCode::BAD_REQUEST, r#"{"error": "invalid_grant", "error_description": "stale"}"#);
        let error = credential(&account(&json!({}), &service.url)).await.unwrap_err().to_string();
        assert!(
            error.ends_with("denies access to ServiceAccount ns/reader (invalid_grant: stale)"),
            "{error}"
        );
    }

    #[test]
    fn a_token_is_for_the_provider() {
        let gke = "identitynamespace:p.svc.id.goog:https://container.googleapis.com/v1/projects/p";
        assert_eq!(token_audience(gke), "p.svc.id.goog");
        assert_eq!(token_audience("//iam.googleapis.com/x"), "https://iam.googleapis.com/x");
    }
}
