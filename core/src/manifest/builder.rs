//! Makes a manifest from a listing, in whatever order the listing came.

use super::encoding::{self, RowReader, RowWriter};
use super::path::{self, path_order, shown};
use super::totals::Totals;
use super::{File, Manifest, ManifestOrigin, Row};
use crate::block::BlockNumber;
use crate::object::Validator;
use itertools::Itertools;
use std::cmp::{Ordering, Reverse};
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

impl ListedObject {
    /// As a file that has no place yet.
    fn as_file(&self) -> File<'_> {
        let Self { origin, path, size, modified, validator, unlisted } = self;
        let (origin, size, modified, unlisted) = (*origin, *size, *modified, *unlisted);
        File { index: 0, path, size, modified, validator, origin, first_block: 0, unlisted }
    }

    /// Path order; of what is listed twice the newer comes first, and nothing depends on what came first.
    fn order(&self, other: &Self) -> Ordering {
        let newest = |object: &Self| (object.origin, Reverse(object.modified), object.size);
        path_order(&self.path, &other.path)
            .then_with(|| newest(self).cmp(&newest(other)))
            .then_with(|| self.validator.cmp(&other.validator))
    }
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

/// A manifest as it is stored and sent, and what it comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedManifest {
    /// Its encoding.
    pub bytes: Vec<u8>,
    /// Listed files.
    pub listed: usize,
    /// Files that are shown and not kept.
    pub unlisted: usize,
    /// Bytes of all listed files.
    pub size: u64,
    /// Their blocks.
    pub blocks: BlockNumber,
}

/// Objects of a run: sorting and encoding them takes a few milliseconds, for which others wait.
const RUN: usize = if cfg!(test) { 8 } else { 1 << 14 };

/// Collects listed objects and makes the manifest.
///
/// What comes is sorted in short runs, and kept as an encoding has it, in a third of a manifest's memory. At the end they
/// are merged into the encoding: a listing of millions is in memory twice in that form, whatever its order.
#[derive(Debug)]
pub struct ManifestBuilder {
    origins: Vec<ManifestOrigin>,
    /// What came since the last run.
    latest: Vec<ListedObject>,
    runs: Vec<Vec<u8>>,
    len: usize,
    shows: bool,
    skipped: Skipped,
}

impl ManifestBuilder {
    /// An empty listing of these origins.
    pub fn new(origins: Vec<ManifestOrigin>) -> Self {
        let (latest, runs) = (Vec::new(), Vec::new());
        Self { origins, latest, runs, len: 0, shows: false, skipped: Skipped::default() }
    }

    /// Adds an object, or counts it as skipped.
    pub fn push(&mut self, object: ListedObject) {
        // Consoles make an empty object "dir/" for every folder; it is no file
        // and nobody misses it.
        if object.path.ends_with('/') && object.size == 0 {
            return;
        }
        if let Err(reason) = path::check(&object.path) {
            self.skipped.add(&object.path, reason);
            return;
        }
        self.len += 1;
        self.shows |= object.unlisted;
        self.latest.push(object);
        if self.latest.len() == RUN {
            self.end_run();
        }
    }

    /// Counts a key that could not even be listed as an object.
    pub fn skip(&mut self, key: &str, reason: SkipReason) {
        self.skipped.add(key, reason);
    }

    /// How many objects were taken so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no object was taken so far.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn end_run(&mut self) {
        self.latest.sort_by(ListedObject::order);
        let mut run = RowWriter::behind(Vec::new(), true);
        for object in self.latest.drain(..) {
            run.push(&object.as_file());
        }
        let mut run = run.finish();
        run.shrink_to_fit();
        self.runs.push(run);
    }

    /// Numbers and checks what was pushed, and encodes the manifest of it.
    pub fn encode(mut self) -> Result<(EncodedManifest, Skipped), BuildError> {
        self.end_run();
        let Self { origins, runs, shows, mut skipped, .. } = self;
        let mut totals = Totals::default();
        let mut rows = RowWriter::behind(Vec::new(), shows);
        let take = |object: ListedObject| {
            rows.push(&object.as_file());
            totals.add(&object.path, object.size, object.unlisted)
        };
        resolve(merged(&runs), &origins, &mut skipped, take)?;
        drop(runs);
        let mut bytes = rows.finish();
        let unlisted = totals.unlisted_files;
        if shows && unlisted == 0 {
            bytes = without_flags(&bytes);
        }
        bytes.splice(0..0, encoding::head(&origins, unlisted > 0, totals.files));
        let Totals { files, bytes: size, blocks, .. } = totals;
        Ok((EncodedManifest { bytes, listed: files - unlisted, unlisted, size, blocks }, skipped))
    }

    /// Likewise, and gives the manifest itself.
    pub fn finish(mut self) -> Result<(Manifest, Skipped), BuildError> {
        self.end_run();
        let Self { origins, runs, mut skipped, .. } = self;
        let mut manifest = Manifest::empty(origins.clone());
        resolve(merged(&runs), &origins, &mut skipped, |object| manifest.append_object(&object))?;
        Ok((manifest, skipped))
    }
}

/// All that the runs have, in order.
fn merged(runs: &[Vec<u8>]) -> impl Iterator<Item = ListedObject> {
    let runs = runs.iter().map(|run| rows(run, true));
    runs.kmerge_by(|one, next| one.order(next).is_lt())
}

fn rows(bytes: &[u8], shows: bool) -> impl Iterator<Item = ListedObject> {
    let mut rows = RowReader::new(bytes, shows);
    std::iter::from_fn(move || {
        let is_at_end = rows.is_at_end().expect("what is in memory can be read");
        (!is_at_end).then(|| rows.read().expect("what was written here can be read"))
    })
}

/// What was shown is all skipped: then the format is one that knows of no such files.
fn without_flags(bytes: &[u8]) -> Vec<u8> {
    let mut without = RowWriter::behind(Vec::with_capacity(bytes.len()), false);
    for object in rows(bytes, true) {
        without.push(&object.as_file());
    }
    without.finish()
}

/// Hands on what can stand in one tree, of objects in order, and counts what cannot.
fn resolve(
    objects: impl Iterator<Item = ListedObject>,
    origins: &[ManifestOrigin],
    skipped: &mut Skipped,
    mut take: impl FnMut(ListedObject) -> Result<(), BuildError>,
) -> Result<(), BuildError> {
    // The one before is taken when the next one is known.
    let mut before: Option<ListedObject> = None;
    for object in objects {
        if let Some(last) = before.take() {
            let is_directory = path::is_below(&object.path, &last.path);
            // What is only shown is never in the way of what is listed.
            if is_directory && object.unlisted != last.unlisted {
                let (kept, in_the_way) = if object.unlisted { (last, object) } else { (object, last) };
                skipped.add(&in_the_way.path, SkipReason::IsDirectory);
                before = Some(kept);
                continue;
            }
            if (last.path == object.path || is_directory) && last.origin != object.origin {
                return Err(claimed(origins, &last, &object));
            }
            if last.path == object.path {
                skipped.add(&object.path, SkipReason::Duplicate);
                before = Some(last);
                continue;
            }
            // Path order puts a directory's files right behind a file of its
            // name. Dropping that one file loses least.
            if is_directory {
                skipped.add(&last.path, SkipReason::IsDirectory);
            } else {
                take(last)?;
            }
        }
        before = Some(object);
    }
    before.map_or(Ok(()), take)
}

fn claimed(origins: &[ManifestOrigin], first: &ListedObject, second: &ListedObject) -> BuildError {
    let uri = |object: &ListedObject| origins[usize::from(object.origin)].uri.clone();
    BuildError::Claimed { path: shown(&first.path).collect(), first: uri(first), second: uri(second) }
}

impl Manifest {
    pub(super) fn empty(origins: Vec<ManifestOrigin>) -> Self {
        Self { origins, paths: String::new(), rows: Vec::new(), totals: Totals::default() }
    }

    /// Appends a file behind all others, and numbers its blocks; the caller has checked order and path.
    pub(super) fn append_object(&mut self, object: &ListedObject) -> Result<(), BuildError> {
        let ListedObject { origin, path, size, modified, validator, unlisted } = object;
        let before = self.totals;
        self.totals.add(path, *size, *unlisted)?;
        self.paths.push_str(path);
        self.rows.push(Row {
            path_end: self.totals.paths,
            origin: *origin,
            unlisted: *unlisted,
            listed_before: before.blocks,
            unlisted_before: before.unlisted_blocks,
            size: *size,
            modified: *modified,
            validator: validator.clone(),
        });
        Ok(())
    }
}
