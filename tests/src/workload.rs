//! Plays kubelet for Hearth's own pods: takes a pod that the shipped manifests made and runs its program as a process
//! with that pod's tokens, so that it may do exactly what `manifests/` grants.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, healthy};
use crate::kube_access::{Kube, PATIENCE};
use crate::ports;
use crate::process::{Process, Program};
use crate::programs;
use crate::wait::eventually;

/// The namespace of the install.
pub const NAMESPACE: &str = "hearth-system";

/// One of Hearth's programs, which can be stopped, killed and started again.
#[derive(Debug)]
pub struct Workload {
    /// The pod whose identity it has.
    pub pod: Pod,
    /// Address of its health, readiness and metrics.
    pub admin: String,
    /// What identifies it to the API server.
    pub kubeconfig: PathBuf,
    config: PathBuf,
    program: Program,
    process: Option<Process>,
    http: reqwest::Client,
}

/// What a workload's configuration is made from.
pub(crate) struct Place<'a> {
    /// Kubeconfig with the pod's token.
    pub(crate) kubeconfig: &'a Path,
    /// Folder of its own.
    pub(crate) dir: &'a Path,
    /// `127.0.0.1:PORT` for health, readiness and metrics.
    pub(crate) admin: &'a str,
    /// The pod itself.
    pub(crate) pod: &'a Pod,
}

impl Workload {
    /// Prepares the program `binary` as the workload `name` in `pod`, with the configuration that `configure` makes.
    pub(crate) async fn prepare(
        plane: &ControlPlane,
        dir: &Path,
        name: &str,
        binary: &str,
        pod: Pod,
        configure: impl AsyncFnOnce(Place<'_>) -> Result<Value>,
    ) -> Result<Self> {
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let token = dir.join("token");
        std::fs::write(&token, plane.admin.pod_token(&pod, None).await?)?;
        let kubeconfig = plane.pki.kubeconfig_with_token(&plane.server, name, &token)?;
        let admin = format!("127.0.0.1:{}", ports::free()?);
        let place = Place { kubeconfig: &kubeconfig, dir: &dir, admin: &admin, pod: &pod };
        let mut config = shipped_config(&plane.admin, &pod).await?;
        overlay(&mut config, &json!({"log": {"format": "text"}}));
        overlay(&mut config, &configure(place).await?);
        let file = dir.join("config.yaml");
        std::fs::write(&file, serde_yaml_ng::to_string(&config)?)?;
        let mut program = Program::new(name, programs::hearth(binary)?, &plane.logs()).flag("config", &file);
        for (name, value) in environment(&pod)? {
            program = program.env(name, value);
        }
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build()?;
        Ok(Self {
            pod,
            admin: format!("http://{admin}"),
            kubeconfig,
            config: file,
            program,
            process: None,
            http,
        })
    }

    /// Sets a variable of its environment, from its next start on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.program = self.program.clone().env(name, value);
    }

    /// Lays these settings over its configuration file, from its next start on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configure(&self, settings: &Value) -> Result<()> {
        let mut config = serde_yaml_ng::from_str(&std::fs::read_to_string(&self.config)?)?;
        overlay(&mut config, settings);
        Ok(std::fs::write(&self.config, serde_yaml_ng::to_string(&config)?)?)
    }

    /// Starts it and waits until it answers at all; see [`Self::ready`] for more.
    ///
    /// # Errors
    /// When it runs already or ends at once.
    pub async fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "{} runs already", self.pod.name_any());
        let mut process = self.program.start()?;
        healthy(&mut process, &self.http, &format!("{}/healthz", self.admin)).await?;
        self.process = Some(process);
        Ok(())
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub async fn ready(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("it does not run")?;
        healthy(process, &self.http, &format!("{}/readyz", self.admin)).await
    }

    /// Ends it as a power cut or the OOM killer does.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Asks it to stop and waits until it has.
    ///
    /// # Errors
    /// When it does not stop within ten seconds or says that it failed.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            let status = process.stop(Duration::from_secs(10)).await?;
            ensure!(status.success(), "{} ended with {status}: {}", process.name(), process.log_tail(20));
        }
        Ok(())
    }

    /// Crashes it as an assertion does, with core dumps allowed as far as they can be, and says how it ended.
    ///
    /// # Errors
    /// When it does not run, or does not end.
    pub async fn crash(&mut self) -> Result<ExitStatus> {
        self.process.take().context("it does not run")?.crash().await
    }

    /// Its process id, for what a test wants to measure.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// All its metrics, as they are scraped.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> Result<String> {
        Ok(self.http.get(format!("{}/metrics", self.admin)).send().await?.error_for_status()?.text().await?)
    }

    /// The sum of all samples of a metric whose line contains every one of `labels`; none when there is no such sample.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Result<Option<f64>> {
        let text = self.metrics().await?;
        let mut sum = None;
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            if series.split('{').next() == Some(name) && labels.iter().all(|l| series.contains(l)) {
                *sum.get_or_insert(0.0) +=
                    value.parse::<f64>().with_context(|| format!("metric line {line:?}"))?;
            }
        }
        Ok(sum)
    }
}

/// Runs the program of a Job's pod to its end, with that pod's arguments, ServiceAccount and nothing else.
///
/// # Errors
/// When the Job has no pod on a node, or its program fails.
pub async fn run_job(plane: &ControlPlane, account: &str, binary: &str) -> Result<()> {
    let pod = pods_of(&plane.admin, account, 1).await?.pop().context("no pod")?;
    let token = plane.logs().join(format!("{account}.token"));
    std::fs::write(&token, plane.admin.pod_token(&pod, None).await?)?;
    let kubeconfig = plane.pki.kubeconfig_with_token(&plane.server, account, &token)?;
    let arguments = pod.spec.iter().flat_map(|s| &s.containers).flat_map(|c| c.args.iter().flatten());
    let program = Program::new(account, programs::hearth(binary)?, &plane.logs());
    let program = arguments.fold(program, Program::arg);
    let mut process = program.flag("kubeconfig", &kubeconfig).start()?;
    let status = process.ended(PATIENCE).await?;
    ensure!(status.success(), "{account} ended with {status}: {}", process.log_tail(20));
    Ok(())
}

/// The configuration file that the pod mounts: what is shipped has to be what the program takes.
async fn shipped_config(kube: &Kube, pod: &Pod) -> Result<Value> {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_ref()).into_iter().flatten();
    let map = volumes
        .filter(|v| v.name == "config")
        .find_map(|v| Some(v.config_map.as_ref()?.name.clone()))
        .context("the pod has no volume `config` from a ConfigMap")?;
    let found = kube.api::<ConfigMap>(NAMESPACE).get(&map).await?;
    let text = found.data.and_then(|d| d.into_values().next()).context("the ConfigMap is empty")?;
    serde_yaml_ng::from_str(&text).with_context(|| format!("ConfigMap {map} holds no YAML"))
}

/// The environment of the pod's container that runs one of Hearth's programs, with fields resolved as kubelet does.
fn environment(pod: &Pod) -> Result<Vec<(String, String)>> {
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let variables = containers.flat_map(|c| c.env.iter().flatten()).filter(|e| e.name.starts_with("HEARTH_"));
    variables
        .map(|variable| {
            let field = variable
                .value_from
                .as_ref()
                .and_then(|v| v.field_ref.as_ref())
                .map(|f| f.field_path.as_str());
            let value = match (field, &variable.value) {
                (Some("spec.nodeName"), _) => node_of(pod).unwrap_or_default().to_owned(),
                (Some("metadata.name"), _) => pod.name_any(),
                (None, Some(value)) => value.clone(),
                (other, _) => bail!("{} comes from {other:?}, which is not known here", variable.name),
            };
            Ok((variable.name.clone(), value))
        })
        .collect()
}

/// Waits until `count` pods of a ServiceAccount of the install have been put on nodes; ordered by node.
pub(crate) async fn pods_of(kube: &Kube, account: &str, count: usize) -> Result<Vec<Pod>> {
    let pods = kube.api::<Pod>(NAMESPACE);
    eventually(&format!("{count} pods of ServiceAccount {account} on nodes"), PATIENCE, async || {
        let mut found = pods.list(&ListParams::default()).await?.items;
        found.retain(|p| p.spec.as_ref().and_then(|s| s.service_account_name.as_deref()) == Some(account));
        let all = found.len();
        found.retain(|p| node_of(p).is_some());
        if found.len() < count {
            bail!("{} on nodes, {all} in all", found.len());
        }
        found.sort_by_key(|p| (node_of(p).map(str::to_owned), p.name_any()));
        Ok(found)
    })
    .await
}

/// The node that a pod was put on.
pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Lays `over` onto `base`, map by map, so that a test changes single settings.
pub fn overlay(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                overlay(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}
