//! Speaks to one replica of the extender.

use super::Endpoint;
use crate::origin::shown;
use anyhow::Context;
use bytes::Bytes;
use hearth_core::manifest::{LONGEST_ENCODING, ManifestHash};
use hearth_core::wire::report;
use hearth_runtime::request_id;
use http::StatusCode;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// What an answer may take besides the time that it was asked to be held.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time without a byte of a manifest.
const MANIFEST_READ_TIMEOUT: Duration = Duration::from_secs(10);
const MANIFEST_TIMEOUT: Duration = Duration::from_secs(300);
const LONGEST_REPLY: usize = 64 << 20;

/// Why a replica did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It speaks other protocols.
    #[error("it speaks report protocols {oldest} to {newest}")]
    Protocol {
        /// From this one
        oldest: u16,
        /// to this one.
        newest: u16,
    },
    /// It does not have what was asked for.
    #[error("it does not have it")]
    NotFound,
    /// It refused.
    #[error("it answers {status}: {said}")]
    Refused {
        /// Its answer.
        status: StatusCode,
        /// Its words.
        said: String,
    },
    /// There was no answer, or no whole one.
    #[error("{0}")]
    Unreachable(String),
}

#[derive(Deserialize)]
struct Protocols {
    oldest: u16,
    newest: u16,
}

/// One replica at one address.
#[derive(Debug)]
pub struct Replica {
    endpoint: Endpoint,
    address: SocketAddr,
    base: String,
    token_file: PathBuf,
    http: reqwest::Client,
}

impl Replica {
    /// Prepares to speak; `authorities` is what its certificate must be signed by.
    pub fn new(
        endpoint: Endpoint,
        address: SocketAddr,
        authorities: Option<&[u8]>,
        token_file: PathBuf,
    ) -> anyhow::Result<Self> {
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(MANIFEST_READ_TIMEOUT)
            // The name is for the certificate, the address is this replica's.
            .resolve(endpoint.host(), address)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .user_agent(concat!("hearth-node-agent/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = authorities {
            let certificates = reqwest::Certificate::from_pem_bundle(pem)
                .context("tls.caFile is no PEM file of certificates")?;
            http = http.tls_certs_only(certificates);
        }
        let http = http.build().context("the client of the extender cannot be made")?;
        Ok(Self { base: endpoint.to_string(), endpoint, address, token_file, http })
    }

    /// The URL that it was found by.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a report and waits for the reply, which may be held for `hold`.
    pub async fn report(&self, body: Vec<u8>, hold: Duration) -> Result<Bytes, CallError> {
        let request = self
            .http
            .post(format!("{}/v1/report", self.base))
            .header(CONTENT_TYPE, report::CONTENT_TYPE)
            .timeout(hold + ANSWER_TIMEOUT)
            .body(body);
        self.call(request, LONGEST_REPLY).await
    }

    /// Fetches a manifest's encoding; its hash is not checked here.
    pub async fn manifest(&self, hash: &ManifestHash) -> Result<Bytes, CallError> {
        let request = self.http.get(format!("{}/v1/manifests/{hash}", self.base)).timeout(MANIFEST_TIMEOUT);
        self.call(request, LONGEST_ENCODING).await
    }

    /// Hands a manifest's encoding over.
    pub async fn put_manifest(&self, hash: &ManifestHash, encoding: Bytes) -> Result<(), CallError> {
        let request = self
            .http
            .put(format!("{}/v1/manifests/{hash}", self.base))
            .header(CONTENT_TYPE, "application/octet-stream")
            .timeout(MANIFEST_TIMEOUT)
            .body(encoding);
        self.call(request, LONGEST_REPLY).await.map(drop)
    }

    async fn call(&self, request: reqwest::RequestBuilder, longest: usize) -> Result<Bytes, CallError> {
        let id = request_id::fresh();
        let response = request
            .header(AUTHORIZATION, self.bearer().await?)
            .header(request_id::HEADER, &id)
            .send()
            .await
            .map_err(|error| unreachable(&error))?;
        let status = response.status();
        if !status.is_success() {
            // The error itself may go into a status, which should not change with every try.
            let id = id.to_str().unwrap_or_default();
            tracing::info!(id, replica = %self.address, "a request was answered with {status}");
        }
        let body = limited(response, if status.is_success() { longest } else { 64 << 10 }).await?;
        match status {
            _ if status.is_success() => Ok(body),
            StatusCode::UPGRADE_REQUIRED => match serde_json::from_slice(&body) {
                Ok(Protocols { oldest, newest }) => Err(CallError::Protocol { oldest, newest }),
                Err(_) => Err(refused(status, &body)),
            },
            StatusCode::NOT_FOUND => Err(CallError::NotFound),
            _ => Err(refused(status, &body)),
        }
    }

    /// The token is read each time: kubelet renews it well before it ends.
    async fn bearer(&self) -> Result<HeaderValue, CallError> {
        let unusable = |why: String| {
            CallError::Unreachable(format!("tokenFile {} cannot be used: {why}", self.token_file.display()))
        };
        let token = tokio::fs::read_to_string(&self.token_file).await.map_err(|e| unusable(e.to_string()))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
            .map_err(|_| unusable("it has characters that no token has".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

fn refused(status: StatusCode, body: &[u8]) -> CallError {
    CallError::Refused { status, said: shown(String::from_utf8_lossy(body).trim()) }
}

fn unreachable(error: &reqwest::Error) -> CallError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let what = if error.is_timeout() { "no answer in time" } else { "cannot be reached" };
    CallError::Unreachable(format!("{what}: {}", shown(&cause.to_string())))
}

async fn limited(mut response: reqwest::Response, longest: usize) -> Result<Bytes, CallError> {
    let mut body = bytes::BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
        if body.len() + chunk.len() > longest {
            return Err(CallError::Unreachable(format!("its answer is longer than {longest} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}
