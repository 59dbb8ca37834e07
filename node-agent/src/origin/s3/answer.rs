//! What an S3 answer that is no success means.

use super::Place;
use crate::origin::{OriginError, shown};
use http::StatusCode;
use serde::Deserialize;
use std::time::Duration;

/// An error's body is read this far.
const LONGEST_BODY: usize = 64 << 10;

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Body {
    code: String,
    message: String,
}

/// Why a request got no answer.
pub(super) fn unavailable(place: &Place, error: &reqwest::Error) -> OriginError {
    // The innermost cause is what helps: "connection refused", "certificate expired".
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let what = if error.is_timeout() { "does not answer in time" } else { "cannot be reached" };
    OriginError::Unavailable(format!("{} {what}: {}", place.name(), shown(&cause.to_string())))
}

/// Why a request was not granted.
pub(super) async fn error(place: &Place, response: reqwest::Response) -> OriginError {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(http::header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let region = response
        .headers()
        .get("x-amz-bucket-region")
        .and_then(|value| value.to_str().ok())
        .filter(|region| *region != place.region())
        .map(shown);
    let body = limited(response, LONGEST_BODY).await.unwrap_or_default();
    classify(place, status, retry_after, region, &parse(&body))
}

fn parse(body: &[u8]) -> Body {
    std::str::from_utf8(body).ok().and_then(|text| quick_xml::de::from_str(text).ok()).unwrap_or_default()
}

fn classify(
    place: &Place,
    status: StatusCode,
    retry_after: Option<Duration>,
    region: Option<String>,
    body: &Body,
) -> OriginError {
    let name = place.name();
    let said = match (body.code.as_str(), body.message.as_str()) {
        ("", _) => status.to_string(),
        (code, "") => shown(code),
        (code, message) => format!("{}: {}", shown(code), shown(message)),
    };
    match (status, body.code.as_str()) {
        (StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE, _) => {
            OriginError::Changed(format!("an object of {name} is no longer as it was listed ({said})"))
        }
        (StatusCode::NOT_FOUND, "NoSuchKey") => {
            OriginError::Changed(format!("an object of {name} is no longer there ({said})"))
        }
        (StatusCode::NOT_FOUND, _) => OriginError::NotFound(format!("{name} does not exist ({said})")),
        (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, _) | (_, "SlowDown") => {
            OriginError::Throttled {
                message: format!("{name} asks for fewer requests ({said})"),
                retry_after,
            }
        }
        (StatusCode::REQUEST_TIMEOUT, _) | (_, "RequestTimeout") => {
            OriginError::Unavailable(format!("{name} gave up on a request ({said})"))
        }
        _ if region.is_some() && !status.is_server_error() => OriginError::Refused(format!(
            "{name} is in region {}: set options.region to it",
            region.unwrap_or_default()
        )),
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _)
        | (_, "InvalidAccessKeyId" | "InvalidToken" | "ExpiredToken" | "SignatureDoesNotMatch") => {
            OriginError::Denied(format!("{name} denies access to the credentials used ({said})"))
        }
        (status, _) if status.is_server_error() => OriginError::Unavailable(format!("{name} fails ({said})")),
        _ => OriginError::Refused(format!("{name} refuses the request ({said})")),
    }
}

/// A body of at most `limit` bytes; `None` when it has more or breaks off.
pub(super) async fn limited(mut response: reqwest::Response, limit: usize) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if body.len() + chunk.len() > limit {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn classified(status: u16, code: &str, region: Option<&str>) -> OriginError {
        let place = Place::new("b", String::new(), None).unwrap();
        let body = Body { code: code.to_owned(), message: "because".to_owned() };
        classify(&place, StatusCode::from_u16(status).unwrap(), None, region.map(str::to_owned), &body)
    }

    #[test]
    fn answers_are_told_apart() {
        for (status, code, reason) in [
            (412, "PreconditionFailed", "Changed"),
            (416, "InvalidRange", "Changed"),
            (404, "NoSuchKey", "Changed"),
            (404, "NoSuchBucket", "NotFound"),
            (404, "", "NotFound"),
            (403, "AccessDenied", "Denied"),
            (401, "", "Denied"),
            (400, "InvalidToken", "Denied"),
            (400, "InvalidRequest", "Refused"),
            (301, "PermanentRedirect", "Refused"),
            (429, "", "Throttled"),
            (503, "SlowDown", "Throttled"),
            (500, "InternalError", "Unavailable"),
            (408, "", "Unavailable"),
            (400, "RequestTimeout", "Unavailable"),
        ] {
            assert_eq!(classified(status, code, None).reason(), reason, "{status} {code}");
        }
        let elsewhere = classified(301, "PermanentRedirect", Some("eu-west-1")).to_string();
        assert!(elsewhere.ends_with("is in region eu-west-1: set options.region to it"), "{elsewhere}");
    }

    #[test]
    fn bodies_are_read_as_s3_writes_them() {
        let body = parse(
            b"<?xml version=\"1.0\"?>\n<Error><Code>NoSuchKey</Code><Message>gone</Message><Key>k</Key></Error>",
        );
        assert_eq!(body, Body { code: "NoSuchKey".into(), message: "gone".into() });
    }

    proptest! {
        #[test]
        fn garbage_is_no_code(body: Vec<u8>) {
            let _ = parse(&body);
        }
    }
}
