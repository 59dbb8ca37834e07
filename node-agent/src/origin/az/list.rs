//! List Blobs, page by page.

use super::{Az, Place};
use crate::origin::web::{Taken, Web, below, percent, quoted, time, unreadable};
use crate::origin::{OriginError, Sink, shown};
use hearth_core::manifest::SkipReason;
use hearth_core::object::Validator;
use serde::Deserialize;
use std::borrow::Cow;

/// 5,000 names of 1,024 characters, each as `%XX` of some bytes, with room for what stands around.
const LONGEST_PAGE: usize = 96 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    #[serde(default)]
    blobs: Blobs,
    #[serde(default)]
    next_marker: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Blobs {
    #[serde(default)]
    blob: Vec<Blob>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Blob {
    name: Name,
    properties: Properties,
}

#[derive(Debug, Deserialize)]
struct Name {
    /// Whether it is percent-encoded, since it has characters that XML cannot have.
    #[serde(default, rename = "@Encoded")]
    encoded: bool,
    #[serde(default, rename = "$text")]
    text: String,
}

#[derive(Debug, Deserialize)]
struct Properties {
    #[serde(rename = "Content-Length")]
    size: u64,
    #[serde(default, rename = "Last-Modified")]
    modified: String,
    #[serde(default, rename = "Etag")]
    etag: String,
    /// What an account with a hierarchical namespace says of directories.
    #[serde(default, rename = "ResourceType")]
    kind: String,
}

/// Lists what begins with `start` below the prefix.
pub(super) async fn list(origin: &Web<Az>, start: &str, sink: &mut dyn Sink) -> Result<(), OriginError> {
    let place = &origin.dialect.place;
    let url = |marker: Option<&str>| place.listing(start, marker);
    let taken = |body: &[u8]| {
        let page = parse(place, body)?;
        take(place, &page, sink)?;
        let next = page.next_marker.filter(|marker| !marker.is_empty());
        Ok(Taken { empty: page.blobs.blob.is_empty(), next })
    };
    origin.pages(LONGEST_PAGE, url, taken).await
}

fn parse(place: &Place, body: &[u8]) -> Result<Page, OriginError> {
    let unreadable = |error: &dyn std::fmt::Display| unreadable(&place.name(), &error.to_string());
    let text = std::str::from_utf8(body).map_err(|error| unreadable(&error))?;
    quick_xml::de::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| unreadable(&error))
}

fn take(place: &Place, page: &Page, sink: &mut dyn Sink) -> Result<(), OriginError> {
    for Blob { name, properties } in &page.blobs.blob {
        let key =
            if name.encoded { percent::decode(&name.text) } else { Cow::Borrowed(name.text.as_bytes()) };
        let Ok(key) = std::str::from_utf8(&key) else {
            sink.skip(&String::from_utf8_lossy(&key), SkipReason::NotUtf8);
            continue;
        };
        let Some(path) = below(|| place.name(), place.prefix(), key)? else { continue };
        if properties.kind == "directory" {
            continue;
        }
        if properties.etag.is_empty() {
            return Err(unreadable(&place.name(), &format!("{} has no ETag", shown(key))));
        }
        let modified = time::of_http(&properties.modified).unwrap_or(0);
        let validator = Validator::etag(&quoted(&properties.etag));
        sink.object(path, properties.size, modified, validator)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::conformance::Collected;
    use proptest::prelude::*;

    fn place() -> Place {
        Place::new("acct".into(), "box".into(), "p/".into(), None).unwrap()
    }

    fn collect(body: &[u8]) -> Result<Collected, OriginError> {
        let mut collected = Collected::default();
        take(&place(), &parse(&place(), body)?, &mut collected)?;
        Ok(collected)
    }

    const AS_AZURE_WRITES_IT: &str = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ServiceEndpoint=\"https://acct.blob.core.windows.net/\" ContainerName=\"box\"><Prefix>p/</Prefix><MaxResults>5000</MaxResults><Blobs>\
        <Blob><Name>p/</Name><Properties><Last-Modified>Fri, 02 Jan 2026 03:04:05 GMT</Last-Modified><Etag>0x8DBFFF5AB1</Etag><Content-Length>0</Content-Length></Properties><OrMetadata /></Blob>\
        <Blob><Name>p/dir</Name><Properties><ResourceType>directory</ResourceType><Last-Modified>Fri, 02 Jan 2026 03:04:05 GMT</Last-Modified><Etag>0x8DBFFF5AB2</Etag><Content-Length>0</Content-Length></Properties></Blob>\
        <Blob><Name>p//a b+%20&amp;c </Name><Properties><Last-Modified>Fri, 02 Jan 2026 03:04:05 GMT</Last-Modified><Etag>0x8DBFFF5AB3</Etag><Content-Length>7</Content-Length><Content-Type>text/plain</Content-Type><BlobType>BlockBlob</BlobType></Properties></Blob>\
        <Blob><Name Encoded=\"true\">p%2Fx%EF%BF%BE</Name><Properties><Last-Modified>Fri, 02 Jan 2026 03:04:05 GMT</Last-Modified><Etag>\"0x8DBFFF5AB4\"</Etag><Content-Length>1</Content-Length></Properties></Blob>\
        <Blob><Name Encoded=\"true\">p%2F%FF</Name><Properties><Last-Modified>Fri, 02 Jan 2026 03:04:05 GMT</Last-Modified><Etag>0x8DBFFF5AB5</Etag><Content-Length>1</Content-Length></Properties></Blob>\
        </Blobs><NextMarker>2!8</NextMarker></EnumerationResults>";

    #[test]
    fn listings_are_read_as_azure_writes_them() {
        let collected = collect(AS_AZURE_WRITES_IT.as_bytes()).unwrap();
        let found: Vec<_> = collected.objects.into_iter().collect();
        let etag = |digit: &str| Validator::ETag(format!("\"0x8DBFFF5AB{digit}\""));
        assert_eq!(
            found,
            [("/a b+%20&c ".to_owned(), (7, etag("3"))), ("x\u{fffe}".to_owned(), (1, etag("4")))]
        );
        assert_eq!(collected.skipped, [("p/\u{fffd}".to_owned(), SkipReason::NotUtf8)]);
        assert_eq!(parse(&place(), AS_AZURE_WRITES_IT.as_bytes()).unwrap().next_marker.unwrap(), "2!8");
    }

    #[test]
    fn an_empty_container_is_no_error() {
        let body = "<EnumerationResults><Blobs /><NextMarker /></EnumerationResults>";
        assert!(collect(body.as_bytes()).unwrap().objects.is_empty());
    }

    proptest! {
        #[test]
        fn damaged_listings_never_panic(at: prop::sample::Index, with in "\\PC{0,8}", cut: prop::sample::Index) {
            let mut body = AS_AZURE_WRITES_IT.as_bytes().to_vec();
            let at = at.index(body.len());
            body.splice(at..at, with.into_bytes());
            body.truncate(cut.index(body.len()) + 1);
            if let Err(error) = parse(&place(), &body) {
                prop_assert!(!error.to_string().contains('\n'));
            }
        }
    }
}
