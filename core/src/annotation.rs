//! What users write on pods, and the other names by which Hearth is known in a cluster.

use crate::selection::{GlobError, Selection};
use std::time::Duration;

/// Pod annotation: the datasets that it reads, `[namespace:]dataset[/glob]`,
/// separated by commas or newlines.
pub const DATASETS: &str = "hearth.dev/datasets";
/// Pod annotation: how much locality matters, see [`Locality`].
pub const LOCALITY: &str = "hearth.dev/locality";
/// Pod annotation: with `required` or `wait`, the part that a node must hold, `"80%"`.
pub const MIN_WARM: &str = "hearth.dev/min-warm";
/// Pod annotation: the versions that it reads, see [`crate::pin`].
pub const VERSION: &str = "hearth.dev/version";
/// Extended resource that the admission policy puts on pods with datasets, at quantity 0.
pub const RESOURCE_DATASET: &str = "hearth.dev/dataset";
/// Extended resource put on pods whose locality is not `preferred`, at quantity 0.
pub const RESOURCE_REQUIRED: &str = "hearth.dev/required";
/// Name of the CSI driver.
pub const CSI_DRIVER: &str = "hearth.dev";
/// What the names of datasets' claims begin with.
pub const CLAIM_PREFIX: &str = "hearth-";

/// Longest annotation that is read, bytes. Compiling globs costs the more the longer they
/// are, and every call of the scheduler waits for it.
pub(crate) const MAX_TEXT: usize = 8 << 10;
/// Most datasets that one pod may name.
const MAX_DATASETS: usize = 64;
/// Longest `wait`.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

/// One entry of the [`DATASETS`] annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetRef {
    /// `None`: the pod's own.
    pub namespace: Option<String>,
    /// Name of the Dataset.
    pub name: String,
    /// The part of it.
    pub selection: Selection,
}

/// How much locality matters to a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locality {
    /// Warm nodes score higher; any node will do.
    #[default]
    Preferred,
    /// Only nodes that are warm enough.
    Required,
    /// As `Required` until the pod is this old, then as `Preferred`.
    Wait(Duration),
}

/// What is wrong with an annotation, as one sentence for the pod's owner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// Too much text.
    #[error("annotation {DATASETS} has {0} bytes, and {MAX_TEXT} are allowed")]
    TooLong(usize),
    /// Too many entries.
    #[error("annotation {DATASETS} names more than {MAX_DATASETS} datasets")]
    TooMany,
    /// An unclosed brace or bracket.
    #[error("annotation {DATASETS}: \"{0}\" opens a brace or bracket that it does not close")]
    Unclosed(String),
    /// No name where one should be.
    #[error(
        "annotation {DATASETS}: \"{entry}\" should be [namespace:]dataset[/glob], and {part} is not a valid name"
    )]
    Name {
        /// The entry as written.
        entry: String,
        /// The part that is wrong, quoted.
        part: String,
    },
    /// The glob of an entry.
    #[error("annotation {DATASETS}: {0}")]
    Glob(#[from] GlobError),
    /// An unknown locality.
    #[error(
        "annotation {LOCALITY} is \"{0}\", and preferred, required or wait=DURATION (up to 24h) are allowed"
    )]
    Locality(String),
    /// Not a percentage.
    #[error("annotation {MIN_WARM} is \"{0}\", and a whole percentage from 1% to 100% is allowed")]
    MinWarm(String),
}

/// Reads a [`DATASETS`] annotation. An entry that cannot be read costs only
/// itself: the others stand beside the problems.
pub fn parse_datasets(text: &str) -> (Vec<DatasetRef>, Vec<AnnotationError>) {
    if text.len() > MAX_TEXT {
        return (Vec::new(), vec![AnnotationError::TooLong(text.len())]);
    }
    let (mut datasets, mut problems) = (Vec::new(), Vec::new());
    for entry in split(text) {
        let entry = match entry {
            Ok(entry) => entry.trim(),
            Err(entry) => {
                problems.push(AnnotationError::Unclosed(shorten(entry.trim())));
                continue;
            }
        };
        if entry.is_empty() {
            continue;
        }
        if datasets.len() + problems.len() == MAX_DATASETS {
            problems.push(AnnotationError::TooMany);
            break;
        }
        match parse_entry(entry) {
            Ok(dataset) => datasets.push(dataset),
            Err(problem) => problems.push(problem),
        }
    }
    (datasets, problems)
}

/// Reads a [`LOCALITY`] annotation.
pub fn parse_locality(text: &str) -> Result<Locality, AnnotationError> {
    let invalid = || AnnotationError::Locality(shorten(text));
    match text.trim() {
        "preferred" => Ok(Locality::Preferred),
        "required" => Ok(Locality::Required),
        other => {
            let duration = other.strip_prefix("wait=").ok_or_else(invalid)?;
            let duration = humantime::parse_duration(duration).map_err(|_| invalid())?;
            match duration <= MAX_WAIT {
                true => Ok(Locality::Wait(duration)),
                false => Err(invalid()),
            }
        }
    }
}

/// Reads a [`MIN_WARM`] annotation; the percentage is 1 to 100.
pub fn parse_min_warm(text: &str) -> Result<u8, AnnotationError> {
    parse_percent(text).ok_or_else(|| AnnotationError::MinWarm(shorten(text)))
}

/// Reads a percentage of 1 to 100, with or without its sign.
pub fn parse_percent(text: &str) -> Option<u8> {
    let digits = text.trim();
    let digits = digits.strip_suffix('%').unwrap_or(digits).trim_end();
    match digits.parse() {
        Ok(percent @ 1..=100) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(percent),
        _ => None,
    }
}

/// Whether `name` can be the name of a Dataset.
pub fn is_dataset_name(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
}

pub(crate) fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

fn parse_entry(entry: &str) -> Result<DatasetRef, AnnotationError> {
    let invalid =
        |part: &str| AnnotationError::Name { entry: shorten(entry), part: format!("\"{}\"", shorten(part)) };
    let (reference, glob) = match entry.split_once('/') {
        Some((reference, glob)) => (reference, Some(glob).filter(|glob| !glob.is_empty())),
        None => (entry, None),
    };
    let (namespace, name) = match reference.split_once(':') {
        Some((namespace, name)) => (Some(namespace.trim()), name.trim()),
        None => (None, reference.trim()),
    };
    if let Some(namespace) = namespace.filter(|namespace| !is_label(namespace)) {
        return Err(invalid(namespace));
    }
    if !is_dataset_name(name) {
        return Err(invalid(name));
    }
    Ok(DatasetRef {
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
        selection: Selection::new(glob)?,
    })
}

/// Splits at commas and newlines outside of braces and brackets; an entry that
/// does not close what it opens ends with its line and is an `Err`.
fn split(text: &str) -> impl Iterator<Item = Result<&str, &str>> {
    text.split('\n').flat_map(|line| {
        let (mut entries, mut start, mut depth, mut in_class, mut escaped) =
            (Vec::new(), 0, 0usize, false, false);
        for (at, character) in line.char_indices() {
            match character {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '[' => in_class = true,
                ']' => in_class = false,
                _ if in_class => {}
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    entries.push(Ok(&line[start..at]));
                    start = at + 1;
                }
                _ => {}
            }
        }
        let last = &line[start..];
        entries.push(if depth > 0 || in_class { Err(last) } else { Ok(last) });
        entries
    })
}

/// What is quoted back to the user stays short and on one line.
pub(crate) fn shorten(text: &str) -> String {
    let mut shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn good(text: &str) -> Vec<DatasetRef> {
        let (datasets, problems) = parse_datasets(text);
        assert_eq!(problems, []);
        datasets
    }

    fn dataset(namespace: Option<&str>, name: &str, glob: Option<&str>) -> DatasetRef {
        DatasetRef {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            selection: Selection::new(glob).unwrap(),
        }
    }

    #[test]
    fn datasets_as_documented() {
        assert_eq!(
            good("imagenet/train/**, shared:bert"),
            [dataset(None, "imagenet", Some("train/**")), dataset(Some("shared"), "bert", None)]
        );
        assert_eq!(
            good("a/{x,y}/[,]*.jpg\nb/\n\n c ,"),
            [dataset(None, "a", Some("{x,y}/[,]*.jpg")), dataset(None, "b", None), dataset(None, "c", None)]
        );
        assert_eq!(good("a/x:y"), [dataset(None, "a", Some("x:y"))]);
        assert_eq!(good(" \n"), []);
    }

    #[test]
    fn a_bad_entry_costs_only_itself() {
        let (datasets, problems) = parse_datasets("good, Bad_Name, a/{b\nother:also-good, :x, a:");
        assert_eq!(datasets, [dataset(None, "good", None), dataset(Some("other"), "also-good", None)]);
        assert_eq!(problems.len(), 4);
        assert_eq!(
            problems[0].to_string(),
            "annotation hearth.dev/datasets: \"Bad_Name\" should be [namespace:]dataset[/glob], and \"Bad_Name\" is not a valid name"
        );
    }

    #[test]
    fn locality_and_min_warm() {
        assert_eq!(parse_locality("required"), Ok(Locality::Required));
        assert_eq!(parse_locality("wait=90s"), Ok(Locality::Wait(Duration::from_secs(90))));
        for bad in ["", "Required", "wait", "wait=", "wait=-1s", "wait=25h"] {
            assert!(parse_locality(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_min_warm("80%"), Ok(80));
        assert_eq!(parse_min_warm(" 100 "), Ok(100));
        for bad in ["", "0%", "101%", "+5%", "8.5%", "%", "1000000000000"] {
            assert!(parse_min_warm(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_parsed_or_refused(text in "\\PC*", seasoned in "[a-z:/,{}\\[\\]\\\\\n*]{0,80}") {
            for text in [text, seasoned] {
                let (datasets, problems) = parse_datasets(&text);
                prop_assert!(datasets.len() + problems.len() <= MAX_DATASETS + 1);
                for problem in problems {
                    prop_assert!(!problem.to_string().contains('\n'));
                }
                for dataset in datasets {
                    prop_assert!(is_dataset_name(&dataset.name));
                }
                let _ = parse_locality(&text);
                let _ = parse_min_warm(&text);
            }
        }
    }
}
