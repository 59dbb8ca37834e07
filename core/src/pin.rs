//! `hearth.dev/version`: the versions that a pod names itself, as a manifest's name for
//! the one dataset that it reads, or as `[namespace:]dataset=NAME`, separated by commas
//! or newlines.

use crate::annotation::{MAX_TEXT, VERSION, is_dataset_name, is_label, shorten};
use crate::index::DatasetName;
use crate::manifest::ManifestHash;
use crate::pod::Asked;
use std::collections::BTreeMap;

/// The versions that a pod names, by dataset.
pub type Pins = BTreeMap<DatasetName, ManifestHash>;

/// What is wrong with the annotation, as one sentence for the pod's owner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// Too much text.
    #[error("annotation {VERSION} has {0} bytes, and {MAX_TEXT} are allowed")]
    TooLong(usize),
    /// Not of the form.
    #[error(
        "annotation {VERSION}: \"{0}\" should be VERSION or [namespace:]dataset=VERSION, with the 64 hex digits of the Dataset's status.version.manifest"
    )]
    Form(String),
    /// It could be of any of them.
    #[error(
        "annotation {VERSION} must say of which dataset it names a version, as [namespace:]dataset=VERSION: the pod reads {0}"
    )]
    Whose(usize),
    /// It would change nothing.
    #[error(
        "annotation {VERSION} names a version of Dataset {0}, which the pod does not read: name it in hearth.dev/datasets, or mount it"
    )]
    NotRead(DatasetName),
    /// Which of them?
    #[error("annotation {VERSION} names two versions of Dataset {0}: name one")]
    Two(DatasetName),
}

/// Reads the annotation of a pod in `namespace` that reads what is `asked`.
pub fn parse(text: &str, namespace: &str, asked: &[Asked]) -> Result<Pins, PinError> {
    if text.len() > MAX_TEXT {
        return Err(PinError::TooLong(text.len()));
    }
    let mut pins = Pins::new();
    for entry in text.split([',', '\n']).map(str::trim).filter(|entry| !entry.is_empty()) {
        let form = || PinError::Form(shorten(entry));
        let (name, version) = match entry.split_once('=') {
            Some((reference, version)) => {
                (name(reference.trim(), namespace).ok_or_else(form)?, version.trim())
            }
            None => match asked {
                [only] => (only.name(), entry),
                asked if ManifestHash::parse(entry).is_some() => return Err(PinError::Whose(asked.len())),
                _ => return Err(form()),
            },
        };
        let version = ManifestHash::parse(version).ok_or_else(form)?;
        if !asked.iter().any(|asked| asked.name() == name) {
            return Err(PinError::NotRead(name));
        }
        if pins.insert(name.clone(), version).is_some_and(|before| before != version) {
            return Err(PinError::Two(name));
        }
    }
    Ok(pins)
}

fn name(reference: &str, namespace: &str) -> Option<DatasetName> {
    let (namespace, name) = reference.split_once(':').unwrap_or((namespace, reference));
    (is_label(namespace) && is_dataset_name(name)).then(|| DatasetName::new(namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selection::Selection;
    use proptest::prelude::*;

    fn asked(names: &[(&str, &str)]) -> Vec<Asked> {
        let asked = names.iter().map(|(namespace, dataset)| Asked {
            namespace: (*namespace).into(),
            dataset: (*dataset).into(),
            selection: Selection::all(),
        });
        asked.collect()
    }

    #[test]
    fn one_version_or_one_for_each_dataset() {
        let (one, two) = ("01".repeat(32), "02".repeat(32));
        let images = DatasetName::new("n", "images");
        let only = Pins::from([(images.clone(), ManifestHash([1; 32]))]);
        let reads_one = asked(&[("n", "images")]);
        assert_eq!(parse(&format!(" {one}\n"), "n", &reads_one), Ok(only.clone()));
        assert_eq!(parse(&format!("images = {one}, n:images={one}"), "n", &reads_one), Ok(only));
        let reads_two = asked(&[("n", "images"), ("shared", "bert")]);
        let both = Pins::from([
            (images, ManifestHash([1; 32])),
            (DatasetName::new("shared", "bert"), ManifestHash([2; 32])),
        ]);
        assert_eq!(parse(&format!("images={one}\nshared:bert={two}"), "n", &reads_two), Ok(both));
        assert_eq!(parse(" ", "n", &reads_two), Ok(Pins::new()));
    }

    #[test]
    fn what_is_wrong_is_one_sentence() {
        let (one, two) = ("01".repeat(32), "02".repeat(32));
        let reads_two = asked(&[("n", "images"), ("shared", "bert")]);
        for (text, expected) in [
            (one.clone(), "as [namespace:]dataset=VERSION: the pod reads 2"),
            ("latest".to_owned(), "\"latest\" should be VERSION"),
            (format!("images={}", &one[1..]), "64 hex digits"),
            (format!("Images={one}"), "\"Images=01"),
            (format!("other={one}"), "Dataset n/other, which the pod does not read"),
            (format!("images={one},images={two}"), "two versions of Dataset n/images"),
            ("x".repeat(9_000), "9000 bytes"),
        ] {
            let why = parse(&text, "n", &reads_two).unwrap_err().to_string();
            assert!(why.contains(expected) && why.starts_with("annotation hearth.dev/version"), "{why}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_parsed_or_refused(text in "\\PC*", seasoned in "[a-f0-9=:,\n]{0,80}") {
            for text in [text, seasoned] {
                for asked in [asked(&[]), asked(&[("n", "a")]), asked(&[("n", "a"), ("m", "b")])] {
                    if let Err(error) = parse(&text, "n", &asked) {
                        prop_assert!(!error.to_string().contains('\n'));
                    }
                }
            }
        }
    }
}
