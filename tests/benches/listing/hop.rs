//! Stands between an agent and the S3 server, and notes which pages of listings are asked for.

use anyhow::{Context, Result};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use std::mem::take;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinHandle;

/// A request for a page, signed as it is.
#[derive(Clone)]
pub(crate) struct Asked {
    uri: Uri,
    headers: HeaderMap,
}

/// Dropping it closes the port.
pub(crate) struct Hop {
    endpoint: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    origin: String,
    client: reqwest::Client,
    asked: Mutex<Vec<Asked>>,
}

impl Hop {
    pub(crate) async fn start(origin: &str) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let client = reqwest::Client::builder().no_proxy().build()?;
        let shared = Arc::new(Shared { origin: origin.to_owned(), client, asked: Mutex::default() });
        let app = axum::Router::new().fallback(forward).with_state(Arc::clone(&shared));
        // Small replies on kept connections wait 40 ms for an acknowledgement otherwise.
        let listener = listener.tap_io(|stream| _ = stream.set_nodelay(true));
        let server = tokio::spawn(async move { _ = axum::serve(listener, app).await });
        Ok(Self { endpoint, shared, server })
    }

    pub(crate) fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// What was asked for since the last time.
    pub(crate) fn taken(&self) -> Vec<Asked> {
        take(&mut *self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks for a page again, by the same way; how many bytes it has.
    pub(crate) async fn ask(&self, page: &Asked) -> Result<usize> {
        let target = page.uri.path_and_query().context("a request without a path")?;
        let url = format!("{}{target}", self.endpoint);
        let answer = self.shared.client.get(url).headers(page.headers.clone()).send().await?;
        Ok(answer.error_for_status()?.bytes().await?.len())
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn forward(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    match pass_on(&shared, request).await {
        Ok(response) => response,
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    }
}

async fn pass_on(shared: &Shared, request: Request) -> Result<Response> {
    let (parts, _) = request.into_parts();
    let target = parts.uri.path_and_query().context("a request without a path")?;
    // `Host` goes along as it is: the signature covers it.
    let url = format!("{}{target}", shared.origin);
    let answer =
        shared.client.request(parts.method.clone(), url).headers(parts.headers.clone()).send().await?;
    if parts.method == Method::GET && target.as_str().contains("list-type=2") {
        let asked = Asked { uri: parts.uri, headers: parts.headers };
        shared.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
    }
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    headers.remove(header::TRANSFER_ENCODING);
    let mut response = Response::new(Body::from_stream(answer.bytes_stream()));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}
