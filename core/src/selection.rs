//! A selection: the part of a dataset's files that someone asks for.

use crate::prefix::shared_prefix;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use std::fmt;

/// Longest glob taken from outside, bytes.
pub const MAX_GLOB: usize = 1024;
/// Most globs in one selection.
pub const MAX_GLOBS: usize = 256;

/// Why a glob cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// Over [`MAX_GLOB`].
    #[error("a glob has {0} bytes, and {MAX_GLOB} are allowed")]
    TooLong(usize),
    /// Over [`MAX_GLOBS`].
    #[error("there are {0} globs, and {MAX_GLOBS} are allowed")]
    TooMany(usize),
    /// Not a glob.
    #[error("{glob:?} is not a glob: {why}")]
    Invalid {
        /// As it was given.
        glob: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The files of a dataset that match any of some globs; all of them without globs.
///
/// `*` and `?` stay within a segment, `**` spans segments, `{a,b}` and `[a-z]`
/// as usual, `\` takes the next character as it is. A glob that names a
/// directory names everything below it.
#[derive(Clone)]
pub struct Selection {
    globs: Vec<String>,
    set: GlobSet,
    prefix: String,
}

impl Selection {
    /// Every file.
    pub fn all() -> Self {
        Self { globs: Vec::new(), set: GlobSet::empty(), prefix: String::new() }
    }

    /// The files that any of `globs` matches; all of them when there is none.
    pub fn new<I: IntoIterator<Item: Into<String>>>(globs: I) -> Result<Self, GlobError> {
        let mut globs: Vec<String> = globs.into_iter().map(Into::into).collect();
        globs.sort();
        globs.dedup();
        if globs.iter().any(|glob| matches!(glob.as_str(), "**" | "**/*" | "/**")) {
            return Ok(Self::all());
        }
        let set = compile(&globs)?;
        let prefix = globs.iter().map(|glob| literal_prefix(glob)).reduce(common).unwrap_or("").to_owned();
        Ok(Self { globs, set, prefix })
    }

    /// The files that any of these names.
    pub fn union(parts: &[Self]) -> Self {
        match parts {
            [one] => one.clone(),
            parts if parts.iter().any(Self::is_all) => Self::all(),
            // Too many globs together: everything is the only larger selection that
            // certainly has all of them.
            parts => {
                Self::new(parts.iter().flat_map(|part| &part.globs).cloned()).unwrap_or_else(|_| Self::all())
            }
        }
    }

    /// Whether it names every file.
    pub fn is_all(&self) -> bool {
        self.globs.is_empty()
    }

    /// Whether it names the file at `path`.
    pub fn matches(&self, path: &str) -> bool {
        self.is_all() || self.set.is_match(path)
    }

    /// The globs, sorted, each once.
    pub fn globs(&self) -> &[String] {
        &self.globs
    }

    /// What every path that it names begins with.
    pub(crate) fn common_prefix(&self) -> &str {
        &self.prefix
    }
}

impl PartialEq for Selection {
    fn eq(&self, other: &Self) -> bool {
        self.globs == other.globs
    }
}

impl Eq for Selection {}

impl std::hash::Hash for Selection {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.globs.hash(state);
    }
}

impl fmt::Debug for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Selection").field(&self.globs).finish()
    }
}

/// What a dataset takes of its origin: included (all when none says so) and not excluded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFilter {
    include: Selection,
    exclude: Option<Selection>,
}

impl FileFilter {
    /// Compiles the globs of a dataset's `files`.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, GlobError> {
        let exclude = match exclude {
            [] => None,
            globs => Some(Selection::new(globs.iter().cloned())?),
        };
        Ok(Self { include: Selection::new(include.iter().cloned())?, exclude })
    }

    /// Whether the dataset has the file at `path`.
    pub fn takes(&self, path: &str) -> bool {
        self.include.matches(path) && !self.exclude.as_ref().is_some_and(|exclude| exclude.matches(path))
    }
}

fn compile(globs: &[String]) -> Result<GlobSet, GlobError> {
    if globs.len() > MAX_GLOBS {
        return Err(GlobError::TooMany(globs.len()));
    }
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        if glob.len() > MAX_GLOB {
            return Err(GlobError::TooLong(glob.len()));
        }
        let invalid = |why: String| GlobError::Invalid { glob: glob.clone(), why };
        let trimmed = glob.trim_start_matches('/').trim_end_matches('/');
        if trimmed.is_empty() {
            return Err(invalid("it names nothing".to_owned()));
        }
        for pattern in [trimmed, &format!("{trimmed}/**")] {
            let compiled = GlobBuilder::new(pattern)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|error| invalid(error.kind().to_string()))?;
            set.add(compiled);
        }
    }
    set.build().map_err(|error| GlobError::Invalid {
        glob: error.glob().unwrap_or("the globs together").to_owned(),
        why: error.kind().to_string(),
    })
}

/// What a glob begins with before its first special character.
fn literal_prefix(glob: &str) -> &str {
    let glob = glob.trim_start_matches('/').trim_end_matches('/');
    let end = glob.find(['*', '?', '[', ']', '{', '}', '\\', '!']).unwrap_or(glob.len());
    &glob[..end]
}

fn common<'a>(a: &'a str, b: &str) -> &'a str {
    &a[..shared_prefix(a, b)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(glob: &str, path: &str) -> bool {
        Selection::new([glob]).unwrap().matches(path)
    }

    #[test]
    fn globs_match_as_documented() {
        assert!(matches("train/*.jpg", "train/a.jpg"));
        assert!(!matches("train/*.jpg", "train/x/a.jpg"));
        assert!(matches("train/**", "train/x/a.jpg"));
        assert!(!matches("train/**", "train"));
        assert!(matches("**/*.jpg", "a.jpg"));
        assert!(matches("{train,val}/**", "val/a"));
        assert!(matches("train", "train/x/a.jpg"));
        assert!(matches("/train/", "train/x/a.jpg"));
        assert!(!matches("train", "training/a.jpg"));
        assert!(matches("a\\*b", "a*b"));
        assert!(!matches("a\\*b", "axb"));
        assert!(matches("**", "anything/at/all"));
        assert!(Selection::new(["**", "a"]).unwrap().is_all());
    }

    #[test]
    fn bad_globs_are_one_sentence() {
        for glob in ["{a", "[a", "/", "", "a]b[", "{a}}"] {
            if let Err(error) = Selection::new([glob]) {
                assert!(!error.to_string().contains('\n'), "{error}");
            }
        }
        assert!(Selection::new(["{a"]).is_err());
        assert!(Selection::new([""]).is_err());
        assert_eq!(Selection::new(["x".repeat(2000)]).unwrap_err(), GlobError::TooLong(2000));
    }

    #[test]
    fn filters_include_then_exclude() {
        let filter = FileFilter::new(&["train/**".into()], &["**/*.tmp".into()]).unwrap();
        assert!(filter.takes("train/a"));
        assert!(!filter.takes("train/a.tmp"));
        assert!(!filter.takes("val/a"));
        assert!(FileFilter::new(&[], &[]).unwrap().takes("x"));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(globs in prop::collection::vec("\\PC{0,40}", 0..5), path in "\\PC{0,40}") {
            if let Ok(selection) = Selection::new(globs) {
                let matched = selection.matches(&path);
                prop_assert!(!matched || path.starts_with(selection.common_prefix()));
            }
        }

        #[test]
        fn nested_braces_stay_small(depth in 0usize..300) {
            let glob = format!("{}a{}", "{a,".repeat(depth), "}".repeat(depth));
            let _ = Selection::new([glob]);
        }
    }
}
