//! What a selection picks of a manifest, found once.

use super::Manifest;
use crate::selection::Selection;
use roaring::RoaringBitmap;

/// The files that a selection picks of one manifest, as far as they are kept on nodes.
///
/// Finding them looks at every path: at ten million files that takes a second,
/// so it is to be done outside of locks.
#[derive(Clone, Debug, PartialEq)]
pub struct Selected {
    /// `None`: all blocks of the manifest's listed files.
    blocks: Option<RoaringBitmap>,
    /// Bytes of the listed files.
    pub bytes: u64,
    /// How many listed files, the empty ones included.
    pub files: u64,
    /// How many unlisted files, of which all else here says nothing.
    pub unlisted: u64,
}

impl Selected {
    /// Everything.
    pub fn all(manifest: &Manifest) -> Self {
        Self {
            blocks: None,
            bytes: manifest.bytes(),
            files: manifest.listed_count() as u64,
            unlisted: manifest.unlisted_count() as u64,
        }
    }

    /// Finds what `selection` picks.
    pub fn find(manifest: &Manifest, selection: &Selection) -> Self {
        if selection.is_all() {
            return Self::all(manifest);
        }
        let mut blocks = RoaringBitmap::new();
        let (mut bytes, mut files, mut unlisted) = (0, 0, 0);
        for file in manifest.select(selection) {
            if file.unlisted {
                unlisted += 1;
                continue;
            }
            blocks.insert_range(file.blocks());
            bytes += file.size;
            files += 1;
        }
        Self { blocks: Some(blocks), bytes, files, unlisted }
    }

    /// Bytes of those of the given blocks that are picked.
    pub fn bytes_of(&self, manifest: &Manifest, blocks: &RoaringBitmap) -> u64 {
        match &self.blocks {
            None => manifest.bytes_of(blocks),
            Some(selected) => manifest.bytes_of(&(blocks & selected)),
        }
    }

    /// The picked blocks.
    pub fn blocks(&self, manifest: &Manifest) -> RoaringBitmap {
        self.blocks.clone().unwrap_or_else(|| {
            let mut all = RoaringBitmap::new();
            all.insert_range(0..manifest.blocks());
            all
        })
    }

    /// The picked blocks that are not among those given.
    pub fn missing(&self, manifest: &Manifest, held: &RoaringBitmap) -> RoaringBitmap {
        self.blocks(manifest) - held
    }
}
