//! `s3://`: S3 and what speaks as it does.
//!
//! Requests are made here and signed by `object_store`, which also knows the
//! platform's ways to get credentials. Its own client is not used: its keys cannot
//! have empty segments, its listing fails whole on one that has, and it tries
//! again behind the caller's back.

mod answer;
mod credentials;
#[cfg(test)]
pub(crate) mod fake;
mod list;
mod place;
#[cfg(test)]
pub(crate) mod tests;

pub(super) use credentials::{Credentials, PlatformIdentity};
pub(super) use place::Place;

use super::{ByteStream, Found, Origin, OriginError, Retries, Sink, Wanted};
use crate::config::OriginConfig;
use crate::metrics::Metrics;
use anyhow::Context;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use hearth_core::object::Validator;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use object_store::aws::AwsAuthorizer;
use object_store::client::HttpRequestBody;
use std::sync::Arc;

/// The client of all S3 origins.
pub(super) fn client(config: &OriginConfig) -> anyhow::Result<reqwest::Client> {
    let mut client = reqwest::Client::builder()
        // Parallel streams want connections of their own, not one to share.
        .http1_only()
        .connect_timeout(config.connect_timeout)
        .read_timeout(config.read_timeout)
        .pool_max_idle_per_host(config.concurrency)
        // A redirect would carry a signature to wherever it points.
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .user_agent(concat!("hearth-node-agent/", env!("CARGO_PKG_VERSION")));
    if let Some(file) = &config.ca_file {
        let pem = std::fs::read(file)
            .with_context(|| format!("origin.caFile {} cannot be read", file.display()))?;
        let authorities = reqwest::Certificate::from_pem_bundle(&pem)
            .with_context(|| format!("origin.caFile {} is no PEM file of certificates", file.display()))?;
        client = client.tls_certs_merge(authorities);
    }
    client.build().context("the client of S3 origins cannot be made")
}

/// A bucket, or what lies below a prefix of it.
#[derive(Debug)]
pub(super) struct S3Origin {
    http: reqwest::Client,
    place: Place,
    credentials: Credentials,
    retries: Arc<Retries>,
    metrics: Arc<Metrics>,
}

impl S3Origin {
    pub(super) fn new(
        http: reqwest::Client,
        place: Place,
        credentials: Credentials,
        retries: Arc<Retries>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { http, place, credentials, retries, metrics }
    }

    /// Sends a signed GET and turns every answer but a success into an error.
    async fn send(
        &self,
        operation: &'static str,
        url: &str,
        headers: &[(HeaderName, String)],
    ) -> Result<reqwest::Response, OriginError> {
        let result = self.send_uncounted(url, headers).await;
        let outcome = result.as_ref().map_or_else(OriginError::outcome, |_| "ok");
        self.metrics.origin_requests.with_label_values(&["s3", operation, outcome]).inc();
        result
    }

    async fn send_uncounted(
        &self,
        url: &str,
        headers: &[(HeaderName, String)],
    ) -> Result<reqwest::Response, OriginError> {
        let malformed = |error: &dyn std::fmt::Display| {
            OriginError::Refused(format!("no request can be made to {}: {error}", self.place.name()))
        };
        let mut request =
            http::Request::get(url).body(HttpRequestBody::empty()).map_err(|e| malformed(&e))?;
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).map_err(|e| malformed(&e))?;
            request.headers_mut().insert(name, value);
        }
        if let Some(credential) = self.credentials.get().await? {
            AwsAuthorizer::new(&credential, "s3", self.place.region())
                .try_authorize(&mut request, None)
                .map_err(|e| malformed(&e))?;
        }
        let mut signed = reqwest::Request::new(http::Method::GET, url.parse().map_err(|e| malformed(&e))?);
        *signed.headers_mut() = std::mem::take(request.headers_mut());
        let response = self.http.execute(signed).await.map_err(|error| self.unavailable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(answer::error(&self.place, response).await)
    }

    fn unavailable(&self, error: &reqwest::Error) -> OriginError {
        answer::unavailable(&self.place, error)
    }
}

impl Origin for S3Origin {
    fn list<'a>(&'a self, sink: &'a mut dyn Sink) -> BoxFuture<'a, Result<(), OriginError>> {
        list::list(self, "", sink).boxed()
    }

    fn find<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Found>, OriginError>> {
        list::find(self, path).boxed()
    }

    fn get<'a>(&'a self, wanted: Wanted<'a>) -> BoxFuture<'a, Result<ByteStream, OriginError>> {
        async move {
            let whole = wanted.range == (0..wanted.size);
            let mut headers = Vec::with_capacity(2);
            headers.push(match wanted.validator.if_match() {
                Some(etag) => (http::header::IF_MATCH, etag),
                None => (http::header::IF_UNMODIFIED_SINCE, http_date(wanted.validator)),
            });
            if !whole {
                let last = wanted.range.end - 1;
                headers.push((http::header::RANGE, format!("bytes={}-{last}", wanted.range.start)));
            }
            let response = self.send("get", &self.place.object(wanted.key), &headers).await?;
            check(&self.place, &wanted, whole, &response)?;
            let (place, metrics) = (self.place.clone(), self.metrics.clone());
            let bytes = metrics.origin_bytes.with_label_values(&["s3"]);
            let stream = response.bytes_stream().map(move |chunk| {
                let chunk = chunk.map_err(|error| answer::unavailable(&place, &error))?;
                bytes.inc_by(chunk.len() as u64);
                Ok(chunk)
            });
            Ok(stream.boxed())
        }
        .boxed()
    }
}

/// Checks that an answer has the bytes that were wanted, also of stores that take
/// no notice of conditions or ranges.
fn check(
    place: &Place,
    wanted: &Wanted<'_>,
    whole: bool,
    answer: &reqwest::Response,
) -> Result<(), OriginError> {
    let changed = |what: &str| {
        OriginError::Changed(format!("{} is no longer as it was listed: {what}", place.shown(wanted.key)))
    };
    let headers = answer.headers();
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let (Some(expected), Some(found)) = (wanted.validator.if_match(), text(http::header::ETAG))
        && list::quoted(found) != expected
    {
        return Err(changed("its ETag is another"));
    }
    if let (Validator::Modified(_), Some(found)) = (wanted.validator, text(http::header::LAST_MODIFIED))
        && found != http_date(wanted.validator)
    {
        return Err(changed("its last change is another"));
    }
    let total = if whole {
        answer.content_length()
    } else {
        if answer.status() != http::StatusCode::PARTIAL_CONTENT {
            return Err(OriginError::Malformed(format!(
                "{} answers a range with the whole object",
                place.name()
            )));
        }
        content_range(headers).filter(|(range, _)| *range == wanted.range).map(|(_, total)| total)
    };
    match total {
        Some(total) if total == wanted.size => Ok(()),
        Some(total) => Err(changed(&format!("it has {total} bytes, not {}", wanted.size))),
        // A length that is not told is counted by the reader.
        None if whole => Ok(()),
        None => Err(OriginError::Malformed(format!(
            "{} answers with another range than was asked for",
            place.name()
        ))),
    }
}

/// The range and the total of `Content-Range: bytes 0-9/100`.
fn content_range(headers: &HeaderMap) -> Option<(std::ops::Range<u64>, u64)> {
    let text = headers.get(http::header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let end = last.parse::<u64>().ok()?.checked_add(1)?;
    Some((first.parse().ok()?..end, total.parse().ok()?))
}

/// A time of last change as HTTP has it, in whole seconds.
fn http_date(validator: &Validator) -> String {
    let nanos = match validator {
        Validator::Modified(nanos) => *nanos,
        Validator::ETag(_) | Validator::HexETag(_) => 0,
    };
    jiff::Timestamp::from_second(nanos.div_euclid(1_000_000_000))
        .and_then(|time| jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time))
        .unwrap_or_default()
}
