//! The manifest's bytes: what is hashed, stored and sent.
//!
//! ```text
//! "HEARTHMF" | format version, one byte | header | number of files | files in path order
//! ```
//!
//! Header, number and files are postcard (little-endian variable-length
//! integers). A path is written as the length of what it shares with the path
//! before it and the rest. Block numbers follow from the sizes and are not written.

use super::path::{self, path_order};
use super::{File, Manifest, ManifestHash, ManifestOrigin};
use crate::object::{AccessDomain, Validator};
use crate::prefix::shared_prefix;
use serde::{Deserialize, Serialize};

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

#[derive(Serialize, Deserialize)]
struct EncodedFile<'a> {
    shared: u32,
    rest: &'a str,
    size: u64,
    modified: i64,
    origin: u16,
    validator: Validator,
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
}

impl Manifest {
    /// The canonical encoding: equal manifests have equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + self.paths.len() / 2 + self.rows.len() * 32);
        bytes.extend_from_slice(MAGIC);
        let shows = self.unlisted_count() > 0;
        bytes = write_origins(bytes, &self.origins, shows);
        bytes = extend(bytes, &(self.rows.len() as u64));
        let mut previous = "";
        for file in self.files() {
            let shared = shared_prefix(previous, file.path);
            let encoded = EncodedFile {
                shared: shared as u32,
                rest: &file.path[shared..],
                size: file.size,
                modified: file.modified,
                origin: file.origin,
                validator: file.validator.clone(),
            };
            bytes = extend(bytes, &encoded);
            if shows {
                bytes = extend(bytes, &file.unlisted);
            }
            previous = file.path;
        }
        bytes
    }

    /// Reads an encoding and checks that it is the manifest of this name.
    pub fn decode_named(name: ManifestHash, bytes: &[u8]) -> Result<Self, DecodeError> {
        let found = ManifestHash::of(bytes);
        if found != name {
            return Err(DecodeError::WrongHash { expected: name, found });
        }
        Self::decode(bytes)
    }

    /// Reads an encoding. Memory stays in proportion to the bytes given.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(DecodeError::NotAManifest)?;
        let (&version, rest) = rest.split_first().ok_or(DecodeError::NotAManifest)?;
        let at = |file, what| DecodeError::Damaged { file, what };
        let (origins, rest) = read_origins(version, rest)?;
        let (count, mut rest) = postcard::take_from_bytes::<u64>(rest)
            .map_err(|_| at(0, "its number of files cannot be read"))?;
        let mut manifest = Self::empty(origins);
        // Room that can be foreseen is not grown into: every step of that would leave a hole behind.
        let files = usize::try_from(count).unwrap_or(usize::MAX).min(rest.len() / SHORT_FILE);
        manifest.rows.reserve_exact(files);
        manifest.paths.reserve(rest.len());
        let mut path = String::new();
        for number in 0..count {
            let (file, behind) = postcard::take_from_bytes::<EncodedFile<'_>>(rest)
                .map_err(|_| at(number, "its fields cannot be read"))?;
            rest = behind;
            let mut unlisted = false;
            if version == SHOWN {
                (unlisted, rest) = postcard::take_from_bytes(rest)
                    .map_err(|_| at(number, "whether it is unlisted cannot be read"))?;
            }
            let next = path
                .get(..file.shared as usize)
                .map(|shared| format!("{shared}{}", file.rest))
                .ok_or(at(number, "it shares more with the path before than that has"))?;
            path::check(&next).map_err(|_| at(number, "its path is not allowed"))?;
            if number > 0 && path_order(&path, &next).is_ge() {
                return Err(at(number, "it is not in path order"));
            }
            if number > 0 && path::is_below(&next, &path) {
                return Err(at(number, "the path before is a file and a directory"));
            }
            if usize::from(file.origin) >= manifest.origins.len() {
                return Err(at(number, "its origin is not in the header"));
            }
            // One content, one encoding, one hash: an ETag that could have been
            // written shorter was not written by us.
            if matches!(&file.validator, Validator::ETag(text) if Validator::etag(text) != file.validator) {
                return Err(at(number, "its ETag is not in its shortest form"));
            }
            path = next;
            let EncodedFile { size, modified, origin, validator, .. } = &file;
            let (index, first_block) = (manifest.file_count(), 0);
            let (size, modified, origin) = (*size, *modified, *origin);
            manifest
                .append(&File {
                    index,
                    path: &path,
                    size,
                    modified,
                    validator,
                    origin,
                    first_block,
                    unlisted,
                })
                .map_err(|_| at(number, "it has more blocks than can be numbered"))?;
        }
        // One content, one encoding, one hash.
        if version == SHOWN && manifest.unlisted_count() == 0 {
            return Err(at(count, "no file is unlisted, and its format is for those that have some"));
        }
        if !rest.is_empty() {
            return Err(at(count, "more bytes follow the last file"));
        }
        manifest.paths.shrink_to_fit();
        Ok(manifest)
    }
}

/// The one domain of all of them; `None` when there are several, or no origin.
fn one_domain(origins: &[ManifestOrigin]) -> Option<&AccessDomain> {
    let (first, others) = origins.split_first()?;
    others.iter().all(|other| other.domain == first.domain).then_some(&first.domain)
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

/// Reads a header of this version, and gives what is behind it.
fn read_origins(version: u8, bytes: &[u8]) -> Result<(Vec<ManifestOrigin>, &[u8]), DecodeError> {
    let at = |what| DecodeError::Damaged { file: 0, what };
    let unreadable = |_| at("its header cannot be read");
    let with = |(domain, Place { uri, key_prefix, mount })| ManifestOrigin { domain, uri, key_prefix, mount };
    let (origins, rest): (Vec<ManifestOrigin>, _) = match version {
        ONE_DOMAIN => {
            let (header, rest) = postcard::take_from_bytes::<OneDomain>(bytes).map_err(unreadable)?;
            if header.origins.is_empty() {
                return Err(at("its header names a domain and no origin"));
            }
            let domain = header.domain;
            (header.origins.into_iter().map(|place| with((domain.clone(), place))).collect(), rest)
        }
        MANY_DOMAINS | SHOWN => {
            let (header, rest) = postcard::take_from_bytes::<ManyDomains>(bytes).map_err(unreadable)?;
            (header.origins.into_iter().map(with).collect(), rest)
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
    Ok((origins, rest))
}

fn extend<T: Serialize>(bytes: Vec<u8>, value: &T) -> Vec<u8> {
    postcard::to_extend(value, bytes).expect("plain data into memory always serialises")
}
