//! An S3 server of one bucket whose names and content are made when they are asked for.

use anyhow::{Result, bail, ensure};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode, header};
use bytes::Bytes;
use hearth_tests::cluster::Cluster;
use hearth_tests::datasets::credentials;
use hearth_tests::wait::eventually;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

const BUCKET: &str = "bucket";
const FOLDER: &str = "train";
const FETCH: Duration = Duration::from_secs(600);
/// Ten million names are listed in minutes.
const LISTING: Duration = Duration::from_secs(1200);
const PAGE: usize = 1_000;
const FILES_OF_DIRECTORY: usize = 1_000;
/// Objects differ in where they begin in the same bytes.
const BEGINNINGS: usize = 4_099;

/// The running server. Dropping it closes the port.
pub(crate) struct Origin {
    endpoint: String,
    bucket: Arc<Bucket>,
    server: JoinHandle<()>,
}

struct Bucket {
    files: usize,
    size: usize,
    content: Bytes,
    gets: AtomicUsize,
}

/// Serves a bucket of so many files of this size.
pub(crate) async fn start(files: usize, size: usize) -> Result<Origin> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let bucket = Arc::new(Bucket { files, size, content: content(size), gets: AtomicUsize::new(0) });
    let app = Router::new().fallback(answer).with_state(bucket.clone());
    let server = tokio::spawn(async move { _ = axum::serve(listener, app).await });
    Ok(Origin { endpoint, bucket, server })
}

impl Origin {
    /// Makes a dataset of all of it, listed once, and waits until it is.
    pub(crate) async fn dataset(&self, cluster: &Cluster, name: &str, cache: Value) -> Result<()> {
        cluster.kube.apply(&credentials()).await?;
        let origin = json!({
            "uri": format!("s3://{BUCKET}/{FOLDER}"),
            "secretRef": {"name": "s3-credentials"},
            "options": {"endpoint": self.endpoint, "region": "us-east-1"},
        });
        // Never: an agent that is measured is not to list.
        cluster.dataset(name, json!({"origins": [origin], "refresh": "Never", "cache": cache})).await?;
        eventually("it to be listed", LISTING, async || {
            let status = cluster.resource("dataset", name).await?["status"].clone();
            match status["version"]["manifest"].as_str() {
                Some(_) => Ok(()),
                None => bail!("{status}"),
            }
        })
        .await
    }

    /// Waits until so many objects were asked for.
    pub(crate) async fn answered(&self, gets: usize) -> Result<()> {
        eventually("objects to be fetched", FETCH, async || {
            let seen = self.bucket.gets.load(Ordering::Relaxed);
            ensure!(seen >= gets, "{seen} were");
            Ok(())
        })
        .await
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// As long as those of well-known datasets, and in the order in which S3 lists.
fn key(number: usize) -> String {
    let directory = number / FILES_OF_DIRECTORY;
    format!("{FOLDER}/n{directory:08}/n{directory:08}_{number:08}.JPEG")
}

fn number(key: &str) -> Option<usize> {
    key.strip_suffix(".JPEG")?.rsplit_once('_')?.1.parse().ok()
}

/// Differs in all its digits from one file to the next, as a digest does, and between buckets.
fn etag(bucket: &Bucket, number: usize) -> String {
    let what = number as u64 ^ ((bucket.files as u64) << 32);
    let half = |seed: u64| (what ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{:016x}{:016x}", half(1).rotate_left(29), half(u64::MAX).rotate_left(41))
}

/// Bytes in which no disk finds repetitions.
fn content(size: usize) -> Bytes {
    let mut state = 1u64;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_le_bytes()
    });
    words.take((size + BEGINNINGS) / 8 + 1).flatten().collect::<Vec<u8>>().into()
}

async fn answer(State(bucket): State<Arc<Bucket>>, request: Request) -> Response<Body> {
    let path = request.uri().path().trim_matches('/');
    let answered = match path.strip_prefix(BUCKET) {
        Some("") => Some(list(&bucket, request.uri().query().unwrap_or_default())),
        Some(key) => {
            number(key).filter(|number| *number < bucket.files).map(|number| get(&bucket, number, &request))
        }
        None => None,
    };
    answered.unwrap_or_else(|| {
        let mut missing = Response::new(Body::from("<Error><Code>NoSuchKey</Code></Error>"));
        *missing.status_mut() = StatusCode::NOT_FOUND;
        missing
    })
}

/// A page: its token is the number of its first file.
fn list(bucket: &Bucket, query: &str) -> Response<Body> {
    let token = query.split('&').find_map(|pair| pair.strip_prefix("continuation-token="));
    let first: usize = token.and_then(|token| token.parse().ok()).unwrap_or(0);
    let end = (first + PAGE).min(bucket.files);
    let mut body = "<ListBucketResult><EncodingType>url</EncodingType>".to_owned();
    for number in first..end {
        // Writing to a String cannot fail.
        let _ = write!(
            body,
            "<Contents><Key>{}</Key><LastModified>2026-01-02T03:{:02}:{:02}.000Z</LastModified><ETag>&quot;{}&quot;</ETag><Size>{}</Size></Contents>",
            key(number),
            number / 60 % 60,
            number % 60,
            etag(bucket, number),
            bucket.size,
        );
    }
    let goes_on = end < bucket.files;
    let _ = write!(body, "<IsTruncated>{goes_on}</IsTruncated>");
    if goes_on {
        let _ = write!(body, "<NextContinuationToken>{end}</NextContinuationToken>");
    }
    body += "</ListBucketResult>";
    Response::new(body.into())
}

fn get(bucket: &Bucket, number: usize, request: &Request) -> Response<Body> {
    bucket.gets.fetch_add(1, Ordering::Relaxed);
    let (begins, size) = (number % BEGINNINGS, bucket.size);
    let mut response = Response::new(Body::from(bucket.content.slice(begins..begins + size)));
    let headers = response.headers_mut();
    if let Ok(etag) = format!("\"{}\"", etag(bucket, number)).parse() {
        headers.insert(header::ETAG, etag);
    }
    // Every object is one block: a range is all of it.
    if request.headers().contains_key(header::RANGE) {
        if let Ok(range) = format!("bytes 0-{}/{size}", size - 1).parse() {
            headers.insert(header::CONTENT_RANGE, range);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}
