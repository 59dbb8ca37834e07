//! What an answer of Google Cloud Storage that is no success means.

use crate::origin::OriginError;
use crate::origin::web::{Meaning, Refusal};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
struct Body {
    error: Error,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Error {
    message: String,
    errors: Vec<Detail>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Detail {
    reason: String,
}

/// Why a request of `who` was not granted.
pub(super) fn error(name: &str, who: &str, refusal: &Refusal) -> OriginError {
    let Body { error } = serde_json::from_slice(&refusal.body).unwrap_or_else(|_| Body {
        // Of objects' bytes errors come as a plain line.
        error: Error { message: plain(&refusal.body), errors: Vec::new() },
    });
    let reason = error.errors.first().map(|detail| detail.reason.as_str()).unwrap_or_default();
    let meaning = match (refusal.status.as_u16(), reason) {
        (_, "rateLimitExceeded" | "userRateLimitExceeded") => Meaning::Throttled,
        (404, _) if error.message.contains("bucket does not exist") => Meaning::Missing,
        _ => Meaning::of(refusal.operation, refusal.status),
    };
    refusal.error(meaning, name, who, &refusal.said(reason, &error.message))
}

fn plain(body: &[u8]) -> String {
    let text = std::str::from_utf8(body).unwrap_or_default().trim();
    if text.contains('<') { String::new() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::web::{Operation, refusal};
    use proptest::prelude::*;

    fn classified(operation: Operation, status: u16, body: &str) -> OriginError {
        error(
            "bucket b at https://storage",
            "the credentials in Secret ns/s",
            &refusal(operation, status, body),
        )
    }

    #[test]
    fn answers_are_told_apart() {
        let json = |message: &str, reason: &str| {
            let detail = serde_json::json!({"error": {"message": message, "errors": [{"reason": reason}]}});
            detail.to_string()
        };
        for (operation, status, body, reason) in [
            (Operation::List, 404, json("The specified bucket does not exist.", "notFound"), "NotFound"),
            (Operation::Get, 404, json("The specified bucket does not exist.", "notFound"), "NotFound"),
            (Operation::Get, 404, "No such object: b/k".to_owned(), "Gone"),
            (Operation::Get, 412, json("conditionNotMet", "conditionNotMet"), "Changed"),
            (Operation::List, 401, json("Invalid Credentials", "authError"), "Denied"),
            (Operation::List, 403, json("no access", "forbidden"), "Denied"),
            (Operation::List, 403, json("slow down", "rateLimitExceeded"), "Throttled"),
            (Operation::List, 429, String::new(), "Throttled"),
            (Operation::Get, 503, "<html>".to_owned(), "Throttled"),
            (Operation::Get, 500, json("Backend Error", "backendError"), "Unavailable"),
            (Operation::List, 400, json("Invalid argument", "invalid"), "Refused"),
        ] {
            assert_eq!(classified(operation, status, &body).reason(), reason, "{status} {body}");
        }
        assert_eq!(
            classified(Operation::List, 403, &json("no access", "forbidden")).to_string(),
            "bucket b at https://storage denies access to the credentials in Secret ns/s (forbidden: no access)"
        );
    }

    proptest! {
        #[test]
        fn garbage_is_one_line(body: String) {
            prop_assert!(!classified(Operation::Get, 400, &body).to_string().contains('\n'));
        }
    }
}
