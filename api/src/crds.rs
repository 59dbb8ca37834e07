//! The CustomResourceDefinitions as they stand in `manifests/base/crds/`.

use crate::{CronWarmup, Dataset, Eviction, Warmup};
use kube::CustomResourceExt;

/// File names and contents of the generated definitions.
pub fn files() -> Result<Vec<(&'static str, String)>, serde_yaml_ng::Error> {
    const HEAD: &str =
        "# Generated from api/ by `cargo run -p hearth-api --bin generate-crds`: do not edit.\n";
    let yaml = |crd| serde_yaml_ng::to_string(&crd).map(|yaml| format!("{HEAD}{yaml}"));
    Ok(vec![
        ("datasets.yaml", yaml(Dataset::crd())?),
        ("evictions.yaml", yaml(Eviction::crd())?),
        ("warmups.yaml", yaml(Warmup::crd())?),
        ("cronwarmups.yaml", yaml(CronWarmup::crd())?),
    ])
}

/// The folder that the generated definitions stand in.
pub fn folder() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/base/crds")
}

#[cfg(test)]
mod tests {
    #[test]
    fn generated_files_are_up_to_date() {
        for (name, expected) in super::files().unwrap() {
            let found = std::fs::read_to_string(super::folder().join(name)).unwrap_or_default();
            assert!(
                found == expected,
                "manifests/base/crds/{name} is stale: run `cargo run -p hearth-api --bin generate-crds`"
            );
        }
    }
}
