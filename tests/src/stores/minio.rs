//! MinIO: an S3 server with a security token service, which knows whom a cluster's ServiceAccounts are.

use std::path::Path;

use anyhow::{Context as _, Result};
use axum::{Json, Router, routing};
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::HttpRequestBody;
use reqwest::{Method, Url};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{CONTAINER, Store, sent};
use crate::binaries;
use crate::control_plane::START;
use crate::kube_access::Kube;
use crate::ports;
use crate::process::{Process, Program};
use crate::wait::eventually;

/// For whom tokens of ServiceAccounts are.
pub const AUDIENCE: &str = "sts.amazonaws.com";
/// The role that it gives to whoever has such a token, which it names after a hash of the audience.
pub const ROLE: &str = "arn:minio:iam:::role/oxnUw3DAuQF1uggjXGxI2AmW8IA";

/// Who may do everything.
const ROOT: &str = "hearth-root";
const ROOT_SECRET: &str = "hearth-root-secret";
const REGION: &str = "us-east-1";

/// The running server.
#[derive(Debug)]
pub struct Minio {
    endpoint: String,
    http: reqwest::Client,
    keys: JoinHandle<()>,
    server: Process,
}

impl Minio {
    /// Starts it on a folder in `dir`, with trust in the tokens of a cluster.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(dir: &Path, kube: &Kube) -> Result<Self> {
        let (discovery, keys) = publish_keys(kube).await?;
        let listen = format!("127.0.0.1:{}", ports::free()?);
        let server = Program::new("minio", binaries::minio()?, dir)
            .env("MINIO_ROOT_USER", ROOT)
            .env("MINIO_ROOT_PASSWORD", ROOT_SECRET)
            .env("MINIO_BROWSER", "off")
            .env("MINIO_UPDATE", "off")
            .env("MINIO_IDENTITY_OPENID_CONFIG_URL", discovery)
            .env("MINIO_IDENTITY_OPENID_CLIENT_ID", AUDIENCE)
            .env("MINIO_IDENTITY_OPENID_ROLE_POLICY", "readwrite")
            .arg("server")
            .flag("address", &listen)
            .flag("certs-dir", dir.join("minio-certs"))
            .arg("--quiet")
            .arg(dir.join("minio"))
            .start()?;
        let endpoint = format!("http://{listen}");
        let http = reqwest::Client::builder().no_proxy().build()?;
        let store = Self { endpoint, http, keys, server };
        // It calls itself ready before it has read its disks and its trust, and refuses everything until then.
        eventually("MinIO to make a bucket", START, async || {
            store.request(Method::PUT, "", Vec::new()).await
        })
        .await
        .with_context(|| format!("the log says:\n{}", store.server.log_tail(20)))?;
        Ok(store)
    }

    /// Where agents reach it, and its token service.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    async fn request(&self, method: Method, key: &str, body: Vec<u8>) -> Result<()> {
        let mut url = Url::parse(&format!("{}/{CONTAINER}", self.endpoint))?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(key.split('/').filter(|segment| !segment.is_empty()));
        }
        let mut request = axum::http::Request::builder()
            .method(method.clone())
            .uri(url.as_str())
            .body(HttpRequestBody::from(body.clone()))?;
        let root = AwsCredential { key_id: ROOT.to_owned(), secret_key: ROOT_SECRET.to_owned(), token: None };
        AwsAuthorizer::new(&root, "s3", REGION).try_authorize(&mut request, None)?;
        let headers = std::mem::take(request.headers_mut());
        sent(self.http.request(method, url).headers(headers).body(body)).await
    }
}

impl Drop for Minio {
    fn drop(&mut self) {
        self.keys.abort();
    }
}

impl Store for Minio {
    async fn put(&self, key: &str, content: &[u8]) -> Result<()> {
        self.request(Method::PUT, key, content.to_vec()).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.request(Method::DELETE, key, Vec::new()).await
    }
}

/// Serves the public keys of the API server to those who may not ask it, and returns the URL of the page that
/// leads to them.
async fn publish_keys(kube: &Kube) -> Result<(String, JoinHandle<()>)> {
    let keys: Value = serde_json::from_str(&kube.kubectl(&["get", "--raw", "/openid/v1/jwks"], "").await?)?;
    let page = kube.kubectl(&["get", "--raw", "/.well-known/openid-configuration"], "").await?;
    let mut page: Value = serde_json::from_str(&page)?;
    let listener =
        tokio::net::TcpListener::bind("127.0.0.1:0").await.context("cannot open a port for keys")?;
    let base = format!("http://{}", listener.local_addr()?);
    page["jwks_uri"] = json!(format!("{base}/jwks"));
    let app = Router::new()
        .route("/jwks", routing::get(async move || Json(keys)))
        .route("/.well-known/openid-configuration", routing::get(async move || Json(page)));
    let server = tokio::spawn(async move {
        // Serving ends only when the task is aborted.
        let _ = axum::serve(listener, app).await;
    });
    Ok((format!("{base}/.well-known/openid-configuration"), server))
}
