//! The process under load: the agents' server over TLS with tokens verified, the
//! scheduler's server, and beside it one that only reads bodies.

use crate::fixture::{DATASETS, NODES, cluster, node_name};
use crate::tokens;
use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::routing::post;
use hearth_core::index::{DatasetName, Millis, Settings};
use hearth_core::pod::PodFacts;
use hearth_extender::auth::{Expected, KeySource, Verifier};
use hearth_extender::http::{agents, scheduler};
use hearth_extender::metrics::Metrics;
use hearth_extender::state::State;
use hearth_tests::ports;
use hearth_tests::wait::eventually;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

const BODY_LIMIT: usize = 8 << 20;

/// What the parent must know, one line of JSON on standard output.
#[derive(Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) agents: SocketAddr,
    pub(crate) scheduler: SocketAddr,
    pub(crate) null: SocketAddr,
    /// PEM of the authority of the agents' server.
    pub(crate) authority: String,
    /// PEM of the key that signs tokens.
    pub(crate) token_key: String,
    /// The hashes of the datasets' manifests, by the datasets' numbers.
    pub(crate) manifests: Vec<[u8; 32]>,
}

struct Silent;

impl scheduler::Warnings for Silent {
    fn warn(&self, _: &PodFacts, _: Vec<String>) {}
}

/// Serves until standard input ends, which is when the parent does.
pub(crate) async fn run() -> anyhow::Result<()> {
    let state = Arc::new(State::new(Settings::default(), Metrics::new()?));
    let index = tokio::task::spawn_blocking(|| cluster(Millis(0))).await?;
    let manifest_of = |number| index.dataset(&DatasetName::new("bench", format!("set-{number}")))?.manifest;
    let manifests = (0..DATASETS).filter_map(manifest_of).map(|hash| hash.0).collect();
    state.write(|own| *own = index);
    state.set_agents(|agents| {
        agents.synced = true;
        agents.uids = (0..NODES).map(|node| tokens::pod_uid(&node_name(node))).collect();
        agents.nodes = (0..NODES).map(node_name).collect();
    });

    let token_key = tokens::new_key()?;
    let expected = Expected {
        audience: tokens::AUDIENCE.to_owned(),
        issuer: Some(tokens::ISSUER.to_owned()),
        namespace: tokens::NAMESPACE.to_owned(),
        service_account: tokens::SERVICE_ACCOUNT.to_owned(),
    };
    let verifier = Verifier::new(expected, KeySource::Given);
    verifier.set_keys(&tokens::published(&token_key)?);

    let directory = tempfile::tempdir()?;
    let made = hearth_extender::certificates::make(tokens::NAMESPACE, "hearth-extender")?;
    let files = (directory.path().join("tls.crt"), directory.path().join("tls.key"));
    std::fs::write(&files.0, &made.certificate)?;
    std::fs::write(&files.1, &made.key)?;

    let free = || anyhow::Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()?)));
    let ready = Ready {
        agents: free()?,
        scheduler: free()?,
        null: free()?,
        authority: made.authority,
        token_key,
        manifests,
    };
    let shutdown = CancellationToken::new();
    let handlers = agents::Handlers::new(state.clone(), Arc::new(verifier), shutdown.clone());
    let reports = agents::router(handlers, BODY_LIMIT, BODY_LIMIT);
    let handlers = scheduler::Handlers { state, warnings: Arc::new(Silent), client: None };
    let calls = scheduler::router(handlers, BODY_LIMIT);
    let null = Router::new()
        .route(
            "/read",
            post(|body: Bytes| async move {
                std::hint::black_box(body.len());
                "[]"
            }),
        )
        .layer(DefaultBodyLimit::max(BODY_LIMIT));
    let mut servers = tokio::task::JoinSet::new();
    servers.spawn(agents::serve(ready.agents, files, reports, shutdown.clone()));
    servers.spawn(scheduler::serve(ready.scheduler, calls, shutdown.clone()));
    servers.spawn(scheduler::serve(ready.null, null, shutdown));
    for address in [ready.agents, ready.scheduler, ready.null] {
        listening(address).await?;
    }
    println!("{}", serde_json::to_string(&ready)?);
    std::io::stdout().flush()?;
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0)
    });
    if let Some(ended) = servers.join_next().await {
        ended??;
    }
    anyhow::bail!("a server ended")
}

async fn listening(address: SocketAddr) -> anyhow::Result<()> {
    let connects = async || Ok(TcpStream::connect(address).await?);
    eventually(&format!("{address} to listen"), Duration::from_secs(10), connects).await?;
    Ok(())
}
