//! Which files there are, and what each is.

use super::page::{Link, link, links};
use super::{Listed, Site};
use crate::origin::web::{Web, time};
use crate::origin::{Found, OriginError, Sink, shown};
use futures::{StreamExt, TryStreamExt};
use hearth_core::manifest::SkipReason;
use hearth_core::object::Validator;
use http::header::{self, HeaderMap, HeaderName};
use std::collections::HashSet;

/// An index of a million files of one folder has less.
const LONGEST_PAGE: usize = 256 << 20;
/// Folders in one another. An index that makes up folders as it is read has more.
const DEEPEST: usize = 128;
/// Files that are asked for at one time.
const AT_ONCE: usize = 16;

/// What the server says of a file.
struct Told {
    size: u64,
    modified: i64,
    validator: Validator,
}

pub(super) async fn list(origin: &Web<Site>, sink: &mut dyn Sink) -> Result<(), OriginError> {
    let place = &origin.dialect.place;
    match place.listed() {
        Listed::File(name) => {
            // What a URL says is encoded, what a path is called is not.
            match link(place.folder(), &format!("./{name}")) {
                Some(Link::File(path)) => {
                    let told = head(origin, &path).await?;
                    sink.object(&path, told.size, told.modified, told.validator)
                }
                _ => Err(OriginError::Refused(format!(
                    "{} cannot be a file of a tree",
                    origin.dialect.place.uri()
                ))),
            }
        }
        Listed::List(_) => {
            let body = text(origin, &place.uri()).await?.1;
            let mut seen = HashSet::new();
            let mut paths = Vec::new();
            for line in body.lines().map(|line| line.trim_end_matches('\r')).filter(|line| !line.is_empty()) {
                match named(origin, line) {
                    Link::File(path) if seen.insert(path.clone()) => paths.push(path),
                    Link::File(_) => {}
                    Link::Folder(path) => sink.skip(&path, SkipReason::NotAFile),
                    Link::Skipped(path, reason) => sink.skip(&path, reason),
                }
            }
            heads(origin, paths, sink).await
        }
        Listed::Index => index(origin, sink).await,
    }
}

/// What a line of a list names: a path as it is called, or a URL.
fn named(origin: &Web<Site>, line: &str) -> Link {
    let skipped = |reason| Link::Skipped(line.to_owned(), reason);
    if line.starts_with("http://") || line.starts_with("https://") {
        return link(origin.dialect.place.folder(), line).unwrap_or_else(|| skipped(SkipReason::NotAFile));
    }
    let path = line.strip_prefix("./").unwrap_or(line);
    // Such a URL would be rewritten on its way.
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return skipped(SkipReason::DotSegment);
    }
    if path.ends_with('/') { Link::Folder(path.to_owned()) } else { Link::File(path.to_owned()) }
}

async fn index(origin: &Web<Site>, sink: &mut dyn Sink) -> Result<(), OriginError> {
    let name = origin.dialect.place.uri();
    let mut seen = HashSet::from([String::new()]);
    let mut pending = vec![String::new()];
    while let Some(folder) = pending.pop() {
        if folder.split('/').count() > DEEPEST {
            return Err(OriginError::Malformed(format!(
                "the index {name} has more than {DEEPEST} folders in one another"
            )));
        }
        let url = origin.dialect.place.file(&folder);
        let (kind, body) = match text(origin, &url).await {
            Ok(page) => page,
            Err(error) if folder.is_empty() || error.is_transient() => return Err(error),
            // One folder of many that is closed, or gone by now.
            Err(_) => {
                sink.skip(&folder, SkipReason::NotAFile);
                continue;
            }
        };
        if !kind.starts_with("text/html") && !kind.starts_with("application/xhtml+xml") {
            return Err(OriginError::Malformed(format!(
                "{name} has no index page for \"{}\": its type is \"{}\"",
                shown(&folder),
                shown(&kind)
            )));
        }
        let url = url.parse().map_err(|_| OriginError::Malformed(format!("{name} links to no URL")))?;
        let mut files = Vec::new();
        for link in links(&url, &body) {
            match link {
                Link::Folder(below) => {
                    let below = format!("{folder}{below}");
                    if seen.insert(below.clone()) {
                        pending.push(below);
                    }
                }
                Link::File(below) => files.push(format!("{folder}{below}")),
                Link::Skipped(below, reason) => sink.skip(&format!("{folder}{below}"), reason),
            }
        }
        // A page may link to what another page has.
        files.retain(|file| seen.insert(file.clone()));
        heads(origin, files, sink).await?;
    }
    Ok(())
}

/// Asks for what each file is, some at one time.
async fn heads(origin: &Web<Site>, paths: Vec<String>, sink: &mut dyn Sink) -> Result<(), OriginError> {
    let mut refused = None;
    let mut any = false;
    let mut told = futures::stream::iter(paths)
        .map(|path| async move {
            // Without credentials nothing would be listed: that is no fault of the file.
            origin.dialect.credentials.get().await?;
            match head(origin, &path).await {
                Ok(told) => Ok((path, Ok(told))),
                Err(error) if error.is_transient() => Err(error),
                // One of many that is closed, a redirect, gone by now, or without a name for its content.
                Err(error) => Ok((path, Err(error))),
            }
        })
        .buffer_unordered(AT_ONCE);
    while let Some((path, told)) = told.try_next().await? {
        match told {
            Ok(told) => {
                any = true;
                sink.object(&path, told.size, told.modified, told.validator)?;
            }
            Err(error) => {
                refused = Some(error);
                sink.skip(&path, SkipReason::NotAFile);
            }
        }
    }
    // All of them closed is no listing but a refusal.
    match refused {
        Some(error @ OriginError::Denied(_)) if !any => Err(error),
        _ => Ok(()),
    }
}

/// The file of this path, whether or not it is listed.
pub(super) async fn find(origin: &Web<Site>, path: &str) -> Result<Option<Found>, OriginError> {
    match head(origin, path).await {
        Ok(Told { size, validator, .. }) => Ok(Some(Found { size, validator })),
        // A folder redirects to itself with a slash.
        Err(
            OriginError::NotFound(_)
            | OriginError::Changed(_)
            | OriginError::Gone(_)
            | OriginError::Refused(_),
        ) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn head(origin: &Web<Site>, path: &str) -> Result<Told, OriginError> {
    let url = origin.dialect.place.file(path);
    told(&origin.head(&url).await?)
        .map_err(|lacks| OriginError::Malformed(format!("{} tells no {lacks}", shown(&url))))
}

/// What the headers of an answer to HEAD say of a file; the error is what they do not.
fn told(headers: &HeaderMap) -> Result<Told, &'static str> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let size = text(header::CONTENT_LENGTH).and_then(|size| size.parse().ok()).ok_or("length")?;
    let modified = text(header::LAST_MODIFIED).and_then(time::of_http);
    let validator = match text(header::ETAG) {
        // A weak one is also that of other bytes.
        Some(etag) if etag.starts_with('"') => Validator::etag(etag),
        _ => Validator::Modified(modified.ok_or("strong ETag and no time of its last change")?),
    };
    Ok(Told { size, modified: modified.unwrap_or(0), validator })
}

/// The type and the text of a page.
async fn text(origin: &Web<Site>, url: &str) -> Result<(String, String), OriginError> {
    let (headers, body) = origin.page(LONGEST_PAGE, url).await?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let body = String::from_utf8(body).map_err(|_| {
        OriginError::Malformed(format!("{} sent a page that is not UTF-8", origin.dialect.place.uri()))
    })?;
    Ok((kind.unwrap_or_default().to_owned(), body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_apart_by_what_cannot_stay_the_same() {
        let of = |pairs: &[(HeaderName, &'static str)]| {
            let headers = pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
            told(&headers.collect()).map(|told| (told.size, told.modified, told.validator))
        };
        let (length, etag) = ((header::CONTENT_LENGTH, "7"), (header::ETAG, "\"x-7\""));
        let weak = (header::ETAG, "W/\"x-7\"");
        let changed = (header::LAST_MODIFIED, "Fri, 02 Jan 2026 03:04:05 GMT");
        let nanos = 1_767_323_045_000_000_000;
        assert_eq!(
            of(&[length.clone(), etag, changed.clone()]).unwrap(),
            (7, nanos, Validator::etag("\"x-7\""))
        );
        assert_eq!(
            of(&[length.clone(), weak.clone(), changed]).unwrap(),
            (7, nanos, Validator::Modified(nanos))
        );
        assert_eq!(of(&[length, weak]), Err("strong ETag and no time of its last change"));
        assert_eq!(of(&[]), Err("length"));
    }
}
