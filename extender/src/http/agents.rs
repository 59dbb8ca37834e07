//! Agents' reports and manifests, over TLS.

use crate::auth::{Agent, Refused, Verifier};
use crate::state::{State, Woken};
use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum_server::tls_rustls::RustlsConfig;
use hearth_core::manifest::{Manifest, ManifestHash};
use hearth_core::wire::report::{
    CONTENT_TYPE, MAX_HOLD_MILLIS, OLDEST_PROTOCOL, PROTOCOL, Reply, Report, Verdict, WireError,
    decode_report, encode,
};
use hearth_runtime::request_id::with_request_id;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

/// Manifests are large: so many are encoded or decoded at a time.
const MANIFESTS_AT_ONCE: usize = 2;
/// How often the certificate files are looked at.
const LOOK_AT_FILES: Duration = Duration::from_secs(30);
/// How long a connection may live on after the end was asked for.
const GRACE: Duration = Duration::from_secs(3);

/// What the handlers live by.
#[derive(Clone)]
pub struct Handlers {
    /// The shared state.
    pub state: Arc<State>,
    /// Who may report.
    pub verifier: Arc<Verifier>,
    /// Lets held replies go at the end.
    pub shutdown: CancellationToken,
    manifests: Arc<Semaphore>,
}

impl Handlers {
    /// Handlers over this state.
    pub fn new(state: Arc<State>, verifier: Arc<Verifier>, shutdown: CancellationToken) -> Self {
        Self { state, verifier, shutdown, manifests: Arc::new(Semaphore::new(MANIFESTS_AT_ONCE)) }
    }
}

/// The routes.
pub fn router(handlers: Handlers, report_limit: usize, manifest_limit: usize) -> Router {
    let manifests = Router::new()
        .route("/v1/manifests/{hash}", get(give_manifest).put(take_manifest))
        .layer(DefaultBodyLimit::max(manifest_limit));
    Router::new()
        .route("/v1/report", post(report).layer(DefaultBodyLimit::max(report_limit)))
        .merge(manifests)
        .layer(CatchPanicLayer::new())
        .layer(middleware::from_fn(with_request_id))
        .with_state(handlers)
}

/// Serves over TLS until `shutdown`; certificate files are read again when they change.
pub async fn serve(
    listen: SocketAddr,
    files: (PathBuf, PathBuf),
    router: Router,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (certificate, key) = files;
    let config = RustlsConfig::from_pem_file(&certificate, &key).await.with_context(|| {
        format!(
            "agents.tlsCertFile {} and agents.tlsKeyFile {} cannot be used (`hearth-extender certificates` makes them)",
            certificate.display(),
            key.display()
        )
    })?;
    let handle = axum_server::Handle::new();
    let server = axum_server::bind_rustls(listen, config.clone())
        .handle(handle.clone())
        .serve(router.into_make_service());
    tokio::pin!(server);
    let mut seen = modified(&certificate);
    loop {
        tokio::select! {
            ended = &mut server => return ended.with_context(|| format!("agents.listen {listen} cannot be used")),
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(LOOK_AT_FILES) => {
                let now = modified(&certificate);
                if now != seen {
                    match config.reload_from_pem_file(&certificate, &key).await {
                        Ok(()) => {
                            seen = now;
                            tracing::info!("the certificate was read again");
                        }
                        // Half written, perhaps: the old one serves on, and the next look tries again.
                        Err(error) => tracing::warn!("the changed certificate cannot be used: {error}"),
                    }
                }
            }
        }
    }
    handle.graceful_shutdown(Some(GRACE));
    server.await?;
    Ok(())
}

fn modified(file: &std::path::Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok()
}

async fn report(Shared(handlers): Shared<Handlers>, headers: HeaderMap, body: Bytes) -> Response {
    let count = |outcome: &str| handlers.state.metrics.reports.with_label_values(&[outcome]).inc();
    let agent = match handlers.authenticate(&headers).await {
        Ok(agent) => agent,
        Err(refusal) => {
            count("unauthorized");
            return refusal;
        }
    };
    let started = Instant::now();
    let report = match decode_report(&body) {
        Ok(report) => report,
        Err(error) => {
            count("refused");
            return refusal(&error);
        }
    };
    if report.speaker.node != agent.node || report.speaker.node_uid != agent.node_uid {
        count("unauthorized");
        let why = format!(
            "the token is of an agent on node {} ({}), and the report is for {} ({})\n",
            agent.node, agent.node_uid, report.speaker.node, report.speaker.node_uid
        );
        tracing::warn!("a report was refused: {}", why.trim_end());
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    let reply = handlers.hear(report, started).await;
    count(match reply.verdict {
        Verdict::Applied => "applied",
        Verdict::Resync { .. } => "resync",
    });
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], encode(&reply)).into_response()
}

fn refusal(error: &WireError) -> Response {
    match error {
        // The sender may be newer than we: it reads what we speak and speaks that.
        WireError::Protocol { .. } => {
            let spoken = serde_json::json!({"oldest": OLDEST_PROTOCOL, "newest": PROTOCOL});
            (StatusCode::UPGRADE_REQUIRED, axum::Json(spoken)).into_response()
        }
        WireError::Malformed { .. } => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

impl Handlers {
    /// Applies a report and waits until there is something to say to its sender, at
    /// most as long as it asks.
    async fn hear(&self, report: Report, started: Instant) -> Reply {
        let node = report.speaker.node.clone();
        let (seen, protocol) = (report.orders_seen, report.protocol.min(PROTOCOL));
        let patience = Duration::from_millis(u64::from(report.hold_millis.min(MAX_HOLD_MILLIS)));
        let mut hold = self.state.hold(&node);
        let now = self.state.now().monotonic;
        let verdict = self.state.write(|index| index.apply(now, report));
        self.state.metrics.report_seconds.observe(started.elapsed().as_secs_f64());
        if let Verdict::Resync { reason } = &verdict {
            self.state.metrics.resyncs.inc();
            tracing::info!(node, reason, "a report could not be applied");
            return Reply { protocol, verdict, orders: None, need_manifests: Vec::new() };
        }
        let deadline = tokio::time::sleep(patience);
        tokio::pin!(deadline);
        loop {
            let (orders, digest) = self.state.orders(&node);
            let need_manifests = self.state.manifests_to_ask(&node);
            let news = digest != seen;
            let reply = |need_manifests| Reply {
                protocol,
                verdict: verdict.clone(),
                orders: news.then(|| (*orders).clone()),
                need_manifests,
            };
            if news || !need_manifests.is_empty() {
                return reply(need_manifests);
            }
            tokio::select! {
                woken = hold.woken() => if woken == Woken::Superseded { return reply(Vec::new()) },
                () = &mut deadline => return reply(Vec::new()),
                () = self.shutdown.cancelled() => return reply(Vec::new()),
            }
        }
    }

    async fn authenticate(&self, headers: &HeaderMap) -> Result<Agent, Response> {
        let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(token) = header.and_then(|value| value.strip_prefix("Bearer ")) else {
            return Err((StatusCode::UNAUTHORIZED, "send a ServiceAccount token as Authorization: Bearer\n")
                .into_response());
        };
        let refuse = |refused: Refused| {
            tracing::warn!("an agent was refused: {refused}");
            let status = match refused {
                Refused::Unauthorized(_) => StatusCode::UNAUTHORIZED,
                Refused::Forbidden(_) => StatusCode::FORBIDDEN,
            };
            (status, format!("{refused}\n")).into_response()
        };
        let agent = self.verifier.verify(token).await.map_err(refuse)?;
        // A token outlives its pod by up to an hour; the watch knows better.
        let gone = self.state.agents(|agents| agents.synced && !agents.uids.contains(&agent.pod_uid));
        if gone {
            return Err(refuse(Refused::Forbidden(format!(
                "the token is of a pod on node {} that is gone",
                agent.node
            ))));
        }
        Ok(agent)
    }
}

async fn give_manifest(
    Shared(handlers): Shared<Handlers>,
    Path(hash): Path<String>,
    headers: HeaderMap,
) -> Response {
    if let Err(refusal) = handlers.authenticate(&headers).await {
        return refusal;
    }
    let Some(hash) = ManifestHash::parse(&hash) else { return not_a_hash() };
    let Some(manifest) = handlers.state.manifest(&hash) else {
        return (StatusCode::NOT_FOUND, "this extender does not have that manifest\n").into_response();
    };
    let Ok(_permit) = handlers.manifests.acquire().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    match tokio::task::spawn_blocking(move || manifest.encode()).await {
        Ok(bytes) => ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn take_manifest(
    Shared(handlers): Shared<Handlers>,
    Path(hash): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refusal) = handlers.authenticate(&headers).await {
        return refusal;
    }
    let Some(hash) = ManifestHash::parse(&hash) else { return not_a_hash() };
    let Ok(_permit) = handlers.manifests.acquire().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    match tokio::task::spawn_blocking(move || Manifest::decode_named(hash, &body)).await {
        Ok(Ok(manifest)) => {
            handlers.state.offer_manifest(hash, Arc::new(manifest));
            StatusCode::NO_CONTENT.into_response()
        }
        Ok(Err(error)) => (StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn not_a_hash() -> Response {
    (StatusCode::BAD_REQUEST, "a manifest is named by 64 hex digits\n").into_response()
}
