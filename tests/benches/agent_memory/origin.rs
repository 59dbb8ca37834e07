//! An S3 server of one bucket whose names and content are made when they are asked for.

use anyhow::{Result, ensure};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode, header};
use hearth_tests::wait::eventually;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

pub(crate) const BUCKET: &str = "bucket";
pub(crate) const FOLDER: &str = "train";
/// Objects that are fetched before the last look at the agent.
pub(crate) const MANY_GETS: usize = 20_000;
const FETCH: Duration = Duration::from_secs(300);
const PAGE: usize = 1_000;
const FILES_OF_DIRECTORY: usize = 1_000;
const SIZE: usize = 100;

/// The running server. Dropping it closes the port.
pub(crate) struct Origin {
    pub(crate) endpoint: String,
    bucket: Arc<Bucket>,
    server: JoinHandle<()>,
}

struct Bucket {
    files: usize,
    gets: AtomicUsize,
}

/// Serves a bucket of so many files.
pub(crate) async fn start(files: usize) -> Result<Origin> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let bucket = Arc::new(Bucket { files, gets: AtomicUsize::new(0) });
    let app = Router::new().fallback(answer).with_state(bucket.clone());
    let server = tokio::spawn(async move { _ = axum::serve(listener, app).await });
    Ok(Origin { endpoint, bucket, server })
}

impl Origin {
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

/// Differs in all its digits from one file to the next, as a digest does.
fn etag(number: usize) -> String {
    let half = |seed: u64| (number as u64 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{:016x}{:016x}", half(1).rotate_left(29), half(u64::MAX).rotate_left(41))
}

async fn answer(State(bucket): State<Arc<Bucket>>, request: Request) -> Response<String> {
    let path = request.uri().path().trim_matches('/');
    let answered = match path.strip_prefix(BUCKET) {
        Some("") => Some(list(&bucket, request.uri().query().unwrap_or_default())),
        Some(key) => {
            number(key).filter(|number| *number < bucket.files).map(|number| get(&bucket, number, &request))
        }
        None => None,
    };
    answered.unwrap_or_else(|| {
        let mut missing = Response::new("<Error><Code>NoSuchKey</Code></Error>".to_owned());
        *missing.status_mut() = StatusCode::NOT_FOUND;
        missing
    })
}

/// A page: its token is the number of its first file.
fn list(bucket: &Bucket, query: &str) -> Response<String> {
    let token = query.split('&').find_map(|pair| pair.strip_prefix("continuation-token="));
    let first: usize = token.and_then(|token| token.parse().ok()).unwrap_or(0);
    let end = (first + PAGE).min(bucket.files);
    let mut body = "<ListBucketResult><EncodingType>url</EncodingType>".to_owned();
    for number in first..end {
        // Writing to a String cannot fail.
        let _ = write!(
            body,
            "<Contents><Key>{}</Key><LastModified>2026-01-02T03:{:02}:{:02}.000Z</LastModified><ETag>&quot;{}&quot;</ETag><Size>{SIZE}</Size></Contents>",
            key(number),
            number / 60 % 60,
            number % 60,
            etag(number),
        );
    }
    let goes_on = end < bucket.files;
    let _ = write!(body, "<IsTruncated>{goes_on}</IsTruncated>");
    if goes_on {
        let _ = write!(body, "<NextContinuationToken>{end}</NextContinuationToken>");
    }
    body += "</ListBucketResult>";
    Response::new(body)
}

fn get(bucket: &Bucket, number: usize, request: &Request) -> Response<String> {
    bucket.gets.fetch_add(1, Ordering::Relaxed);
    let mut response = Response::new(format!("{number:0>SIZE$}"));
    let headers = response.headers_mut();
    if let Ok(etag) = format!("\"{}\"", etag(number)).parse() {
        headers.insert(header::ETAG, etag);
    }
    // Every object is one block: a range is all of it.
    if request.headers().contains_key(header::RANGE) {
        if let Ok(range) = format!("bytes 0-{}/{SIZE}", SIZE - 1).parse() {
            headers.insert(header::CONTENT_RANGE, range);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}
