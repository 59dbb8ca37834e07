//! Which files nodes could not fetch, added up over the nodes.

use super::Node;
use crate::manifest::ManifestHash;
use crate::selection::Selection;
use crate::wire::failed_files::{self, FailedFile, MAX_FILES};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Files that nodes could not fetch, and still lack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failed {
    /// How many there are, added up over the nodes.
    pub count: u64,
    /// The first of them by path, at most [`MAX_FILES`].
    pub files: Vec<FailedOn>,
}

/// A file that nodes could not fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedOn {
    /// Which, and why not on the first of the nodes.
    pub file: FailedFile,
    /// The first of the nodes by name: the same one each time, or a status would change with a
    /// hash map's mood.
    pub node: Arc<str>,
    /// How many nodes there are.
    pub nodes: usize,
}

impl Failed {
    /// What nodes say of a part of a version.
    pub(super) fn on<'a>(
        nodes: impl Iterator<Item = &'a Node>,
        version: ManifestHash,
        selection: &Selection,
    ) -> Self {
        let part = failed_files::part(selection.globs());
        let mut count = 0_u64;
        let mut files: BTreeMap<&str, (&Node, &FailedFile, usize)> = BTreeMap::new();
        for node in nodes {
            let told = node.session.iter().flat_map(|session| &session.status.failed_files);
            for failed in told.filter(|failed| failed.manifest == version && failed.part == part) {
                count = count.saturating_add(failed.count);
                for file in failed.files.iter().take(MAX_FILES) {
                    let (first, why, nodes) = files.entry(&file.path).or_insert((node, file, 0));
                    *nodes += 1;
                    if node.name < first.name {
                        (*first, *why) = (node, file);
                    }
                    // What is behind so many others is so for good.
                    if files.len() > MAX_FILES {
                        files.pop_last();
                    }
                }
            }
        }
        let on = |(node, file, nodes): (&Node, &FailedFile, usize)| FailedOn {
            file: FailedFile::new(&file.path, &file.reason, &file.message),
            node: node.name.clone(),
            nodes,
        };
        Self { count, files: files.into_values().map(on).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cluster, delta, manifest, name, snapshot};
    use super::*;
    use crate::index::{Millis, WarmupFacts};
    use crate::wire::failed_files::FailedFiles;

    fn failed(manifest: ManifestHash, globs: &[&str], count: u64, paths: &[&str]) -> FailedFiles {
        let globs: Vec<String> = globs.iter().map(ToString::to_string).collect();
        let files = paths.iter().map(|path| FailedFile::new(path, "Gone", "it is gone")).collect();
        FailedFiles { manifest, part: failed_files::part(&globs), count, files }
    }

    #[test]
    fn files_that_failed_are_told_with_their_nodes_until_they_are_fetched() {
        let (mut index, hash, _) = cluster(&["a", "b", "c"]);
        let other = manifest(&["x"], &[]).0;
        let facts = WarmupFacts {
            subject: "w".to_owned(),
            dataset: name(),
            selection: Some(Selection::new(["train"]).unwrap()),
            node_selector: BTreeMap::new(),
            replicas: None,
            pending_pods: false,
            priority: 5,
        };
        index.set_warmup("w", facts);
        index.keep(index.unprepared_warmup("w").unwrap().find());
        let paths: Vec<String> = (0..30).map(|number| format!("train/{number:02}")).collect();
        let last: Vec<&str> = paths[15..].iter().map(String::as_str).collect();
        for (node, told) in [
            ("b", vec![failed(hash, &["train"], 7, &["train/00", "train/16"])]),
            ("a", vec![failed(hash, &["train"], 15, &last)]),
            ("c", vec![failed(hash, &[], 1, &["val/1"]), failed(other, &["train"], 1, &["train/00"])]),
        ] {
            let mut report = snapshot(node, &[]);
            report.status.failed_files = told;
            index.apply(Millis(0), report);
        }
        let told = |index: &super::super::ClusterIndex| index.warmup_progress(Millis(0), "w").unwrap().failed;
        let said = told(&index);
        assert_eq!((said.count, said.files.len()), (22, 16));
        let on = |at: usize| (said.files[at].file.path.as_str(), &*said.files[at].node, said.files[at].nodes);
        assert_eq!([on(0), on(1), on(2)], [("train/00", "b", 1), ("train/15", "a", 1), ("train/16", "a", 2)]);
        // As many as are shown, whoever told more.
        let all: Vec<&str> = paths.iter().map(String::as_str).collect();
        let mut report = snapshot("c", &[]);
        report.status.failed_files = vec![failed(hash, &["train"], 30, &all)];
        index.apply(Millis(1), report);
        let said = told(&index);
        assert_eq!(
            (said.count, said.files.len(), said.files[19].file.path.as_str()),
            (52, MAX_FILES, "train/19")
        );
        assert_eq!((said.files[0].nodes, &*said.files[0].node, said.files[16].nodes), (2, "b", 3));
        for node in ["a", "b", "c"] {
            index.apply(Millis(2), delta(node, 1, hash, &[], &[]));
        }
        assert_eq!(told(&index), Failed::default());
    }
}
