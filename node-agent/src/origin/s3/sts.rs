//! Credentials for S3 of a ServiceAccount's role, by AssumeRoleWithWebIdentity: AWS's, MinIO's or
//! Ceph's.

use super::place::partition;
use crate::config::S3Identity;
use crate::origin::OriginError;
use crate::origin::federation::{Exchange, Lease, NamedAccount, Said, plain};
use object_store::aws::AwsCredential;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// As EKS names the role.
const ROLE: &str = "eks.amazonaws.com/role-arn";
/// The longest that every role allows.
const LIFE: &str = "3600";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Response {
    assume_role_with_web_identity_result: Outcome,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Outcome {
    credentials: Session,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Session {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    expiration: jiff::Timestamp,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session(…)")
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ErrorResponse {
    error: Failure,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Failure {
    code: String,
    message: String,
}

/// The service that knows the roles of a region.
pub(super) fn endpoint(config: &S3Identity, region: &str) -> String {
    let regional = || format!("https://sts.{region}.{}", partition(region));
    config.sts_endpoint.clone().unwrap_or_else(regional)
}

/// What requests of a ServiceAccount are signed with, given by the service at `endpoint`.
pub(super) async fn credential(
    account: &NamedAccount,
    endpoint: &str,
) -> Result<Arc<AwsCredential>, OriginError> {
    let role = account.get(|account| account.needed(ROLE)).await?;
    let who = account.shown();
    let identity = format!("{endpoint} {role} {who}");
    account.session(&account.federation.s3, identity, assume(account, endpoint, &role, &who)).await
}

async fn assume(
    account: &NamedAccount,
    endpoint: &str,
    role: &str,
    who: &str,
) -> Result<Lease<AwsCredential>, OriginError> {
    let federation = &account.federation;
    let token = account.token(&federation.config.s3.audience).await?;
    // So that the cloud's own log says who it was.
    let session: String = format!("hearth-{}-{}", account.namespace, account.name).chars().take(64).collect();
    let request = federation.http.post(endpoint).form(&[
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("DurationSeconds", LIFE),
        ("RoleArn", role),
        ("RoleSessionName", &session),
        ("WebIdentityToken", &token),
    ]);
    let service = format!("the security token service {endpoint}");
    let who = format!("role {role} of {who}");
    Exchange { service: &service, who: &who, token: &token, said }.ask(request, read).await
}

fn read(body: &str) -> Option<Lease<AwsCredential>> {
    let response: Response = quick_xml::de::from_str(body).ok()?;
    let given = response.assume_role_with_web_identity_result.credentials;
    let all = [&given.access_key_id, &given.secret_access_key, &given.session_token];
    if !all.into_iter().all(|text| plain(text)) {
        return None;
    }
    let left = given.expiration.duration_since(jiff::Timestamp::now());
    Some(Lease {
        credentials: AwsCredential {
            key_id: given.access_key_id,
            secret_key: given.secret_access_key,
            token: Some(given.session_token),
        },
        life: Duration::try_from(left).unwrap_or_default(),
    })
}

fn said(body: &str) -> Said {
    let Failure { code, message } = quick_xml::de::from_str::<ErrorResponse>(body).unwrap_or_default().error;
    let passing = matches!(code.as_str(), "IDPCommunicationError" | "Throttling" | "STSNotInitialized");
    Said { code, message, passing }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::federation::testing::{TokenService, account, form};
    use axum::http::StatusCode;
    use serde_json::json;

    const GIVEN: &str = r#"<?xml version="1.0"?>
<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult>
    <SubjectFromWebIdentityToken>system:serviceaccount:ns:reader</SubjectFromWebIdentityToken>
    <Credentials>
      <AccessKeyId>ASIAX</AccessKeyId><SecretAccessKey>se/cret</SecretAccessKey>
      <SessionToken>session==</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>
    </Credentials>
  </AssumeRoleWithWebIdentityResult>
  <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>
</AssumeRoleWithWebIdentityResponse>"#;

    fn refusal(code: &str, message: &str) -> String {
        format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
        )
    }

    #[tokio::test]
    async fn a_role_is_assumed_with_a_token_of_the_account() {
        let service = TokenService::start().await;
        service.answer(StatusCode::OK, GIVEN);
        let account = account(&json!({ROLE: "arn:aws:iam::1:role/reader"}), &service.url);
        for _ in 0..2 {
            let given = credential(&account, &service.url).await.unwrap();
            assert_eq!((given.key_id.as_str(), given.secret_key.as_str()), ("ASIAX", "se/cret"));
            assert_eq!(given.token.as_deref(), Some("session=="));
        }
        let asked = service.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        assert_eq!((asked[0].path.as_str(), asked[0].query.as_deref()), ("/", None));
        let sent = form(&asked[0].body);
        assert_eq!(sent["Action"], "AssumeRoleWithWebIdentity");
        assert_eq!(sent["RoleArn"], "arn:aws:iam::1:role/reader");
        assert_eq!(sent["RoleSessionName"], "hearth-ns-reader");
        assert_eq!(sent["WebIdentityToken"], "account-token");
    }

    #[tokio::test]
    async fn a_refusal_is_told_from_a_failure_and_shows_no_token() {
        for (status, body, reason, words) in [
            (
                403,
                refusal("AccessDenied", "Not authorized to perform it"),
                "Denied",
                "(AccessDenied: Not authorized",
            ),
            (
                400,
                refusal("InvalidIdentityToken", "No provider"),
                "Denied",
                "role arn:r of ServiceAccount ns/reader",
            ),
            (400, refusal("IDPCommunicationError", "later"), "Unavailable", "IDPCommunicationError"),
            (400, refusal("Echo", "what is account-token?"), "Denied", "(400 Bad Request)"),
            (500, String::new(), "Unavailable", "fails"),
            (503, String::new(), "Throttled", "fewer"),
            (200, String::new(), "Malformed", "no credentials"),
            (200, GIVEN.replace("session==", ""), "Malformed", "no credentials"),
        ] {
            let service = TokenService::start().await;
            service.answer(StatusCode::from_u16(status).unwrap(), &body);
            let account = account(&json!({ROLE: "arn:r"}), &service.url);
            let error = credential(&account, &service.url).await.unwrap_err();
            assert_eq!(error.reason(), reason, "{status} {body}: {error}");
            let sentence = error.to_string();
            assert!(sentence.contains(words) && !sentence.contains("account-token"), "{sentence}");
        }
        let service = TokenService::start().await;
        let error = credential(&account(&json!({}), &service.url), &service.url).await.unwrap_err();
        assert_eq!(error.to_string(), format!("ServiceAccount ns/reader has no annotation {ROLE}"));
    }

    #[test]
    fn the_service_is_the_regions_unless_the_operator_has_one() {
        let of = |config: S3Identity, region| endpoint(&config, region);
        assert_eq!(of(S3Identity::default(), "eu-west-1"), "https://sts.eu-west-1.amazonaws.com");
        assert_eq!(of(S3Identity::default(), "cn-north-1"), "https://sts.cn-north-1.amazonaws.com.cn");
        let minio = S3Identity { sts_endpoint: Some("https://minio".into()), ..S3Identity::default() };
        assert_eq!(of(minio, "eu-west-1"), "https://minio");
    }
}
