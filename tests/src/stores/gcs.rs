//! A server that speaks as Google Cloud Storage does, and keeps objects and their generations in memory.

use std::path::Path;

use anyhow::Result;
use reqwest::Url;
use serde_json::json;

use super::{CONTAINER, Store, sent};
use crate::binaries;
use crate::control_plane::healthy;
use crate::ports;
use crate::process::{Process, Program};

/// The running server. It asks nobody for credentials.
#[derive(Debug)]
pub struct Gcs {
    endpoint: String,
    http: reqwest::Client,
    _server: Process,
}

impl Gcs {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(logs: &Path) -> Result<Self> {
        let port = ports::free()?;
        let endpoint = format!("http://127.0.0.1:{port}");
        let mut server = Program::new("gcs-server", binaries::gcs_server()?, logs)
            .flag("scheme", "http")
            .flag("host", "127.0.0.1")
            .flag("port", port.to_string())
            .flag("backend", "memory")
            .flag("log-level", "warn")
            .start()?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        healthy(&mut server, &http, &format!("{endpoint}/_internal/healthcheck")).await?;
        let bucket = http.post(format!("{endpoint}/storage/v1/b?project=test"));
        let body = json!({"name": CONTAINER}).to_string();
        sent(bucket.header("content-type", "application/json").body(body)).await?;
        Ok(Self { endpoint, http, _server: server })
    }

    /// Where agents reach it.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Store for Gcs {
    async fn put(&self, key: &str, content: &[u8]) -> Result<()> {
        let mut url = Url::parse(&format!("{}/upload/storage/v1/b/{CONTAINER}/o", self.endpoint))?;
        url.query_pairs_mut().append_pair("uploadType", "media").append_pair("name", key);
        sent(self.http.post(url).body(content.to_vec())).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let mut url = Url::parse(&format!("{}/storage/v1/b/{CONTAINER}/o", self.endpoint))?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.push(key);
        }
        sent(self.http.delete(url)).await
    }
}
