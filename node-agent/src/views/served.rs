//! FUSE views of volumes: mounted once in a place of our own, and bound to the target
//! from there.

use super::bind::unmount_all;
use super::error::{ViewError, io_error};
use super::publish::bind_at;
use super::record::{Record, name_of};
use super::trees::files_of_selection;
use super::{Inner, wants};
use crate::fuse::{self, Reader, ReaderParts, Sessions};
use hearth_core::manifest::{Manifest, ManifestHash};
use hearth_core::selection::Selection;
use roaring::RoaringBitmap;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::runtime::Handle;

/// The FUSE views of one node.
pub(super) struct Served {
    directory: PathBuf,
    sessions: Sessions,
    reader: ReaderParts,
    handle: Handle,
}

impl Served {
    pub(super) fn open(directory: &Path, reader: ReaderParts) -> Result<Self, ViewError> {
        fs::create_dir_all(directory).map_err(io_error("cannot make", directory))?;
        let sessions = Sessions::default();
        Ok(Self { directory: directory.to_owned(), sessions, reader, handle: Handle::current() })
    }

    /// How many sessions live.
    pub(super) fn count(&self) -> usize {
        self.sessions.count()
    }

    /// Where the view of a record is mounted.
    pub(super) fn place(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Mounts what a record shows; what was there before goes.
    pub(super) fn mount(
        &self,
        record: &Record,
        hash: ManifestHash,
        manifest: &Arc<Manifest>,
        files: &RoaringBitmap,
    ) -> Result<(), ViewError> {
        let place = self.place(&name_of(&record.volume, &record.target));
        unmount_all(&place)?;
        fs::create_dir_all(&place).map_err(io_error("cannot make", &place))?;
        let tree = fuse::Tree::new(manifest.clone(), files, &record.root);
        let reader = Reader::new(self.reader.clone(), hash, manifest.clone(), record.dataset.clone());
        fuse::serve(&self.sessions, &place, tree, reader, self.handle.clone())
            .map_err(io_error("cannot mount a FUSE view at", &place))
    }

    /// Takes a view away; one that is not there is fine. Its session ends with the
    /// last file that is open.
    pub(super) fn unmount(&self, name: &str) -> Result<(), ViewError> {
        let place = self.place(name);
        unmount_all(&place)?;
        match fs::remove_dir(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("cannot remove", &place)(error))
            }
            _ => Ok(()),
        }
    }

    /// Takes away what no record is of.
    fn keep(&self, names: &HashSet<String>) -> Result<(), ViewError> {
        let fail = || io_error("cannot list", &self.directory);
        for entry in fs::read_dir(&self.directory).map_err(fail())? {
            let name = entry.map_err(fail())?.file_name().to_string_lossy().into_owned();
            if !names.contains(&name) {
                self.unmount(&name)?;
            }
        }
        Ok(())
    }
}

impl Inner {
    /// Gives the FUSE views of the last run new sessions: theirs ended with it. A pod
    /// that runs keeps the dead mount; its next container gets the new one.
    pub(super) fn recover(&self) {
        let records: Vec<Record> = self.published.lock().records.all().cloned().collect();
        let served = records.iter().filter(|record| record.fetched.is_some());
        let names = served.clone().map(|record| name_of(&record.volume, &record.target)).collect();
        if let Err(error) = self.served.keep(&names) {
            tracing::warn!("what is left of FUSE views cannot be taken away: {error}");
        }
        for record in served {
            match self.recover_one(record) {
                Ok(()) => {
                    tracing::info!(dataset = record.dataset, target = %record.target.display(), "taken up again, fuse");
                }
                Err(error) => {
                    tracing::warn!(dataset = record.dataset, target = %record.target.display(), "a FUSE view cannot be taken up again: {error}");
                }
            }
        }
    }

    fn recover_one(&self, record: &Record) -> Result<(), ViewError> {
        unmount_all(&record.target)?;
        let gone =
            || ViewError::NotYet("its version is not on this node any more; kubelet asks again".to_owned());
        let hash = record.manifest().filter(|hash| self.store.is_adopted(hash)).ok_or_else(gone)?;
        let manifest = self.store.manifest(&hash)?.ok_or_else(gone)?;
        if let Some(want) = record.want() {
            self.want(name_of(&record.volume, &record.target), want, wants::Until::Unpublished);
        }
        let selection = Selection::new(record.globs.iter().cloned())
            .map_err(|error| ViewError::Invalid(error.to_string()))?;
        self.served.mount(record, hash, &manifest, &files_of_selection(&manifest, &selection))?;
        // kubelet may have ended the pod meanwhile, and will say so.
        match record.target.is_dir() {
            true => {
                bind_at(self, &self.served.place(&name_of(&record.volume, &record.target)), &record.target)
            }
            false => Ok(()),
        }
    }
}
