//! The pages of a bucket's listing.

use super::{Gs, Place};
use crate::origin::web::ranges::{self, Begin, Key};
use crate::origin::web::{Web, below, time, unreadable};
use crate::origin::{OriginError, Sink, shown};
use hearth_core::object::Validator;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    items: Vec<Item>,
    #[serde(default)]
    next_page_token: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Item {
    name: String,
    /// Numbers of 64 bits are text in JSON.
    #[serde(default)]
    size: Option<String>,
    #[serde(default)]
    updated: String,
    #[serde(default)]
    generation: Option<String>,
}

/// Lists what begins with `start` below the prefix.
pub(super) async fn list(origin: &Web<Gs>, start: &str, sink: &mut dyn Sink) -> Result<(), OriginError> {
    let Gs { place, page_by_page, .. } = &origin.dialect;
    let url = |begin: Begin<'_>| place.listing(start, begin);
    ranges::list(origin, page_by_page, url, |body| read(place, body), sink).await
}

fn read(place: &Place, body: &[u8]) -> Result<ranges::Page, OriginError> {
    let page: Page =
        serde_json::from_slice(body).map_err(|error| unreadable(&place.name(), &error.to_string()))?;
    let mut keys = Vec::with_capacity(page.items.len());
    for item in &page.items {
        let Some(path) = below(|| place.name(), place.prefix(), &item.name)? else { continue };
        let lacks = |what| unreadable(&place.name(), &format!("{} has no {what}", shown(&item.name)));
        // An empty object may come without.
        let size = item.size.as_deref().unwrap_or("0").parse().map_err(|_| lacks("size"))?;
        let generation = item.generation.as_deref().filter(|generation| !generation.is_empty());
        let generation = generation.ok_or_else(|| lacks("generation"))?;
        keys.push(Key {
            path: Ok(path.to_owned()),
            size,
            modified: time::of_listing(&item.updated).unwrap_or(0),
            // Not the ETag, which changes with the metadata too.
            validator: Validator::ETag(generation.to_owned()),
        });
    }
    let next = page.next_page_token.filter(|token| !token.is_empty());
    Ok(ranges::Page { keys, is_empty: page.items.is_empty(), next })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::conformance::Collected;
    use proptest::prelude::*;

    fn collect(body: &[u8], prefix: &str) -> Result<Collected, OriginError> {
        let place = Place::new("b".into(), prefix.into(), None).unwrap();
        let mut collected = Collected::default();
        let keys = read(&place, body)?.keys;
        ranges::take(&keys, &(0..keys.len()), &mut collected)?;
        Ok(collected)
    }

    const AS_GOOGLE_WRITES_IT: &str = r#"{"nextPageToken": "CgEx", "items": [
        {"name": "p/", "size": "0", "generation": "1700000000000001", "updated": "2026-01-02T03:04:05.678Z"},
        {"name": "p//a b\u0001", "size": "7", "generation": "1700000000000002", "updated": "2026-01-02T03:04:05.678Z"},
        {"name": "p/d/", "generation": "1700000000000003", "updated": "2026-01-02T03:04:05.678Z"}]}"#;

    #[test]
    fn listings_are_read_as_google_writes_them() {
        let collected = collect(AS_GOOGLE_WRITES_IT.as_bytes(), "p/").unwrap();
        let found: Vec<_> = collected.objects.into_iter().collect();
        let generation = |n: &str| Validator::ETag(format!("170000000000000{n}"));
        assert_eq!(
            found,
            [("/a b\u{1}".to_owned(), (7, generation("2"))), ("d/".to_owned(), (0, generation("3")))]
        );
    }

    #[test]
    fn what_could_not_be_read_again_is_no_listing() {
        for body in [
            r#"{"items": [{"name": "p/x", "size": "1", "updated": "2026-01-02T03:04:05Z"}]}"#,
            r#"{"items": [{"name": "p/x", "size": "-1", "generation": "1"}]}"#,
            r#"{"items": [{"name": "q/x", "size": "1", "generation": "1"}]}"#,
            "<html>",
        ] {
            assert!(matches!(collect(body.as_bytes(), "p/"), Err(OriginError::Malformed(_))), "{body}");
        }
        assert!(collect(b"{}", "p/").unwrap().objects.is_empty());
    }

    proptest! {
        #[test]
        fn damaged_listings_never_panic(at: prop::sample::Index, with in "\\PC{0,8}", cut: prop::sample::Index) {
            let mut body = AS_GOOGLE_WRITES_IT.as_bytes().to_vec();
            let at = at.index(body.len());
            body.splice(at..at, with.into_bytes());
            body.truncate(cut.index(body.len()) + 1);
            let place = Place::new("b".into(), "p/".into(), None).unwrap();
            if let Err(error) = read(&place, &body) {
                prop_assert!(!error.to_string().contains('\n'));
            }
        }
    }
}
