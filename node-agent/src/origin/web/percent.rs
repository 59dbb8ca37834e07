//! Percent-encoding, as signatures want it.

use std::borrow::Cow;
use std::fmt::Write;

/// Appends `text` with all but unreserved characters encoded, and slashes as told.
pub(in crate::origin) fn encode(url: &mut String, text: &str, keep_slashes: bool) {
    for &byte in text.as_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => url.push(byte as char),
            b'/' if keep_slashes => url.push('/'),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(url, "%{byte:02X}");
            }
        }
    }
}

/// The bytes that are encoded; what is no encoding stays as it is.
pub(in crate::origin) fn decode(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('%') {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        let byte = match (first, behind) {
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    rest = after;
                    high << 4 | low
                }
                _ => b'%',
            },
            (byte, _) => *byte,
        };
        bytes.push(byte);
    }
    Cow::Owned(bytes)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_survive_the_encoding(bytes: Vec<u8>) {
            let encoded: String = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(decode(&encoded).into_owned(), bytes);
        }

        #[test]
        fn text_survives_the_encoding(text: String, keep_slashes: bool) {
            let mut encoded = String::new();
            encode(&mut encoded, &text, keep_slashes);
            prop_assert!(encoded.is_ascii());
            prop_assert_eq!(decode(&encoded).into_owned(), text.into_bytes());
        }

        #[test]
        fn decoding_takes_anything(text: String) {
            prop_assert!(decode(&text).len() <= text.len());
        }
    }
}
