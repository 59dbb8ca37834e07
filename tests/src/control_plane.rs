//! A real etcd, kube-apiserver, kube-scheduler and kube-controller-manager, started in about four seconds.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::binaries;
use crate::cache::{self, Lock};
use crate::kube_access::{Kube, install_crypto};
use crate::pki::Pki;
use crate::ports;
use crate::process::{Process, Program};
use crate::wait::eventually;

/// A start that takes longer than this on any machine is a hang.
pub(crate) const START: Duration = Duration::from_secs(60);

/// Where the shipped scheduler configuration looks for the extender.
const EXTENDER_PORT: u16 = 9440;

/// Who can reach the API server.
#[derive(Debug, Clone, Copy)]
pub enum Reach {
    /// This machine's programs, at a free port. Nodes are simulated.
    Loopback,
    /// Real nodes too, at this address and the port where pods look for it.
    Nodes(Ipv4Addr),
}

impl Reach {
    fn address(self) -> Ipv4Addr {
        match self {
            Self::Loopback => Ipv4Addr::LOCALHOST,
            Self::Nodes(address) => address,
        }
    }
}

/// The running control plane. Dropping it ends every program.
#[derive(Debug)]
pub struct ControlPlane {
    /// Certificates and kubeconfigs.
    pub pki: Pki,
    /// Access as cluster admin.
    pub admin: Kube,
    /// `https://127.0.0.1:PORT`.
    pub server: String,
    dir: PathBuf,
    extender_port: u16,
    // Of the clusters that run at a time one has the port that the shipped configuration names.
    _extender_port: Option<Lock>,
    // In the order in which they are to be dropped: an API server without its etcd ignores SIGTERM.
    scheduler: Option<Process>,
    controller_manager: Process,
    api_server: Process,
    _etcd: Process,
}

impl ControlPlane {
    /// Starts etcd, the API server and the controller manager with their files and logs in `dir`.
    ///
    /// # Errors
    /// When a program cannot be started or is not ready in time.
    pub async fn start(dir: &Path) -> Result<Self> {
        Self::start_for(dir, Reach::Loopback).await
    }

    /// Likewise, where others than this machine's programs can reach it.
    ///
    /// # Errors
    /// When a program cannot be started or is not ready in time.
    pub async fn start_for(dir: &Path, reach: Reach) -> Result<Self> {
        install_crypto();
        let logs = dir.join("logs");
        std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let pki = Pki::create(&dir.join("pki"))?;

        let etcd_url = format!("http://127.0.0.1:{}", ports::free()?);
        let peer_url = format!("http://127.0.0.1:{}", ports::free()?);
        let mut etcd = Program::new("etcd", binaries::kubernetes("etcd")?, &logs)
            .flag("data-dir", dir.join("etcd"))
            .flag("listen-client-urls", &etcd_url)
            .flag("advertise-client-urls", &etcd_url)
            .flag("listen-peer-urls", &peer_url)
            .flag("initial-advertise-peer-urls", &peer_url)
            .flag("initial-cluster", format!("default={peer_url}"))
            .flag("log-level", "warn")
            // The data need not survive a power cut.
            .arg("--unsafe-no-fsync")
            .start()?;
        let http = http_client(pki.ca())?;
        healthy(&mut etcd, &http, &format!("{etcd_url}/health")).await?;

        let (port, shipped_port) = match reach {
            Reach::Loopback => (ports::free()?, cache::try_lock("extender-port")?),
            Reach::Nodes(_) => (443, None),
        };
        let extender_port = match (reach, &shipped_port) {
            (Reach::Loopback, None) => ports::free()?,
            _ => EXTENDER_PORT,
        };
        let server = format!("https://{}:{port}", reach.address());
        let mut api_server = api_server(&pki, &logs, dir, &etcd_url, reach, port)?.start()?;
        healthy(&mut api_server, &http, &format!("{server}/readyz")).await?;

        let admin = Kube::connect(&pki.kubeconfig(&server, "admin", Some("system:masters"))?).await?;
        let mut controller_manager = controller_manager(&pki, &logs, &server, reach)?;
        let health = controller_manager.1;
        healthy(&mut controller_manager.0, &http, &health).await?;
        Ok(Self {
            pki,
            admin,
            server,
            dir: dir.to_owned(),
            extender_port,
            _extender_port: shipped_port,
            scheduler: None,
            controller_manager: controller_manager.0,
            api_server,
            _etcd: etcd,
        })
    }

    /// Where kube-scheduler looks for the extender, on loopback.
    #[must_use]
    pub fn extender_port(&self) -> u16 {
        self.extender_port
    }

    /// Starts kube-scheduler with the shipped `config`, in which only the kubeconfig's path is replaced, and the
    /// extender's port where another cluster has it.
    ///
    /// # Errors
    /// When the file is not a scheduler configuration, or the scheduler is not ready in time.
    pub async fn start_scheduler(&mut self, config: Option<&Path>) -> Result<()> {
        let kubeconfig = self.pki.kubeconfig(&self.server, "system:kube-scheduler", None)?;
        // The old one's lease goes first.
        self.scheduler = None;
        let scheduler = self
            .scheduler("kube-scheduler", |program| {
                Ok(match config {
                    Some(config) => {
                        program.flag("config", self.adapted("kube-scheduler", config, &kubeconfig)?)
                    }
                    None => program.flag("kubeconfig", &kubeconfig).flag("leader-elect", "false"),
                })
            })
            .await?;
        self.scheduler = Some(scheduler);
        Ok(())
    }

    /// Starts a scheduler beside it that knows no extender, for pods with this `schedulerName`.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub async fn start_plain_scheduler(&self, name: &str) -> Result<Process> {
        let kubeconfig = self.pki.kubeconfig(&self.server, "system:kube-scheduler", None)?;
        let config = serde_json::json!({
            "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
            "clientConnection": {"kubeconfig": kubeconfig},
            "leaderElection": {"leaderElect": false},
            "profiles": [{"schedulerName": name}],
        });
        let path = self.dir.join(format!("{name}.yaml"));
        std::fs::write(&path, serde_yaml_ng::to_string(&config)?)?;
        self.scheduler(name, |program| Ok(program.flag("config", &path))).await
    }

    /// Starts a scheduler beside it with a shipped `config` and the identity of `kubeconfig`.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub async fn start_second_scheduler(
        &self,
        name: &str,
        kubeconfig: &Path,
        config: &Path,
    ) -> Result<Process> {
        let config = self.adapted(name, config, kubeconfig)?;
        self.scheduler(name, |program| Ok(program.flag("config", &config))).await
    }

    async fn scheduler(&self, name: &str, more: impl FnOnce(Program) -> Result<Program>) -> Result<Process> {
        let port = ports::free()?;
        let program = Program::new(name, binaries::kubernetes("kube-scheduler")?, &self.logs())
            .flag("bind-address", "127.0.0.1")
            .flag("secure-port", port.to_string())
            .flag("tls-cert-file", &self.pki.server.cert)
            .flag("tls-private-key-file", &self.pki.server.key)
            .flag("v", "2");
        let mut process = more(program)?.start()?;
        let http = http_client(self.pki.ca())?;
        healthy(&mut process, &http, &format!("https://127.0.0.1:{port}/readyz")).await?;
        Ok(process)
    }

    /// Stops the API server's and its companions' processes, waits until they are gone.
    pub fn stop(&mut self) {
        self.scheduler = None;
        self.controller_manager.kill();
        self.api_server.kill();
    }

    /// The folder of the logs, one `NAME.log` a program.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    fn adapted(&self, name: &str, config: &Path, kubeconfig: &Path) -> Result<PathBuf> {
        let text =
            std::fs::read_to_string(config).with_context(|| format!("cannot read {}", config.display()))?;
        let mut value: serde_yaml_ng::Value =
            serde_yaml_ng::from_str(&text).with_context(|| format!("{} is not YAML", config.display()))?;
        if value["kind"] != "KubeSchedulerConfiguration" {
            bail!("{} is not a KubeSchedulerConfiguration", config.display());
        }
        value["clientConnection"]["kubeconfig"] = kubeconfig.to_string_lossy().into_owned().into();
        let extenders = value["extenders"].as_sequence_mut().context("it names no extenders")?;
        for extender in extenders {
            let shipped = format!("http://127.0.0.1:{EXTENDER_PORT}");
            ensure!(extender["urlPrefix"] == shipped.as_str(), "the extender is not at {shipped}");
            extender["urlPrefix"] = format!("http://127.0.0.1:{}", self.extender_port).into();
        }
        let path = self.dir.join(format!("{name}.yaml"));
        std::fs::write(&path, serde_yaml_ng::to_string(&value)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

fn api_server(pki: &Pki, logs: &Path, dir: &Path, etcd: &str, reach: Reach, port: u16) -> Result<Program> {
    let issuer = "https://kubernetes.default.svc.cluster.local";
    let bind = match reach {
        Reach::Loopback => Ipv4Addr::LOCALHOST,
        // Pods come by the service's address.
        Reach::Nodes(_) => Ipv4Addr::UNSPECIFIED,
    };
    Ok(Program::new("kube-apiserver", binaries::kubernetes("kube-apiserver")?, logs)
        .flag("etcd-servers", etcd)
        .flag("bind-address", bind.to_string())
        .flag("advertise-address", reach.address().to_string())
        .flag("secure-port", port.to_string())
        .flag("cert-dir", dir.join("certs"))
        .flag("tls-cert-file", &pki.server.cert)
        .flag("tls-private-key-file", &pki.server.key)
        .flag("client-ca-file", pki.ca())
        .flag("service-account-issuer", issuer)
        .flag("service-account-key-file", &pki.service_account_public)
        .flag("service-account-signing-key-file", &pki.service_account_key)
        .flag("service-cluster-ip-range", "10.96.0.0/16")
        .flag("authorization-mode", "Node,RBAC")
        .flag("enable-admission-plugins", "NodeRestriction")
        .flag("allow-privileged", "true")
        // The endpoints of the `kubernetes` service may not be loopback; nothing here goes through them.
        .flag("endpoint-reconciler-type", "none")
        .flag("profiling", "false"))
}

fn controller_manager(pki: &Pki, logs: &Path, server: &str, reach: Reach) -> Result<(Process, String)> {
    let port = ports::free()?;
    let controllers = match reach {
        // Simulated nodes have no kubelet that renews their leases: this one would call them unreachable.
        Reach::Loopback => "*,-node-lifecycle-controller",
        Reach::Nodes(_) => "*",
    };
    let process =
        Program::new("kube-controller-manager", binaries::kubernetes("kube-controller-manager")?, logs)
            .flag("kubeconfig", pki.kubeconfig(server, "system:kube-controller-manager", None)?)
            .flag("bind-address", "127.0.0.1")
            .flag("secure-port", port.to_string())
            .flag("tls-cert-file", &pki.server.cert)
            .flag("tls-private-key-file", &pki.server.key)
            .flag("leader-elect", "false")
            .flag("use-service-account-credentials", "true")
            .flag("root-ca-file", pki.ca())
            .flag("service-account-private-key-file", &pki.service_account_key)
            .flag("kube-api-qps", "200")
            .flag("kube-api-burst", "400")
            .flag("controllers", controllers)
            .start()?;
    Ok((process, format!("https://127.0.0.1:{port}/healthz")))
}

/// A client that trusts the cluster's authority.
fn http_client(ca: &Path) -> Result<reqwest::Client> {
    let pem = std::fs::read(ca).with_context(|| format!("cannot read {}", ca.display()))?;
    Ok(reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&pem)?])
        .timeout(Duration::from_secs(2))
        .no_proxy()
        .build()?)
}

/// Waits until `url` answers 200, giving up at once when the program has ended.
pub(crate) async fn healthy(process: &mut Process, http: &reqwest::Client, url: &str) -> Result<()> {
    let what = format!("{} to answer {url}", process.name());
    let mut ended = None;
    eventually(&what, START, async || {
        if let Err(e) = process.check_running() {
            ended = Some(e);
            return Ok(());
        }
        let answer = http.get(url).send().await?;
        if !answer.status().is_success() {
            bail!("{} {}", answer.status(), answer.text().await.unwrap_or_default());
        }
        Ok(())
    })
    .await
    .with_context(|| format!("the log says:\n{}", process.log_tail(20)))?;
    ended.map_or(Ok(()), Err)
}
