//! Extender replicas as processes, and the calls that kube-scheduler and people make.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::datasets::{Explanation, imagined};
use crate::ports;
use crate::workload::{Workload, overlay};

/// The extenders' ServiceAccount.
pub const ACCOUNT: &str = "hearth-extender";

/// One replica.
#[derive(Debug)]
pub struct Extender {
    /// Its process and identity.
    pub workload: Workload,
    /// Where kube-scheduler calls it.
    pub scheduler_url: String,
    /// Where agents report.
    pub agents_url: String,
    /// A client that trusts who serves there.
    pub agents_client: reqwest::Client,
    http: reqwest::Client,
}

impl Extender {
    /// Prepares replica `index` with the identity of `pod`.
    pub(crate) async fn prepare(
        plane: &ControlPlane,
        dir: &Path,
        index: usize,
        pod: Pod,
        config: &Value,
    ) -> Result<Self> {
        let scheduler = if index == 0 { plane.extender_port() } else { ports::free()? };
        let agents = ports::free()?;
        let name = format!("extender-{}", index + 1);
        let workload = Workload::prepare(plane, dir, &name, "hearth-extender", pod, async |place| {
            let mut all = json!({
                "kubeconfig": place.kubeconfig,
                "scheduler": {"listen": format!("127.0.0.1:{scheduler}")},
                "agents": {
                    "listen": format!("127.0.0.1:{agents}"),
                    "tlsCertFile": plane.pki.extender.cert,
                    "tlsKeyFile": plane.pki.extender.key,
                },
                "admin": {"listen": place.admin},
            });
            overlay(&mut all, config);
            Ok(all)
        })
        .await?;
        let authority = reqwest::Certificate::from_pem(&std::fs::read(plane.pki.ca())?)?;
        let client = || reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5));
        Ok(Self {
            workload,
            scheduler_url: format!("http://127.0.0.1:{scheduler}"),
            agents_url: format!("https://127.0.0.1:{agents}"),
            agents_client: client().tls_certs_only([authority]).build()?,
            http: client().build()?,
        })
    }

    /// Calls a verb as kube-scheduler does and returns what it answers.
    ///
    /// # Errors
    /// When it does not answer 200 with JSON; the message has its sentence.
    pub async fn call(&self, verb: &str, body: &Value) -> Result<Value> {
        let answer = self
            .http
            .post(format!("{}/{verb}", self.scheduler_url))
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if !status.is_success() {
            bail!("{status}: {text}");
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// Asks how it would score `nodes` for a pod.
    ///
    /// # Errors
    /// When it refuses.
    pub async fn prioritize(&self, pod: &Pod, nodes: &[&str]) -> Result<Value> {
        self.call("prioritize", &json!({"Pod": pod, "Nodes": null, "NodeNames": nodes})).await
    }

    /// Asks about a pod that there is as a person does with curl, and returns what the person reads.
    ///
    /// # Errors
    /// When it refuses; the message has its sentence.
    pub async fn told(&self, namespace: &str, pod: &str) -> Result<String> {
        let url = format!("{}/explain?namespace={namespace}&pod={pod}", self.scheduler_url);
        let answer = self.http.get(url).header("accept", "text/plain").send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if !status.is_success() {
            bail!("{status}: {text}");
        }
        Ok(text)
    }

    /// How many calls kube-scheduler has made, of any verb.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn calls(&self) -> Result<f64> {
        Ok(self.workload.metric("hearth_extender_calls_total", &[]).await?.unwrap_or(0.0))
    }

    /// Asks where a pod with these datasets would go.
    ///
    /// # Errors
    /// When it refuses.
    pub async fn explain(&self, datasets: &str) -> Result<Explanation> {
        let answer = self.call("explain", &serde_json::to_value(imagined(datasets)?)?).await?;
        Ok(serde_json::from_value(answer)?)
    }
}
