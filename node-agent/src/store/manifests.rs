//! Manifest files, the decoded ones among them, and which manifests list an object.

use super::disk::{Contents, Disk, is_absent, read_all};
use super::error::StoreError;
use super::layout::Layout;
use hearth_core::block::{self, BlockNumber};
use hearth_core::manifest::{DecodeError, EncodedFiles, File, Manifest, ManifestHash};
use hearth_core::object::{AccessDomain, ObjectId};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

/// Decoded manifests that stay in memory though nobody else uses them: so many.
const KEPT: usize = 4;
/// And those of so many bytes of encodings, some seven million files, unless it is one alone.
const KEPT_BYTES: u64 = 256 << 20;

/// An object and what it takes to find it in other manifests.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) id: ObjectId,
    pub(super) domain: AccessDomain,
    /// Canonical URI of its origin.
    pub(super) origin: String,
    pub(super) key: String,
    pub(super) size: u64,
}

impl Object {
    pub(super) fn of(manifest: &Manifest, file: &File<'_>) -> Self {
        let origin = &manifest.origins()[usize::from(file.origin)];
        Self {
            id: manifest.object_id(file),
            domain: origin.domain.clone(),
            origin: origin.uri.clone(),
            key: manifest.key(file),
            size: file.size,
        }
    }

    /// First block numbers of all the manifest's files that are this object; not of those that
    /// are unlisted, since by them nothing is kept.
    ///
    /// By its path in the manifest rather than by a table of all objects, which
    /// would cost more memory than the manifests themselves.
    fn places_in(&self, manifest: &Manifest) -> Vec<BlockNumber> {
        let mut places = Vec::new();
        for (index, origin) in manifest.origins().iter().enumerate() {
            if origin.domain != self.domain || origin.uri != self.origin {
                continue;
            }
            let Some(rest) = self.key.strip_prefix(origin.key_prefix.as_str()) else { continue };
            let found = match origin.mount.as_str() {
                "" => manifest.find(rest),
                mount => manifest.find(&format!("{mount}{rest}")),
            };
            if let Some(file) = found
                && usize::from(file.origin) == index
                && !file.unlisted
                && manifest.object_id(&file) == self.id
            {
                places.push(file.first_block);
            }
        }
        places
    }

    /// How many blocks it has.
    pub(super) fn blocks(&self) -> u64 {
        block::blocks_in(self.size)
    }
}

/// What of a manifest says whether it can list an object at all.
#[derive(Debug)]
struct Scope {
    /// Access domains and canonical URIs.
    origins: Vec<(AccessDomain, String)>,
}

impl Scope {
    fn of(manifest: &Manifest) -> Self {
        let origins = manifest.origins().iter().map(|origin| (origin.domain.clone(), origin.uri.clone()));
        Self { origins: origins.collect() }
    }

    fn has(&self, domain: &AccessDomain, uri: &str) -> bool {
        self.origins.iter().any(|(of, origin)| of == domain && origin == uri)
    }
}

/// The decoded manifests of a store, whichever tiers have them.
#[derive(Debug, Default)]
pub(super) struct DecodedManifests {
    decoded: Mutex<Decoded>,
}

#[derive(Debug, Default)]
struct Decoded {
    kept: VecDeque<Kept>,
    in_use: HashMap<ManifestHash, Weak<Manifest>>,
    scopes: HashMap<ManifestHash, Arc<Scope>>,
}

/// A manifest that stays though nobody else may use it.
#[derive(Debug)]
struct Kept {
    hash: ManifestHash,
    _manifest: Arc<Manifest>,
    /// Bytes of its encoding.
    length: u64,
}

impl Decoded {
    /// Lets go of the oldest of those that are kept until one more of so many bytes may be.
    fn make_room(&mut self, length: u64) {
        let total = |kept: &VecDeque<Kept>| kept.iter().map(|kept| kept.length).sum::<u64>();
        while self.kept.len() >= KEPT || total(&self.kept).saturating_add(length) > KEPT_BYTES {
            if self.kept.pop_front().is_none() {
                return;
            }
        }
    }

    fn keep(&mut self, hash: ManifestHash, manifest: &Arc<Manifest>, length: u64) {
        self.in_use.insert(hash, Arc::downgrade(manifest));
        self.in_use.retain(|_, manifest| manifest.strong_count() > 0);
        self.scopes.entry(hash).or_insert_with(|| Arc::new(Scope::of(manifest)));
        self.kept.retain(|kept| kept.hash != hash);
        self.make_room(length);
        self.kept.push_back(Kept { hash, _manifest: Arc::clone(manifest), length });
    }
}

/// The manifest files of a tier.
#[derive(Debug)]
pub(super) struct Manifests {
    disk: Arc<dyn Disk>,
    layout: Layout,
    /// Held while one is decoded: whoever waits for the same one finds it done. Of this tier only: another's
    /// disk may be slow.
    decoding: Mutex<()>,
    common: Arc<DecodedManifests>,
}

impl Manifests {
    pub(super) fn new(disk: Arc<dyn Disk>, layout: Layout, common: Arc<DecodedManifests>) -> Self {
        Self { disk, layout, decoding: Mutex::default(), common }
    }

    /// Checks the bytes and writes them, durably.
    pub(super) fn store(&self, hash: &ManifestHash, bytes: &[u8]) -> Result<(), StoreError> {
        check(hash, bytes)?;
        EncodedFiles::check(bytes)
            .map_err(|why| StoreError::Manifest { manifest: *hash, why: Arc::new(why) })?;
        let (temporary, path) = (self.layout.new_manifest(hash), self.layout.manifest(hash));
        let written = || {
            let (file, _) = self.disk.open(&temporary, true)?;
            file.set_len(0)?;
            file.write_at(0, bytes)?;
            file.sync_data()?;
            self.disk.rename(&temporary, &path)?;
            self.disk.sync_dir(&self.layout.manifests())
        };
        written().map_err(|error| StoreError::io(&path, error))
    }

    /// The encoding, its hash checked; `None` when there is no such file.
    pub(super) fn bytes(&self, hash: &ManifestHash) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.layout.manifest(hash);
        let bytes = match read_all(self.disk.as_ref(), &path) {
            Ok(bytes) => bytes,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(StoreError::io(&path, error)),
        };
        check(hash, &bytes)?;
        Ok(Some(bytes))
    }

    /// The decoded manifest; `None` when there is no such file.
    pub(super) fn load(&self, hash: &ManifestHash) -> Result<Option<Arc<Manifest>>, StoreError> {
        if let Some(manifest) = self.in_use(hash) {
            return Ok(Some(manifest));
        }
        let _decoding = self.decoding.lock();
        if let Some(manifest) = self.in_use(hash) {
            return Ok(Some(manifest));
        }
        let path = self.layout.manifest(hash);
        let failed = |error| StoreError::io(&path, error);
        let contents = match Contents::open(self.disk.as_ref(), &path) {
            Ok(contents) => contents,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let length = contents.len();
        self.common.decoded.lock().make_room(length);
        let length_here = usize::try_from(length).unwrap_or(usize::MAX);
        let decoded = Manifest::decode_named_from(*hash, contents, length_here);
        let manifest = Arc::new(decoded.map_err(|why| match (why.io_error(), &why) {
            (Some(error), _) => failed(error),
            (None, DecodeError::WrongHash { found, .. }) => another(hash, found),
            (None, _) => StoreError::Manifest { manifest: *hash, why: Arc::new(why) },
        })?);
        // Another tier may have been as fast: there is one copy.
        if let Some(manifest) = self.in_use(hash) {
            return Ok(Some(manifest));
        }
        self.common.decoded.lock().keep(*hash, &manifest, length);
        Ok(Some(manifest))
    }

    /// One that is decoded already.
    fn in_use(&self, hash: &ManifestHash) -> Option<Arc<Manifest>> {
        let mut decoded = self.common.decoded.lock();
        let manifest = decoded.in_use.get(hash).and_then(Weak::upgrade)?;
        // It stays longer than those that nobody asks for.
        if let Some(place) = decoded.kept.iter().position(|kept| kept.hash == *hash)
            && let Some(kept) = decoded.kept.remove(place)
        {
            decoded.kept.push_back(kept);
        }
        Some(manifest)
    }

    /// Whether two manifests can list the same object at all.
    pub(super) fn may_share(&self, manifest: &Manifest, other: &ManifestHash) -> Result<bool, StoreError> {
        let known = self.common.decoded.lock().scopes.get(other).cloned();
        let scope = match known {
            Some(scope) => scope,
            // Once it is decoded, its scope is known.
            None => match self.load(other)? {
                Some(manifest) => Arc::new(Scope::of(&manifest)),
                None => return Ok(false),
            },
        };
        Ok(manifest.origins().iter().any(|origin| scope.has(&origin.domain, &origin.uri)))
    }

    /// First block numbers of the manifest's files that are this object.
    pub(super) fn places(
        &self,
        hash: &ManifestHash,
        object: &Object,
    ) -> Result<Vec<BlockNumber>, StoreError> {
        let scope = self.common.decoded.lock().scopes.get(hash).cloned();
        if let Some(scope) = scope
            && !scope.has(&object.domain, &object.origin)
        {
            return Ok(Vec::new());
        }
        match self.load(hash)? {
            Some(manifest) => Ok(object.places_in(&manifest)),
            None => Err(StoreError::UnknownManifest(*hash)),
        }
    }

    /// Removes the file.
    pub(super) fn remove(&self, hash: &ManifestHash) -> Result<(), StoreError> {
        {
            let mut decoded = self.common.decoded.lock();
            decoded.kept.retain(|kept| kept.hash != *hash);
            decoded.in_use.remove(hash);
            decoded.scopes.remove(hash);
        }
        let path = self.layout.manifest(hash);
        self.disk.remove(&path).map_err(|error| StoreError::io(&path, error))?;
        Ok(())
    }
}

fn check(hash: &ManifestHash, bytes: &[u8]) -> Result<(), StoreError> {
    match ManifestHash::of(bytes) {
        found if found == *hash => Ok(()),
        found => Err(another(hash, &found)),
    }
}

fn another(hash: &ManifestHash, found: &ManifestHash) -> StoreError {
    StoreError::Damaged { what: format!("manifest {hash}"), why: format!("its bytes hash to {found}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::manifest::ManifestBuilder;

    #[test]
    fn what_nobody_uses_stays_while_it_is_little() {
        let mut decoded = Decoded::default();
        let manifest = Arc::new(ManifestBuilder::new(Vec::new()).finish().unwrap().0);
        let mut keep = |number: u8, length| -> Vec<u8> {
            decoded.keep(ManifestHash([number; 32]), &manifest, length);
            decoded.kept.iter().map(|kept| kept.hash.0[0]).collect()
        };
        assert_eq!(keep(1, KEPT_BYTES / 2), [1]);
        assert_eq!(keep(2, KEPT_BYTES / 2), [1, 2]);
        assert_eq!(keep(3, 1), [2, 3]);
        assert_eq!(keep(2, KEPT_BYTES / 2), [3, 2]);
        assert_eq!(keep(4, 9 * KEPT_BYTES), [4]);
        for number in 5..8 {
            keep(number, 1);
        }
        assert_eq!(keep(8, 1), [5, 6, 7, 8]);
        assert_eq!(keep(9, 1), [6, 7, 8, 9]);
    }
}
