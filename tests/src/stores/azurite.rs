//! Azurite: a server that speaks as Azure Blob Storage does, and checks signatures.

use std::path::Path;

use anyhow::{Context as _, Result};
use axum::http;
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::HttpRequestBody;
use reqwest::{Method, Url};

use super::{CONTAINER, Store, sent};
use crate::binaries;
use crate::control_plane::START;
use crate::kube_access::install_crypto;
use crate::ports;
use crate::process::{Process, Program};
use crate::wait::eventually;

/// The server's only account, which every Azurite has.
pub const ACCOUNT: &str = "devstoreaccount1";
/// Its published key.
pub const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// The running server.
#[derive(Debug)]
pub struct Azurite {
    endpoint: String,
    http: reqwest::Client,
    server: Process,
}

impl Azurite {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(logs: &Path) -> Result<Self> {
        install_crypto();
        let port = ports::free()?;
        let (node, script) = binaries::azurite()?;
        let server = Program::new("azurite", node, logs)
            .arg(script)
            .flag("blobPort", port.to_string())
            .arg("--inMemoryPersistence")
            .arg("--disableTelemetry")
            .arg("--silent")
            .start()?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        let store = Self { endpoint: format!("http://127.0.0.1:{port}"), http, server };
        eventually("azurite to make a container", START, async || {
            store.request(Method::PUT, "", &[("restype", "container")], Vec::new()).await
        })
        .await
        .with_context(|| format!("the log says:\n{}", store.server.log_tail(20)))?;
        Ok(store)
    }

    /// Where agents reach it.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Lets anybody read the container.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn publish(&self) -> Result<()> {
        let query = [("restype", "container"), ("comp", "acl")];
        self.request(Method::PUT, "", &query, Vec::new()).await
    }

    async fn request(&self, method: Method, key: &str, query: &[(&str, &str)], body: Vec<u8>) -> Result<()> {
        let mut url = format!("{}/{ACCOUNT}/{CONTAINER}", self.endpoint);
        if !key.is_empty() {
            url.push('/');
        }
        for byte in key.bytes() {
            match byte {
                b'/' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => url.push(char::from(byte)),
                // Also tabs, which a URL's parser would leave out.
                byte => url.push_str(&format!("%{byte:02X}")),
            }
        }
        let mut url = Url::parse(&url)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = http::Request::builder()
            .method(method.clone())
            .uri(url.as_str())
            .header("content-length", body.len())
            .header("x-ms-blob-type", "BlockBlob")
            .body(HttpRequestBody::empty())?;
        if query.contains(&("comp", "acl")) {
            let whole = http::HeaderValue::from_static("container");
            request.headers_mut().insert("x-ms-blob-public-access", whole);
        }
        let key = AzureCredential::AccessKey(AzureAccessKey::try_new(ACCOUNT_KEY)?);
        AzureAuthorizer::new(&key, ACCOUNT).try_authorize(&mut request)?;
        let headers = std::mem::take(request.headers_mut());
        sent(self.http.request(method, url).headers(headers).body(body)).await
    }
}

impl Store for Azurite {
    async fn put(&self, key: &str, content: &[u8]) -> Result<()> {
        self.request(Method::PUT, key, &[], content.to_vec()).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.request(Method::DELETE, key, &[], Vec::new()).await
    }
}
