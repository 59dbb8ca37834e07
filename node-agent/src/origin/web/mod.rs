//! What the origins that speak HTTP share: how they are asked, what their answers mean
//! and how what comes is held to what was wanted.

mod answer;
mod check;
mod client;
mod endpoint;
mod pages;
pub(super) mod percent;
pub(super) mod ranges;
pub(super) mod time;

#[cfg(test)]
pub(super) use answer::tests::refusal;
pub(super) use answer::{Meaning, Refusal, body, unavailable};
pub(super) use check::{condition, quoted, same};
pub(super) use client::Clients;
pub(super) use endpoint::Endpoint;
pub(super) use pages::{Pages, below, unreadable};

use super::budget::Budget;
use super::find::Finder;
use super::{ByteStream, Found, Origin, OriginError, Retries, Sink, Turn, Urgency, Wanted};
use crate::metrics::Metrics;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use object_store::client::HttpRequestBody;
use std::fmt;
use std::sync::Arc;

/// A request while it is being made.
pub(super) type Request = http::Request<HttpRequestBody>;

/// Headers of a request.
pub(super) type Headers = Vec<(HeaderName, String)>;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// A page of a listing.
    List,
    /// What there is to know of an object.
    Head,
    /// Bytes of an object.
    Get,
}

impl Operation {
    fn label(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Head => "head",
            Self::Get => "get",
        }
    }

    fn method(self) -> Method {
        if self == Self::Head { Method::HEAD } else { Method::GET }
    }
}

/// What tells one kind of store from another.
pub(super) trait Dialect: fmt::Debug + Send + Sync + Sized + 'static {
    /// The label of the metrics.
    const SCHEME: &'static str;

    /// For sentences: the store.
    fn name(&self) -> String;

    /// For sentences: one object.
    fn shown(&self, key: &str) -> String;

    /// Adds to a request what says who asks.
    fn authorize(&self, request: &mut Request) -> impl Future<Output = Result<(), OriginError>> + Send;

    /// What said who asks was refused.
    fn denied(&self);

    /// Why a request was not granted.
    fn refusal(&self, refusal: &Refusal) -> OriginError;

    /// Lists what begins with `start` below the prefix.
    fn list(
        web: &Web<Self>,
        start: &str,
        sink: &mut dyn Sink,
    ) -> impl Future<Output = Result<(), OriginError>> + Send;

    /// The object of this path below the prefix; `None` when there is none.
    fn find(web: &Web<Self>, path: &str) -> impl Future<Output = Result<Option<Found>, OriginError>> + Send {
        async move {
            let mut finder = Finder::of(path);
            // In the first page: nothing that begins with the path stands before the path itself.
            let listing = Self::list(web, path, &mut finder).await;
            finder.outcome(listing)
        }
    }

    /// Gets bytes of an object, of the wanted content only.
    fn get(
        web: &Web<Self>,
        wanted: &Wanted<'_>,
    ) -> impl Future<Output = Result<ByteStream, OriginError>> + Send;
}

/// A store that is reached over HTTP.
#[derive(Debug)]
pub(super) struct Web<D> {
    http: reqwest::Client,
    pub(super) dialect: D,
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
}

impl<D: Dialect> Web<D> {
    pub(super) fn new(http: reqwest::Client, dialect: D, budget: Arc<Budget>, metrics: Arc<Metrics>) -> Self {
        Self { http, dialect, budget, metrics }
    }

    /// Sends a request once, and turns every answer but a success into an error.
    async fn send(
        &self,
        operation: Operation,
        url: &str,
        headers: &[(HeaderName, String)],
    ) -> Result<reqwest::Response, OriginError> {
        let result = self.send_uncounted(operation, url, headers).await;
        let outcome = result.as_ref().map_or_else(OriginError::outcome, |_| "ok");
        self.metrics.origin_requests.with_label_values(&[D::SCHEME, operation.label(), outcome]).inc();
        result
    }

    async fn send_uncounted(
        &self,
        operation: Operation,
        url: &str,
        headers: &[(HeaderName, String)],
    ) -> Result<reqwest::Response, OriginError> {
        let malformed = |error: &dyn fmt::Display| {
            OriginError::Refused(format!("no request can be made to {}: {error}", self.dialect.name()))
        };
        let mut request = http::Request::builder()
            .method(operation.method())
            .uri(url)
            .body(HttpRequestBody::empty())
            .map_err(|e| malformed(&e))?;
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).map_err(|e| malformed(&e))?;
            request.headers_mut().insert(name, value);
        }
        // Before it is signed: signatures age.
        self.budget.request().await;
        self.dialect.authorize(&mut request).await?;
        let url = request.uri().to_string().parse().map_err(|e| malformed(&e))?;
        let mut signed = reqwest::Request::new(operation.method(), url);
        *signed.headers_mut() = std::mem::take(request.headers_mut());
        let response = self.http.execute(signed).await.map_err(|error| self.unavailable(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let error = self.dialect.refusal(&Refusal::read(operation, response).await);
        if matches!(error, OriginError::Denied(_)) {
            self.dialect.denied();
        }
        Err(error)
    }

    /// A page of a listing, of at most `longest` bytes, with its headers; what may succeed is
    /// tried again.
    pub(super) async fn page(&self, longest: usize, url: &str) -> Result<(HeaderMap, Vec<u8>), OriginError> {
        let ask = || async {
            let _turn = self.budget.turn(Urgency::Background).await;
            let mut response = self.send(Operation::List, url, &[]).await?;
            let headers = std::mem::take(response.headers_mut());
            let body = answer::body(response, longest).await.map_err(|error| self.unavailable(error))?;
            let endless = || {
                let name = self.dialect.name();
                OriginError::Malformed(format!("{name} sent a page of a listing that does not end"))
            };
            Ok((headers, body.ok_or_else(endless)?))
        };
        self.budget.retries.run(ask).await
    }

    /// What there is to know of an object; what may succeed is tried again.
    pub(super) async fn head(&self, url: &str) -> Result<HeaderMap, OriginError> {
        let ask = || async {
            let _turn = self.budget.turn(Urgency::Background).await;
            Ok(std::mem::take(self.send(Operation::Head, url, &[]).await?.headers_mut()))
        };
        self.budget.retries.run(ask).await
    }

    /// Gets bytes of an object by the conditions of HTTP.
    pub(super) async fn validated(&self, wanted: &Wanted<'_>, url: &str) -> Result<ByteStream, OriginError> {
        let headers = vec![condition(wanted.validator)];
        self.object(wanted, url, headers, |answer| same(wanted.validator, answer)).await
    }

    /// Gets bytes of an object. `headers` ask for its wanted content only; `same` looks
    /// at an answer's headers whether it is that, and says what is not.
    pub(super) async fn object(
        &self,
        wanted: &Wanted<'_>,
        url: &str,
        mut headers: Headers,
        same: impl Fn(&HeaderMap) -> Result<(), &'static str>,
    ) -> Result<ByteStream, OriginError> {
        let whole = wanted.range == (0..wanted.size);
        if !whole {
            let last = wanted.range.end - 1;
            headers.push((http::header::RANGE, format!("bytes={}-{last}", wanted.range.start)));
        }
        let response = self.send(Operation::Get, url, &headers).await?;
        let name = self.dialect.name();
        let shown = self.dialect.shown(wanted.key);
        if let Err(what) = same(response.headers()) {
            return Err(check::changed(&shown, what));
        }
        check::extent(&name, &shown, wanted, whole, &response)?;
        let bytes = self.metrics.origin_bytes.with_label_values(&[D::SCHEME]);
        let chunks = response
            .bytes_stream()
            .map(move |chunk| chunk.map_err(|error| answer::unavailable(&name, error)));
        Ok(self.budget.paced(chunks, bytes))
    }

    fn unavailable(&self, error: reqwest::Error) -> OriginError {
        answer::unavailable(&self.dialect.name(), error)
    }
}

impl<D: Dialect> Origin for Web<D> {
    fn list<'a>(&'a self, sink: &'a mut dyn Sink) -> BoxFuture<'a, Result<(), OriginError>> {
        D::list(self, "", sink).boxed()
    }

    fn list_prefix<'a>(
        &'a self,
        start: &'a str,
        sink: &'a mut dyn Sink,
    ) -> BoxFuture<'a, Result<(), OriginError>> {
        D::list(self, start, sink).boxed()
    }

    fn find<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Found>, OriginError>> {
        D::find(self, path).boxed()
    }

    fn retries(&self) -> &Retries {
        &self.budget.retries
    }

    fn turn(&self, urgency: Urgency) -> BoxFuture<'_, Turn> {
        self.budget.turn(urgency).boxed()
    }

    fn most_at_once(&self) -> usize {
        self.budget.most_at_once()
    }

    fn get<'a>(&'a self, wanted: Wanted<'a>) -> BoxFuture<'a, Result<ByteStream, OriginError>> {
        async move { D::get(self, &wanted).await }.boxed()
    }
}
