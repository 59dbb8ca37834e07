//! The pages of ListObjectsV2.
//!
//! Keys come percent-encoded, so that one that is no XML, or no UTF-8, costs only
//! itself and not its page.

use super::page::Page;
use super::{Place, S3};
use crate::origin::web::ranges::{self, Key};
use crate::origin::web::{Web, below, percent, quoted, time, unreadable};
use crate::origin::{OriginError, Sink};
use hearth_core::object::Validator;
use std::borrow::Cow;

/// Lists what begins with `start` below the prefix.
pub(super) async fn list(origin: &Web<S3>, start: &str, sink: &mut dyn Sink) -> Result<(), OriginError> {
    let S3 { place, page_by_page, .. } = &origin.dialect;
    let parse = |body: &[u8]| {
        let page = parse(place, body)?;
        let (keys, is_empty) = (keys(place, &page)?, page.entries.is_empty());
        Ok(ranges::Page { keys, is_empty, next: page.is_truncated.then(|| page.next.unwrap_or_default()) })
    };
    ranges::list(origin, page_by_page, |begin| place.listing(start, begin), parse, sink).await
}

fn parse(place: &Place, body: &[u8]) -> Result<Page, OriginError> {
    let text = std::str::from_utf8(body).map_err(|error| unreadable(&place.name(), &error.to_string()))?;
    Page::parse(text).map_err(|error| unreadable(&place.name(), &error))
}

/// The keys of a page, without the marker of the prefix itself.
fn keys(place: &Place, page: &Page) -> Result<Vec<Key>, OriginError> {
    let encoded = page.encoding.as_deref() == Some("url");
    let mut keys = Vec::with_capacity(page.entries.len());
    for entry in &page.entries {
        let key = if encoded { decoded(&entry.key) } else { Cow::Borrowed(entry.key.as_bytes()) };
        let path = match std::str::from_utf8(&key) {
            Ok(key) => match below(|| place.name(), place.prefix(), key)? {
                Some(path) => Ok(path.to_owned()),
                None => continue,
            },
            Err(_) => Err(String::from_utf8_lossy(&key).into_owned()),
        };
        let modified = time::of_listing(&entry.last_modified).unwrap_or(0);
        let validator = match entry.etag.as_str() {
            "" => Validator::Modified(modified),
            etag => Validator::etag(&quoted(etag)),
        };
        keys.push(Key { path, size: entry.size, modified, validator });
    }
    Ok(keys)
}

/// Undoes `encoding-type=url`, which writes a space as `+` or `%20`.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if text.contains('+') {
        Cow::Owned(percent::decode(&text.replace('+', " ")).into_owned())
    } else {
        percent::decode(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::manifest::SkipReason;
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
        let page = parse(&place(prefix), body)?;
        let keys = keys(&place(prefix), &page)?;
        ranges::take(&keys, &(0..keys.len()), &mut collected)?;
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
    }
}
