//! Wires the extender together: the only place that starts tasks.

use crate::auth::{Expected, KeySource, Verifier};
use crate::config::Config;
use crate::http::{self, agents, scheduler};
use crate::metrics::Metrics;
use crate::notices::Notices;
use crate::state::State;
use crate::{events, gauges, leader, watch};
use anyhow::Context;
use hearth_core::index::Settings;
use hearth_runtime::lease::Election;
use hearth_runtime::tasks::Tasks;
use hearth_runtime::{admin, config, kube_client};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch as channel;
use tokio_util::sync::CancellationToken;

/// How long tasks may take to end.
const GRACE: Duration = Duration::from_secs(8);

/// Runs the extender until it is asked to end.
pub async fn run(config: Config) -> anyhow::Result<()> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting with\n{}", config::to_yaml(&config));
    let identity = identity(&config)?;
    let client = kube_client::connect(config.kubeconfig.as_deref()).await?;
    let metrics = Metrics::new().context("metrics cannot be registered")?;
    let registry = metrics.registry.clone();
    let settings = Settings {
        silent_after_millis: u64::try_from(config.reports.silent_after.as_millis()).unwrap_or(u64::MAX),
        ..Settings::default()
    };
    let state = Arc::new(State::new(settings, metrics));
    let shutdown = CancellationToken::new();
    let mut tasks = Tasks::new(shutdown.clone());

    let expected = Expected {
        audience: config.tokens.audience.clone(),
        issuer: config.tokens.issuer.clone(),
        namespace: config.namespace.clone(),
        service_account: config.tokens.service_account.clone(),
    };
    let verifier = Arc::new(Verifier::new(expected, KeySource::ApiServer(client.clone())));
    tasks.spawn("the reader of token keys", verifier.clone().run(shutdown.clone()));

    let (recorder, writer) = events::channel(config.events, state.clone());
    tasks.spawn("the writer of Events", writer.run(client.clone(), identity.clone(), shutdown.clone()));

    let (leading, is_leader) = channel::channel(false);
    let known = Arc::new(watch::Known::default());
    let watches = watch::Watches {
        client: client.clone(),
        namespace: config.namespace.clone(),
        state: state.clone(),
        recorder: recorder.clone(),
        known: known.clone(),
        leads: is_leader.clone(),
    };
    tasks.spawn("the watches", watches.run(shutdown.clone()));

    let leases: Api<Lease> = Api::namespaced(client.clone(), &config.namespace);
    let election = Election::new("hearth-extender", &identity);
    tasks.spawn("the election", election.run(leases, leading, shutdown.clone()));
    let duties = leader::Duties {
        client: client.clone(),
        namespace: config.namespace.clone(),
        state: state.clone(),
        known: known.clone(),
        recorder: recorder.clone(),
        removal_patience: config.removal.patience,
    };
    tasks.spawn("the leader's duties", duties.run(is_leader.clone(), shutdown.clone()));

    let handlers = agents::Handlers::new(state.clone(), verifier, shutdown.clone());
    let router = agents::router(handlers, config.agents.report_limit, config.agents.manifest_limit);
    let notices = Arc::new(Notices::new(known.clone()));
    tasks.spawn("the writer of notices", notices.clone().run(client.clone(), shutdown.clone()));
    let handlers = http::notices::Handlers {
        notices,
        state: state.clone(),
        token_file: config.notices.token_file.clone(),
    };
    let router = router.merge(http::notices::router(handlers));
    let files = (config.agents.tls_cert_file.clone(), config.agents.tls_key_file.clone());
    tasks.spawn("the agents' server", agents::serve(config.agents.listen, files, router, shutdown.clone()));

    let handlers =
        scheduler::Handlers { state: state.clone(), warnings: Arc::new(recorder), client: Some(client) };
    let router = scheduler::router(handlers, config.scheduler.body_limit);
    tasks
        .spawn("the scheduler's server", scheduler::serve(config.scheduler.listen, router, shutdown.clone()));

    let ready = {
        let (state, ready_after) = (state.clone(), config.startup.ready_after);
        move || state.readiness(ready_after)
    };
    let before_scrape = move || gauges::bring_up_to_date(&state, *is_leader.borrow());
    let router = admin::router(registry, ready, before_scrape);
    tasks.spawn("the operators' server", admin::serve(config.admin.listen, router, shutdown));

    tasks.run(GRACE).await
}

/// Who takes part in the election: unique among the replicas.
fn identity(config: &Config) -> anyhow::Result<String> {
    if let Some(identity) = &config.identity {
        return Ok(identity.clone());
    }
    let host = std::env::var("HOSTNAME").or_else(|_| std::fs::read_to_string("/proc/sys/kernel/hostname"));
    let host = host.context("the host has no name: set identity")?;
    // Replicas on one host network share its name.
    Ok(format!("{}_{}", host.trim(), std::process::id()))
}
