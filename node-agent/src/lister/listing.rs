//! Lists one Dataset's origins and makes its manifest.

use crate::origin::{Address, OriginError, Origins, Sink};
use hearth_api::Dataset;
use hearth_core::manifest::{ListedObject, Manifest, ManifestBuilder, SkipReason, Skipped};
use hearth_core::object::{AccessDomain, Validator};
use hearth_core::selection::FileFilter;

/// More are taken for a listing that does not end. One object takes some hundred
/// bytes of memory while the listing is made.
const MOST_OBJECTS: usize = 20_000_000;

/// What listing a Dataset gave.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) manifest: Manifest,
    pub(crate) skipped: Skipped,
}

/// Lists all origins of a Dataset.
pub(crate) async fn list(origins: &Origins, dataset: &Dataset) -> Result<Listing, OriginError> {
    let refused = |error: &dyn std::fmt::Display| OriginError::Refused(error.to_string());
    let filter = dataset.file_filter().map_err(|error| refused(&error))?;
    dataset.refresh_interval().map_err(|error| refused(&error))?;
    dataset.quota_bytes().map_err(|error| refused(&error))?;
    let namespace = dataset.metadata.namespace.as_deref().unwrap_or_default();
    // One origin in this release, as the schema says: so one identity.
    let [spec] = dataset.spec.origins.as_slice() else {
        return Err(OriginError::Refused(format!(
            "spec.origins has {} entries, and exactly one is allowed",
            dataset.spec.origins.len()
        )));
    };
    let listed = Address::of(spec)?.in_manifest(&spec.path);
    let origin = origins.open(namespace, spec).await?;
    let domain = AccessDomain::new(namespace, spec.secret_ref.as_ref().map(|secret| secret.name.as_str()));
    let mut taker =
        Taker { mount: listed.mount.clone(), filter, builder: ManifestBuilder::new(domain, vec![listed]) };
    origin.list(&mut taker).await?;
    // Sorting millions of paths takes seconds.
    let built = tokio::task::spawn_blocking(move || taker.builder.finish())
        .await
        .map_err(|error| OriginError::Malformed(format!("making the manifest ended: {error}")))?;
    let (manifest, skipped) = built.map_err(|error| OriginError::Refused(error.to_string()))?;
    Ok(Listing { manifest, skipped })
}

/// Takes what the filter takes.
struct Taker {
    mount: String,
    filter: FileFilter,
    builder: ManifestBuilder,
}

impl Sink for Taker {
    fn object(
        &mut self,
        path: &str,
        size: u64,
        modified: i64,
        validator: Validator,
    ) -> Result<(), OriginError> {
        let path = format!("{}{path}", self.mount);
        if !self.filter.takes(&path) {
            return Ok(());
        }
        if self.builder.len() >= MOST_OBJECTS {
            return Err(OriginError::Refused(format!(
                "the listing has more than {MOST_OBJECTS} objects: split the dataset, or narrow spec.files.include"
            )));
        }
        self.builder.push(ListedObject { origin: 0, path, size, modified, validator });
        Ok(())
    }

    fn skip(&mut self, key: &str, reason: SkipReason) {
        let path = format!("{}{key}", self.mount);
        if self.filter.takes(&path) {
            self.builder.skip(&path, reason);
        }
    }
}
