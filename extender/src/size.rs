//! For `#[serde(with)]`: numbers of bytes as people write them, such as `8Mi`.

use hearth_core::quantity;
use serde::{Deserialize, Deserializer, Serializer};

/// Writes it, in the largest unit that it is a whole number of.
pub(crate) fn serialize<S: Serializer>(bytes: &usize, serializer: S) -> Result<S::Ok, S::Error> {
    let units = [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10), ("", 1)];
    let (unit, factor) =
        units.into_iter().find(|(_, factor)| bytes.is_multiple_of(*factor)).unwrap_or(("", 1));
    serializer.collect_str(&format_args!("{}{unit}", bytes / factor))
}

/// Reads it.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    /// In YAML and in the environment `1000` is a number, not a text.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Number(u64),
        Text(String),
    }
    let text = match Given::deserialize(deserializer)? {
        Given::Number(bytes) => bytes.to_string(),
        Given::Text(text) => text,
    };
    let bytes = quantity::bytes(&text).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.ok_or_else(|| {
        serde::de::Error::custom(format!("\"{text}\" is no size: a positive one such as 8Mi is allowed"))
    })
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Size(#[serde(with = "super")] usize);

    #[test]
    fn sizes_are_read_and_written_as_people_do() {
        for (given, size, written) in
            [("\"8Mi\"", 8 << 20, "\"8Mi\""), ("1025", 1025, "\"1025\""), ("\"2k\"", 2000, "\"2000\"")]
        {
            let Size(read) = serde_json::from_str(given).unwrap();
            assert_eq!(read, size);
            assert_eq!(serde_json::to_string(&Size(read)).unwrap(), written);
        }
        for wrong in ["0", "\"much\"", "\"\"", "\"-1Mi\""] {
            assert!(serde_json::from_str::<Size>(wrong).is_err(), "{wrong}");
        }
    }
}
