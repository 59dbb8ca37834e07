//! A small S3 in the test's own process: any key, short pages, conditions and ranges,
//! and faults on demand.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use futures::StreamExt;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The bucket that it has.
pub(crate) const BUCKET: &str = "bucket";

/// Status, headers and body.
type Answer = (u16, Vec<(&'static str, String)>, String);

/// What is in it, and how it misbehaves.
#[derive(Debug)]
pub(crate) struct Faults {
    /// Objects by their raw keys, with content and ETag.
    pub(crate) objects: BTreeMap<Vec<u8>, (Vec<u8>, String)>,
    /// Answers to give before any true one.
    pub(crate) answers: VecDeque<Answer>,
    /// Bytes after which bodies of objects break off, one entry for each GET, and the
    /// signal to do so.
    pub(crate) cuts: VecDeque<(usize, watch::Receiver<bool>)>,
    /// Whether conditions are looked at.
    pub(crate) ignores_conditions: bool,
    /// Whether ranges are looked at.
    pub(crate) ignores_ranges: bool,
    /// Prefixes of the listings that were asked to begin behind a key.
    pub(crate) begun_behind: Vec<Vec<u8>>,
    /// Whether a listing begins at the beginning wherever it is asked to.
    pub(crate) ignores_start_after: bool,
    /// Whether keys are listed as a file system without capital letters has them, and not in the order of their bytes.
    pub(crate) folds_case: bool,
    /// Whether each page names itself as the next.
    pub(crate) circles: bool,
    /// Keys in a page.
    pub(crate) page: usize,
    /// The first byte asked for in each GET of an object, by key.
    pub(crate) gets: BTreeMap<String, Vec<usize>>,
    version: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            answers: VecDeque::new(),
            cuts: VecDeque::new(),
            ignores_conditions: false,
            ignores_ranges: false,
            begun_behind: Vec::new(),
            ignores_start_after: false,
            folds_case: false,
            circles: false,
            page: 500,
            gets: BTreeMap::new(),
            version: 0,
        }
    }
}

impl Faults {
    /// Writes an object.
    pub(crate) fn put(&mut self, key: &[u8], content: &[u8]) {
        self.version += 1;
        let etag = format!("\"{:x}-{}\"", content.len(), self.version);
        self.objects.insert(key.to_vec(), (content.to_vec(), etag));
    }
}

/// The running server. Dropping it closes the port.
#[derive(Debug)]
pub(crate) struct FakeS3 {
    pub(crate) address: SocketAddr,
    pub(crate) faults: Arc<Mutex<Faults>>,
    /// GETs of keys that contain this text wait until it is another.
    pub(crate) held: watch::Sender<Option<&'static str>>,
    server: JoinHandle<()>,
}

type Shared = (Arc<Mutex<Faults>>, watch::Receiver<Option<&'static str>>);

impl FakeS3 {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let faults = Arc::new(Mutex::new(Faults::default()));
        let held = watch::Sender::new(None);
        let shared: Shared = (faults.clone(), held.subscribe());
        let app = Router::new().fallback(answer).with_state(shared);
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, faults, held, server }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for FakeS3 {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State((faults, mut held)): State<Shared>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    held.wait_for(|held| held.is_none_or(|held| !path.contains(held))).await.unwrap();
    let mut faults = faults.lock();
    if let Some((status, headers, body)) = faults.answers.pop_front() {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        return response.body(Body::from(body)).unwrap();
    }
    if request.headers().get("authorization").is_none() {
        return error(StatusCode::FORBIDDEN, "AccessDenied");
    }
    match path.strip_prefix(&format!("/{BUCKET}")) {
        Some("" | "/") => list(&mut faults, request.uri().query().unwrap_or_default()),
        Some(key) => get(&mut faults, &percent_decoded(&key[1..]), request.headers()),
        None => error(StatusCode::NOT_FOUND, "NoSuchBucket"),
    }
}

fn list(faults: &mut Faults, query: &str) -> Response<Body> {
    let parameter = |name: &str| {
        let pair = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
        pair.map(percent_decoded).unwrap_or_default()
    };
    let (prefix, token) = (parameter("prefix"), parameter("continuation-token"));
    assert_eq!(parameter("encoding-type"), b"url");
    let mut after = unhex(std::str::from_utf8(&token).unwrap());
    if !parameter("start-after").is_empty() {
        faults.begun_behind.push(prefix.clone());
    }
    if after.is_empty() && !faults.ignores_start_after {
        after = parameter("start-after");
    }
    let folds_case = faults.folds_case;
    let place = |key: &[u8]| (if folds_case { key.to_ascii_lowercase() } else { key.to_vec() }, key.to_vec());
    let keys = faults.objects.iter().filter(|(key, _)| key.starts_with(&prefix));
    let is_behind = |key: &[u8]| after.is_empty() || faults.circles || place(key) > place(&after);
    let mut rest: Vec<_> = keys.filter(|(key, _)| is_behind(key)).collect();
    rest.sort_by_cached_key(|(key, _)| place(key));
    let mut body = "<?xml version=\"1.0\"?><ListBucketResult><EncodingType>url</EncodingType>".to_owned();
    for (key, (content, etag)) in rest.iter().take(faults.page) {
        body += &format!(
            "<Contents><Key>{}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
            percent_encoded(key),
            etag.replace('"', "&quot;"),
            content.len()
        );
    }
    let truncated = rest.len() > faults.page;
    body += &format!("<IsTruncated>{truncated}</IsTruncated>");
    if truncated {
        let last: String = rest[faults.page - 1].0.iter().map(|byte| format!("{byte:02x}")).collect();
        body += &format!("<NextContinuationToken>{last}</NextContinuationToken>");
    }
    body += "</ListBucketResult>";
    Response::new(Body::from(body))
}

fn get(faults: &mut Faults, key: &[u8], headers: &HeaderMap) -> Response<Body> {
    let Some((content, etag)) = faults.objects.get(key).cloned() else {
        return error(StatusCode::NOT_FOUND, "NoSuchKey");
    };
    let header = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let first =
        header(header::RANGE).and_then(|range| range["bytes=".len()..].split_once('-')?.0.parse().ok());
    let gets = faults.gets.entry(String::from_utf8_lossy(key).into_owned()).or_default();
    gets.push(first.unwrap_or(0));
    if let Some(expected) = header(header::IF_MATCH)
        && expected != etag
        && !faults.ignores_conditions
    {
        return error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
    }
    let mut response = Response::builder().header(header::ETAG, etag);
    let total = content.len();
    let mut body = content;
    if let Some(range) = header(header::RANGE).filter(|_| !faults.ignores_ranges) {
        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        if first >= total {
            return error(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
        }
        let last = last.min(total - 1);
        body = body[first..=last].to_vec();
        response = response
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, format!("bytes {first}-{last}/{total}"));
    }
    response = response.header(header::CONTENT_LENGTH, body.len());
    let body = match faults.cuts.pop_front() {
        None => Body::from(body),
        Some((at, mut signal)) => {
            let begun = bytes::Bytes::from(body[..at.min(body.len())].to_vec());
            let broken = async move {
                // Without the sender nobody waits for more either.
                let _ = signal.wait_for(|signal| *signal).await;
                Err(std::io::Error::other("cut"))
            };
            Body::from_stream(futures::stream::iter([Ok(begun)]).chain(futures::stream::once(broken)))
        }
    };
    response.body(body).unwrap()
}

fn error(status: StatusCode, code: &str) -> Response<Body> {
    let body = format!("<Error><Code>{code}</Code><Message>as asked</Message></Error>");
    Response::builder().status(status).body(Body::from(body)).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        if *first == b'%' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&behind[..2]).unwrap(), 16).unwrap());
            rest = &behind[2..];
        } else {
            bytes.push(*first);
            rest = behind;
        }
    }
    bytes
}

/// As AWS does it: a space is a plus.
fn percent_encoded(bytes: &[u8]) -> String {
    let one = |byte: &u8| match byte {
        b' ' => "+".to_owned(),
        b'/' | b'-' | b'.' | b'_' | b'*' => (*byte as char).to_string(),
        byte if byte.is_ascii_alphanumeric() => (*byte as char).to_string(),
        byte => format!("%{byte:02X}"),
    };
    bytes.iter().map(one).collect()
}
