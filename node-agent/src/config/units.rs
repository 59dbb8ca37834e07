//! Sizes as people write them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A number of bytes, such as `500Gi`, or a share of the file system, such as `15%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Bytes.
    Bytes(u64),
    /// Percent of the file system's size, 0 to 100.
    Percent(u8),
}

impl Size {
    /// As bytes; `None` for a share.
    pub fn bytes(self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Percent(_) => None,
        }
    }
}

const UNITS: [(&str, u64); 11] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("", 1),
];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "\"{text}\" is no size: a number of bytes such as 500Gi, or a share such as 15%, is allowed"
            )
        };
        if let Some(percent) = text.strip_suffix('%') {
            let percent: u8 = percent.parse().map_err(|_| wrong())?;
            return if percent <= 100 { Ok(Self::Percent(percent)) } else { Err(wrong()) };
        }
        let unit = UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)));
        let (number, factor) = unit.ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(*factor).map(Self::Bytes).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => {
                let exact = UNITS[..5].iter().rev().find(|(_, factor)| *bytes > 0 && bytes % factor == 0);
                let (unit, factor) = exact.unwrap_or(&("", 1));
                write!(f, "{}{unit}", bytes / factor)
            }
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// In YAML and in the environment `1000` is a number, not a text.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Number(u64),
            Text(String),
        }
        match Given::deserialize(deserializer)? {
            Given::Number(bytes) => Ok(Self::Bytes(bytes)),
            Given::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_as_documented() {
        for (text, size) in [
            ("15%", Some(Size::Percent(15))),
            ("500Gi", Some(Size::Bytes(500 << 30))),
            ("2k", Some(Size::Bytes(2000))),
            ("7", Some(Size::Bytes(7))),
            ("101%", None),
            ("-1", None),
            ("1.5Gi", None),
            ("99999999P", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), size, "{text}");
        }
    }

    proptest! {
        #[test]
        fn sizes_come_back_as_they_went_in(bytes: u64, shift in 0..50u32) {
            let size = Size::Bytes(bytes >> shift << shift);
            prop_assert_eq!(size.to_string().parse::<Size>(), Ok(size));
        }
    }
}
