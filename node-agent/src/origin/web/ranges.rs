//! Listings that can begin behind any key: page by page, a long one in several places at once.

use super::{Dialect, Pages, Web};
use crate::origin::{OriginError, Sink};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hearth_core::key_ranges::{KeyRanges, NextPage, OutOfOrder};
use hearth_core::manifest::SkipReason;
use hearth_core::object::Validator;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a page: 1,000 keys of 1,024 bytes, each byte escaped, with room for what stands around.
const LONGEST_PAGE: usize = 16 << 20;
/// Pages that are asked for at one time.
const WIDTH: usize = 10;

/// Stores whose listings are found not to be in the order of their keys' bytes.
#[derive(Clone, Debug, Default)]
pub(in crate::origin) struct PageByPage(Arc<Mutex<HashSet<String>>>);

impl PageByPage {
    /// More are not remembered, and found out anew.
    const MOST: usize = 1024;

    fn has(&self, name: &str) -> bool {
        self.0.lock().contains(name)
    }

    fn add(&self, name: String) {
        let mut names = self.0.lock();
        if names.len() < Self::MOST {
            names.insert(name);
        }
    }
}

/// Where a page begins.
#[derive(Clone, Copy, Debug)]
pub(in crate::origin) enum Begin<'a> {
    /// Behind a path below the prefix; at the beginning when it is empty.
    Behind(&'a str),
    /// Where the page before says, of what begins behind a path.
    Token { token: &'a str, behind: &'a str },
}

/// A key as it is listed.
#[derive(Debug)]
pub(in crate::origin) struct Key {
    /// Its path below the prefix; the error is what can be shown of one that is no UTF-8.
    pub(in crate::origin) path: Result<String, String>,
    pub(in crate::origin) size: u64,
    pub(in crate::origin) modified: i64,
    pub(in crate::origin) validator: Validator,
}

/// A page of a listing.
#[derive(Debug, Default)]
pub(in crate::origin) struct Page {
    /// Without the marker of the prefix itself.
    pub(in crate::origin) keys: Vec<Key>,
    /// Whether it had no keys at all.
    pub(in crate::origin) is_empty: bool,
    /// Where the listing goes on; `None` at its end.
    pub(in crate::origin) next: Option<String>,
}

/// Where one range of keys is.
#[derive(Default)]
struct Position {
    /// The key behind which it begins.
    behind: String,
    pages: Pages,
    token: Option<String>,
}

/// Lists what `url` is the URL of, each page of which is as `parse` reads it.
pub(in crate::origin) async fn list<D: Dialect>(
    origin: &Web<D>,
    unordered: &PageByPage,
    url: impl Fn(Begin<'_>) -> String,
    parse: impl Fn(&[u8]) -> Result<Page, OriginError>,
    sink: &mut dyn Sink,
) -> Result<(), OriginError> {
    let name = origin.dialect.name();
    let mut ranges = KeyRanges::new(if unordered.has(&name) { 1 } else { WIDTH });
    let mut positions: Vec<Position> = Vec::new();
    let mut under_way = FuturesUnordered::new();
    loop {
        while let Some(NextPage { range, after }) = ranges.next_page() {
            positions.resize_with(positions.len().max(range + 1), Position::default);
            let Position { behind, token, .. } = &mut positions[range];
            if let Some(after) = after {
                *behind = after;
            }
            let begin = match token {
                Some(token) => Begin::Token { token, behind },
                None => Begin::Behind(behind),
            };
            let url = url(begin);
            under_way.push(async move { (range, origin.page(LONGEST_PAGE, &url).await) });
        }
        let Some((range, body)) = under_way.next().await else { return Ok(()) };
        let (_, body) = body?;
        let Page { mut keys, is_empty, next } = parse(&body)?;
        // Some stores begin at a key, and not behind it.
        let behind = &positions[range].behind;
        if keys.first().is_some_and(|key| !behind.is_empty() && key.path.as_ref() == Ok(behind)) {
            keys.remove(0);
        }
        let readable: Vec<&str> = keys.iter().filter_map(|key| key.path.as_deref().ok()).collect();
        let numbers = ranges.page(range, &readable, next.is_some()).map_err(|OutOfOrder| {
            unordered.add(name.clone());
            OriginError::Malformed(format!(
                "{name} lists keys in another order than that of their bytes: from the next time on it is listed page by page"
            ))
        })?;
        let is_all = numbers.end == readable.len();
        take(&keys, &numbers, sink)?;
        if let Some(next) = next.filter(|_| is_all) {
            let Position { pages, token, .. } = &mut positions[range];
            *token = Some(pages.next(&name, is_empty, next)?);
        }
    }
}

/// Takes the keys that are readable and have these numbers among those, and the others between them.
pub(in crate::origin) fn take(
    keys: &[Key],
    numbers: &Range<usize>,
    sink: &mut dyn Sink,
) -> Result<(), OriginError> {
    let readable = keys.iter().filter(|key| key.path.is_ok()).count();
    let mut number = 0;
    for Key { path, size, modified, validator } in keys {
        let at = number;
        let path = match path {
            Ok(path) => {
                number += 1;
                path
            }
            Err(key) => {
                // It goes with the readable ones around it.
                if at >= numbers.start && (at < numbers.end || numbers.end == readable) {
                    sink.skip(key, SkipReason::NotUtf8);
                }
                continue;
            }
        };
        if numbers.contains(&at) {
            sink.object(path, *size, *modified, validator.clone())?;
        }
    }
    Ok(())
}
