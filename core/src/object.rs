//! What names one immutable object in a store: who may read it, where it lies
//! and which content it had.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Version of the rule by which [`ObjectId`]s are made. A new rule makes new
/// names, so that nothing of the old one is ever mistaken for the new.
const ID_VERSION: u8 = 1;

/// Who shares cached bytes: objects of different domains are different objects
/// in a store, even when their origin, key and content agree.
///
/// A tenant who may list a bucket but not read it must get nothing from the
/// cache of a tenant who may, so the namespace and the credentials are part of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccessDomain(String);

impl AccessDomain {
    /// The domain of a namespace's datasets that are read with the Secret
    /// `secret` of that namespace, or with the platform's identity when `None`.
    pub fn new(namespace: &str, secret: Option<&str>) -> Self {
        Self(format!("{namespace}/{}", secret.unwrap_or("")))
    }

    /// The domain of a namespace's datasets that are read with the identity of one of its
    /// ServiceAccounts.
    pub fn of_account(namespace: &str, account: &str) -> Self {
        // No Secret's name has a colon.
        Self(format!("{namespace}/serviceaccount:{account}"))
    }

    /// The domain as text, `namespace/secret`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What tells one content of an object from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Validator {
    /// An entity tag as the origin gave it, quotes included: sent back as `If-Match`.
    ETag(String),
    /// An ETag that is the quoted lower-case hex of 16 bytes, as most S3 objects
    /// have it; half as long that way. Made by [`Validator::etag`] only.
    HexETag([u8; 16]),
    /// For origins without ETags: nanoseconds since 1970 of the last change;
    /// the size beside it is part of the object's name anyway.
    Modified(i64),
}

impl Validator {
    /// The validator of an ETag header's or listing's text.
    pub fn etag(text: &str) -> Self {
        match hex_etag(text) {
            Some(bytes) => Self::HexETag(bytes),
            None => Self::ETag(text.to_owned()),
        }
    }

    /// The text to send as `If-Match`, when the origin knows ETags.
    pub fn if_match(&self) -> Option<String> {
        match self {
            Self::ETag(text) => Some(text.clone()),
            Self::HexETag(bytes) => {
                let mut text = String::with_capacity(34);
                text.push('"');
                push_hex(&mut text, bytes);
                text.push('"');
                Some(text)
            }
            Self::Modified(_) => None,
        }
    }
}

/// The 16 bytes of a quoted 32-digit lower-case hex ETag.
fn hex_etag(text: &str) -> Option<[u8; 16]> {
    let digits = text.strip_prefix('"')?.strip_suffix('"')?;
    parse_hex(digits)
}

/// Parses exactly `2 * N` lower-case hex digits.
pub(crate) fn parse_hex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let digits = digits.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

/// Appends `bytes` in lower-case hex.
pub(crate) fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
}

/// The name of one object in a store: a hash of access domain, origin, key,
/// validator and size. A changed object has a new name, an unchanged one keeps
/// its name in every version of every dataset of its domain.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ObjectId(pub [u8; 16]);

impl ObjectId {
    /// Names the object `key` at `origin` (its canonical URI).
    pub fn new(domain: &AccessDomain, origin: &str, key: &str, validator: &Validator, size: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[ID_VERSION]);
        // Lengths in front keep ("ab", "c") and ("a", "bc") apart.
        for part in [domain.as_str(), origin, key] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        match validator {
            Validator::ETag(text) => {
                hasher.update(b"e").update(text.as_bytes());
            }
            Validator::HexETag(bytes) => {
                hasher.update(b"h").update(bytes);
            }
            Validator::Modified(nanos) => {
                hasher.update(b"m").update(&nanos.to_le_bytes());
            }
        }
        hasher.update(&size.to_le_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(id)
    }

    /// Parses what [`fmt::Display`] writes: 32 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(32);
        push_hex(&mut text, &self.0);
        f.write_str(&text)
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(domain: (&str, Option<&str>), origin: &str, key: &str, tag: &str, size: u64) -> ObjectId {
        let domain = AccessDomain::new(domain.0, domain.1);
        ObjectId::new(&domain, origin, key, &Validator::etag(tag), size)
    }

    #[test]
    fn every_part_of_the_name_counts() {
        let base = id(("a", Some("s")), "s3://b", "k", "\"1\"", 1);
        assert_ne!(base, id(("a", None), "s3://b", "k", "\"1\"", 1));
        assert_ne!(base, id(("b", Some("s")), "s3://b", "k", "\"1\"", 1));
        assert_ne!(base, id(("a", Some("s")), "s3://bk", "", "\"1\"", 1));
        assert_ne!(base, id(("a", Some("s")), "s3://b", "k", "\"2\"", 1));
        assert_ne!(base, id(("a", Some("s")), "s3://b", "k", "\"1\"", 2));
        assert_eq!(base, id(("a", Some("s")), "s3://b", "k", "\"1\"", 1));
    }

    #[test]
    fn a_service_account_is_no_secret() {
        let account = AccessDomain::of_account("ns", "reader");
        for secret in [Some("reader"), None] {
            assert_ne!(account, AccessDomain::new("ns", secret));
        }
        assert_ne!(account, AccessDomain::of_account("ns", "other"));
        assert_ne!(account, AccessDomain::of_account("other", "reader"));
    }

    /// A changed rule would silently orphan every store: change `ID_VERSION` with it.
    #[test]
    fn the_rule_is_pinned() {
        let id = id(("ns", Some("s3-creds")), "s3://bucket/set", "a/b.bin", "\"x\"", 7);
        assert_eq!(ObjectId::parse(&id.to_string()), Some(id));
        assert_eq!(id.to_string(), "425259142e651401f915a9db9a945dfa");
    }

    proptest! {
        #[test]
        fn etags_come_back_as_they_went_in(text in "\\PC*") {
            prop_assert_eq!(Validator::etag(&text).if_match(), Some(text));
        }

        #[test]
        fn hex_etags_come_back_as_they_went_in(text in "\"[0-9a-f]{32}\"") {
            let validator = Validator::etag(&text);
            prop_assert!(matches!(validator, Validator::HexETag(_)));
            prop_assert_eq!(validator.if_match(), Some(text));
        }

        #[test]
        fn ids_parse_or_say_no(text in "\\PC{0,40}") {
            if let Some(id) = ObjectId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
