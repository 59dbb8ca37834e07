//! A tree of hard links to the store's object files: what a native view shows.
//!
//! A link is made when its file is whole, and taken back only when the store gives the file
//! up and no native view shows it: whoever reads the tree keeps good bytes. When the store
//! has fetched a damaged file anew, the link is replaced by one to the new object, in one step.

use super::error::{ViewError, io_error};
use crate::store::Tier;
use hearth_core::manifest::{File, Manifest, ManifestHash};
use parking_lot::Mutex;
use roaring::RoaringBitmap;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What readers see: nobody may write, and the mount would not let them.
pub(crate) const FILE_MODE: u32 = 0o444;
pub(crate) const DIRECTORY_MODE: u32 = 0o755;
const NANOS: i64 = 1_000_000_000;

/// The tree of one version, or of a part of it.
#[derive(Debug)]
pub(super) struct Tree {
    hash: ManifestHash,
    root: PathBuf,
    /// For links on their way to replace others; on the same file system.
    scratch: PathBuf,
    /// Files, by their index, whose links are known to be right.
    linked: Mutex<RoaringBitmap>,
    /// The time of all directories.
    newest: OnceLock<i64>,
}

impl Tree {
    /// The tree at `root`; what is there from an earlier run is looked at again.
    pub(super) fn new(hash: ManifestHash, root: PathBuf, scratch: PathBuf) -> Self {
        Self { hash, root, scratch, linked: Mutex::default(), newest: OnceLock::new() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// These files have come anew: their links may be to objects that are gone.
    pub(super) fn doubt(&self, files: &RoaringBitmap) {
        *self.linked.lock() -= files;
    }

    /// Takes the links of these files away, as they hold the room of what the store gave up. Calls
    /// `pause` after each.
    pub(super) fn unlink(
        &self,
        manifest: &Manifest,
        files: &RoaringBitmap,
        pause: &mut dyn FnMut(),
    ) -> Result<(), ViewError> {
        for index in files {
            let Some(file) = manifest.file(index as usize) else { continue };
            let path = self.root.join(file.path);
            let removed = {
                // One by one: whoever links others does not wait for all of them.
                let mut linked = self.linked.lock();
                linked.remove(index);
                fs::remove_file(&path)
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("cannot remove", &path)(error));
                }
                _ => pause(),
            }
        }
        Ok(())
    }

    /// Links those of the files that are whole; whether all are.
    pub(super) fn link(
        &self,
        tier: &Tier,
        manifest: &Manifest,
        files: &RoaringBitmap,
    ) -> Result<bool, ViewError> {
        // Held throughout: whoever comes second finds the work done.
        let mut linked = self.linked.lock();
        let mut wanted = files - &*linked;
        let mut touched: BTreeSet<PathBuf> = BTreeSet::new();
        if linked.is_empty() {
            make_directory(&self.root)?;
            touched.insert(self.root.clone());
        }
        let mut parent = PathBuf::new();
        for index in &wanted.clone() {
            let file = manifest.file(index as usize).filter(|file| !file.unlisted);
            let Some(file) = file else { continue };
            let path = self.root.join(file.path);
            let whole = match file.size {
                0 => Some(None),
                _ => tier.whole_file(&self.hash, file.index)?.map(Some),
            };
            let Some(object) = whole else { continue };
            // Files of a directory stand together.
            if let Some(directory) = path.parent().filter(|directory| *directory != parent) {
                self.make_directories(directory, &mut touched)?;
                parent = directory.to_owned();
            }
            touched.insert(parent.clone());
            match object {
                Some(object) => {
                    if !self.link_file(&object, &path, file)? {
                        continue;
                    }
                }
                None => make_empty(&path, file)?,
            }
            linked.insert(index);
            wanted.remove(index);
        }
        let newest = *self.newest.get_or_init(|| manifest.newest());
        touched.iter().try_for_each(|directory| set_time(directory, newest))?;
        Ok(wanted.is_empty())
    }

    fn make_directories(&self, path: &Path, touched: &mut BTreeSet<PathBuf>) -> Result<(), ViewError> {
        let mut missing: Vec<&Path> = Vec::new();
        let mut next = Some(path);
        while let Some(directory) = next.filter(|directory| *directory != self.root && !directory.is_dir()) {
            missing.push(directory);
            next = directory.parent();
        }
        for directory in missing.iter().rev() {
            make_directory(directory)?;
            touched.insert((*directory).to_owned());
            touched.extend(directory.parent().map(Path::to_owned));
        }
        Ok(())
    }

    /// Links one object; `false` when it went meanwhile.
    fn link_file(&self, object: &Path, path: &Path, file: File<'_>) -> Result<bool, ViewError> {
        let found = match fs::symlink_metadata(object) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(io_error("cannot look at", object)(error)),
        };
        if found.mode() & 0o7777 != FILE_MODE {
            fs::set_permissions(object, Permissions::from_mode(FILE_MODE))
                .map_err(io_error("cannot set the mode of", object))?;
        }
        if found.mtime() * NANOS + found.mtime_nsec() != file.modified {
            set_time(object, file.modified)?;
        }
        match fs::hard_link(object, path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.replace(object, &found, path).map(|()| true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error("cannot link", path)(error)),
        }
    }

    fn replace(&self, object: &Path, found: &fs::Metadata, path: &Path) -> Result<(), ViewError> {
        let fail = |what| io_error(what, path);
        let old = fs::symlink_metadata(path).map_err(fail("cannot look at"))?;
        if (old.dev(), old.ino()) == (found.dev(), found.ino()) {
            return Ok(());
        }
        let new = self.scratch.join(format!("{}.link", self.hash));
        let _ = fs::remove_file(&new);
        fs::hard_link(object, &new).map_err(io_error("cannot link", &new))?;
        fs::rename(&new, path).map_err(fail("cannot replace"))
    }
}

fn make_directory(path: &Path) -> Result<(), ViewError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(io_error("cannot make", path)(error));
        }
        _ => {}
    }
    // Whatever the umask says.
    fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))
        .map_err(io_error("cannot set the mode of", path))
}

fn make_empty(path: &Path, file: File<'_>) -> Result<(), ViewError> {
    match fs::OpenOptions::new().write(true).create_new(true).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(io_error("cannot make", path)(error));
        }
        _ => {}
    }
    fs::set_permissions(path, Permissions::from_mode(FILE_MODE))
        .map_err(io_error("cannot set the mode of", path))?;
    set_time(path, file.modified)
}

/// Sets the time of the last change, nanoseconds since 1970, and of the last access with it.
fn set_time(path: &Path, modified: i64) -> Result<(), ViewError> {
    let time = Timespec { tv_sec: modified.div_euclid(NANOS), tv_nsec: modified.rem_euclid(NANOS) };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| io_error("cannot set the time of", path)(error.into()))
}
