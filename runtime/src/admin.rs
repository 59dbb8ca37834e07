//! The server that operators and kubelet ask: `/healthz`, `/readyz`, `/metrics`.

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::{Encoder, Registry, TextEncoder};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Whether the program can do its work, with a sentence that says why or why not.
pub type Readiness = Result<String, String>;

/// The routes; `before_scrape` brings gauges up to date.
pub fn router(
    registry: Registry,
    ready: impl Fn() -> Readiness + Send + Sync + 'static,
    before_scrape: impl Fn() + Send + Sync + 'static,
) -> Router {
    let ready = Arc::new(ready);
    let scrape = Arc::new(move || {
        before_scrape();
        let mut text = Vec::new();
        match TextEncoder::new().encode(&registry.gather(), &mut text) {
            Ok(()) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    });
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || {
                let readiness = ready();
                async move {
                    match readiness {
                        Ok(why) => (StatusCode::OK, format!("ready: {why}\n")),
                        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
                    }
                }
            }),
        )
        .route("/metrics", get(move || std::future::ready(scrape())))
}

/// Serves until `shutdown`.
pub async fn serve(listen: SocketAddr, router: Router, shutdown: CancellationToken) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| anyhow::anyhow!("admin.listen {listen} cannot be used: {error}"))?;
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await?;
    Ok(())
}
