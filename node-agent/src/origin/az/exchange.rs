//! Tokens for Azure Blob Storage of the application that a ServiceAccount is, by its token as the
//! application's assertion.

use crate::origin::OriginError;
use crate::origin::federation::{Exchange, Lease, NamedAccount, Said, plain};
use crate::origin::web::percent::encode;
use object_store::azure::AzureCredential;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// As Azure names the application and its tenant.
const CLIENT: &str = "azure.workload.identity/client-id";
const TENANT: &str = "azure.workload.identity/tenant-id";

#[derive(Deserialize)]
struct Given {
    access_token: String,
    #[serde(default)]
    expires_in: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Failure {
    error: String,
    error_description: String,
}

/// The token of a ServiceAccount.
pub(super) async fn credential(account: &NamedAccount) -> Result<Arc<AzureCredential>, OriginError> {
    let config = &account.federation.config.az;
    let (client, tenant) = account
        .get(|account| {
            let tenant = account.text(TENANT).or_else(|| config.tenant_id.clone());
            Ok((account.needed(CLIENT)?, tenant.map_or_else(|| account.needed(TENANT), Ok)?))
        })
        .await?;
    let identity = format!("{} {client} {tenant}", account.shown());
    account.session(&account.federation.az, identity, ask(account, &client, &tenant)).await
}

async fn ask(
    account: &NamedAccount,
    client: &str,
    tenant: &str,
) -> Result<Lease<AzureCredential>, OriginError> {
    let config = &account.federation.config.az;
    let token = account.token(&config.audience).await?;
    let mut url = format!("{}/", config.authority.trim_end_matches('/'));
    encode(&mut url, tenant, false);
    url.push_str("/oauth2/v2.0/token");
    let request = account.federation.http.post(url).form(&[
        ("grant_type", "client_credentials"),
        ("scope", "https://storage.azure.com/.default"),
        ("client_id", client),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", &token),
    ]);
    let service = format!("Microsoft Entra at {}", config.authority);
    let who = format!("application {client} of {}", account.shown());
    Exchange { service: &service, who: &who, token: &token, said }.ask(request, read).await
}

fn read(body: &str) -> Option<Lease<AzureCredential>> {
    let given: Given = serde_json::from_str(body).ok()?;
    let life = Duration::from_secs(given.expires_in);
    plain(&given.access_token)
        .then_some(Lease { credentials: AzureCredential::BearerToken(given.access_token), life })
}

fn said(body: &str) -> Said {
    let Failure { error, error_description } = serde_json::from_str(body).unwrap_or_default();
    // Behind the first line stand the request's number and time, another at each try.
    let message = error_description.lines().next().unwrap_or_default();
    let message = message.split(" Trace ID:").next().unwrap_or_default().to_owned();
    Said { passing: error == "temporarily_unavailable", code: error, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::federation::testing::{TokenService, account, form};
    use axum::http::StatusCode;
    use serde_json::json;

    #[tokio::test]
    async fn an_account_is_an_application() {
        let service = TokenService::start().await;
        service
            .answer(StatusCode::OK, r#"{"access_token": "t", "expires_in": 3599, "token_type": "Bearer"}"#);
        let account = account(&json!({CLIENT: "app", TENANT: "../x"}), &service.url);
        for _ in 0..2 {
            assert_eq!(*credential(&account).await.unwrap(), AzureCredential::BearerToken("t".to_owned()));
        }
        let asked = service.asked();
        assert_eq!((asked.len(), asked[0].path.as_str()), (1, "/..%2Fx/oauth2/v2.0/token"));
        let sent = form(&asked[0].body);
        assert_eq!((sent["client_id"].as_str(), sent["client_assertion"].as_str()), ("app", "account-token"));
    }

    #[tokio::test]
    async fn what_is_wrong_is_said() {
        let service = TokenService::start().await;
        let error = credential(&account(&json!({CLIENT: "app"}), &service.url)).await.unwrap_err();
        assert_eq!(error.to_string(), format!("ServiceAccount ns/reader has no annotation {TENANT}"));
        let body =
            r#"{"error": "invalid_client", "error_description": "AADSTS700213: No match. Trace ID: 1"}"#;
        service.answer(StatusCode::UNAUTHORIZED, body);
        let account = account(&json!({CLIENT: "app", TENANT: "t"}), &service.url);
        let error = credential(&account).await.unwrap_err();
        assert_eq!(error.reason(), "Denied");
        let end = "application app of ServiceAccount ns/reader (invalid_client: AADSTS700213: No match.)";
        assert!(error.to_string().ends_with(end), "{error}");
    }
}
