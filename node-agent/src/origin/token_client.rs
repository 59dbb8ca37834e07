//! How `object_store` asks the platform and token services, and what it means when it is given no token.
//!
//! It tries once: whoever wants the token tries again. A service that fails is told from one that refuses,
//! since only the former mends itself.

use super::{OriginError, shown};
use http::StatusCode;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use object_store::{ClientOptions, RetryConfig};
use std::pin::Pin;
use std::time::Duration;

/// Such services are on the node or in the cloud.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn options() -> ClientOptions {
    ClientOptions::new().with_connect_timeout(TIMEOUT).with_timeout(TIMEOUT)
}

pub(super) fn once() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// Makes clients for which an answer that says nothing of the credentials is no answer.
#[derive(Debug, Default)]
pub(super) struct Connector(ReqwestConnector);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Client(self.0.connect(options)?)))
    }
}

#[derive(Debug)]
struct Client(HttpClient);

/// The answer of a service that fails.
#[derive(Debug, thiserror::Error)]
#[error("it answered {0}")]
struct Failing(StatusCode);

impl HttpService for Client {
    fn call<'client, 'call>(
        &'client self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'call>>
    where
        'client: 'call,
        Self: 'call,
    {
        Box::pin(async move {
            let answer = self.0.execute(request).await?;
            if is_failing(answer.status()) {
                return Err(HttpError::new(HttpErrorKind::Unknown, Failing(answer.status())));
            }
            Ok(answer)
        })
    }
}

/// Whether a service that answers so may answer otherwise in a moment.
pub(super) fn is_failing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

/// Nothing was given: `refused` says so when it was for a reason, and `failed` when nobody gave an answer.
pub(super) fn no_token(error: &object_store::Error, refused: &str, failed: &str) -> OriginError {
    let why = shown(&error.to_string());
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<HttpError>() {
            return OriginError::Unavailable(format!("{failed}: {why}"));
        }
        cause = error.source();
    }
    OriginError::Denied(format!("{refused}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use object_store::azure::MicrosoftAzureBuilder;
    use std::net::SocketAddr;

    async fn service(status: u16) -> SocketAddr {
        let app = Router::new().fallback(move || async move {
            (StatusCode::from_u16(status).unwrap(), "{\"error\": \"said\"}")
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    }

    /// What comes of asking a service for a token.
    async fn asked(service: &str) -> OriginError {
        hearth_runtime::tls::install_provider();
        let store = MicrosoftAzureBuilder::new()
            .with_account("acct")
            .with_container_name("box")
            .with_client_secret_authorization("client", "hush", "tenant")
            .with_authority_host(service)
            .with_client_options(options().with_allow_http(true))
            .with_retry(once())
            .with_http_connector(Connector::default())
            .build()
            .unwrap();
        let error = store.credentials().get_credential().await.unwrap_err();
        no_token(&error, "refused", "failed")
    }

    #[tokio::test]
    async fn a_service_that_fails_is_told_from_one_that_refuses() {
        for (status, reason) in [
            (400, "Denied"),
            (401, "Denied"),
            (403, "Denied"),
            (404, "Denied"),
            (408, "Unavailable"),
            (429, "Unavailable"),
            (500, "Unavailable"),
            (503, "Unavailable"),
        ] {
            let error = asked(&format!("http://{}", service(status).await)).await;
            assert_eq!(error.reason(), reason, "{status}: {error}");
            let word = if reason == "Denied" { "refused: " } else { "failed: " };
            assert!(error.to_string().starts_with(word) && !error.to_string().contains("hush"), "{error}");
        }
        // Nobody listens at a port that was just given back.
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let error = asked(&format!("http://{gone}")).await;
        assert_eq!(error.reason(), "Unavailable", "{error}");
    }
}
