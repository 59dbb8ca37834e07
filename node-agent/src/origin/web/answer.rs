//! What answers that are no success mean.

use super::Operation;
use crate::origin::{OriginError, shown};
use http::StatusCode;
use http::header::{HeaderMap, RETRY_AFTER};
use std::time::Duration;

/// An error's body is read this far.
const LONGEST_BODY: usize = 64 << 10;

/// Why a request got no answer.
pub(in crate::origin) fn unavailable(name: &str, error: reqwest::Error) -> OriginError {
    // A URL may have a signature in it.
    let error = error.without_url();
    // The innermost cause is what helps: "connection refused", "certificate expired".
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let what = if error.is_timeout() { "does not answer in time" } else { "cannot be reached" };
    OriginError::Unavailable(format!("{name} {what}: {}", shown(&cause.to_string())))
}

/// An answer that is no success.
#[derive(Debug)]
pub(in crate::origin) struct Refusal {
    pub(in crate::origin) operation: Operation,
    pub(in crate::origin) status: StatusCode,
    pub(in crate::origin) headers: HeaderMap,
    pub(in crate::origin) body: Vec<u8>,
}

impl Refusal {
    pub(in crate::origin) async fn read(operation: Operation, mut response: reqwest::Response) -> Self {
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let body = body(response, LONGEST_BODY).await.ok().flatten().unwrap_or_default();
        Self { operation, status, headers, body }
    }

    /// A header's text.
    pub(in crate::origin) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What the store said, from its code and message or else from the status.
    pub(in crate::origin) fn said(&self, code: &str, message: &str) -> String {
        match (code, message) {
            ("", "") => self.status.to_string(),
            ("", message) => format!("{}: {}", self.status, shown(message)),
            (code, "") => shown(code),
            (code, message) => format!("{}: {}", shown(code), shown(message)),
        }
    }

    /// The error in one sentence: `name` is the store and `who` asked it.
    pub(in crate::origin) fn error(
        &self,
        meaning: Meaning,
        name: &str,
        who: &str,
        said: &str,
    ) -> OriginError {
        match meaning {
            Meaning::Changed => {
                OriginError::Changed(format!("an object of {name} is no longer as it was listed ({said})"))
            }
            Meaning::Gone => OriginError::Gone(format!("an object of {name} is no longer there ({said})")),
            Meaning::Missing => OriginError::NotFound(format!("{name} does not exist ({said})")),
            Meaning::Throttled => OriginError::Throttled {
                message: format!("{name} asks for fewer requests ({said})"),
                retry_after: retry_after(&self.headers),
            },
            Meaning::GaveUp => OriginError::Unavailable(format!("{name} gave up on a request ({said})")),
            Meaning::Denied => OriginError::Denied(format!("{name} denies access to {who} ({said})")),
            Meaning::Failing => OriginError::Unavailable(format!("{name} fails ({said})")),
            Meaning::Refused => OriginError::Refused(format!("{name} refuses the request ({said})")),
        }
    }
}

/// How an answer is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::origin) enum Meaning {
    /// The object has another content.
    Changed,
    /// The object does not exist.
    Gone,
    /// The bucket, or what else is listed, does not exist.
    Missing,
    Throttled,
    GaveUp,
    Denied,
    Failing,
    Refused,
}

impl Meaning {
    /// What the status alone says.
    pub(in crate::origin) fn of(operation: Operation, status: StatusCode) -> Self {
        match status {
            StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE => Self::Changed,
            StatusCode::NOT_FOUND | StatusCode::GONE if operation == Operation::Get => Self::Gone,
            StatusCode::NOT_FOUND | StatusCode::GONE => Self::Missing,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Self::Throttled,
            StatusCode::REQUEST_TIMEOUT => Self::GaveUp,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Denied,
            status if status.is_server_error() => Self::Failing,
            _ => Self::Refused,
        }
    }
}

/// How long the store wants to be left alone: seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(until.duration_since(jiff::Timestamp::now())).unwrap_or_default())
}

/// The whole body of an answer; `None` when it has more than `longest` bytes.
pub(in crate::origin) async fn body(
    mut answer: reqwest::Response,
    longest: usize,
) -> reqwest::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > longest {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

#[cfg(test)]
pub(in crate::origin) mod tests {
    use super::*;

    /// An answer with a status and a body, for tests of dialects.
    pub(in crate::origin) fn refusal(operation: Operation, status: u16, body: &str) -> Refusal {
        let status = StatusCode::from_u16(status).unwrap();
        Refusal { operation, status, headers: HeaderMap::new(), body: body.as_bytes().to_vec() }
    }

    #[test]
    fn a_pause_is_told_in_seconds_or_by_a_date() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(of(" 7"), Some(Duration::from_secs(7)));
        assert_eq!(of("Thu, 01 Jan 1970 00:00:00 GMT"), Some(Duration::ZERO));
        assert!(of("Fri, 01 Jan 2100 00:00:00 GMT").unwrap() > Duration::from_secs(3600));
        assert_eq!(of("soon"), None);
    }

    #[test]
    fn a_status_alone_tells_enough() {
        for (status, meaning) in [
            (412, Meaning::Changed),
            (416, Meaning::Changed),
            (429, Meaning::Throttled),
            (503, Meaning::Throttled),
            (408, Meaning::GaveUp),
            (401, Meaning::Denied),
            (500, Meaning::Failing),
            (302, Meaning::Refused),
            (400, Meaning::Refused),
        ] {
            assert_eq!(Meaning::of(Operation::Get, StatusCode::from_u16(status).unwrap()), meaning);
        }
        assert_eq!(Meaning::of(Operation::Get, StatusCode::NOT_FOUND), Meaning::Gone);
        assert_eq!(Meaning::of(Operation::List, StatusCode::NOT_FOUND), Meaning::Missing);
    }
}
