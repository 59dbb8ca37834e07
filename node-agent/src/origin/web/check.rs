//! Holds an answer to what was wanted, also of stores that take no notice of conditions
//! or ranges.

use super::time;
use crate::origin::{OriginError, Wanted};
use hearth_core::object::Validator;
use http::header::{self, HeaderMap, HeaderName};
use std::borrow::Cow;

/// The header by which only the wanted content is asked for.
pub(in crate::origin) fn condition(validator: &Validator) -> (HeaderName, String) {
    match validator {
        Validator::Modified(nanos) => (header::IF_UNMODIFIED_SINCE, time::to_http(*nanos)),
        Validator::ETag(_) | Validator::HexETag(_) => {
            (header::IF_MATCH, validator.if_match().unwrap_or_default())
        }
    }
}

/// Whether an answer is of the wanted content, as far as it tells.
pub(in crate::origin) fn same(validator: &Validator, headers: &HeaderMap) -> Result<(), &'static str> {
    if let (Some(expected), Some(found)) = (validator.if_match(), text(headers, header::ETAG))
        && quoted(found) != expected
    {
        return Err("its ETag is another");
    }
    if let (Validator::Modified(nanos), Some(found)) = (validator, text(headers, header::LAST_MODIFIED))
        && found != time::to_http(*nanos)
    {
        return Err("its last change is another");
    }
    Ok(())
}

/// An object that is another than was listed.
pub(super) fn changed(shown: &str, what: &str) -> OriginError {
    OriginError::Changed(format!("{shown} is no longer as it was listed: {what}"))
}

/// Checks that an answer has the bytes that were wanted, and the object as many as it had.
pub(super) fn extent(
    name: &str,
    shown: &str,
    wanted: &Wanted<'_>,
    whole: bool,
    answer: &reqwest::Response,
) -> Result<(), OriginError> {
    let total = if whole {
        answer.content_length()
    } else {
        if answer.status() != http::StatusCode::PARTIAL_CONTENT {
            return Err(OriginError::Malformed(format!("{name} answers a range with the whole object")));
        }
        content_range(answer.headers()).filter(|(range, _)| *range == wanted.range).map(|(_, total)| total)
    };
    match total {
        Some(total) if total == wanted.size => Ok(()),
        Some(total) => Err(changed(shown, &format!("it has {total} bytes, not {}", wanted.size))),
        // A length that is not told is counted by the reader.
        None if whole => Ok(()),
        None => Err(OriginError::Malformed(format!("{name} answers with another range than was asked for"))),
    }
}

/// An entity tag with its quotes, which some stores leave out.
pub(in crate::origin) fn quoted(etag: &str) -> Cow<'_, str> {
    if etag.ends_with('"') { Cow::Borrowed(etag) } else { Cow::Owned(format!("\"{etag}\"")) }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The range and the total of `Content-Range: bytes 0-9/100`.
fn content_range(headers: &HeaderMap) -> Option<(std::ops::Range<u64>, u64)> {
    let text = text(headers, header::CONTENT_RANGE)?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let end = last.parse::<u64>().ok()?.checked_add(1)?;
    Some((first.parse().ok()?..end, total.parse().ok()?))
}
