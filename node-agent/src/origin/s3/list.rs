//! ListObjectsV2, page by page.
//!
//! Keys come percent-encoded, so that one that is no XML, or no UTF-8, costs only
//! itself and not its page.

use super::{Place, S3Origin};
use crate::origin::{Found, OriginError, Sink, shown};
use hearth_core::manifest::SkipReason;
use hearth_core::object::Validator;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// 1,000 keys of 1,024 bytes, each byte as `%XX`, with room for what stands around.
const LONGEST_PAGE: usize = 16 << 20;
/// Pages without a key that are put up with in a row.
const EMPTY_PAGES: usize = 1_000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    #[serde(default)]
    contents: Vec<Entry>,
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_continuation_token: Option<String>,
    #[serde(default)]
    encoding_type: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(default)]
    key: String,
    size: u64,
    #[serde(default)]
    last_modified: String,
    #[serde(default, rename = "ETag")]
    etag: Option<String>,
}

/// Lists what begins with `start` below the prefix.
pub(super) async fn list(origin: &S3Origin, start: &str, sink: &mut dyn Sink) -> Result<(), OriginError> {
    let mut pages = Progress::default();
    let mut token: Option<String> = None;
    loop {
        let url = origin.place.listing(start, token.as_deref());
        let body = origin.retries.run(|| page(origin, &url)).await?;
        let page = parse(&origin.place, &body)?;
        take(&origin.place, &page, sink)?;
        if !page.is_truncated {
            return Ok(());
        }
        token = Some(pages.next(&origin.place, page)?);
    }
}

/// The object of this path. It is in the first page mostly: no key that begins with the path
/// stands before the path itself.
pub(super) async fn find(origin: &S3Origin, path: &str) -> Result<Option<Found>, OriginError> {
    let mut finder = Finder { path, found: None };
    match list(origin, path, &mut finder).await {
        Err(error) if finder.found.is_none() => Err(error),
        _ => Ok(finder.found),
    }
}

/// Ends a listing when it comes to the path.
struct Finder<'a> {
    path: &'a str,
    found: Option<Found>,
}

impl Sink for Finder<'_> {
    fn object(&mut self, path: &str, size: u64, _: i64, validator: Validator) -> Result<(), OriginError> {
        if path != self.path {
            return Ok(());
        }
        self.found = Some(Found { size, validator });
        Err(OriginError::Refused("there is no need to go on".to_owned()))
    }

    fn skip(&mut self, _: &str, _: SkipReason) {}
}

async fn page(origin: &S3Origin, url: &str) -> Result<Vec<u8>, OriginError> {
    let mut response = origin.send("list", url, &[]).await?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| origin.unavailable(&error))? {
        if body.len() + chunk.len() > LONGEST_PAGE {
            let name = origin.place.name();
            return Err(OriginError::Malformed(format!("{name} sent a page of a listing that does not end")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn parse(place: &Place, body: &[u8]) -> Result<Page, OriginError> {
    let malformed = |why: String| {
        OriginError::Malformed(format!("{} sent a listing that cannot be read: {why}", place.name()))
    };
    let text = std::str::from_utf8(body).map_err(|error| malformed(error.to_string()))?;
    quick_xml::de::from_str(text).map_err(|error| malformed(shown(&error.to_string())))
}

fn take(place: &Place, page: &Page, sink: &mut dyn Sink) -> Result<(), OriginError> {
    let encoded = page.encoding_type.as_deref() == Some("url");
    for entry in &page.contents {
        let key = if encoded { decoded(&entry.key) } else { Cow::Borrowed(entry.key.as_bytes()) };
        let Ok(key) = std::str::from_utf8(&key) else {
            sink.skip(&String::from_utf8_lossy(&key), SkipReason::NotUtf8);
            continue;
        };
        let Some(path) = key.strip_prefix(place.prefix()) else {
            let name = place.name();
            return Err(OriginError::Malformed(format!(
                "{name} lists \"{}\", which is not below the prefix asked for",
                shown(key)
            )));
        };
        // The marker of the prefix itself.
        if path.is_empty() {
            continue;
        }
        let modified = entry.last_modified.parse::<jiff::Timestamp>().ok();
        let modified = modified.and_then(|time| i64::try_from(time.as_nanosecond()).ok()).unwrap_or(0);
        let validator = match entry.etag.as_deref() {
            Some(etag) if !etag.is_empty() => Validator::etag(&quoted(etag)),
            _ => Validator::Modified(modified),
        };
        sink.object(path, entry.size, modified, validator)?;
    }
    Ok(())
}

/// An entity tag with its quotes, which some stores leave out.
pub(super) fn quoted(etag: &str) -> Cow<'_, str> {
    if etag.ends_with('"') { Cow::Borrowed(etag) } else { Cow::Owned(format!("\"{etag}\"")) }
}

/// Holds a listing to getting on, so that it ends.
#[derive(Default)]
struct Progress {
    hasher: RandomState,
    /// Hashes of the tokens so far: a listing that goes in a circle shows one again.
    tokens: HashSet<u64>,
    empty: usize,
}

impl Progress {
    fn next(&mut self, place: &Place, page: Page) -> Result<String, OriginError> {
        let malformed = |why| OriginError::Malformed(format!("the listing of {} {why}", place.name()));
        self.empty = if page.contents.is_empty() { self.empty + 1 } else { 0 };
        if self.empty > EMPTY_PAGES {
            return Err(malformed("goes on without any keys"));
        }
        let token = page
            .next_continuation_token
            .filter(|token| !token.is_empty())
            .ok_or_else(|| malformed("says that it goes on, and not where"))?;
        if !self.tokens.insert(self.hasher.hash_one(&token)) {
            return Err(malformed("goes in a circle"));
        }
        Ok(token)
    }
}

/// Undoes `encoding-type=url`, which writes a space as `+` or `%20`.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        let byte = match (first, behind) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    rest = after;
                    high << 4 | low
                }
                _ => b'%',
            },
            (byte, _) => *byte,
        };
        bytes.push(byte);
    }
    Cow::Owned(bytes)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Collected {
        objects: Vec<(String, u64, Validator)>,
        skipped: u64,
    }

    impl Sink for Collected {
        fn object(&mut self, path: &str, size: u64, _: i64, validator: Validator) -> Result<(), OriginError> {
            self.objects.push((path.to_owned(), size, validator));
            Ok(())
        }
        fn skip(&mut self, _: &str, _: SkipReason) {
            self.skipped += 1;
        }
    }

    fn place(prefix: &str) -> Place {
        Place::new("b", prefix.to_owned(), None).unwrap()
    }

    fn collect(body: &[u8], prefix: &str) -> Result<Collected, OriginError> {
        let mut collected = Collected::default();
        take(&place(prefix), &parse(&place(prefix), body)?, &mut collected)?;
        Ok(collected)
    }

    const AS_AWS_WRITES_IT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
        <ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix>p/</Prefix>
        <KeyCount>3</KeyCount><MaxKeys>1000</MaxKeys><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>
        <Contents><Key>p/</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>0</Size><StorageClass>STANDARD</StorageClass></Contents>
        <Contents><Key>p/a+b%2Bc%00</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>"x-2"</ETag><Size>7</Size></Contents>
        <Contents><Key>p/%ff</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>"x"</ETag><Size>7</Size></Contents>
        <Contents><Key>p//x</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><Size>1</Size></Contents>
        </ListBucketResult>"#;

    #[test]
    fn listings_are_read_as_aws_writes_them() {
        let collected = collect(AS_AWS_WRITES_IT.as_bytes(), "p/").unwrap();
        assert_eq!(
            collected.objects,
            [
                ("a b+c\0".to_owned(), 7, Validator::ETag("\"x-2\"".to_owned())),
                ("/x".to_owned(), 1, Validator::Modified(1_767_323_045_000_000_000)),
            ]
        );
        assert_eq!(collected.skipped, 1);
    }

    #[test]
    fn what_is_not_encoded_is_not_decoded() {
        let body = "<ListBucketResult><Contents><Key>a+b%20</Key><ETag>bare</ETag><Size>1</Size></Contents></ListBucketResult>";
        let collected = collect(body.as_bytes(), "").unwrap();
        assert_eq!(collected.objects, [("a+b%20".to_owned(), 1, Validator::ETag("\"bare\"".to_owned()))]);
    }

    #[test]
    fn a_key_from_elsewhere_is_refused() {
        assert!(matches!(collect(AS_AWS_WRITES_IT.as_bytes(), "q/"), Err(OriginError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn garbage_is_one_error(body: Vec<u8>) {
            if let Err(error) = collect(&body, "p/") {
                prop_assert!(!error.to_string().contains('\n'));
            }
        }

        #[test]
        fn damaged_listings_never_panic(at: prop::sample::Index, with in "\\PC{0,8}", cut: prop::sample::Index) {
            let mut body = AS_AWS_WRITES_IT.as_bytes().to_vec();
            let at = at.index(body.len());
            body.splice(at..at, with.into_bytes());
            body.truncate(cut.index(body.len()) + 1);
            let _ = collect(&body, "p/");
        }

        #[test]
        fn keys_survive_the_encoding(key: Vec<u8>) {
            let encoded: String = key.iter().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(decoded(&encoded).into_owned(), key);
        }

        #[test]
        fn decoding_takes_anything(text: String) {
            prop_assert!(decoded(&text).len() <= text.len());
        }
    }
}
