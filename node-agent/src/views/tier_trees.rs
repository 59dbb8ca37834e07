//! The trees of all versions that one tier knows, on its file system.

use super::error::{ViewError, io_error};
use super::record::name_of;
use super::tree::Tree;
use super::unlinking::Unlinking;
use crate::store::Tier;
use hearth_core::manifest::{File, Manifest, ManifestHash};
use hearth_core::selection::Selection;
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use roaring::RoaringBitmap;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Which files a tree shows: a version's hash and globs, none for all.
pub(super) type Key = (ManifestHash, Vec<String>);

/// The trees below one directory.
pub(super) struct TierTrees {
    /// Held to show files by their links, and alone to take links away.
    links: RwLock<()>,
    /// How many wait for leave to do either.
    waiting: AtomicUsize,
    pub(super) unlinking: Unlinking,
    tier: Tier,
    directory: PathBuf,
    scratch: PathBuf,
    trees: Mutex<HashMap<Key, Arc<Tree>>>,
}

impl TierTrees {
    /// Those below `views`. `keep` says which trees are of use: all others that are there go.
    pub(super) fn open(tier: Tier, views: &Path, keep: &[Key]) -> Result<Self, ViewError> {
        let (directory, scratch) = (&views.join("trees"), &views.join("scratch"));
        for directory in [directory, scratch] {
            fs::create_dir_all(directory).map_err(io_error("cannot make", directory))?;
        }
        let trees = Self {
            links: RwLock::new(()),
            waiting: AtomicUsize::new(0),
            unlinking: Unlinking::open(views, tier.has_lost_files())?,
            tier,
            directory: directory.to_owned(),
            scratch: scratch.to_owned(),
            trees: Mutex::default(),
        };
        let names: Vec<String> = keep.iter().map(file_name).collect();
        for entry in fs::read_dir(directory).map_err(io_error("cannot list", directory))? {
            let path = entry.map_err(io_error("cannot list", directory))?.path();
            let is_kept = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
                let whole = ManifestHash::parse(name).is_some_and(|hash| trees.tier.is_adopted(&hash));
                whole || names.iter().any(|kept| kept == name)
            });
            if !is_kept {
                trees.remove_at(&path)?;
            }
        }
        // What was on its way out at the end of the last run.
        for entry in fs::read_dir(scratch).map_err(io_error("cannot list", scratch))? {
            remove_all(&entry.map_err(io_error("cannot list", scratch))?.path())?;
        }
        Ok(trees)
    }

    /// The tree of a version's part with all its files linked; `None` when some are not
    /// whole. A part by globs of files gets a tree of its own.
    pub(super) fn whole(
        &self,
        hash: ManifestHash,
        manifest: &Manifest,
        globs: &[String],
        files: &RoaringBitmap,
    ) -> Result<Option<PathBuf>, ViewError> {
        let tree = self.tree(&(hash, globs.to_vec()));
        Ok(tree.link(&self.tier, manifest, files)?.then(|| tree.root().to_owned()))
    }

    /// Where the tree of a version's part is, whether it is there or not.
    pub(super) fn place(&self, hash: ManifestHash, globs: &[String]) -> PathBuf {
        self.directory.join(file_name(&(hash, globs.to_vec())))
    }

    fn tree(&self, key: &Key) -> Arc<Tree> {
        let mut trees = self.trees.lock();
        let new = || Arc::new(Tree::new(key.0, self.directory.join(file_name(key)), self.scratch.clone()));
        trees.entry(key.clone()).or_insert_with(new).clone()
    }

    /// Nobody shows this part any more. The tree of a whole version stays until the
    /// store forgets it.
    pub(super) fn unused(&self, hash: ManifestHash, globs: &[String]) -> Result<(), ViewError> {
        match globs {
            [] => Ok(()),
            _ => self.remove(&(hash, globs.to_vec())),
        }
    }

    fn remove(&self, key: &Key) -> Result<(), ViewError> {
        self.trees.lock().remove(key);
        self.remove_at(&self.directory.join(file_name(key)))
    }

    /// Out of the way at once, and then file by file.
    fn remove_at(&self, path: &Path) -> Result<(), ViewError> {
        let gone =
            self.scratch.join(format!("{}.gone", path.file_name().unwrap_or_default().to_string_lossy()));
        remove_all(&gone)?;
        match fs::rename(path, &gone) {
            Ok(()) => remove_all(&gone),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io_error("cannot remove", path)(error)),
        }
    }

    /// Leave to show files by their links: none are taken away meanwhile.
    pub(super) fn show(&self) -> RwLockReadGuard<'_, ()> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let leave = self.links.read();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        leave
    }

    /// Leave to take links away: none are shown meanwhile.
    pub(super) fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let leave = self.links.write();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        leave
    }

    /// Whether somebody waits for leave.
    pub(super) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    pub(super) fn tier(&self) -> &Tier {
        &self.tier
    }

    /// Links those files of a version that are whole here. Of the ones that have `come` the
    /// links may be to objects that are gone.
    pub(super) fn grow(
        &self,
        hash: ManifestHash,
        manifest: &Manifest,
        files: &RoaringBitmap,
        come: bool,
    ) -> Result<(), ViewError> {
        let tree = self.tree(&(hash, Vec::new()));
        if come {
            tree.doubt(files);
        }
        tree.link(&self.tier, manifest, files).map(drop)
    }

    /// Takes the links of all files away that have any of these blocks of a version. Calls `pause`
    /// after each.
    pub(super) fn unlink(
        &self,
        hash: &ManifestHash,
        blocks: &RoaringBitmap,
        pause: &mut dyn FnMut(),
    ) -> Result<(), ViewError> {
        let Some(manifest) = self.tier.manifest(hash)? else { return Ok(()) };
        let files = indices(manifest.files_with(blocks));
        self.trees_of(hash).iter().try_for_each(|tree| tree.unlink(&manifest, &files, pause))
    }

    /// The trees of a version and of parts of it; that of all of it may be from an earlier run.
    fn trees_of(&self, hash: &ManifestHash) -> Vec<Arc<Tree>> {
        let whole = self.tree(&(*hash, Vec::new()));
        let trees = self.trees.lock();
        let parts = trees.iter().filter(|((of, globs), _)| of == hash && !globs.is_empty());
        parts.map(|(_, tree)| tree.clone()).chain([whole]).collect()
    }

    pub(super) fn forget(&self, hash: &ManifestHash) -> Result<(), ViewError> {
        let keys: Vec<Key> = self.trees.lock().keys().filter(|(of, _)| of == hash).cloned().collect();
        // One that was retired and adopted again is in use, and grows anew.
        if self.tier.is_adopted(hash) {
            return Ok(());
        }
        keys.iter().try_for_each(|key| self.remove(key))
    }
}

/// The files of a manifest that a selection picks.
pub(super) fn files_of_selection(manifest: &Manifest, selection: &Selection) -> RoaringBitmap {
    if !selection.is_all() {
        return indices(manifest.select(selection));
    }
    let mut all = RoaringBitmap::new();
    all.insert_range(0..manifest.file_count() as u32);
    all
}

pub(super) fn indices<'a>(files: impl Iterator<Item = File<'a>>) -> RoaringBitmap {
    files.map(|file| file.index as u32).collect()
}

fn file_name((hash, globs): &Key) -> String {
    match globs.as_slice() {
        [] => hash.to_string(),
        globs => format!("part-{}", name_of(&hash.to_string(), Path::new(&globs.join("\0")))),
    }
}

fn remove_all(path: &Path) -> Result<(), ViewError> {
    let removed = match path.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("cannot remove", path)(error)),
        _ => Ok(()),
    }
}
