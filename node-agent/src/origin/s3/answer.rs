//! What an S3 answer that is no success means.

use super::Place;
use crate::origin::web::{Meaning, Refusal};
use crate::origin::{OriginError, shown};
use http::StatusCode;
use serde::Deserialize;

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Body {
    code: String,
    message: String,
}

/// Why a request of `who` was not granted.
pub(super) fn error(place: &Place, who: &str, refusal: &Refusal) -> OriginError {
    let body = parse(&refusal.body);
    let name = place.name();
    let meaning = meaning(refusal, &body.code);
    let elsewhere = refusal.header("x-amz-bucket-region").filter(|region| *region != place.region());
    if let (Some(region), Meaning::Denied | Meaning::Refused) = (elsewhere, meaning) {
        return OriginError::Refused(format!(
            "{name} is in region {}: set options.region to it",
            shown(region)
        ));
    }
    let said = if body.code.is_empty() { String::new() } else { body.message };
    refusal.error(meaning, &name, who, &refusal.said(&body.code, &said))
}

fn parse(body: &[u8]) -> Body {
    std::str::from_utf8(body).ok().and_then(|text| quick_xml::de::from_str(text).ok()).unwrap_or_default()
}

fn meaning(refusal: &Refusal, code: &str) -> Meaning {
    match (refusal.status, code) {
        // As versitygw says that it does not know a key's id.
        (_, "XAdminUserNotFound") => Meaning::Denied,
        (StatusCode::NOT_FOUND, "NoSuchKey") => Meaning::Gone,
        (StatusCode::NOT_FOUND, _) => Meaning::Missing,
        (_, "SlowDown") => Meaning::Throttled,
        (_, "RequestTimeout") => Meaning::GaveUp,
        (_, "InvalidAccessKeyId" | "InvalidToken" | "ExpiredToken" | "SignatureDoesNotMatch") => {
            Meaning::Denied
        }
        (status, _) => Meaning::of(refusal.operation, status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::web::{Operation, refusal};
    use proptest::prelude::*;

    fn classified(status: u16, code: &str, region: Option<&str>) -> OriginError {
        let place = Place::new("b", String::new(), None).unwrap();
        let body = format!("<Error><Code>{code}</Code><Message>because</Message></Error>");
        let mut refusal = refusal(Operation::Get, status, &body);
        if let Some(region) = region {
            refusal.headers.insert("x-amz-bucket-region", region.parse().unwrap());
        }
        error(&place, "the credentials in Secret ns/s", &refusal)
    }

    #[test]
    fn answers_are_told_apart() {
        for (status, code, reason) in [
            (412, "PreconditionFailed", "Changed"),
            (416, "InvalidRange", "Changed"),
            (404, "NoSuchKey", "Gone"),
            (404, "NoSuchBucket", "NotFound"),
            (404, "", "NotFound"),
            (404, "XAdminUserNotFound", "Denied"),
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
        let denied = classified(403, "AccessDenied", Some("us-east-1")).to_string();
        assert!(denied.contains("denies access to the credentials in Secret ns/s (AccessDenied: because)"));
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
