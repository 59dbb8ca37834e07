//! A request id on every request: taken from the caller or made, in the log's span
//! and in the reply.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::Instrument;

/// The header that carries it.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
const MAX_LENGTH: usize = 128;

/// A new id, which no other process is likely to make: programs in containers all have the process id 1.
pub fn fresh() -> HeaderValue {
    static PROCESS: LazyLock<u32> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()) as u32);
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // Digits and hex only: always a valid header.
    HeaderValue::from_str(&format!("{:08x}-{number:x}", *PROCESS))
        .unwrap_or_else(|_| HeaderValue::from_static("none"))
}

/// Middleware that gives each request its id.
pub async fn with_request_id(mut request: Request, next: Next) -> Response {
    let given =
        request.headers().get(&HEADER).filter(|id| id.len() <= MAX_LENGTH && id.to_str().is_ok()).cloned();
    let id = given.unwrap_or_else(fresh);
    request.headers_mut().insert(HEADER, id.clone());
    // At the level that is shipped, or no line would have the id.
    let span =
        tracing::info_span!("request", id = id.to_str().unwrap_or_default(), path = request.uri().path());
    let mut response = next.run(request).instrument(span).await;
    response.headers_mut().insert(HEADER, id);
    response
}
