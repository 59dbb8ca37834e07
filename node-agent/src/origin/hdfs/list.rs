//! Walks a directory: several of its directories at one time, a page of each.

use super::{Hdfs, modified};
use crate::origin::{OriginError, Sink, Urgency};
use futures::stream::{FuturesUnordered, StreamExt};
use hdfs_native::client::{FileStatus, ListStatusIterator};
use hearth_core::manifest::SkipReason;
use hearth_core::object::Validator;

/// Directories that are listed at one time.
const AT_ONCE: usize = 8;
/// Entries that a name node sends at once unless it is told otherwise.
const PAGE: usize = 1000;
/// Longer than any path that a manifest takes.
const LONGEST: usize = 4096;

/// How far the listing of one directory has come.
#[derive(Default)]
struct Cursor {
    /// The directory's path below the origin's: empty, or ending in `/`.
    below: String,
    /// The name that came last.
    last: String,
    /// Where the next page comes from.
    open: Option<ListStatusIterator>,
}

/// Some entries of a directory, and where the next come from; `None` when these are the last.
type Page = (Vec<FileStatus>, Option<ListStatusIterator>);

pub(super) async fn list(origin: &Hdfs, sink: &mut dyn Sink) -> Result<(), OriginError> {
    let mut pending = vec![Cursor::default()];
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < AT_ONCE
            && let Some(cursor) = pending.pop()
        {
            running.push(next(origin, cursor));
        }
        let Some((cursor, page)) = running.next().await else { return Ok(()) };
        let (entries, open) = match page {
            Ok(page) => page,
            // Gone since its parent was read.
            Err(OriginError::NotFound(_)) if !cursor.below.is_empty() => continue,
            Err(error) => return Err(error),
        };
        let Cursor { below, mut last, .. } = cursor;
        let directory = origin.place.path(&below);
        for entry in entries {
            let Some(name) = name(&entry, &directory) else {
                if below.is_empty() {
                    let what = origin.place.shown(&below);
                    return Err(OriginError::NotFound(format!("{what} is no directory")));
                }
                // A file by now.
                continue;
            };
            let path = format!("{below}{name}");
            name.clone_into(&mut last);
            if !entry.isdir {
                let modified = modified(&entry);
                sink.object(&path, entry.length as u64, modified, Validator::Modified(modified))?;
            } else if path.len() > LONGEST {
                sink.skip(&path, SkipReason::TooLong);
            } else {
                pending.push(Cursor { below: format!("{path}/"), ..Cursor::default() });
            }
        }
        if open.is_some() {
            // Before its directories: what is pending stays little.
            pending.push(Cursor { below, last, open });
        }
    }
}

/// The next page of a directory; what may succeed is tried again.
async fn next(origin: &Hdfs, mut cursor: Cursor) -> (Cursor, Result<Page, OriginError>) {
    let mut open = cursor.open.take();
    let page = origin.budget.retries.run(|| page(origin, &cursor, open.take())).await;
    (cursor, page)
}

/// Without `open` the listing begins anew, and what came before is left out: names come in order.
async fn page(origin: &Hdfs, cursor: &Cursor, open: Option<ListStatusIterator>) -> Result<Page, OriginError> {
    let directory = origin.place.path(&cursor.below);
    let what = origin.place.shown(&cursor.below);
    let last = cursor.last.as_str();
    let _turn = origin.budget.turn(Urgency::Background).await;
    origin.budget.request().await;
    let ask = origin.cluster.ask(&what, |client| async move {
        let open = open.unwrap_or_else(|| client.list_status_iter(&directory, false));
        let mut entries = Vec::new();
        for _ in 0..PAGE {
            match open.next().await.transpose()? {
                Some(entry) if name(&entry, &directory).is_none_or(|name| name > last) => entries.push(entry),
                Some(_) => {}
                None => return Ok((entries, None)),
            }
        }
        Ok((entries, Some(open)))
    });
    origin.counted("list", ask).await
}

/// What an entry of a directory is called; `None` when it is what was to be listed itself, and so
/// no directory.
fn name<'a>(entry: &'a FileStatus, directory: &str) -> Option<&'a str> {
    entry
        .path
        .strip_prefix(directory.trim_end_matches('/'))?
        .strip_prefix('/')
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_itself_has_no_name() {
        for (path, directory, expected) in [
            ("/a/b/c", "/a/b", Some("c")),
            ("/a", "/", Some("a")),
            ("/a/b", "/a/b", None),
            ("/", "/", None),
            ("/a/bc", "/a/b", None),
        ] {
            let entry = FileStatus {
                path: path.to_owned(),
                length: 0,
                isdir: false,
                permission: 0,
                owner: String::new(),
                group: String::new(),
                modification_time: 0,
                access_time: 0,
                replication: None,
                blocksize: None,
            };
            assert_eq!(name(&entry, directory), expected, "{path} in {directory}");
        }
    }
}
