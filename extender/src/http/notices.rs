//! Stores' notices of changed objects, over the agents' server: with a token of their own.

use crate::notices::Notices;
use crate::state::State;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State as Shared};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use hearth_core::notice;
use hearth_runtime::request_id::with_request_id;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

/// Where S3 and compatible stores send their events.
pub const S3: &str = "/v1/notices/s3";
/// Stores send one record, or a few hundred.
const LONGEST: usize = 1 << 20;
/// Longest time for one to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the handler lives by.
#[derive(Clone)]
pub struct Handlers {
    /// Where notices go.
    pub notices: Arc<Notices>,
    /// For the metrics.
    pub state: Arc<State>,
    /// File of the token that stores send.
    pub token_file: PathBuf,
}

/// The route.
pub fn router(handlers: Handlers) -> Router {
    Router::new()
        .route(S3, post(take))
        .layer(DefaultBodyLimit::max(LONGEST))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, PATIENCE))
        // Before anything is read of a body.
        .layer(middleware::from_fn_with_state(handlers.clone(), authenticated))
        .layer(CatchPanicLayer::new())
        .layer(middleware::from_fn(with_request_id))
        .with_state(handlers)
}

async fn authenticated(Shared(handlers): Shared<Handlers>, request: Request, next: Next) -> Response {
    match handlers.check(request.headers()).await {
        Ok(()) => next.run(request).await,
        Err((status, sentence)) => {
            handlers.count("refused");
            tracing::warn!("a store's notice was refused: {sentence}");
            (status, format!("{sentence}\n")).into_response()
        }
    }
}

async fn take(Shared(handlers): Shared<Handlers>, body: Bytes) -> Response {
    let changes = match notice::read(&body) {
        Ok(changes) => changes,
        Err(sentence) => {
            handlers.count("refused");
            return (StatusCode::BAD_REQUEST, format!("{sentence}\n")).into_response();
        }
    };
    // To one who has just started or is about to end nothing would come of it: the store sends it again.
    let is_synced = handlers.state.agents(|agents| agents.synced);
    let Some(datasets) = handlers.notices.take(&changes).filter(|_| is_synced) else {
        let sentence = "this replica does not know all Datasets yet, or is about to end: send it again\n";
        return (StatusCode::SERVICE_UNAVAILABLE, sentence).into_response();
    };
    handlers.count(if datasets > 0 { "taken" } else { "unconcerned" });
    (StatusCode::ACCEPTED, format!("{datasets} Datasets will be listed again\n")).into_response()
}

impl Handlers {
    fn count(&self, outcome: &str) {
        self.state.metrics.notices.with_label_values(&[outcome]).inc();
    }

    /// Whether whoever sends these headers knows the token.
    async fn check(&self, headers: &HeaderMap) -> Result<(), (StatusCode, String)> {
        let file = self.token_file.display();
        let token = tokio::fs::read_to_string(&self.token_file).await.map_err(|error| {
            let sentence = format!("no notices are taken: notices.tokenFile {file} cannot be read: {error}");
            (StatusCode::SERVICE_UNAVAILABLE, sentence)
        })?;
        let token = token.trim();
        if token.is_empty() {
            let sentence = format!("no notices are taken: notices.tokenFile {file} is empty");
            return Err((StatusCode::SERVICE_UNAVAILABLE, sentence));
        }
        let header = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let sent = header.map(|value| value.strip_prefix(b"Bearer ").unwrap_or(value)).unwrap_or_default();
        // Hashes are compared in constant time.
        match blake3::hash(sent) == blake3::hash(token.as_bytes()) {
            true => Ok(()),
            false => Err((
                StatusCode::UNAUTHORIZED,
                "send the token of notices.tokenFile as Authorization: Bearer".to_owned(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::watch::Known;
    use axum::body::Body;
    use hearth_core::index::Settings;
    use tower::ServiceExt;

    #[tokio::test]
    async fn only_who_knows_the_token_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let token_file = dir.path().join("token");
        let state = Arc::new(State::new(Settings::default(), Metrics::new().unwrap()));
        let handlers = Handlers {
            notices: Arc::new(Notices::new(Arc::new(Known::default()))),
            state: state.clone(),
            token_file: token_file.clone(),
        };
        let router = router(handlers);
        let send = async |authorization: &str, body: &'static str| {
            let request =
                Request::post(S3).header("authorization", authorization).body(Body::from(body)).unwrap();
            router.clone().oneshot(request).await.unwrap().status().as_u16()
        };
        let (good, empty) = ("Bearer hush", r#"{"Records": []}"#);
        std::fs::write(&token_file, "hush").unwrap();
        assert_eq!(send(good, empty).await, 503, "nothing is known yet");
        state.set_agents(|agents| agents.synced = true);
        std::fs::remove_file(&token_file).unwrap();
        assert_eq!(send(good, empty).await, 503, "there is no file");
        std::fs::write(&token_file, "\n").unwrap();
        assert_eq!(send("Bearer ", empty).await, 503, "an empty token is none");
        std::fs::write(&token_file, "hush\n").unwrap();
        for (authorization, body, status) in [
            (good, empty, 202),
            // As MinIO has it, when its configuration names no kind.
            ("hush", empty, 202),
            (good, "nonsense", 400),
            ("Bearer wrong", empty, 401),
            ("Bearer", empty, 401),
            ("", empty, 401),
        ] {
            assert_eq!(send(authorization, body).await, status, "{authorization} {body}");
        }
    }
}
