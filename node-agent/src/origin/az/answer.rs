//! What an answer of Azure that is no success means.

use crate::origin::OriginError;
use crate::origin::web::{Meaning, Refusal};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Body {
    code: String,
    message: String,
}

/// Why a request of `who` was not granted.
pub(super) fn error(name: &str, who: &str, refusal: &Refusal) -> OriginError {
    let text = std::str::from_utf8(&refusal.body).unwrap_or_default().trim_start_matches('\u{feff}');
    let body: Body = quick_xml::de::from_str(text).unwrap_or_default();
    let code = refusal.header("x-ms-error-code").unwrap_or(&body.code);
    let meaning = match code {
        "ContainerNotFound" | "ContainerBeingDeleted" => Meaning::Missing,
        "BlobNotFound" => Meaning::Gone,
        "AuthenticationFailed" | "InvalidAuthenticationInfo" | "PublicAccessNotPermitted" => Meaning::Denied,
        _ => Meaning::of(refusal.operation, refusal.status),
    };
    // Behind the first line stand the request's number and time, another at each try.
    let message = body.message.lines().next().unwrap_or_default();
    refusal.error(meaning, name, who, &refusal.said(code, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::web::{Operation, refusal};
    use proptest::prelude::*;

    fn classified(status: u16, body: &str) -> OriginError {
        error(
            "container c of account a",
            "requests without credentials",
            &refusal(Operation::Get, status, body),
        )
    }

    #[test]
    fn answers_are_told_apart() {
        for (status, code, reason) in [
            (404, "ContainerNotFound", "NotFound"),
            (409, "ContainerBeingDeleted", "NotFound"),
            (404, "BlobNotFound", "Gone"),
            (404, "", "Gone"),
            (412, "ConditionNotMet", "Changed"),
            (416, "InvalidRange", "Changed"),
            (403, "AuthenticationFailed", "Denied"),
            (403, "AuthorizationPermissionMismatch", "Denied"),
            (400, "InvalidAuthenticationInfo", "Denied"),
            (409, "PublicAccessNotPermitted", "Denied"),
            (503, "ServerBusy", "Throttled"),
            (500, "OperationTimedOut", "Unavailable"),
            (409, "BlobArchived", "Refused"),
        ] {
            let body = format!(
                "\u{feff}<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>because\nRequestId:1</Message></Error>"
            );
            assert_eq!(classified(status, &body).reason(), reason, "{status} {code}");
        }
        let body = "<Error><Code>AuthorizationFailure</Code><Message>because\nRequestId:1</Message></Error>";
        assert_eq!(
            classified(403, body).to_string(),
            "container c of account a denies access to requests without credentials (AuthorizationFailure: because)"
        );
    }

    proptest! {
        #[test]
        fn garbage_is_one_line(body: String) {
            prop_assert!(!classified(400, &body).to_string().contains('\n'));
        }
    }
}
