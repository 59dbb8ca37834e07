//! The pages of List Blobs.

use super::directories::Listings;
use super::{Az, Place};
use crate::origin::find::Finder;
use crate::origin::web::ranges::{self, Key};
use crate::origin::web::{Pages, Web, below, percent, quoted, time, unreadable};
use crate::origin::{Found, OriginError, Sink, shown};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hearth_core::manifest::SkipReason;
use hearth_core::object::Validator;
use serde::Deserialize;
use std::borrow::Cow;

/// 5,000 names of 1,024 characters of four bytes, with room for what stands around.
const LONGEST_PAGE: usize = 32 << 20;
/// Pages that are asked for at one time; few, since one can be so long.
const WIDTH: usize = 4;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    #[serde(default)]
    blobs: Blobs,
    #[serde(default)]
    next_marker: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Blobs {
    #[serde(default, rename = "$value")]
    entries: Vec<Entry>,
}

/// In one order of names, so that the kinds come as they like.
#[derive(Debug, Deserialize)]
enum Entry {
    Blob(Blob),
    /// A directory, where directories are asked for.
    BlobPrefix(BlobPrefix),
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BlobPrefix {
    name: Name,
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

impl Name {
    fn key(&self) -> Cow<'_, [u8]> {
        match self.encoded {
            true => percent::decode(&self.text),
            false => Cow::Borrowed(self.text.as_bytes()),
        }
    }
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
    let mut listings = Listings::new(start);
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < WIDTH
            && let Some(listing) = listings.next()
        {
            let marker = listing.marker.as_deref();
            let url = place.listing(&listing.prefix, marker, listing.is_of_directories());
            under_way.push(async move { (listing, origin.page(LONGEST_PAGE, &url).await) });
        }
        let Some((listing, page)) = under_way.next().await else { return Ok(()) };
        let (_, body) = page?;
        let page = parse(place, &body)?;
        let directories = directories(place, &page);
        take(listings.page(&place.name(), listing, taken(place, page)?, directories)?, sink)?;
    }
}

/// The blob of this path below the prefix. It is in the first page that has any: nothing that begins with the path stands
/// before it.
pub(super) async fn find(origin: &Web<Az>, path: &str) -> Result<Option<Found>, OriginError> {
    let place = &origin.dialect.place;
    let (mut pages, mut marker) = (Pages::default(), None);
    loop {
        let url = place.listing(path, marker.as_deref(), false);
        let (_, body) = origin.page(LONGEST_PAGE, &url).await?;
        let ranges::Page { keys, is_empty, next } = taken(place, parse(place, &body)?)?;
        match next {
            Some(next) if is_empty => marker = Some(pages.next(&place.name(), is_empty, next)?),
            _ => {
                let mut finder = Finder::of(path);
                let listing = take(keys, &mut finder);
                return finder.outcome(listing);
            }
        }
    }
}

fn parse(place: &Place, body: &[u8]) -> Result<Page, OriginError> {
    let unreadable = |error: &dyn std::fmt::Display| unreadable(&place.name(), &error.to_string());
    let text = std::str::from_utf8(body).map_err(|error| unreadable(&error))?;
    quick_xml::de::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| unreadable(&error))
}

/// The directories of a page, below the prefix; `None` when one is no UTF-8.
fn directories(place: &Place, page: &Page) -> Option<Vec<String>> {
    let directory = |entry: &Entry| {
        let Entry::BlobPrefix(BlobPrefix { name }) = entry else { return None };
        let key = name.key();
        let below = std::str::from_utf8(&key).ok().and_then(|key| key.strip_prefix(place.prefix()));
        Some(below.map(str::to_owned))
    };
    page.blobs.entries.iter().filter_map(directory).collect()
}

/// The blobs of a page, without the marker of the prefix itself.
fn taken(place: &Place, page: Page) -> Result<ranges::Page, OriginError> {
    let entries = &page.blobs.entries;
    let mut keys = Vec::with_capacity(entries.len());
    for entry in entries {
        let Entry::Blob(Blob { name, properties }) = entry else { continue };
        let key = name.key();
        let path = match std::str::from_utf8(&key) {
            Ok(key) => match below(|| place.name(), place.prefix(), key)? {
                Some(_) if properties.kind == "directory" => continue,
                Some(_) if properties.etag.is_empty() => {
                    return Err(unreadable(&place.name(), &format!("{} has no ETag", shown(key))));
                }
                Some(path) => Ok(path.to_owned()),
                None => continue,
            },
            Err(_) => Err(String::from_utf8_lossy(&key).into_owned()),
        };
        let modified = time::of_http(&properties.modified).unwrap_or(0);
        let validator = Validator::etag(&quoted(&properties.etag));
        keys.push(Key { path, size: properties.size, modified, validator });
    }
    let next = page.next_marker.filter(|marker| !marker.is_empty());
    Ok(ranges::Page { keys, is_empty: entries.is_empty(), next })
}

fn take(keys: Vec<Key>, sink: &mut dyn Sink) -> Result<(), OriginError> {
    for Key { path, size, modified, validator } in keys {
        match path {
            Ok(path) => sink.object(&path, size, modified, validator)?,
            Err(key) => sink.skip(&key, SkipReason::NotUtf8),
        }
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
        take(taken(&place(), parse(&place(), body)?)?.keys, &mut collected)?;
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
    fn directories_stand_between_blobs() {
        let blob = |name: &str| {
            format!(
                "<Blob><Name>p/{name}</Name><Properties><Etag>e</Etag><Content-Length>1</Content-Length></Properties></Blob>"
            )
        };
        let body = format!(
            "<EnumerationResults><Blobs>{}<BlobPrefix><Name>p/b/</Name></BlobPrefix><Novelty><Name>p/n</Name></Novelty>{}<BlobPrefix><Name Encoded=\"true\">p%2Fd%EF%BF%BE%2F</Name></BlobPrefix></Blobs><NextMarker /></EnumerationResults>",
            blob("a"),
            blob("c")
        );
        let page = parse(&place(), body.as_bytes()).unwrap();
        assert_eq!(directories(&place(), &page).unwrap(), ["b/", "d\u{fffe}/"]);
        let keys = taken(&place(), page).unwrap().keys;
        assert_eq!(keys.into_iter().map(|key| key.path.unwrap()).collect::<Vec<_>>(), ["a", "c"]);
        let foreign = body.replace("%2Fd%EF%BF%BE", "%2F%FF");
        assert!(directories(&place(), &parse(&place(), foreign.as_bytes()).unwrap()).is_none());
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
