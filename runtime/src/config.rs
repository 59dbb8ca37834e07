//! Configuration in layers: defaults, one YAML file, environment, flags.

use figment::Figment;
use figment::providers::{Format, Serialized, Yaml};
use figment::value::Value;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was named does not exist.
    #[error("configuration file {0} does not exist: name another with --config")]
    Missing(String),
    /// A key is unknown or its value is not allowed; the text names both and their place.
    #[error("configuration: {0}")]
    Invalid(String),
}

/// Reads a program's configuration.
///
/// `file` is read when it exists, and must exist when it was `named` by the user.
/// Over it comes the environment, `PREFIX__SECTION__SOME_KEY` for `section.someKey`,
/// and over that the `flags` that were given, as a structure of the configuration's
/// own shape without the absent ones.
pub fn load<T: DeserializeOwned + Serialize + Default>(
    file: &Path,
    named: bool,
    env_prefix: &str,
    flags: &impl Serialize,
) -> Result<T, ConfigError> {
    if named && !file.exists() {
        return Err(ConfigError::Missing(file.display().to_string()));
    }
    let defaults = T::default();
    let mut layers = Figment::from(Serialized::defaults(&defaults));
    if file.exists() {
        layers = layers.merge(Yaml::file_exact(file));
    }
    for (key, value) in environment(env_prefix, &keys_of(&defaults))? {
        layers = layers.merge(Serialized::default(&key, value));
    }
    layers
        .merge(Serialized::defaults(flags))
        .extract()
        .map_err(|error| ConfigError::Invalid(one_line(&error)))
}

/// The keys that the environment sets. Two underscores stand behind the prefix:
/// Kubernetes puts `HEARTH_EXTENDER_PORT` and the like into pods for Services.
fn environment(prefix: &str, keys: &[String]) -> Result<Vec<(String, Value)>, ConfigError> {
    let prefix = format!("{prefix}__");
    let mut found = Vec::new();
    for (name, value) in std::env::vars() {
        let Some(rest) = name.strip_prefix(&prefix) else { continue };
        // Names have no capitals within; keys have.
        let path = rest.replace("__", ".").replace('_', "");
        let Some(key) = keys.iter().find(|key| key.eq_ignore_ascii_case(&path)) else {
            return Err(ConfigError::Invalid(format!(
                "environment variable {name} names no key of the configuration"
            )));
        };
        let Ok(value) = value.parse::<Value>();
        found.push((key.clone(), value));
    }
    Ok(found)
}

/// The dotted paths of all keys that a configuration has.
fn keys_of(defaults: &impl Serialize) -> Vec<String> {
    fn walk(value: &Value, path: &str, keys: &mut Vec<String>) {
        if let Some(dict) = value.as_dict() {
            for (key, value) in dict {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(value, &path, keys);
                keys.push(path);
            }
        }
    }
    let mut keys = Vec::new();
    if let Ok(value) = Value::serialize(defaults) {
        walk(&value, "", &mut keys);
    }
    keys
}

fn one_line(error: &figment::Error) -> String {
    let all: Vec<String> = error.clone().into_iter().map(|error| error.to_string()).collect();
    all.join("; ").replace('\n', " ")
}

/// The configuration as YAML, to print what a program runs with.
pub fn to_yaml(config: &impl Serialize) -> String {
    serde_yaml_ng::to_string(config).unwrap_or_else(|error| format!("(cannot be shown: {error})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
    struct Config {
        node_name: String,
        nested: Nested,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
    struct Nested {
        some_size: u64,
        other: Option<String>,
    }

    impl Default for Nested {
        fn default() -> Self {
            Self { some_size: 1, other: None }
        }
    }

    impl Default for Config {
        fn default() -> Self {
            Self { node_name: "default".into(), nested: Nested::default() }
        }
    }

    fn loaded(yaml: &str, flags: &serde_json::Value) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.yaml");
        std::fs::write(&file, yaml).unwrap();
        load(&file, true, "HEARTH_TEST_NONE", flags)
    }

    #[test]
    fn later_layers_win() {
        let none = serde_json::json!({});
        assert_eq!(loaded("", &none).unwrap(), Config::default());
        let config =
            loaded("nested: {someSize: 2}\nnodeName: file", &serde_json::json!({"nodeName": "flag"}))
                .unwrap();
        assert_eq!(config, Config { node_name: "flag".into(), nested: Nested { some_size: 2, other: None } });
    }

    #[test]
    #[expect(clippy::result_large_err, reason = "figment's jail asks for its own error")]
    fn the_environment_finds_keys_with_capitals() {
        figment::Jail::expect_with(|jail| {
            jail.create_file("c.yaml", "nodeName: file")?;
            jail.set_env("HEARTH_T__NODE_NAME", "env");
            jail.set_env("HEARTH_T__NESTED__SOME_SIZE", "7");
            let config: Config = load(Path::new("c.yaml"), true, "HEARTH_T", &serde_json::json!({})).unwrap();
            assert_eq!(config.node_name, "env");
            assert_eq!(config.nested.some_size, 7);
            jail.set_env("HEARTH_T__NO_SUCH", "1");
            let error =
                load::<Config>(Path::new("c.yaml"), true, "HEARTH_T", &serde_json::json!({})).unwrap_err();
            assert!(error.to_string().contains("HEARTH_T__NO_SUCH"), "{error}");
            Ok(())
        });
    }

    #[test]
    fn mistakes_are_one_line_that_names_the_key() {
        for yaml in ["nodeNam: x", "nested: {someSize: lots}", "nested: {sumSize: 1}", ": : :"] {
            let error = loaded(yaml, &serde_json::json!({})).unwrap_err().to_string();
            assert!(!error.contains('\n'), "{error}");
        }
        assert!(
            loaded("nested: {someSize: lots}", &serde_json::json!({}))
                .unwrap_err()
                .to_string()
                .contains("someSize")
        );
        let missing = load::<Config>(Path::new("/nowhere/c.yaml"), true, "X_", &()).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "configuration file /nowhere/c.yaml does not exist: name another with --config"
        );
        assert!(load::<Config>(Path::new("/nowhere/c.yaml"), false, "X_", &serde_json::json!({})).is_ok());
    }
}
