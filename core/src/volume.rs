//! What a volume of Hearth's CSI driver asks for, read alike by the extender, who
//! places the pod, and by the agent, who mounts it.

use crate::annotation::{self, CSI_DRIVER};
use crate::pod::Asked;
use crate::selection::Selection;
use serde::Deserialize;

/// `volumeAttributes` of an inline volume or of a PersistentVolume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct VolumeAttributes {
    /// Name of a Dataset in the pod's namespace, or `namespace:name`.
    #[serde(default)]
    pub dataset: Option<String>,
    /// A directory of it, which becomes the volume's root.
    #[serde(default)]
    pub path: Option<String>,
    /// A glob within that directory: other files are not in the volume.
    #[serde(default)]
    pub files: Option<String>,
    /// How much of it, in percent, is on the node before the volume is mounted.
    #[serde(default)]
    pub wait: Option<String>,
}

impl VolumeAttributes {
    /// The attributes that say something to the driver.
    pub const NAMES: [&str; 4] = ["dataset", "path", "files", "wait"];

    /// What `value` has for each of the names.
    pub fn of(value: impl Fn(&str) -> Option<String>) -> Self {
        let [dataset, path, files, wait] = Self::NAMES.map(value);
        Self { dataset, path, files, wait }
    }

    /// The files that a volume of a pod in `namespace` asks for.
    pub fn asked(&self, namespace: &str) -> Result<Asked, String> {
        let dataset = self.dataset.as_deref().unwrap_or_default();
        let (namespace, name) = dataset.split_once(':').unwrap_or((namespace, dataset));
        if !annotation::is_dataset_name(name) {
            return Err(format!(
                "a volume of driver {CSI_DRIVER} needs volumeAttributes.dataset to be the name of a Dataset, and it is \"{}\"",
                dataset.chars().take(80).collect::<String>().escape_debug()
            ));
        }
        let path = self.root();
        let files = self.files.as_deref().unwrap_or_default();
        // `path` is a directory, not a glob.
        let mut glob: String = path.chars().flat_map(|c| escape(c).into_iter().chain([c])).collect();
        if !glob.is_empty() && !files.is_empty() {
            glob.push('/');
        }
        glob.push_str(files);
        let selection = Selection::new(Some(glob).filter(|glob| !glob.is_empty()))
            .map_err(|error| format!("a volume of dataset {name}: {error}"))?;
        Ok(Asked { namespace: namespace.to_owned(), dataset: name.to_owned(), selection })
    }

    /// Bytes of path and glob.
    pub(crate) fn text(&self) -> usize {
        [&self.path, &self.files].into_iter().flatten().map(String::len).sum()
    }

    /// The directory of the dataset that is the volume's root: relative, empty for all of it.
    pub fn root(&self) -> &str {
        self.path.as_deref().unwrap_or_default().trim_matches('/')
    }

    /// Percent of the bytes that have to be there before the volume is mounted.
    pub fn wait_percent(&self) -> Result<Option<u8>, String> {
        let Some(wait) = &self.wait else { return Ok(None) };
        let percent = annotation::parse_percent(wait);
        percent.map(Some).ok_or_else(|| {
            format!(
                "volumeAttributes.wait must be a percentage from 1% to 100%, and it is \"{}\"",
                wait.chars().take(80).collect::<String>().escape_debug()
            )
        })
    }
}

fn escape(character: char) -> Option<char> {
    matches!(character, '*' | '?' | '[' | ']' | '{' | '}' | '\\').then_some('\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(text: serde_json::Value) -> VolumeAttributes {
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn a_directory_and_a_glob_in_it() {
        let volume =
            attributes(serde_json::json!({"dataset": "vision:images", "path": "/a*b/", "files": "*.bin"}));
        let asked = volume.asked("mine").unwrap();
        assert_eq!((asked.namespace.as_str(), asked.dataset.as_str()), ("vision", "images"));
        assert_eq!(asked.selection.globs(), ["a\\*b/*.bin"]);
        assert_eq!(volume.root(), "a*b");
        assert_eq!(
            attributes(serde_json::json!({"dataset": "images"})).asked("mine").unwrap().namespace,
            "mine"
        );
    }

    #[test]
    fn what_is_wrong_is_one_sentence() {
        let why = attributes(serde_json::json!({"dataset": "No_Name"})).asked("mine").unwrap_err();
        assert!(why.contains("volumeAttributes.dataset") && why.contains("No_Name"), "{why}");
        for (wait, percent) in
            [("80%", Ok(Some(80))), ("100%", Ok(Some(100))), ("0%", Err(())), ("soon", Err(()))]
        {
            let wait = attributes(serde_json::json!({"wait": wait})).wait_percent();
            assert_eq!(wait.map_err(|why| assert!(why.contains("from 1% to 100%"))), percent);
        }
        assert_eq!(VolumeAttributes::default().wait_percent(), Ok(None));
    }
}
