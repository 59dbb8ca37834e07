//! Where in its directory the store keeps what.

use hearth_core::manifest::ManifestHash;
use hearth_core::object::ObjectId;
use std::path::{Path, PathBuf};

/// Names of the 256 directories below `objects`.
pub(super) fn fan_out() -> impl Iterator<Item = String> {
    (0..=u8::MAX).map(|byte| format!("{byte:02x}"))
}

/// The paths of one store.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("LOCK")
    }

    pub(super) fn index(&self) -> PathBuf {
        self.root.join("index.redb")
    }

    /// Where a damaged index goes, for someone to look at; the next one replaces it.
    pub(super) fn damaged_index(&self) -> PathBuf {
        self.root.join("index.redb.damaged")
    }

    /// An empty file that asks the next open to read the whole index.
    pub(super) fn suspicion(&self) -> PathBuf {
        self.root.join("index.suspect")
    }

    pub(super) fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }

    /// Written to find out whether the disk works again.
    pub(super) fn probe(&self) -> PathBuf {
        self.root.join("probe")
    }

    pub(super) fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    pub(super) fn object_dir(&self, id: &ObjectId) -> PathBuf {
        self.objects().join(format!("{:02x}", id.0[0]))
    }

    pub(super) fn object(&self, id: &ObjectId) -> PathBuf {
        self.object_dir(id).join(id.to_string())
    }

    pub(super) fn manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }

    pub(super) fn manifest(&self, hash: &ManifestHash) -> PathBuf {
        self.manifests().join(hash.to_string())
    }

    /// A manifest on its way in.
    pub(super) fn new_manifest(&self, hash: &ManifestHash) -> PathBuf {
        self.manifests().join(format!("{hash}.new"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_pinned() {
        let layout = Layout::new(Path::new("/s"));
        let mut id = ObjectId([0; 16]);
        id.0[0] = 0xab;
        let text = format!("/s/objects/ab/ab{}", "00".repeat(15));
        assert_eq!(layout.object(&id), PathBuf::from(text));
        let hash = ManifestHash([1; 32]);
        assert_eq!(layout.manifest(&hash), PathBuf::from(format!("/s/manifests/{}", "01".repeat(32))));
        assert_eq!(fan_out().count(), 256);
        assert_eq!(fan_out().nth(255).as_deref(), Some("ff"));
    }
}
