//! Tests of the whole store, on a disk that loses power.

mod bulk;
mod damage;
mod evict;
mod manifests;
mod power;
mod real;
mod space;
mod tiers;

use super::engine::{Common, Engine};
use super::fake_disk::{FakeDisk, Random};
use super::layout::Layout;
use super::{StoreConfig, StoreError, Subscription};
use crate::config::units::Size;
use hearth_core::block;
use hearth_core::manifest::{ListedObject, Manifest, ManifestBuilder, ManifestHash, ManifestOrigin};
use hearth_core::object::{AccessDomain, ObjectId, Validator};
use hearth_core::wire::report::Holding;
use std::path::PathBuf;
use std::sync::Arc;

pub(super) fn config() -> StoreConfig {
    StoreConfig::at("/store")
}

pub(super) fn layout() -> Layout {
    Layout::new(&config().directory)
}

/// A manifest and its encoding.
pub(super) struct Version {
    pub(super) hash: ManifestHash,
    pub(super) bytes: Vec<u8>,
    pub(super) manifest: Manifest,
}

impl Version {
    /// A manifest of `namespace` with files of (path, ETag, size).
    pub(super) fn new(namespace: &str, files: &[(&str, &str, u64)]) -> Self {
        let origin = ManifestOrigin {
            domain: AccessDomain::new(namespace, None),
            uri: "s3://bucket/set".into(),
            key_prefix: "set/".into(),
            mount: String::new(),
        };
        let mut builder = ManifestBuilder::new(vec![origin]);
        for (path, tag, size) in files {
            builder.push(ListedObject {
                origin: 0,
                path: (*path).to_owned(),
                size: *size,
                modified: 0,
                validator: Validator::etag(tag),
                unlisted: false,
            });
        }
        let (manifest, _) = builder.finish().unwrap();
        let bytes = manifest.encode();
        Self { hash: ManifestHash::of(&bytes), bytes, manifest }
    }

    pub(super) fn object(&self, file: usize) -> ObjectId {
        self.manifest.object_id(&self.manifest.file(file).unwrap())
    }

    pub(super) fn path(&self, file: usize) -> PathBuf {
        layout().object(&self.object(file))
    }

    /// What a block of a file contains.
    pub(super) fn content(&self, file: usize, block: u64) -> Vec<u8> {
        let file = self.manifest.file(file).unwrap();
        let range = block::byte_range(file.size, block);
        let id = self.manifest.object_id(&file);
        let seed = u64::from_le_bytes(*id.0.first_chunk().unwrap()) ^ block;
        let mut random = Random(seed);
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize + 8);
        while bytes.len() < (range.end - range.start) as usize {
            bytes.extend_from_slice(&random.next().to_le_bytes());
        }
        bytes.truncate((range.end - range.start) as usize);
        bytes
    }

    pub(super) fn put(&self, store: &Engine) -> Result<(), StoreError> {
        store.put_manifest(self.hash, "ns/d", &self.bytes)?;
        store.adopt(&self.hash)
    }

    pub(super) fn write(&self, store: &Engine, file: usize, block: u64) -> Result<(), StoreError> {
        store.write_block_now(self.hash, file, block, &self.content(file, block))
    }

    /// Reads a block; what is there must be right.
    pub(super) fn read(&self, store: &Engine, file: usize, block: u64) -> bool {
        let read = store.read_block(&self.hash, file, block).unwrap();
        if let Some(bytes) = &read {
            assert!(*bytes == self.content(file, block), "file {file} block {block} has other bytes");
        }
        read.is_some()
    }

    pub(super) fn held(&self, store: &Engine) -> Vec<u32> {
        store.held(&self.hash).unwrap().iter().collect()
    }
}

pub(super) fn open(disk: &FakeDisk) -> Engine {
    Engine::open(Arc::new(disk.clone()), &config(), &Common::default()).unwrap()
}

pub(super) fn subscribe(store: &Engine) -> (Vec<Holding>, Subscription) {
    let feed = Arc::default();
    let held = store.follow(&feed);
    (held, Subscription::new(feed, None))
}

pub(super) fn small() -> Version {
    Version::new(
        "ns",
        &[("a", "1", 1000), ("b", "1", 500), ("c", "1", block::BLOCK_SIZE + 100), ("e", "1", 0)],
    )
}
