//! Which keys can be paths of a tree, and the order in which paths stand.

use super::SkipReason;
use std::cmp::Ordering;

/// Longest name of one segment, as Linux file systems have it.
const MAX_SEGMENT: usize = 255;
/// Longest path, as Linux has it with the terminating NUL.
const MAX_PATH: usize = 4095;

/// Compares paths segment by segment: a directory's files stand together, right
/// behind where a file of the directory's own name would stand.
pub fn path_order(a: &str, b: &str) -> Ordering {
    // '/' sorts below every other byte; paths have no NUL to collide with it.
    let weight = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.bytes().map(|b| weight(&b)).cmp(b.bytes().map(|b| weight(&b)))
}

/// Checks that `path` can be a path in a read-only tree below some root.
pub(super) fn check(path: &str) -> Result<(), SkipReason> {
    if path.len() > MAX_PATH {
        return Err(SkipReason::TooLong);
    }
    for segment in path.split('/') {
        match segment {
            "" => return Err(SkipReason::EmptySegment),
            "." | ".." => return Err(SkipReason::DotSegment),
            _ if segment.len() > MAX_SEGMENT => return Err(SkipReason::TooLong),
            _ if segment.contains('\0') => return Err(SkipReason::Nul),
            _ => {}
        }
    }
    Ok(())
}

/// Whether `directory` names a directory that `path` lies in.
pub(super) fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

/// A path as a status shows it: enough to find it by, and little enough for a field.
pub(crate) fn shown(path: &str) -> impl Iterator<Item = char> {
    path.chars().take(200).flat_map(char::escape_default)
}
