//! Makes a manifest from a listing, in whatever order the listing came.

use super::path::{self, path_order, shown};
use super::{File, Manifest, ManifestOrigin, Row};
use crate::block::{self, BlockNumber};
use crate::object::Validator;
use std::fmt;

/// One object as an origin lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    /// Index into the builder's origins.
    pub origin: u16,
    /// Path in the dataset's tree, as the key says; not checked yet.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Last change, nanoseconds since 1970.
    pub modified: i64,
    /// Which content it has.
    pub validator: Validator,
    /// The dataset does not take it, and shows it all the same.
    pub unlisted: bool,
}

/// Why a key is not in the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SkipReason {
    /// `//`, a leading or a trailing slash.
    EmptySegment,
    /// `.` or `..` as a segment.
    DotSegment,
    /// A NUL byte.
    Nul,
    /// Bytes that are no UTF-8.
    NotUtf8,
    /// A segment over 255 bytes or a path over 4,095.
    TooLong,
    /// Other keys lie below it as if it were a directory.
    IsDirectory,
    /// The same path twice.
    Duplicate,
    /// A link, device or socket, which is never followed.
    NotAFile,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmptySegment => "it has an empty segment",
            Self::DotSegment => "it has a segment \".\" or \"..\"",
            Self::Nul => "it has a NUL byte",
            Self::NotUtf8 => "it is not UTF-8",
            Self::TooLong => "it is longer than a path can be",
            Self::IsDirectory => "other keys lie below it as if it were a directory",
            Self::Duplicate => "the same path is listed twice",
            Self::NotAFile => "it is not a regular file",
        })
    }
}

/// Keys that are not in a manifest: how many, and one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many keys were skipped.
    pub count: u64,
    /// The least of them, so that the same listing tells of the same one; shortened, with the reason.
    pub example: Option<(String, SkipReason)>,
}

impl Skipped {
    /// Counts one more skipped key.
    pub fn add(&mut self, key: &str, reason: SkipReason) {
        self.count += 1;
        let is_less =
            |(least, of): &(String, SkipReason)| shown(key).cmp(least.chars()).then(reason.cmp(of)).is_lt();
        if self.example.as_ref().is_none_or(is_less) {
            self.example = Some((shown(key).collect(), reason));
        }
    }
}

/// Why a listing makes no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// It has more blocks or bytes of paths than a manifest can number.
    #[error("the listing has more than 4,294,967,295 blocks, or 4 GiB of paths: split the dataset")]
    TooManyBlocks,
    /// Two origins have a file at one path, or one has a file where another has a directory.
    #[error(
        "the path \"{path}\" is claimed by two of spec.origins, {first} and {second}: \
         give one of them another path, or exclude it by spec.files.exclude with spec.files.unlisted: Hide"
    )]
    Claimed {
        /// The path, shortened.
        path: String,
        /// URI of the one.
        first: String,
        /// URI of the other.
        second: String,
    },
}

/// Collects listed objects and makes the manifest.
#[derive(Debug)]
pub struct ManifestBuilder {
    /// In the order in which they came. Stores mostly list in path order: then this is the
    /// manifest, and a listing of millions is in memory once.
    listed: Manifest,
    /// There was more than a manifest can number.
    overflowed: bool,
    skipped: Skipped,
}

impl ManifestBuilder {
    /// An empty listing of these origins.
    pub fn new(origins: Vec<ManifestOrigin>) -> Self {
        Self { listed: Manifest::empty(origins), overflowed: false, skipped: Skipped::default() }
    }

    /// Adds an object, or counts it as skipped.
    pub fn push(&mut self, object: ListedObject) {
        // Consoles make an empty object "dir/" for every folder; it is no file
        // and nobody misses it.
        if object.path.ends_with('/') && object.size == 0 {
            return;
        }
        match path::check(&object.path) {
            Ok(()) => self.overflowed |= self.listed.append_object(object).is_err(),
            Err(reason) => self.skipped.add(&object.path, reason),
        }
    }

    /// Counts a key that could not even be listed as an object.
    pub fn skip(&mut self, key: &str, reason: SkipReason) {
        self.skipped.add(key, reason);
    }

    /// How many objects were taken so far.
    pub fn len(&self) -> usize {
        self.listed.file_count()
    }

    /// Whether no object was taken so far.
    pub fn is_empty(&self) -> bool {
        self.listed.file_count() == 0
    }

    /// Sorts, numbers and checks what was pushed.
    pub fn finish(self) -> Result<(Manifest, Skipped), BuildError> {
        let Self { mut listed, overflowed, mut skipped } = self;
        if overflowed {
            return Err(BuildError::TooManyBlocks);
        }
        if listed.is_in_order() {
            listed.paths.shrink_to_fit();
            listed.rows.shrink_to_fit();
            return Ok((listed, skipped));
        }
        let mut order: Vec<File<'_>> = listed.files().collect();
        order.sort_by(|a, b| path_order(a.path, b.path).then(a.origin.cmp(&b.origin)));
        let mut manifest = Manifest::empty(listed.origins.clone());
        manifest.rows.reserve_exact(order.len());
        manifest.paths.reserve_exact(listed.paths.len());
        // The one before is taken when the next one is known.
        let mut before: Option<File<'_>> = None;
        for file in order {
            if let Some(last) = before.take() {
                let is_directory = path::is_below(file.path, last.path);
                // What is only shown is never in the way of what is listed.
                if is_directory && file.unlisted != last.unlisted {
                    let in_the_way = if file.unlisted { &file } else { &last };
                    skipped.add(in_the_way.path, SkipReason::IsDirectory);
                    before = Some(if file.unlisted { last } else { file });
                    continue;
                }
                if (last.path == file.path || is_directory) && last.origin != file.origin {
                    return Err(manifest.claimed(&last, &file));
                }
                if last.path == file.path {
                    skipped.add(file.path, SkipReason::Duplicate);
                    before = Some(last);
                    continue;
                }
                // Path order puts a directory's files right behind a file of its
                // name. Dropping that one file loses least.
                if is_directory {
                    skipped.add(last.path, SkipReason::IsDirectory);
                } else {
                    manifest.append(&last)?;
                }
            }
            before = Some(file);
        }
        if let Some(last) = before {
            manifest.append(&last)?;
        }
        Ok((manifest, skipped))
    }
}

impl Manifest {
    pub(super) fn empty(origins: Vec<ManifestOrigin>) -> Self {
        Self {
            origins,
            paths: String::new(),
            rows: Vec::new(),
            blocks: 0,
            bytes: 0,
            unlisted_files: 0,
            unlisted_blocks: 0,
        }
    }

    /// Whether nothing has to be sorted or left out.
    fn is_in_order(&self) -> bool {
        let follows = |(one, next): (File<'_>, File<'_>)| {
            path_order(one.path, next.path).is_lt() && !path::is_below(next.path, one.path)
        };
        self.files().zip(self.files().skip(1)).all(follows)
    }

    fn claimed(&self, first: &File<'_>, second: &File<'_>) -> BuildError {
        let uri = |file: &File<'_>| self.origins[usize::from(file.origin)].uri.clone();
        BuildError::Claimed { path: shown(first.path).collect(), first: uri(first), second: uri(second) }
    }

    pub(super) fn append_object(&mut self, object: ListedObject) -> Result<(), BuildError> {
        let ListedObject { origin, path, size, modified, validator, unlisted } = object;
        let (index, first_block) = (self.rows.len(), 0);
        let validator = &validator;
        self.append(&File { index, path: &path, size, modified, validator, origin, first_block, unlisted })
    }

    /// Appends a file behind all others, and numbers its blocks; the caller has checked order and path.
    pub(super) fn append(&mut self, file: &File<'_>) -> Result<(), BuildError> {
        let blocks =
            BlockNumber::try_from(block::blocks_in(file.size)).map_err(|_| BuildError::TooManyBlocks)?;
        // All of them are numbered in one range.
        let before = self.blocks + self.unlisted_blocks;
        before.checked_add(blocks).ok_or(BuildError::TooManyBlocks)?;
        let end = self.paths.len() + file.path.len();
        let path_end = u32::try_from(end).map_err(|_| BuildError::TooManyBlocks)?;
        self.paths.push_str(file.path);
        self.rows.push(Row {
            path_end,
            origin: file.origin,
            unlisted: file.unlisted,
            listed_before: self.blocks,
            unlisted_before: self.unlisted_blocks,
            size: file.size,
            modified: file.modified,
            validator: file.validator.clone(),
        });
        if file.unlisted {
            self.unlisted_files += 1;
            self.unlisted_blocks += blocks;
        } else {
            self.blocks += blocks;
            self.bytes += file.size;
        }
        Ok(())
    }
}
