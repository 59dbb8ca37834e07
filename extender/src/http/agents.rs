//! Agents' reports, over TLS.

#[cfg(test)]
mod tests;

use super::manifests::{self, Manifests};
use crate::auth::{Agent, Refused, Verifier};
use crate::state::{State, Woken};
use anyhow::Context;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use axum_server::tls_rustls::RustlsConfig;
use hearth_core::wire::report::{
    CONTENT_TYPE, MAX_HOLD_MILLIS, OLDEST_PROTOCOL, PROTOCOL, Reply, Report, Verdict, WireError,
    decode_report, encode,
};
use hearth_runtime::request_id::with_request_id;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

const REPORT: &str = "/v1/report";
/// Longest time for a report to arrive and be answered; the reply is held for a part of it.
const REPORT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time for a manifest to arrive.
const MANIFEST_TIMEOUT: Duration = Duration::from_secs(300);
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
    pub(super) manifests: Arc<Manifests>,
}

impl Handlers {
    /// Handlers over this state.
    pub fn new(state: Arc<State>, verifier: Arc<Verifier>, shutdown: CancellationToken) -> Self {
        Self { state, verifier, shutdown, manifests: Arc::default() }
    }
}

/// The routes.
pub fn router(handlers: Handlers, report_limit: usize, manifest_limit: usize) -> Router {
    let timeout = |limit| TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, limit);
    let reports = Router::new()
        .route(REPORT, post(report))
        .layer(DefaultBodyLimit::max(report_limit))
        .layer(timeout(REPORT_TIMEOUT));
    let manifests = Router::new()
        .route("/v1/manifests/{hash}", get(manifests::give).put(manifests::take))
        .layer(DefaultBodyLimit::max(manifest_limit))
        .layer(timeout(MANIFEST_TIMEOUT));
    reports
        .merge(manifests)
        // Before anything is read of a body: strangers shall not fill our memory.
        .layer(middleware::from_fn_with_state(handlers.clone(), authenticated))
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

/// Lets agents through, and tells the handlers which one it is.
async fn authenticated(Shared(handlers): Shared<Handlers>, mut request: Request, next: Next) -> Response {
    match handlers.authenticate(request.headers()).await {
        Ok(agent) => {
            request.extensions_mut().insert(agent);
            next.run(request).await
        }
        Err(refusal) => {
            if request.uri().path() == REPORT {
                handlers.count("unauthorized");
            }
            refusal
        }
    }
}

async fn report(
    Shared(handlers): Shared<Handlers>,
    Extension(agent): Extension<Agent>,
    body: Bytes,
) -> Response {
    let started = Instant::now();
    let report = match decode_report(&body) {
        Ok(report) => report,
        Err(error) => {
            handlers.count("refused");
            return refusal(&error);
        }
    };
    if report.speaker.node != agent.node || report.speaker.node_uid != agent.node_uid {
        handlers.count("unauthorized");
        let why = format!(
            "the token is of an agent on node {} ({}), and the report is for {} ({})\n",
            agent.node, agent.node_uid, report.speaker.node, report.speaker.node_uid
        );
        tracing::warn!("a report was refused: {}", why.trim_end());
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    let reply = handlers.hear(report, started).await;
    handlers.count(match reply.verdict {
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
    fn count(&self, outcome: &str) {
        self.state.metrics.reports.with_label_values(&[outcome]).inc();
    }

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
            let spoken = orders.spoken(protocol);
            let digest = if matches!(spoken, Cow::Owned(_)) { spoken.digest() } else { digest };
            let need_manifests = self.state.manifests_to_ask(&node);
            let news = digest != seen;
            let reply = |need_manifests| Reply {
                protocol,
                verdict: verdict.clone(),
                orders: news.then(|| spoken.as_ref().clone()),
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
                Refused::NotYet => StatusCode::SERVICE_UNAVAILABLE,
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
