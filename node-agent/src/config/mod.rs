//! The agent's configuration: one YAML file, the environment over it, flags over both.

mod tiers;
pub mod units;
mod web_identity;

use crate::origin::RetryConfig;
use anyhow::ensure;
use hearth_runtime::config::ConfigError;
use hearth_runtime::logs::{LogConfig, LogFormat};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
pub use tiers::{StoreSection, TierSection};
use units::Size;
pub use web_identity::{AzIdentity, GsIdentity, S3Identity, WebIdentityConfig};

/// Where the configuration is when no flag says otherwise.
const DEFAULT_FILE: &str = "/etc/hearth/node-agent.yaml";
const ENVIRONMENT: &str = "HEARTH_AGENT";

/// All that can be set, by the names of the file: `store.minFree` is
/// `HEARTH_AGENT__STORE__MIN_FREE` in the environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Name of the Node that the agent runs on. Needed.
    pub node_name: String,
    /// Namespace of the install, where the Lease of the lister is.
    pub namespace: String,
    /// Kubeconfig file; the pod's own ServiceAccount when absent.
    pub kubeconfig: Option<PathBuf>,
    /// URLs of the extender. Every address behind a host name is a replica of its own.
    pub extenders: Vec<String>,
    /// How the extender is trusted.
    pub tls: TlsConfig,
    /// File with the ServiceAccount token to report with, of audience `hearth-extender`;
    /// read again for every request.
    pub token_file: PathBuf,
    /// Where blocks are kept.
    pub store: StoreSection,
    /// How origins are read.
    pub origin: OriginConfig,
    /// What `file://` origins may be.
    pub file_origins: FileOrigins,
    /// What `http://` and `https://` origins may be.
    pub http_origins: HttpOrigins,
    /// What `hdfs://` origins may be.
    pub hdfs_origins: HdfsOrigins,
    /// How kubelet mounts datasets into pods.
    pub csi: CsiSection,
    /// How datasets are read that are not wholly on the node.
    pub fuse: FuseSection,
    /// The server of health, readiness and metrics.
    pub admin: AdminConfig,
    /// Logs.
    pub log: LogConfig,
}

/// The `tls` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TlsConfig {
    /// PEM file of the authorities that sign the extender's certificate; read again
    /// when it changes.
    pub ca_file: PathBuf,
}

/// The `origin` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OriginConfig {
    /// Requests for data at one time, 1 to 1,024.
    pub concurrency: usize,
    /// Most of the node's processors, in percent, that fetching takes for what no pod waits for
    /// while others want all of them, 1 to 100.
    pub busy_cpu_percent: u8,
    /// Most bytes that have come and are not yet kept, at least `64Mi`.
    pub buffer: Size,
    /// Longest time to get a connection.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Longest time without a byte.
    #[serde(with = "humantime_serde")]
    pub read_timeout: Duration,
    /// When requests are tried again.
    pub retry: RetryConfig,
    /// PEM file of authorities to trust for origins besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Namespaces whose Datasets may be read with the agents' own identity when they
    /// name no Secret; `*` is every namespace. Whoever may write a Dataset there reads
    /// all that this identity may read.
    pub platform_identity_namespaces: Vec<String>,
    /// Hosts of proxies that Datasets may name: `HOST` or `*.DOMAIN`, both also with `:PORT`, or
    /// `*` for all; with none, `options.proxy` is refused. A proxy sees what is sent through it.
    pub allowed_proxies: Vec<String>,
    /// How ServiceAccounts that Datasets name become identities of clouds.
    pub web_identity: WebIdentityConfig,
}

/// The `fileOrigins` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FileOrigins {
    /// Directories below which `file://` origins may lie; with none, `file://` is refused.
    pub allowed_roots: Vec<PathBuf>,
}

/// The `httpOrigins` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpOrigins {
    /// Hosts that `http://` and `https://` origins may name: `HOST` or `*.DOMAIN`, both also
    /// with `:PORT`, or `*` for all; with none, such origins are refused. Whoever may write a
    /// Dataset reads all that the agents reach there.
    pub allowed_hosts: Vec<String>,
}

/// The `hdfsOrigins` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HdfsOrigins {
    /// Hosts of name nodes that `hdfs://` origins may name: `HOST` or `*.DOMAIN`, both also with
    /// `:PORT`, or `*` for all; with none, such origins are refused. Whoever may write a Dataset
    /// reads as any user there, since nobody has to prove who they are, and agents connect to
    /// whatever data nodes those hosts name.
    pub allowed_hosts: Vec<String>,
}

/// The `csi` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CsiSection {
    /// Whether pods can mount datasets on this node. It takes the right to mount.
    pub enabled: bool,
    /// The driver's socket, by the path that kubelet knows it by.
    pub socket: PathBuf,
    /// The directory where kubelet looks for sockets of drivers.
    pub registration_directory: PathBuf,
}

/// The `fuse` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FuseSection {
    /// Longest time that a read waits for bytes that are not on the node, 1 s to 10 min;
    /// then it fails with EIO.
    #[serde(with = "humantime_serde")]
    pub read_timeout: Duration,
    /// The keeper's socket, by which FUSE views outlive the agent. The agent makes its
    /// directory the keeper's.
    pub keeper_socket: PathBuf,
}

/// The `admin` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Address to listen at, plain HTTP.
    pub listen: SocketAddr,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_name: String::new(),
            namespace: "hearth-system".to_owned(),
            kubeconfig: None,
            extenders: vec!["https://hearth-extender.hearth-system.svc:9443".to_owned()],
            tls: TlsConfig::default(),
            token_file: "/var/run/secrets/hearth/token".into(),
            store: StoreSection::default(),
            origin: OriginConfig::default(),
            file_origins: FileOrigins::default(),
            http_origins: HttpOrigins::default(),
            hdfs_origins: HdfsOrigins::default(),
            csi: CsiSection::default(),
            fuse: FuseSection::default(),
            admin: AdminConfig::default(),
            log: LogConfig::default(),
        }
    }
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self { ca_file: "/etc/hearth/ca/ca.crt".into() }
    }
}

impl Default for CsiSection {
    fn default() -> Self {
        Self {
            enabled: true,
            socket: "/var/lib/kubelet/plugins/hearth.dev/csi.sock".into(),
            registration_directory: "/var/lib/kubelet/plugins_registry".into(),
        }
    }
}

impl Default for FuseSection {
    fn default() -> Self {
        Self { read_timeout: Duration::from_secs(60), keeper_socket: "/run/hearth/keeper.sock".into() }
    }
}

impl Default for OriginConfig {
    fn default() -> Self {
        Self {
            concurrency: 32,
            busy_cpu_percent: 3,
            buffer: Size::Bytes(256 << 20),
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(30),
            retry: RetryConfig::default(),
            ca_file: None,
            platform_identity_namespaces: Vec::new(),
            allowed_proxies: Vec::new(),
            web_identity: WebIdentityConfig::default(),
        }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9442)) }
    }
}

/// The flags; each lies over the key of the same name.
#[derive(Debug, Default, clap::Parser, Serialize)]
#[command(version, about = "Caches datasets on one node and reports which it holds")]
#[serde(rename_all = "camelCase")]
pub struct Flags {
    /// Configuration file [default: /etc/hearth/node-agent.yaml, if it is there]
    #[arg(long)]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Name of the Node that the agent runs on
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    node_name: Option<String>,
    /// Kubeconfig file
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    #[serde(skip_serializing_if = "StoreFlags::is_empty")]
    store: StoreFlags,
    #[command(flatten)]
    #[serde(skip_serializing_if = "LogFlags::is_empty")]
    log: LogFlags,
}

#[derive(Debug, Default, clap::Args, Serialize)]
struct StoreFlags {
    /// Directory to keep blocks in
    #[arg(long = "store-directory")]
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<PathBuf>,
}

impl StoreFlags {
    fn is_empty(&self) -> bool {
        self.directory.is_none()
    }
}

#[derive(Debug, Default, clap::Args, Serialize)]
struct LogFlags {
    /// How log lines are written
    #[arg(long = "log-format")]
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<LogFormat>,
    /// error, warn, info, debug, trace, or directives
    #[arg(long = "log-level")]
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<String>,
}

impl LogFlags {
    fn is_empty(&self) -> bool {
        self.format.is_none() && self.level.is_none()
    }
}

impl Config {
    /// The configuration that `flags` and what they stand on make.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let named = flags.config.is_some();
        let file = flags.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
        hearth_runtime::config::load(file, named, ENVIRONMENT, flags)
    }

    /// Checks what types cannot say.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(
            !self.node_name.is_empty(),
            "nodeName is not set: give it in the file, as HEARTH_AGENT__NODE_NAME or as --node-name"
        );
        ensure!(!self.extenders.is_empty(), "extenders is empty: name the URL of at least one");
        ensure!(
            (1..=1024).contains(&self.origin.concurrency),
            "origin.concurrency is {}, and 1 to 1024 are allowed",
            self.origin.concurrency
        );
        ensure!(
            (1..=100).contains(&self.origin.busy_cpu_percent),
            "origin.busyCpuPercent is {}, and 1 to 100 are allowed",
            self.origin.busy_cpu_percent
        );
        ensure!(
            self.origin.retry.attempts <= 20,
            "origin.retry.attempts is {}, and 0 to 20 are allowed",
            self.origin.retry.attempts
        );
        ensure!(
            (0.0..=1.0).contains(&self.origin.retry.budget),
            "origin.retry.budget is {}, and 0.0 to 1.0 are allowed",
            self.origin.retry.budget
        );
        ensure!(
            self.origin.buffer.bytes().is_some_and(|bytes| bytes >= 64 << 20),
            "origin.buffer is {}, and bytes of at least 64Mi are allowed",
            self.origin.buffer
        );
        self.origin.web_identity.check()?;
        self.store.check()?;
        for (name, path) in [
            ("csi.socket", &self.csi.socket),
            ("csi.registrationDirectory", &self.csi.registration_directory),
            ("fuse.keeperSocket", &self.fuse.keeper_socket),
        ] {
            ensure!(path.is_absolute(), "{name} is {}, and an absolute path is allowed", path.display());
        }
        ensure!(
            (Duration::from_secs(1)..=Duration::from_secs(600)).contains(&self.fuse.read_timeout),
            "fuse.readTimeout is {:?}, and 1s to 10m are allowed",
            self.fuse.read_timeout
        );
        for root in &self.file_origins.allowed_roots {
            ensure!(
                root.is_absolute(),
                "fileOrigins.allowedRoots has {}, and absolute paths are allowed",
                root.display()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn load(yaml: &str, flags: &[&str]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.yaml");
        std::fs::write(&file, yaml).unwrap();
        let mut flags = Flags::parse_from([&["agent"], flags].concat());
        flags.config = Some(file);
        Config::load(&flags)
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let config = Config { node_name: "n".into(), ..Config::default() };
        assert_eq!(load(&hearth_runtime::config::to_yaml(&config), &[]).unwrap(), config);
    }

    #[test]
    fn flags_lie_over_the_file() {
        let yaml = "nodeName: a\nstore: {directory: /a, capacity: 1Gi}\nlog: {level: debug}";
        let config =
            load(yaml, &["--node-name", "b", "--store-directory", "/b", "--log-format", "json"]).unwrap();
        assert_eq!((config.node_name.as_str(), config.store.directory.to_str()), ("b", Some("/b")));
        assert_eq!(config.store.capacity, Some(Size::Bytes(1 << 30)));
        assert_eq!((config.log.level.as_str(), config.log.format), ("debug", LogFormat::Json));
    }

    #[test]
    fn mistakes_name_the_key() {
        for (yaml, key) in [
            ("nodeNam: x", "nodeNam"),
            ("store: {minFree: much}", "minFree"),
            ("origin: {readTimeout: soon}", "readTimeout"),
            ("store: {tiers: [{directory: /fast, medium: NVME}]}", "medium"),
            ("store: {tiers: [{directory: /fast}]}", "medium"),
        ] {
            let error = load(yaml, &[]).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        for (yaml, key) in [
            ("{}", "nodeName"),
            ("{nodeName: n, extenders: []}", "extenders"),
            ("{nodeName: n, origin: {concurrency: 0}}", "origin.concurrency"),
            ("{nodeName: n, origin: {busyCpuPercent: 0}}", "origin.busyCpuPercent"),
            ("{nodeName: n, origin: {buffer: 1Mi}}", "origin.buffer"),
            ("{nodeName: n, origin: {retry: {budget: 2.0}}}", "origin.retry.budget"),
            (
                "{nodeName: n, origin: {webIdentity: {s3: {stsEndpoint: minio}}}}",
                "origin.webIdentity.s3.stsEndpoint",
            ),
            (
                "{nodeName: n, origin: {webIdentity: {gs: {audience: pool}}}}",
                "origin.webIdentity.gs.audience",
            ),
            ("{nodeName: n, fileOrigins: {allowedRoots: [data]}}", "fileOrigins.allowedRoots"),
            ("{nodeName: n, fuse: {readTimeout: 0s}}", "fuse.readTimeout"),
            ("{nodeName: n, csi: {socket: csi.sock}}", "csi.socket"),
            ("{nodeName: n, store: {scrubRate: 10%}}", "store.scrubRate"),
            ("{nodeName: n, store: {highWatermark: 101}}", "store.highWatermark"),
            ("{nodeName: n, store: {highWatermark: 90}}", "store.highWatermark and store.lowWatermark"),
            ("{nodeName: n, store: {tiers: [{directory: fast, medium: SSD}]}}", "store.tiers[0].directory"),
            (
                "{nodeName: n, store: {directory: /a, tiers: [{directory: /a/b, medium: HDD}]}}",
                "store.tiers[0].directory",
            ),
            (
                "{nodeName: n, store: {tiers: [{directory: /b, medium: MEM, lowWatermark: 100}]}}",
                "store.tiers[0].highWatermark and store.tiers[0].lowWatermark",
            ),
        ] {
            let error = load(yaml, &[]).unwrap().check().unwrap_err().to_string();
            assert!(error.starts_with(key), "{error}");
        }
    }
}
