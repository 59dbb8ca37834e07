//! Stands before the S3 server: counts what is asked of the origin, can hold requests back, can make them fail, and
//! can be far away.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::serve::ListenerExt as _;
use futures::TryStreamExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::throttle::{Line, Throttle};

/// What was asked of the origin since the last [`OriginProxy::reset`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginCounts {
    /// GETs of objects.
    pub gets: u64,
    /// HEADs of objects.
    pub heads: u64,
    /// Pages of listings.
    pub lists: u64,
    /// GETs that the origin refused because the object had changed (412).
    pub changed: u64,
    /// Bytes of objects' content sent.
    pub bytes: u64,
    /// Bytes sent by object, as `bucket/key`.
    pub by_object: BTreeMap<String, u64>,
}

/// A proxy on a port of its own. Dropping it closes the port.
#[derive(Debug)]
pub struct OriginProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    origin: String,
    client: reqwest::Client,
    counts: Mutex<OriginCounts>,
    /// How many more GETs of objects may pass; no number means all.
    passing: watch::Sender<Option<u64>>,
    /// How many of the next GETs of objects fail with 503.
    failing: watch::Sender<u64>,
    /// Between here and whoever asks; none is a short one.
    line: Mutex<Option<Arc<Line>>>,
}

impl OriginProxy {
    /// Opens a port of `address` that leads to `origin` (`http://HOST:PORT`).
    ///
    /// # Errors
    /// When no port can be opened.
    pub async fn start(address: Ipv4Addr, origin: &str) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind((address, 0))
            .await
            .context("cannot open a port for the origin's proxy")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            origin: origin.to_owned(),
            client: reqwest::Client::builder().no_proxy().build()?,
            counts: Mutex::default(),
            passing: watch::Sender::new(None),
            failing: watch::Sender::new(0),
            line: Mutex::default(),
        });
        let app = axum::Router::new().fallback(forward).with_state(Arc::clone(&shared));
        // Small replies on kept connections wait 40 ms for an acknowledgement otherwise.
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        let server = tokio::spawn(async move {
            // Serving ends only when the task is aborted.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { address, shared, server })
    }

    /// `http://HOST:PORT` to give to the agents.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was counted until now.
    #[must_use]
    pub fn counts(&self) -> OriginCounts {
        self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts from zero again.
    pub fn reset(&self) {
        *self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner) = OriginCounts::default();
    }

    /// Lets `n` more GETs of objects through and holds those after them until [`Self::release_gets`].
    pub fn hold_gets_after(&self, n: u64) {
        self.shared.passing.send_replace(Some(n));
    }

    /// How many GETs of objects are held now.
    #[must_use]
    pub fn held(&self) -> usize {
        // Each of them waits for a change.
        self.shared.passing.receiver_count()
    }

    /// Lets all GETs through, those that were held first.
    pub fn release_gets(&self) {
        self.shared.passing.send_replace(None);
    }

    /// Answers the next `n` GETs of objects with 503, as an origin under pressure does.
    pub fn fail_next_gets(&self, n: u64) {
        self.shared.failing.send_replace(n);
    }

    /// Puts the origin far away from the requests that come from now on, or back.
    pub fn throttle(&self, throttle: Option<Throttle>) {
        let line = throttle.map(|throttle| Arc::new(Line::new(throttle)));
        *self.shared.line.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }
}

impl Drop for OriginProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn count(&self, change: impl FnOnce(&mut OriginCounts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn line(&self) -> Option<Arc<Line>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn may_pass(&self) {
        let mut changes = self.passing.subscribe();
        loop {
            let mut passed = false;
            self.passing.send_if_modified(|left| {
                passed = *left != Some(0);
                if let Some(n) = left.as_mut().filter(|n| **n > 0) {
                    *n -= 1;
                }
                false
            });
            // The sender lives in `self`: an error cannot be.
            if passed || changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn must_fail(&self) -> bool {
        self.failing.send_if_modified(|left| {
            let fails = *left > 0;
            *left = left.saturating_sub(1);
            fails
        })
    }
}

/// The object that a path-style request is about; none for buckets and listings.
fn object(path: &str) -> Option<&str> {
    let path = path.trim_start_matches('/');
    path.split_once('/').filter(|(_, key)| !key.is_empty()).map(|_| path)
}

async fn forward(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    match pass_on(&shared, request).await {
        Ok(response) => response,
        Err(e) => (StatusCode::BAD_GATEWAY, format!("the origin does not answer: {e:#}")).into_response(),
    }
}

async fn pass_on(shared: &Arc<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let object = object(parts.uri.path()).map(str::to_owned);
    match (&object, &parts.method) {
        (Some(_), &Method::GET) => {
            shared.may_pass().await;
            shared.count(|c| c.gets += 1);
            if shared.must_fail() {
                return Ok(StatusCode::SERVICE_UNAVAILABLE.into_response());
            }
        }
        (Some(_), &Method::HEAD) => shared.count(|c| c.heads += 1),
        (None, &Method::GET) => shared.count(|c| c.lists += 1),
        _ => {}
    }
    let line = shared.line();
    if let Some(line) = &line {
        line.latency().await;
    }
    let target = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    // The headers go through untouched, `Host` among them: the signature covers it.
    let answer = shared
        .client
        .request(parts.method.clone(), format!("{}{target}", shared.origin))
        .headers(end_to_end(&parts.headers))
        .body(reqwest::Body::wrap_stream(body.into_data_stream()))
        .send()
        .await?;
    if answer.status() == StatusCode::PRECONDITION_FAILED {
        shared.count(|c| c.changed += 1);
    }
    let status = answer.status();
    let headers = end_to_end(answer.headers());
    let counter = Arc::clone(shared);
    let content = status.is_success() && parts.method == Method::GET;
    let stream = answer.bytes_stream().inspect_ok(move |chunk| {
        if let Some(object) = object.as_ref().filter(|_| content) {
            counter.count(|c| {
                c.bytes += chunk.len() as u64;
                *c.by_object.entry(object.clone()).or_default() += chunk.len() as u64;
            });
        }
    });
    let stream = stream.and_then(move |chunk| {
        let line = line.clone();
        async move {
            if let Some(line) = line {
                line.carry(chunk.len()).await;
            }
            Ok(chunk)
        }
    });
    let mut response = Response::new(Body::from_stream(stream));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Headers without those that are about one connection.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::EXPECT] {
        kept.remove(name);
    }
    kept
}
