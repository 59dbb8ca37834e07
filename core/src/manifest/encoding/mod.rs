//! The manifest's bytes: what is hashed, stored and sent.
//!
//! ```text
//! "HEARTHMF" | format version, one byte | header | number of files | files in path order
//! ```
//!
//! Header, number and files are postcard (little-endian variable-length
//! integers). A path is written as the length of what it shares with the path
//! before it and the rest. Block numbers follow from the sizes and are not written.

mod rows;
mod source;

pub(super) use rows::{RowReader, RowWriter};
pub use source::Source;

use super::path::{self, path_order};
use super::totals::Totals;
use super::{ListedObject, Manifest, ManifestHash, ManifestOrigin};
use crate::object::{AccessDomain, Validator};
use serde::{Deserialize, Serialize};
use source::{Fault, Pieces, take};
use std::io;

/// The newest format that is known here.
pub const FORMAT_VERSION: u8 = SHOWN;

/// All origins are of one access domain. Written whenever that is so, as it was when there
/// was no other format: an older program reads it, and a dataset's versions keep their names.
const ONE_DOMAIN: u8 = 1;
/// Each origin has its own.
const MANY_DOMAINS: u8 = 2;
/// The same, and some files are unlisted: behind each file stands whether it is. Who does not know
/// this format would keep such files, and number all blocks otherwise.
const SHOWN: u8 = 3;

/// Bytes of the longest encoding that programs take from one another: some 10 M files.
pub const LONGEST_ENCODING: usize = 1 << 30;

const MAGIC: &[u8; 8] = b"HEARTHMF";
const MAX_ORIGINS: usize = 1024;
/// Bytes that hardly any file's encoding is shorter than.
const SHORT_FILE: usize = 24;

/// An origin without its access domain.
#[derive(Serialize, Deserialize)]
struct Place {
    uri: String,
    key_prefix: String,
    mount: String,
}

/// The header of [`ONE_DOMAIN`].
#[derive(Serialize, Deserialize)]
struct OneDomain {
    domain: AccessDomain,
    origins: Vec<Place>,
}

/// The header of [`MANY_DOMAINS`] and of [`SHOWN`].
#[derive(Serialize, Deserialize)]
struct ManyDomains {
    origins: Vec<(AccessDomain, Place)>,
}

/// Why bytes are not a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The first bytes are not a manifest's.
    #[error("these bytes are not a manifest")]
    NotAManifest,
    /// A format of another release.
    #[error("manifest format {0} is not known here, only those up to {FORMAT_VERSION}")]
    UnknownFormat(u8),
    /// The hash is another than the name it was asked for by.
    #[error("the bytes hash to {found}, not to {expected}")]
    WrongHash {
        /// The name asked for.
        expected: ManifestHash,
        /// The name of what came.
        found: ManifestHash,
    },
    /// Anything else, with the file at which it was found.
    #[error("the manifest is damaged at file {file}: {what}")]
    Damaged {
        /// How many files were read before.
        file: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The bytes cannot be read, which happens to none in memory.
    #[error("the manifest cannot be read: {kind}")]
    Io {
        /// What kind of error that is.
        kind: io::ErrorKind,
        /// The system's number of it.
        number: Option<i32>,
    },
}

impl From<io::Error> for DecodeError {
    fn from(error: io::Error) -> Self {
        Self::Io { kind: error.kind(), number: error.raw_os_error() }
    }
}

impl DecodeError {
    /// The error of whoever was to read the bytes, if it is one.
    pub fn io_error(&self) -> Option<io::Error> {
        let Self::Io { kind, number } = self else { return None };
        Some(number.map_or_else(|| (*kind).into(), io::Error::from_raw_os_error))
    }
}

impl Manifest {
    /// The canonical encoding: equal manifests have equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let shows = self.unlisted_count() > 0;
        let mut bytes = Vec::with_capacity(64 + self.paths.len() / 2 + self.rows.len() * 32);
        bytes.extend_from_slice(&head(&self.origins, shows, self.file_count()));
        let mut rows = RowWriter::behind(bytes, shows);
        for file in self.files() {
            rows.push(&file);
        }
        rows.finish()
    }

    /// Reads an encoding and checks that it is the manifest of this name.
    pub fn decode_named(name: ManifestHash, bytes: &[u8]) -> Result<Self, DecodeError> {
        let found = ManifestHash::of(bytes);
        if found != name {
            return Err(DecodeError::WrongHash { expected: name, found });
        }
        Self::decode(bytes)
    }

    /// Likewise of so many bytes that are read piece by piece, and never in memory beside the manifest.
    pub fn decode_named_from(
        name: ManifestHash,
        reader: impl io::Read,
        length: usize,
    ) -> Result<Self, DecodeError> {
        let mut hashed = Hashed { reader, hasher: blake3::Hasher::new() };
        let files = EncodedFiles::begin(Pieces::new(&mut hashed));
        let decoded = files.and_then(|files| Self::collect(files, length));
        // Where it is damaged it was not read to its end.
        io::copy(&mut hashed, &mut io::sink())?;
        let found = ManifestHash(*hashed.hasher.finalize().as_bytes());
        if found != name {
            return Err(DecodeError::WrongHash { expected: name, found });
        }
        decoded
    }

    /// Reads an encoding. Memory stays in proportion to the bytes given.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::collect(EncodedFiles::open(bytes)?, bytes.len())
    }

    fn collect<S: Source>(files: EncodedFiles<S>, length: usize) -> Result<Self, DecodeError> {
        let mut manifest = Self::empty(files.origins().to_vec());
        // Room that can be foreseen is not grown into: every step of that would leave a hole behind.
        manifest
            .rows
            .reserve_exact(usize::try_from(files.count).unwrap_or(usize::MAX).min(length / SHORT_FILE));
        manifest.paths.reserve(length);
        for (file, object) in (0..).zip(files) {
            manifest.append_object(&object?).map_err(|_| DecodeError::Damaged { file, what: UNCOUNTABLE })?;
        }
        manifest.paths.shrink_to_fit();
        Ok(manifest)
    }
}

/// Hashes what it hands on.
struct Hashed<R> {
    reader: R,
    hasher: blake3::Hasher,
}

impl<R: io::Read> io::Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

const UNCOUNTABLE: &str = "it has more blocks than can be numbered";

/// The files of an encoding in path order, each checked as it is read: for who does not need the whole
/// manifest in memory. What is wrong with the bytes is the last that it gives.
pub struct EncodedFiles<S> {
    origins: Vec<ManifestOrigin>,
    version: u8,
    count: u64,
    rows: RowReader<S>,
    /// How many were read.
    number: u64,
    totals: Totals,
    previous: String,
    is_at_end: bool,
}

impl<'a> EncodedFiles<&'a [u8]> {
    /// Reads what stands before the files.
    pub fn open(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        Self::begin(bytes)
    }

    /// Whether this is the encoding of a manifest, and what is wrong if it is not.
    pub fn check(bytes: &'a [u8]) -> Result<(), DecodeError> {
        Self::open(bytes)?.try_for_each(|file| file.map(drop))
    }
}

impl<S: Source> EncodedFiles<S> {
    fn begin(mut source: S) -> Result<Self, DecodeError> {
        while source.bytes().len() <= MAGIC.len() && source.more()? {}
        let rest = source.bytes().strip_prefix(MAGIC).ok_or(DecodeError::NotAManifest)?;
        let version = *rest.first().ok_or(DecodeError::NotAManifest)?;
        source.skip(MAGIC.len() + 1);
        let origins = read_origins(version, &mut source)?;
        let what = "its number of files cannot be read";
        let count =
            take(&mut source, what, |bytes| postcard::take_from_bytes(bytes)).map_err(|fault| fault.at(0))?;
        let (rows, totals) = (RowReader::new(source, version == SHOWN), Totals::default());
        let (number, previous) = (0, String::new());
        Ok(Self { origins, version, count, rows, number, totals, previous, is_at_end: false })
    }

    /// Where the files come from.
    pub fn origins(&self) -> &[ManifestOrigin] {
        &self.origins
    }

    fn read(&mut self) -> Result<ListedObject, Fault> {
        let object = self.rows.read()?;
        path::check(&object.path).map_err(|_| Fault::Damaged("its path is not allowed"))?;
        if self.number > 0 && path_order(&self.previous, &object.path).is_ge() {
            return Err(Fault::Damaged("it is not in path order"));
        }
        if self.number > 0 && path::is_below(&object.path, &self.previous) {
            return Err(Fault::Damaged("the path before is a file and a directory"));
        }
        if usize::from(object.origin) >= self.origins.len() {
            return Err(Fault::Damaged("its origin is not in the header"));
        }
        // One content, one encoding, one hash: an ETag that could have been
        // written shorter was not written by us.
        if matches!(&object.validator, Validator::ETag(text) if Validator::etag(text) != object.validator) {
            return Err(Fault::Damaged("its ETag is not in its shortest form"));
        }
        let counted = self.totals.add(&object.path, object.size, object.unlisted);
        counted.map_err(|_| Fault::Damaged(UNCOUNTABLE))?;
        self.previous.clone_from(&object.path);
        Ok(object)
    }

    /// What is wrong with the whole of it.
    fn check_end(&mut self) -> Result<(), Fault> {
        // One content, one encoding, one hash.
        if self.version == SHOWN && self.totals.unlisted_files == 0 {
            return Err(Fault::Damaged("no file is unlisted, and its format is for those that have some"));
        }
        match self.rows.is_at_end()? {
            true => Ok(()),
            false => Err(Fault::Damaged("more bytes follow the last file")),
        }
    }
}

impl<S: Source> Iterator for EncodedFiles<S> {
    type Item = Result<ListedObject, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_at_end {
            return None;
        }
        let read = match self.number < self.count {
            true => self.read().map(Some),
            false => self.check_end().map(|()| None),
        };
        let file = self.number;
        self.is_at_end = !matches!(read, Ok(Some(_)));
        self.number += 1;
        read.map_err(|fault| fault.at(file)).transpose()
    }
}

/// The one domain of all of them; `None` when there are several, or no origin.
fn one_domain(origins: &[ManifestOrigin]) -> Option<&AccessDomain> {
    let (first, others) = origins.split_first()?;
    others.iter().all(|other| other.domain == first.domain).then_some(&first.domain)
}

/// All that stands before the files.
pub(super) fn head(origins: &[ManifestOrigin], shows: bool, files: usize) -> Vec<u8> {
    extend(write_origins(MAGIC.to_vec(), origins, shows), &(files as u64))
}

/// Writes the format's version and its header.
fn write_origins(mut bytes: Vec<u8>, origins: &[ManifestOrigin], shows: bool) -> Vec<u8> {
    let place = |ManifestOrigin { uri, key_prefix, mount, .. }: &ManifestOrigin| Place {
        uri: uri.clone(),
        key_prefix: key_prefix.clone(),
        mount: mount.clone(),
    };
    match one_domain(origins).filter(|_| !shows) {
        Some(domain) => {
            bytes.push(ONE_DOMAIN);
            let origins = origins.iter().map(place).collect();
            extend(bytes, &OneDomain { domain: domain.clone(), origins })
        }
        None => {
            bytes.push(if shows { SHOWN } else { MANY_DOMAINS });
            let origins = origins.iter().map(|origin| (origin.domain.clone(), place(origin))).collect();
            extend(bytes, &ManyDomains { origins })
        }
    }
}

/// Reads a header of this version.
fn read_origins(version: u8, source: &mut impl Source) -> Result<Vec<ManifestOrigin>, DecodeError> {
    let at = |what| DecodeError::Damaged { file: 0, what };
    let unreadable = "its header cannot be read";
    let with = |(domain, Place { uri, key_prefix, mount })| ManifestOrigin { domain, uri, key_prefix, mount };
    let origins: Vec<ManifestOrigin> = match version {
        ONE_DOMAIN => {
            let header = take(source, unreadable, |bytes| postcard::take_from_bytes::<OneDomain>(bytes));
            let OneDomain { domain, origins } = header.map_err(|fault| fault.at(0))?;
            if origins.is_empty() {
                return Err(at("its header names a domain and no origin"));
            }
            origins.into_iter().map(|place| with((domain.clone(), place))).collect()
        }
        MANY_DOMAINS | SHOWN => {
            let header = take(source, unreadable, |bytes| postcard::take_from_bytes::<ManyDomains>(bytes));
            header.map_err(|fault| fault.at(0))?.origins.into_iter().map(with).collect()
        }
        _ => return Err(DecodeError::UnknownFormat(version)),
    };
    if origins.len() > MAX_ORIGINS {
        return Err(at("it has more than 1,024 origins"));
    }
    // One content, one encoding, one hash.
    if version == MANY_DOMAINS && one_domain(&origins).is_some() {
        return Err(at("its header is not in its shortest form"));
    }
    Ok(origins)
}

fn extend<T: Serialize>(bytes: Vec<u8>, value: &T) -> Vec<u8> {
    postcard::to_extend(value, bytes).expect("plain data into memory always serialises")
}
