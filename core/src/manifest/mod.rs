//! The manifest: the immutable listing of one version of a dataset.
//!
//! Files stand in path order, each with its size and validator; their blocks
//! are numbered file by file. Files that a dataset shows without keeping them on
//! nodes are *unlisted*: their blocks are numbered behind those of all others, so
//! that whoever counts what is kept need not know of them. A manifest is named by
//! the hash of its encoding, so whoever holds the name can check what it was given.

mod builder;
mod encoding;
mod inherit;
mod path;
mod selected;
mod totals;

pub use builder::{BuildError, EncodedManifest, ListedObject, ManifestBuilder, SkipReason, Skipped};
pub use encoding::{DecodeError, EncodedFiles, FORMAT_VERSION, LONGEST_ENCODING, Source};
pub use inherit::Unchanged;
pub use path::path_order;
pub(crate) use path::shown;
pub use selected::Selected;

use crate::block::{self, BlockNumber};
use crate::object::{AccessDomain, ObjectId, Validator, parse_hex, push_hex};
use crate::selection::Selection;
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
use totals::Totals;

/// The name of a manifest: BLAKE3 of its encoding, 64 hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ManifestHash(pub [u8; 32]);

impl Serialize for ManifestHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for ManifestHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = ManifestHash;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the 32 bytes of a manifest's hash")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<ManifestHash, E> {
                bytes.try_into().map(ManifestHash).map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

impl ManifestHash {
    /// The name of the manifest with this encoding.
    pub fn of(encoding: &[u8]) -> Self {
        Self(*blake3::hash(encoding).as_bytes())
    }

    /// Parses what [`fmt::Display`] writes: 64 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }
}

impl fmt::Display for ManifestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(64);
        push_hex(&mut text, &self.0);
        f.write_str(&text)
    }
}

impl fmt::Debug for ManifestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(12);
        push_hex(&mut text, &self.0[..6]);
        f.write_str(&text)
    }
}

/// One place that files of a manifest come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestOrigin {
    /// Who shares the cached bytes of its objects.
    pub domain: AccessDomain,
    /// Canonical URI without a trailing slash, `s3://bucket/prefix`.
    pub uri: String,
    /// What stands before the path in the origin's keys: empty, or ending in `/`.
    pub key_prefix: String,
    /// Where its files stand in the dataset's tree: empty, or ending in `/`.
    pub mount: String,
}

impl ManifestOrigin {
    /// All of a place, at the root of the tree.
    pub fn whole(domain: AccessDomain, uri: &str) -> Self {
        Self { domain, uri: uri.to_owned(), key_prefix: String::new(), mount: String::new() }
    }
}

/// One file of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File<'a> {
    /// Its place among the manifest's files, in path order.
    pub index: usize,
    /// Path in the dataset's tree: relative, `/` between segments, never empty.
    pub path: &'a str,
    /// Bytes.
    pub size: u64,
    /// Last change at the origin, nanoseconds since 1970.
    pub modified: i64,
    /// Which content of the object this is.
    pub validator: &'a Validator,
    /// Index into [`Manifest::origins`].
    pub origin: u16,
    /// Number of its first block; an empty file has no block of that number.
    pub first_block: BlockNumber,
    /// It is shown and read from its origin, and never kept on nodes.
    pub unlisted: bool,
}

impl File<'_> {
    /// The numbers of its blocks.
    pub fn blocks(&self) -> Range<BlockNumber> {
        // Cannot be cut short: the builder counts blocks in this type.
        self.first_block..self.first_block + block::blocks_in(self.size) as BlockNumber
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Row {
    path_end: u32,
    origin: u16,
    unlisted: bool,
    /// Blocks of listed files before it, and of unlisted ones. Both rise from row to row: to
    /// either numbering a file of the other kind is as an empty one.
    listed_before: BlockNumber,
    unlisted_before: BlockNumber,
    size: u64,
    modified: i64,
    validator: Validator,
}

/// The immutable listing of one version of a dataset.
#[derive(Clone, PartialEq)]
pub struct Manifest {
    origins: Vec<ManifestOrigin>,
    /// All paths, one after the other; a row knows where its own ends.
    paths: String,
    rows: Vec<Row>,
    totals: Totals,
}

impl Manifest {
    /// Where its files come from.
    pub fn origins(&self) -> &[ManifestOrigin] {
        &self.origins
    }

    /// How many files it has, the unlisted ones included.
    pub fn file_count(&self) -> usize {
        self.rows.len()
    }

    /// How many of its files are unlisted.
    pub fn unlisted_count(&self) -> usize {
        self.totals.unlisted_files
    }

    /// How many of its files are listed: what is kept on nodes.
    pub fn listed_count(&self) -> usize {
        self.rows.len() - self.totals.unlisted_files
    }

    /// Bytes of all its listed files.
    pub fn bytes(&self) -> u64 {
        self.totals.bytes
    }

    /// The newest of its files' times, nanoseconds since 1970; 0 without files.
    pub fn newest(&self) -> i64 {
        self.rows.iter().map(|row| row.modified).max().unwrap_or(0)
    }

    /// How many blocks its listed files have; their numbers are `0..blocks()`.
    pub fn blocks(&self) -> BlockNumber {
        self.totals.blocks
    }

    /// The numbers of its unlisted files' blocks, of which no inventory speaks.
    pub fn unlisted_blocks(&self) -> Range<BlockNumber> {
        // Does not overflow: the builder has counted all of them.
        self.totals.blocks..self.totals.blocks + self.totals.unlisted_blocks
    }

    /// Those of them whose files a selection names. Looks at every path, as
    /// [`Selected::find`] does.
    pub fn unlisted_blocks_of(&self, selection: &Selection) -> RoaringBitmap {
        let mut blocks = RoaringBitmap::new();
        if selection.is_all() {
            blocks.insert_range(self.unlisted_blocks());
        } else if self.totals.unlisted_blocks > 0 {
            for file in self.select(selection).filter(|file| file.unlisted) {
                blocks.insert_range(file.blocks());
            }
        }
        blocks
    }

    /// The file at `index` in path order.
    pub fn file(&self, index: usize) -> Option<File<'_>> {
        let row = self.rows.get(index)?;
        let start = match index {
            0 => 0,
            _ => self.rows[index - 1].path_end,
        };
        Some(self.file_of(index, &self.paths[start as usize..row.path_end as usize], row))
    }

    fn file_of<'a>(&'a self, index: usize, path: &'a str, row: &'a Row) -> File<'a> {
        File {
            index,
            path,
            size: row.size,
            modified: row.modified,
            validator: &row.validator,
            origin: row.origin,
            first_block: match row.unlisted {
                false => row.listed_before,
                true => self.totals.blocks + row.unlisted_before,
            },
            unlisted: row.unlisted,
        }
    }

    /// All files in path order.
    pub fn files(&self) -> impl ExactSizeIterator<Item = File<'_>> {
        self.files_in(0..self.rows.len())
    }

    fn files_in(&self, range: Range<usize>) -> impl ExactSizeIterator<Item = File<'_>> {
        let mut start = match range.start {
            0 => 0,
            index => self.rows[index - 1].path_end as usize,
        };
        let first = range.start;
        self.rows[range].iter().enumerate().map(move |(offset, row)| {
            let end = row.path_end as usize;
            let path = &self.paths[start..end];
            start = end;
            self.file_of(first + offset, path, row)
        })
    }

    /// The file with this path.
    pub fn find(&self, path: &str) -> Option<File<'_>> {
        let index = self.partition(|other| path_order(other, path).is_lt());
        self.file(index).filter(|file| file.path == path)
    }

    /// The file that block `number` belongs to, listed or not.
    pub fn file_of_block(&self, number: BlockNumber) -> Option<File<'_>> {
        // Empty files share their first number with their successor: the last
        // row that starts at or before the number is the one that has it.
        let index = match number.checked_sub(self.totals.blocks) {
            None => self.rows.partition_point(|row| row.listed_before <= number),
            Some(unlisted) if unlisted < self.totals.unlisted_blocks => {
                self.rows.partition_point(|row| row.unlisted_before <= unlisted)
            }
            Some(_) => return None,
        };
        self.file(index.checked_sub(1)?)
    }

    /// The key of a file at its origin.
    pub fn key(&self, file: &File<'_>) -> String {
        let origin = &self.origins[usize::from(file.origin)];
        let path = file.path.strip_prefix(origin.mount.as_str()).unwrap_or(file.path);
        format!("{}{path}", origin.key_prefix)
    }

    /// The name of a file's object in a store.
    pub fn object_id(&self, file: &File<'_>) -> ObjectId {
        let origin = &self.origins[usize::from(file.origin)];
        ObjectId::new(&origin.domain, &origin.uri, &self.key(file), file.validator, file.size)
    }

    /// The files that a selection names, in path order.
    pub fn select<'a>(&'a self, selection: &'a Selection) -> impl Iterator<Item = File<'a>> {
        let prefix = selection.common_prefix();
        let start = self.partition(|path| !path.starts_with(prefix) && path_order(path, prefix).is_lt());
        let end = match prefix {
            "" => self.rows.len(),
            _ => self.partition(|path| path.starts_with(prefix) || path_order(path, prefix).is_lt()),
        };
        self.files_in(start..end.max(start)).filter(move |file| selection.matches(file.path))
    }

    /// Bytes of the given blocks; those of unlisted files, and numbers that the manifest does
    /// not have, count nothing.
    pub fn bytes_of(&self, blocks: &RoaringBitmap) -> u64 {
        let mut bytes = 0;
        let mut row = 0;
        for number in blocks {
            if number >= self.totals.blocks {
                break;
            }
            // Blocks come in rising order, and mostly from the same file or the
            // next: step on, and search only after a jump.
            if !self.has_block(row, number) {
                row += 1;
                if !self.has_block(row, number) {
                    row = self.rows.partition_point(|row| row.listed_before <= number) - 1;
                }
            }
            let row = &self.rows[row];
            let range = block::byte_range(row.size, u64::from(number - row.listed_before));
            bytes += range.end - range.start;
        }
        bytes
    }

    /// The files that have at least one of the given blocks.
    pub fn files_with<'a>(&'a self, blocks: &'a RoaringBitmap) -> impl Iterator<Item = File<'a>> {
        let mut looked_to = 0;
        std::iter::from_fn(move || {
            let number = blocks.range(looked_to..).next()?;
            let file = self.file_of_block(number)?;
            looked_to = file.blocks().end;
            Some(file)
        })
    }

    /// Whether a row is of a listed file that has this block.
    fn has_block(&self, row: usize, number: BlockNumber) -> bool {
        self.rows.get(row).filter(|row| !row.unlisted).is_some_and(|row| {
            number >= row.listed_before && u64::from(number - row.listed_before) < block::blocks_in(row.size)
        })
    }

    /// The first file whose path `before` does not hold for.
    fn partition(&self, before: impl Fn(&str) -> bool) -> usize {
        let (mut low, mut high) = (0, self.rows.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.file(middle) {
                Some(file) if before(file.path) => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manifest")
            .field("files", &self.rows.len())
            .field("bytes", &self.totals.bytes)
            .field("blocks", &self.totals.blocks)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
