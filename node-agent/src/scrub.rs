//! Reads again what was written, at a pace, so that a block that the disk has lost or changed
//! is found before somebody needs it. The store gives it up then, and it is fetched anew.

use crate::metrics::Metrics;
use crate::pressure;
use crate::store::{Store, StoreError};
use hearth_core::block::BLOCK_SIZE;
use hearth_core::manifest::ManifestHash;
use roaring::RoaringBitmap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Before each pass over all that is held.
const REST: Duration = Duration::from_secs(600);
/// When to look again whether the disks have more time.
const YIELD: Duration = Duration::from_secs(5);

/// Reads the store again and again.
pub struct Scrubber {
    /// What is read.
    pub store: Store,
    /// Bytes per second, at least one.
    pub rate: u64,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Scrubber {
    /// Reads until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let passes = async {
            loop {
                // First, too: a node that starts has other things to do.
                tokio::time::sleep(REST).await;
                if let Err(error) = self.pass().await {
                    tracing::warn!("what is stored cannot be verified: {error}");
                }
            }
        };
        shutdown.run_until_cancelled(passes).await;
        Ok(())
    }

    /// Reads all that is held once. Where it begins is left to chance: an agent that starts
    /// often gets everywhere all the same.
    async fn pass(&self) -> Result<(), StoreError> {
        let mut manifests = self.store.manifests();
        fastrand::shuffle(&mut manifests);
        for (hash, _) in manifests {
            if let Some(held) = self.store.held(&hash) {
                self.version(hash, &held).await?;
            }
        }
        self.metrics.scrub_passes.inc();
        Ok(())
    }

    /// Reads the blocks of a version. The store counts and tells those that are damaged.
    async fn version(&self, hash: ManifestHash, held: &RoaringBitmap) -> Result<(), StoreError> {
        let begin = held.select(fastrand::u32(..u32::try_from(held.len()).unwrap_or(u32::MAX).max(1)));
        let begin = begin.unwrap_or(0);
        for number in held.range(begin..).chain(held.range(..begin)) {
            while pressure::disks_are_busy() {
                tokio::time::sleep(YIELD).await;
            }
            let store = self.store.clone();
            let verified = tokio::task::spawn_blocking(move || {
                let Some(manifest) = store.manifest(&hash)? else { return Ok(None) };
                let Some(file) = manifest.file_of_block(number) else { return Ok(None) };
                store.verify_block(&hash, file.index, u64::from(number - file.first_block))
            });
            match verified.await.map_err(|_| StoreError::Closed)? {
                Ok(bytes) => {
                    let bytes = bytes.unwrap_or(0);
                    self.metrics.scrubbed_bytes.inc_by(bytes);
                    self.rest(bytes).await;
                }
                Err(StoreError::Closed) => return Err(StoreError::Closed),
                // The version was forgotten meanwhile, or cannot be read any more.
                Err(
                    StoreError::UnknownManifest(_) | StoreError::Manifest { .. } | StoreError::Damaged { .. },
                ) => return Ok(()),
                // The others are looked at all the same.
                Err(error) => {
                    tracing::warn!("a block cannot be verified: {error}");
                    self.rest(BLOCK_SIZE).await;
                }
            }
        }
        Ok(())
    }

    async fn rest(&self, bytes: u64) {
        tokio::time::sleep(Duration::from_secs_f64(bytes as f64 / self.rate.max(1) as f64)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{metrics, open_store, stored};
    use std::os::unix::fs::FileExt;

    #[tokio::test(flavor = "multi_thread")]
    async fn damage_is_found_without_a_reader() {
        let directory = tempfile::tempdir().unwrap();
        let store = open_store(directory.path(), None);
        let (hash, manifest) = stored(&store, &[("a", "1"), ("b", "1"), ("c", "1")], "d").await;
        let path = store.whole_file(&hash, 1).unwrap().unwrap();
        let object = std::fs::File::options().write(true).open(path).unwrap();
        object.write_all_at(b"?", 3).unwrap();
        object.sync_all().unwrap();
        let metrics = metrics();
        let scrubber = Scrubber { store: store.clone(), rate: u64::MAX, metrics: metrics.clone() };
        scrubber.pass().await.unwrap();
        assert_eq!(store.held(&hash).unwrap().iter().collect::<Vec<_>>(), [0, 2]);
        let size = manifest.file(0).unwrap().size;
        assert_eq!((metrics.scrubbed_bytes.get(), metrics.scrub_passes.get()), (2 * size, 1));
    }
}
