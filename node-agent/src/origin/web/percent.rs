//! Percent-encoding, as signatures want it.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::borrow::Cow;

/// All but what RFC 3986 calls unreserved.
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const RESERVED_IN_PATHS: AsciiSet = RESERVED.remove(b'/');

/// Appends `text` with all but unreserved characters encoded, and slashes as told.
pub(in crate::origin) fn encode(url: &mut String, text: &str, keep_slashes: bool) {
    url.extend(utf8_percent_encode(text, if keep_slashes { &RESERVED_IN_PATHS } else { &RESERVED }));
}

/// The bytes that are encoded; what is no encoding stays as it is.
pub(in crate::origin) fn decode(text: &str) -> Cow<'_, [u8]> {
    percent_decode_str(text).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unreserved_characters_stay() {
        for (keep_slashes, expected) in [(true, "aZ9-._~/%2B%20%C3%A9"), (false, "aZ9-._~%2F%2B%20%C3%A9")] {
            let mut encoded = String::new();
            encode(&mut encoded, "aZ9-._~/+ \u{e9}", keep_slashes);
            assert_eq!(encoded, expected);
        }
    }

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
