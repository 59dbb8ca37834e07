//! What is published, on disk: an agent that starts again knows which versions pods
//! read, and publishes the same volume with the same version.

use super::error::{ViewError, io_error};
use super::publish::VolumeRequest;
use crate::durable;
use crate::events::PodReference;
use hearth_core::manifest::ManifestHash;
use hearth_core::pod::Asked;
use hearth_core::wire::report::{POD_PRIORITY, Want};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The version of [`Record`]'s encoding.
const FORMAT: u32 = 1;

/// Which Dataset the data of a FUSE view is fetched from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fetched {
    uid: String,
    generation: i64,
}

/// One published volume at one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    format: u32,
    /// The volume, as kubelet names it.
    pub(super) volume: String,
    /// Where it is mounted.
    pub(super) target: PathBuf,
    /// `namespace/name` of the Dataset.
    pub(super) dataset: String,
    /// Which version.
    manifest: String,
    /// Globs of its part; none for all of it.
    pub(super) globs: Vec<String>,
    /// Globs of the tree that it shows; none for the tree of the whole version.
    pub(super) tree_globs: Vec<String>,
    /// The directory that is its root.
    pub(super) root: String,
    /// Whose it is, when kubelet has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pod: Option<PodReference>,
    /// Of a FUSE view, what its data is fetched as; a native view has nothing to fetch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fetched: Option<Fetched>,
}

impl Record {
    /// Of a volume that shows a part of one version.
    pub(super) fn new(request: &VolumeRequest, asked: &Asked, manifest: ManifestHash) -> Self {
        let globs = asked.selection.globs().to_vec();
        // A directory is all there below the whole tree; what a glob leaves out is not to be seen.
        let is_directory = request.attributes.files.as_deref().unwrap_or_default().is_empty();
        Self {
            format: FORMAT,
            volume: request.volume.clone(),
            target: request.target.clone(),
            dataset: asked.name().to_string(),
            manifest: manifest.to_string(),
            tree_globs: if is_directory { Vec::new() } else { globs.clone() },
            globs,
            root: request.attributes.root().to_owned(),
            pod: request.pod.clone(),
            fetched: None,
        }
    }

    /// The same as a FUSE view, whose data is fetched by `want`.
    pub(super) fn served(self, want: &Want) -> Self {
        Self { fetched: Some(Fetched { uid: want.uid.clone(), generation: want.generation }), ..self }
    }

    /// What a FUSE view has fetched for as long as it is published.
    pub(super) fn want(&self) -> Option<Want> {
        let fetched = self.fetched.as_ref()?;
        let (namespace, dataset) = self.dataset.split_once('/')?;
        Some(Want {
            namespace: namespace.to_owned(),
            dataset: dataset.to_owned(),
            uid: fetched.uid.clone(),
            generation: fetched.generation,
            manifest: self.manifest()?,
            globs: self.globs.clone(),
            priority: POD_PRIORITY,
        })
    }

    /// Which version.
    pub(super) fn manifest(&self) -> Option<ManifestHash> {
        ManifestHash::parse(&self.manifest)
    }

    /// What everything of this volume at this target is called.
    pub(super) fn name(&self) -> String {
        name_of(&self.volume, &self.target)
    }
}

/// One volume may be published at several targets, one for each pod.
pub(super) fn name_of(volume: &str, target: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(volume.len() as u64).to_le_bytes());
    hasher.update(volume.as_bytes());
    hasher.update(target.as_os_str().as_encoded_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}

/// The records of one directory.
#[derive(Debug)]
pub(super) struct Records {
    directory: PathBuf,
    known: BTreeMap<String, Record>,
}

impl Records {
    /// Reads what is there. A record that cannot be read is left, and said.
    pub(super) fn open(directory: &Path) -> Result<Self, ViewError> {
        let fail = |what| io_error(what, directory);
        fs::create_dir_all(directory).map_err(fail("cannot make"))?;
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(directory).map_err(fail("cannot list"))? {
            let path = entry.map_err(fail("cannot list"))?.path();
            if path.extension().is_some() {
                // A record that was not finished: its call was never answered.
                fs::remove_file(&path).map_err(io_error("cannot remove", &path))?;
                continue;
            }
            let bytes = fs::read(&path).map_err(io_error("cannot read", &path))?;
            match serde_json::from_slice::<Record>(&bytes) {
                Ok(record) if record.format == FORMAT && record.manifest().is_some() => {
                    known.insert(record.name(), record);
                }
                Ok(record) => {
                    tracing::warn!(path = %path.display(), format = record.format, "a volume's record is of another release");
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a volume's record cannot be understood");
                }
            }
        }
        Ok(Self { directory: directory.to_owned(), known })
    }

    pub(super) fn get(&self, volume: &str, target: &Path) -> Option<&Record> {
        self.known.get(&name_of(volume, target))
    }

    /// All that is published.
    pub(super) fn all(&self) -> impl Iterator<Item = &Record> {
        self.known.values()
    }

    /// Keeps a record, durably.
    pub(super) fn put(&mut self, record: Record) -> Result<(), ViewError> {
        let name = record.name();
        let path = self.directory.join(&name);
        let encoded = serde_json::to_vec(&record).map_err(io::Error::from);
        let written = encoded.and_then(|bytes| durable::replace(&path, &bytes));
        written.map_err(io_error("cannot write", &path))?;
        self.known.insert(name, record);
        Ok(())
    }

    /// Forgets a record; one that is not there is fine.
    pub(super) fn remove(&mut self, volume: &str, target: &Path) -> Result<Option<Record>, ViewError> {
        let name = name_of(volume, target);
        let path = self.directory.join(&name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("cannot remove", &path)(error))
            }
            _ => Ok(self.known.remove(&name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::volume::VolumeAttributes;

    fn record(volume: &str, target: &str) -> Record {
        let attributes =
            VolumeAttributes { dataset: Some("d".into()), path: Some("a".into()), ..Default::default() };
        let asked = attributes.asked("n").unwrap();
        let request = VolumeRequest {
            volume: volume.into(),
            target: target.into(),
            namespace: "n".into(),
            pod: None,
            attributes,
        };
        Record::new(&request, &asked, ManifestHash([7; 32]))
    }

    #[test]
    fn records_outlive_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let mut records = Records::open(directory.path()).unwrap();
        records.put(record("v", "/a")).unwrap();
        records.put(record("v", "/b")).unwrap();
        fs::write(directory.path().join("half.new"), "{").unwrap();
        fs::write(directory.path().join("other"), "{}").unwrap();
        let mut records = Records::open(directory.path()).unwrap();
        assert_eq!(records.all().count(), 2);
        assert_eq!(records.get("v", Path::new("/b")), Some(&record("v", "/b")));
        assert!(!directory.path().join("half.new").exists());
        assert_eq!(records.remove("v", Path::new("/a")).unwrap(), Some(record("v", "/a")));
        assert_eq!(records.remove("v", Path::new("/a")).unwrap(), None);
        assert_eq!(Records::open(directory.path()).unwrap().all().count(), 1);
    }
}
