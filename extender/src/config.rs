//! The extender's configuration file, environment and flags.

use clap::{Args, Parser, Subcommand};
use hearth_runtime::config::{self, ConfigError};
use hearth_runtime::logs::{LogConfig, LogFormat};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where the file is when nobody says otherwise.
const DEFAULT_FILE: &str = "/etc/hearth/extender.yaml";
/// What environment variables begin with, two underscores behind it.
const ENVIRONMENT: &str = "HEARTH_EXTENDER";

/// A held reply takes up to two seconds, and a report may be a little late.
const SHORTEST_SILENCE: Duration = Duration::from_secs(3);

/// What the extender runs with. Every key may be left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Kubeconfig file to reach the API server with; the pod's ServiceAccount when absent.
    pub kubeconfig: Option<PathBuf>,
    /// Namespace that Hearth is installed in: of its Lease, its agents, its nudges.
    pub namespace: String,
    /// This replica's name in the Lease; the host name when absent.
    pub identity: Option<String>,
    /// The server that kube-scheduler calls.
    pub scheduler: SchedulerConfig,
    /// The server that agents report to.
    pub agents: AgentsConfig,
    /// The server of /healthz, /readyz and /metrics.
    pub admin: AdminConfig,
    /// Reports.
    pub reports: ReportsConfig,
    /// Start.
    pub startup: StartupConfig,
    /// Deletion of Datasets.
    pub removal: RemovalConfig,
    /// Agents' tokens.
    pub tokens: TokensConfig,
    /// Notices of stores.
    pub notices: NoticesConfig,
    /// Whether Events are written on pods.
    pub events: bool,
    /// Logs.
    pub log: LogConfig,
}

/// The server that kube-scheduler calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SchedulerConfig {
    /// Address. Loopback: it has no authentication, and the scheduler is beside it.
    pub listen: SocketAddr,
    /// Largest body taken: 15,000 node names need 700 KB.
    #[serde(with = "crate::size")]
    pub body_limit: usize,
}

/// The server that agents report to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AgentsConfig {
    /// Address.
    pub listen: SocketAddr,
    /// PEM file of the certificate chain; read again when it changes.
    pub tls_cert_file: PathBuf,
    /// PEM file of its key.
    pub tls_key_file: PathBuf,
    /// Largest report taken.
    #[serde(with = "crate::size")]
    pub report_limit: usize,
    /// Largest manifest taken.
    #[serde(with = "crate::size")]
    pub manifest_limit: usize,
}

/// The server of /healthz, /readyz and /metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Address.
    pub listen: SocketAddr,
}

/// Reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReportsConfig {
    /// A node whose agent has not reported for so long counts as cold; at least 3s, since
    /// idle agents report every two.
    #[serde(with = "humantime_serde")]
    pub silent_after: Duration,
}

/// Start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StartupConfig {
    /// Ready after so long even when not all live agents have reported.
    #[serde(with = "humantime_serde")]
    pub ready_after: Duration,
}

/// Deletion of Datasets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RemovalConfig {
    /// A Dataset that is deleted goes after so long, even when there are nodes that have not
    /// said that its bytes are gone: they may be dead.
    #[serde(with = "humantime_serde")]
    pub patience: Duration,
}

/// Agents' tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TokensConfig {
    /// Audience that they must be for.
    pub audience: String,
    /// ServiceAccount, in the namespace above, that they must be of.
    pub service_account: String,
    /// Who must have issued them; asked of the API server when absent.
    pub issuer: Option<String>,
}

/// Notices of stores that objects have changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NoticesConfig {
    /// File of the token that stores send; read for each notice. While it is not there, every
    /// notice is refused.
    pub token_file: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            namespace: "hearth-system".to_owned(),
            identity: None,
            scheduler: SchedulerConfig::default(),
            agents: AgentsConfig::default(),
            admin: AdminConfig::default(),
            reports: ReportsConfig::default(),
            startup: StartupConfig::default(),
            removal: RemovalConfig::default(),
            tokens: TokensConfig::default(),
            notices: NoticesConfig::default(),
            events: true,
            log: LogConfig::default(),
        }
    }
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9440)), body_limit: 8 << 20 }
    }
}

impl Default for AgentsConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 9443)),
            tls_cert_file: "/etc/hearth/tls/tls.crt".into(),
            tls_key_file: "/etc/hearth/tls/tls.key".into(),
            report_limit: 64 << 20,
            manifest_limit: hearth_core::manifest::LONGEST_ENCODING,
        }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([0, 0, 0, 0], 9441)) }
    }
}

impl Default for ReportsConfig {
    fn default() -> Self {
        Self { silent_after: Duration::from_secs(10) }
    }
}

impl Default for StartupConfig {
    fn default() -> Self {
        Self { ready_after: Duration::from_secs(30) }
    }
}

impl Default for RemovalConfig {
    fn default() -> Self {
        Self { patience: Duration::from_secs(300) }
    }
}

impl Default for TokensConfig {
    fn default() -> Self {
        Self {
            audience: "hearth-extender".to_owned(),
            service_account: "hearth-node-agent".to_owned(),
            issuer: None,
        }
    }
}

impl Default for NoticesConfig {
    fn default() -> Self {
        Self { token_file: "/etc/hearth/notices/token".into() }
    }
}

impl Config {
    /// What the types cannot say.
    fn check(&self) -> Result<(), String> {
        let silent_after = self.reports.silent_after;
        if silent_after < SHORTEST_SILENCE {
            return Err(format!(
                "reports.silentAfter is {silent_after:?}, and at least {SHORTEST_SILENCE:?} is allowed: idle agents report every two seconds"
            ));
        }
        if self.namespace.is_empty() {
            return Err(
                "namespace is empty, and the namespace that Hearth is installed in is needed".to_owned()
            );
        }
        Ok(())
    }
}

/// Hearth's scheduler extender: answers kube-scheduler from what the nodes really hold.
#[derive(Clone, Debug, Parser)]
#[command(name = "hearth-extender", version)]
pub struct Cli {
    /// Configuration file.
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Answer kube-scheduler and hear agents (the default).
    Serve,
    /// Make the certificates that agents trust, where there are none yet.
    Certificates(CertificatesArguments),
}

/// Where certificates go.
#[derive(Clone, Debug, Args)]
pub struct CertificatesArguments {
    /// Secret for the certificate and its key.
    #[arg(long, default_value = "hearth-extender-tls")]
    pub secret: String,
    /// ConfigMap for the authority that agents trust.
    #[arg(long, default_value = "hearth-ca")]
    pub config_map: String,
    /// Service whose names the certificate is for.
    #[arg(long, default_value = "hearth-extender")]
    pub service: String,
}

/// Flags for what is most often set by hand; each stands over file and environment.
#[derive(Clone, Debug, Args)]
struct Flags {
    /// Kubeconfig file; the pod's ServiceAccount when absent.
    #[arg(long, global = true)]
    kubeconfig: Option<PathBuf>,
    /// Namespace that Hearth is installed in.
    #[arg(long, global = true)]
    namespace: Option<String>,
    /// Address for kube-scheduler's calls.
    #[arg(long)]
    scheduler_listen: Option<SocketAddr>,
    /// Address for agents' reports.
    #[arg(long)]
    agents_listen: Option<SocketAddr>,
    /// Address for /healthz, /readyz and /metrics.
    #[arg(long)]
    admin_listen: Option<SocketAddr>,
    /// text or json.
    #[arg(long, global = true)]
    log_format: Option<LogFormat>,
    /// error, warn, info, debug, trace, or directives.
    #[arg(long, global = true)]
    log_level: Option<String>,
}

impl Cli {
    /// The configuration from all layers.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let file = self.config.clone().unwrap_or_else(|| DEFAULT_FILE.into());
        let config: Config = config::load(&file, self.config.is_some(), ENVIRONMENT, &self.flags.layer())?;
        config.check().map_err(ConfigError::Invalid)?;
        Ok(config)
    }

    /// What to do.
    pub fn command(&self) -> Command {
        self.command.clone().unwrap_or(Command::Serve)
    }
}

impl Flags {
    /// The flags that were given, in the configuration's shape.
    fn layer(&self) -> serde_json::Value {
        let mut layer = serde_json::json!({});
        let mut set = |path: &[&str], value: Option<serde_json::Value>| {
            let Some(value) = value else { return };
            let target = path.iter().fold(&mut layer, |target, key| &mut target[*key]);
            *target = value;
        };
        let text = |value: &Option<String>| value.clone().map(serde_json::Value::from);
        set(&["kubeconfig"], text(&self.kubeconfig.as_ref().map(|path| path.display().to_string())));
        set(&["namespace"], text(&self.namespace));
        set(&["scheduler", "listen"], text(&self.scheduler_listen.map(|address| address.to_string())));
        set(&["agents", "listen"], text(&self.agents_listen.map(|address| address.to_string())));
        set(&["admin", "listen"], text(&self.admin_listen.map(|address| address.to_string())));
        set(&["log", "format"], self.log_format.and_then(|format| serde_json::to_value(format).ok()));
        set(&["log", "level"], text(&self.log_level));
        layer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_stand_over_the_file() {
        let arguments = [
            "hearth-extender",
            "--scheduler-listen",
            "127.0.0.1:1",
            "--log-format",
            "json",
            "--namespace",
            "x",
        ];
        let config = Cli::parse_from(arguments).config().unwrap();
        assert_eq!(config.scheduler.listen.port(), 1);
        assert_eq!(config.log.format, LogFormat::Json);
        assert_eq!(config.namespace, "x");
        assert_eq!(config.reports, ReportsConfig::default());
    }

    #[test]
    fn mistakes_are_refused_in_one_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("extender.yaml");
        for (yaml, named) in [
            ("reports: {silentAfter: 1s}", "reports.silentAfter"),
            ("scheduler: {bodyLimit: much}", "bodyLimit"),
            ("scheduler: {lissten: x}", "lissten"),
            ("namespace: \"\"", "namespace"),
        ] {
            std::fs::write(&file, yaml).unwrap();
            let cli = Cli::parse_from(["hearth-extender", "--config", &file.display().to_string()]);
            let error = cli.config().unwrap_err().to_string();
            assert!(error.contains(named) && !error.contains('\n'), "{yaml}: {error}");
        }
    }

    #[test]
    fn the_configuration_is_documented_by_what_it_prints() {
        let yaml = config::to_yaml(&Config::default());
        for key in [
            "silentAfter: 10s",
            "readyAfter: 30s",
            "listen: 127.0.0.1:9440",
            "serviceAccount: hearth-node-agent",
            "bodyLimit: 8Mi",
        ] {
            assert!(yaml.contains(key), "{key} is missing in:\n{yaml}");
        }
    }
}
