//! FUSE views of volumes: mounted once in a place of our own, and bound to the target
//! from there.

use super::bind::unmount_all;
use super::error::{ViewError, io_error};
use super::publish::bind_at;
use super::record::Record;
use super::tier_trees::files_of_selection;
use super::{Inner, wants};
use crate::fuse::{Orphan, Reader, ReaderParts, Sessions, Tree};
use hearth_core::manifest::{Manifest, ManifestHash};
use hearth_core::selection::Selection;
use roaring::RoaringBitmap;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// The FUSE views of one node.
pub(super) struct Served {
    directory: PathBuf,
    sessions: Sessions,
    reader: ReaderParts,
}

/// What a view shows of a version.
pub(super) struct Shown {
    /// Its name.
    pub(super) hash: ManifestHash,
    /// Its files.
    pub(super) manifest: Arc<Manifest>,
    /// Which of them.
    pub(super) files: RoaringBitmap,
}

impl Served {
    /// With the keeper at `keeper`; and the sessions that it has kept.
    pub(super) fn open(
        directory: &Path,
        reader: ReaderParts,
        keeper: Option<PathBuf>,
        shutdown: CancellationToken,
    ) -> Result<(Self, Vec<Orphan>), ViewError> {
        fs::create_dir_all(directory).map_err(io_error("cannot make", directory))?;
        let (sessions, orphans) = Sessions::new(keeper, Handle::current(), shutdown);
        Ok((Self { directory: directory.to_owned(), sessions, reader }, orphans))
    }

    /// The sessions.
    pub(super) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Where the view of a record is mounted.
    pub(super) fn place(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Mounts what a record shows; what was there before goes.
    pub(super) fn mount(&self, record: &Record, shown: &Shown) -> Result<(), ViewError> {
        let name = record.name();
        let place = self.place(&name);
        unmount_all(&place)?;
        fs::create_dir_all(&place).map_err(io_error("cannot make", &place))?;
        let (tree, reader) = self.tree_and_reader(record, shown);
        self.sessions
            .begin(&name, &place, tree, reader)
            .map_err(io_error("cannot mount a FUSE view at", &place))
    }

    fn tree_and_reader(&self, record: &Record, shown: &Shown) -> (Tree, Reader) {
        let Shown { hash, manifest, files } = shown;
        let (dataset, pod) = (record.dataset.clone(), record.pod.clone());
        let tree = Tree::new(manifest.clone(), files, &record.root);
        (tree, Reader::new(self.reader.clone(), *hash, manifest.clone(), dataset, pod))
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
    /// Goes on with the FUSE views of the last run. Those that the keeper has kept never
    /// notice; the others are mounted anew: a pod that runs keeps the dead mount, and its
    /// next container gets the new one.
    pub(super) fn recover(&self, orphans: Vec<Orphan>) {
        let records: Vec<Record> = self.published.lock().records.all().cloned().collect();
        let served = records.iter().filter(|record| record.fetched.is_some());
        let names = served.clone().map(Record::name).collect();
        if let Err(error) = self.served.keep(&names) {
            tracing::warn!("what is left of FUSE views cannot be taken away: {error}");
        }
        let mut orphans_of: HashMap<String, Vec<Orphan>> = HashMap::new();
        for orphan in orphans {
            match names.contains(orphan.name()) {
                true => orphans_of.entry(orphan.name().to_owned()).or_default().push(orphan),
                false => self.served.sessions.give_up(&orphan),
            }
        }
        for record in served {
            let orphans = orphans_of.remove(&record.name()).unwrap_or_default();
            let dataset = &record.dataset;
            let target = record.target.display();
            match self.recover_one(record, orphans) {
                Ok(how) => tracing::info!(dataset, %target, "{how}, fuse"),
                Err(error) => {
                    tracing::warn!(dataset, %target, "a FUSE view cannot be taken up again: {error}")
                }
            }
        }
    }

    fn recover_one(&self, record: &Record, orphans: Vec<Orphan>) -> Result<&'static str, ViewError> {
        let shown = self.shown_by(record).inspect_err(|_| {
            orphans.iter().for_each(|orphan| self.served.sessions.give_up(orphan));
        })?;
        if let Some(want) = record.want() {
            self.want(record.name(), want, wants::Until::Unpublished);
        }
        // More than one when containers still read what was mounted before.
        for orphan in orphans {
            let (tree, reader) = self.served.tree_and_reader(record, &shown);
            if let Err(error) = self.served.sessions.take_over(orphan, tree, reader) {
                tracing::warn!(dataset = record.dataset, "a kept FUSE session cannot be taken over: {error}");
            }
        }
        if self.is_published(record)? {
            return Ok("taken over");
        }
        unmount_all(&record.target)?;
        self.served.mount(record, &shown)?;
        // kubelet may have ended the pod meanwhile, and will say so.
        if record.target.is_dir() {
            bind_at(self, &self.served.place(&record.name()), &record.target)?;
        }
        Ok("mounted again")
    }

    /// What a record shows, if its version is still here.
    fn shown_by(&self, record: &Record) -> Result<Shown, ViewError> {
        let gone =
            || ViewError::NotYet("its version is not on this node any more; kubelet asks again".to_owned());
        let hash = record.manifest().filter(|hash| self.store.is_adopted(hash)).ok_or_else(gone)?;
        let manifest = self.store.manifest(&hash)?.ok_or_else(gone)?;
        let selection = Selection::new(record.globs.iter().cloned())
            .map_err(|error| ViewError::Invalid(error.to_string()))?;
        let files = files_of_selection(&manifest, &selection);
        Ok(Shown { hash, manifest, files })
    }
}
