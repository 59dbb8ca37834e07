//! Files that a node could not fetch: part of its reports.

use crate::manifest::ManifestHash;
use serde::{Deserialize, Serialize};

/// Most files that a report names of one want.
pub const MAX_FILES: usize = 20;
/// Most wants of which a report names files.
pub const MAX_WANTS: usize = 32;
/// Longest path that is told, in characters: S3 has none that are longer.
const LONGEST_PATH: usize = 1024;
/// Longest reason, in characters.
const LONGEST_REASON: usize = 32;
/// Longest message, in characters.
const LONGEST_MESSAGE: usize = 256;

/// Files of one want that a node could not fetch, and still lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedFiles {
    /// The version that is wanted.
    pub manifest: ManifestHash,
    /// Which part of it, as [`part`] names it.
    pub part: u64,
    /// How many there are.
    pub count: u64,
    /// Those of them that come first in the manifest, at most [`MAX_FILES`].
    pub files: Vec<FailedFile>,
}

/// A file that could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedFile {
    /// Its path in the dataset.
    pub path: String,
    /// Why, as one CamelCase word. Text and no enum: an older extender shows what it does not know.
    pub reason: String,
    /// Why, as one sentence.
    pub message: String,
}

impl FailedFile {
    /// Of these texts as much as fits a report and a status, each in one line.
    pub fn new(path: &str, reason: &str, message: &str) -> Self {
        Self {
            path: line(path, LONGEST_PATH),
            reason: line(reason, LONGEST_REASON),
            message: line(message, LONGEST_MESSAGE),
        }
    }
}

fn line(text: &str, longest: usize) -> String {
    let mut line: String = text.chars().take(longest).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(longest).is_some() {
        line.push('…');
    }
    line
}

/// Names the part of a version that globs ask for, in fewer bytes than they have.
pub fn part(globs: &[String]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for glob in globs {
        hasher.update(&(glob.len() as u64).to_le_bytes());
        hasher.update(glob.as_bytes());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_have_names_of_their_own_that_stay() {
        let part = |globs: &[&str]| part(&globs.iter().map(ToString::to_string).collect::<Vec<_>>());
        let all = [part(&[]), part(&["ab"]), part(&["a", "b"]), part(&["b", "a"])];
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), 4);
        // Agents and extenders of two releases must give it one name.
        assert_eq!([all[0], all[2]], [12_007_152_915_317_330_863, 6_314_118_230_591_435_299]);
    }

    proptest! {
        #[test]
        fn whatever_is_told_is_one_short_line(text: String) {
            let file = FailedFile::new(&text.repeat(40), &text, &text.repeat(10));
            for (line, longest) in [(file.path, 1024), (file.reason, 32), (file.message, 256)] {
                prop_assert!(line.chars().count() <= longest + 1 && !line.contains(['\n', '\0']));
            }
        }
    }
}
