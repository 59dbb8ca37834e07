//! An exact list of the files that a dataset has.

use crate::manifest::shown;
use std::ops::Range;

/// Most lines of a list.
pub const MOST_LINES: usize = 10_000_000;
/// Most bytes of a list, unpacked.
pub const LONGEST_LIST: usize = 1 << 30;

/// Why text is not a list of files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileListError {
    /// Over [`LONGEST_LIST`].
    #[error("it has more than {LONGEST_LIST} bytes")]
    TooLong,
    /// Over [`MOST_LINES`].
    #[error("it has more than {MOST_LINES} lines")]
    TooManyLines,
    /// A line that is no path.
    #[error("its line {line} is not UTF-8")]
    NotUtf8 {
        /// Which, counted from 1.
        line: usize,
    },
}

/// What a list names and the dataset does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// How many paths.
    pub count: u64,
    /// The least of them, shortened.
    pub example: Option<String>,
}

/// Paths of files in a dataset's tree, one a line, and which of them were found.
///
/// Empty lines count nothing, a path may begin with `/` or `./`, lines may end as Windows has
/// it, and a path that stands there twice stands there once.
#[derive(Clone, Debug)]
pub struct FileList {
    text: String,
    /// Where the paths lie in the text, in the order of their bytes.
    paths: Vec<Range<u32>>,
    found: Vec<bool>,
}

impl FileList {
    /// Reads a list.
    pub fn parse(text: Vec<u8>) -> Result<Self, FileListError> {
        // All places in the text have a u32 then.
        if text.len() > LONGEST_LIST {
            return Err(FileListError::TooLong);
        }
        let text = String::from_utf8(text).map_err(|error| {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            FileListError::NotUtf8 { line: 1 + good.iter().filter(|byte| **byte == b'\n').count() }
        })?;
        let mut paths = Vec::new();
        // Some editors write a mark before the first line.
        let mut start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        for line in text[start..].split_inclusive('\n') {
            let end = start + line.len();
            let path = line.trim_end_matches(['\n', '\r']);
            let path_end = start + path.len();
            let path = path.strip_prefix("./").unwrap_or(path).trim_start_matches('/');
            if !path.is_empty() {
                if paths.len() == MOST_LINES {
                    return Err(FileListError::TooManyLines);
                }
                paths.push((path_end - path.len()) as u32..path_end as u32);
            }
            start = end;
        }
        let at = |range: &Range<u32>| &text[range.start as usize..range.end as usize];
        paths.sort_unstable_by(|a, b| at(a).cmp(at(b)));
        paths.dedup_by(|a, b| at(a) == at(b));
        paths.shrink_to_fit();
        let found = vec![false; paths.len()];
        Ok(Self { text, paths, found })
    }

    /// Whether it names this path, which is found then.
    pub fn takes(&mut self, path: &str) -> bool {
        let place = self.paths.binary_search_by(|range| self.at(range).cmp(path));
        if let Ok(place) = place {
            self.found[place] = true;
        }
        place.is_ok()
    }

    /// What it names and was not found.
    pub fn missing(&self) -> Missing {
        let mut missing = self.paths.iter().zip(&self.found).filter(|(_, found)| !**found).peekable();
        let example = missing.peek().map(|(path, _)| shown(self.at(path)).collect());
        Missing { count: missing.count() as u64, example }
    }

    fn at(&self, range: &Range<u32>) -> &str {
        &self.text[range.start as usize..range.end as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn list(text: &str) -> FileList {
        FileList::parse(text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn lines_are_paths_however_they_are_written() {
        let mut list = list("\u{feff}b/2.bin\r\n\n./a 1\n/c\na 1\n#d\nlast");
        for path in ["b/2.bin", "a 1", "c", "#d"] {
            assert!(list.takes(path), "{path}");
        }
        for path in ["", "/c", "b", "b/2", "las", "last2"] {
            assert!(!list.takes(path), "{path}");
        }
        assert_eq!(list.missing(), Missing { count: 1, example: Some("last".to_owned()) });
        assert!(list.takes("last"));
        assert_eq!(list.missing(), Missing::default());
    }

    #[test]
    fn what_is_no_text_is_named_by_its_line() {
        let error = FileList::parse(b"a\nb\n\xff\nc".to_vec()).unwrap_err();
        assert_eq!(error.to_string(), "its line 3 is not UTF-8");
    }

    proptest! {
        #[test]
        fn a_list_takes_what_it_names_and_misses_the_rest(
            lines in prop::collection::vec("[ab/]{0,4}(\r)?", 0..20),
            files in prop::collection::btree_set("[ab]{1,2}(/[ab]{1,2})?", 0..20),
        ) {
            let mut list = list(&lines.join("\n"));
            let named: BTreeSet<&str> = lines
                .iter()
                .map(|line| line.trim_end_matches('\r').trim_start_matches('/'))
                .filter(|line| !line.is_empty())
                .collect();
            for file in &files {
                prop_assert_eq!(list.takes(file), named.contains(file.as_str()));
            }
            let missing: Vec<&&str> = named.iter().filter(|path| !files.contains(**path)).collect();
            let found = list.missing();
            prop_assert_eq!(found.count, missing.len() as u64);
            prop_assert_eq!(found.example.as_deref(), missing.first().map(|path| **path));
        }
    }
}
