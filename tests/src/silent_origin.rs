//! An origin that takes connections and never answers.

use anyhow::Result;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// On every address of this machine. Dropping it closes its connections.
#[derive(Debug)]
pub struct SilentOrigin {
    port: u16,
    task: JoinHandle<()>,
}

impl SilentOrigin {
    /// Opens a port.
    ///
    /// # Errors
    /// When none can be opened.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("0.0.0.0", 0)).await?;
        let port = listener.local_addr()?.port();
        let task = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((connection, _)) = listener.accept().await {
                held.push(connection);
            }
        });
        Ok(Self { port, task })
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The spec of a Dataset of it; by different `host`s (`127.0.0.0/8`) it is different origins.
    #[must_use]
    pub fn dataset(&self, host: &str) -> serde_json::Value {
        let endpoint = format!("http://{host}:{}", self.port);
        let origin = serde_json::json!({
            "uri": "s3://bucket/data", "secretRef": {"name": "s3-credentials"}, "options": {"endpoint": endpoint},
        });
        serde_json::json!({"origins": [origin]})
    }
}

impl Drop for SilentOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}
