//! Manifests by hash: agents bring the ones that are missing here, and fetch those
//! that they miss.

use super::agents::Handlers;
use axum::body::Bytes;
use axum::extract::{FromRequest, Path, Request, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hearth_core::manifest::{Manifest, ManifestHash};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Manifests are large: so many are encoded at a time, and as many come in.
const AT_ONCE: usize = 2;
/// Longest time that a manifest may take to come in.
const UPLOAD: Duration = Duration::from_secs(120);

/// Bounds the work on manifests, and the memory for it.
pub(super) struct Manifests {
    encoding: Semaphore,
    /// Apart: whoever brings one slowly must not keep others from getting theirs.
    uploads: Semaphore,
    /// Encodings that are being sent: all agents ask for a new version at the same
    /// moment, and share one.
    sent: Mutex<HashMap<ManifestHash, Weak<Vec<u8>>>>,
}

impl Default for Manifests {
    fn default() -> Self {
        Self { encoding: Semaphore::new(AT_ONCE), uploads: Semaphore::new(AT_ONCE), sent: Mutex::default() }
    }
}

/// An encoding that lives as long as somebody sends it.
struct Shareable(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shareable {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Manifests {
    /// The encoding, made once for all who ask while it is sent.
    async fn encoding(&self, hash: ManifestHash, manifest: Arc<Manifest>) -> Result<Bytes, String> {
        if let Some(encoding) = self.sent(&hash) {
            return Ok(encoding);
        }
        let _permit = self.encoding.acquire().await.map_err(|error| error.to_string())?;
        // Somebody else may have made it while we waited.
        if let Some(encoding) = self.sent(&hash) {
            return Ok(encoding);
        }
        let encoding = tokio::task::spawn_blocking(move || Arc::new(manifest.encode()))
            .await
            .map_err(|error| error.to_string())?;
        let mut sent = self.sent.lock();
        sent.retain(|_, encoding| encoding.strong_count() > 0);
        sent.insert(hash, Arc::downgrade(&encoding));
        Ok(Bytes::from_owner(Shareable(encoding)))
    }

    fn sent(&self, hash: &ManifestHash) -> Option<Bytes> {
        let encoding = self.sent.lock().get(hash)?.upgrade()?;
        Some(Bytes::from_owner(Shareable(encoding)))
    }
}

/// `GET /v1/manifests/{hash}`
pub(super) async fn give(Shared(handlers): Shared<Handlers>, Path(hash): Path<String>) -> Response {
    let Some(hash) = ManifestHash::parse(&hash) else { return not_a_hash() };
    let Some(manifest) = handlers.state.manifest(&hash) else {
        return (StatusCode::NOT_FOUND, "this extender does not have that manifest\n").into_response();
    };
    match handlers.manifests.encoding(hash, manifest).await {
        Ok(bytes) => ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response(),
        Err(why) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")).into_response(),
    }
}

/// `PUT /v1/manifests/{hash}`
pub(super) async fn take(
    Shared(handlers): Shared<Handlers>,
    Path(hash): Path<String>,
    request: Request,
) -> Response {
    let Some(hash) = ManifestHash::parse(&hash) else { return not_a_hash() };
    // The permit before the body, so that few of them are in memory at a time.
    let Ok(_permit) = handlers.manifests.uploads.acquire().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let body = match tokio::time::timeout(UPLOAD, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => body,
        Ok(Err(rejection)) => return rejection.into_response(),
        Err(_) => {
            return (StatusCode::REQUEST_TIMEOUT, "the manifest did not come in time\n").into_response();
        }
    };
    // Several agents may bring the same one; the first is enough.
    if handlers.state.manifest(&hash).is_some() {
        return StatusCode::NO_CONTENT.into_response();
    }
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
