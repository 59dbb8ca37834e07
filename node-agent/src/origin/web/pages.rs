//! What listings of pages share, and what holds them to getting on, so that they end.

use crate::origin::{OriginError, shown};
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// Pages without a key that are put up with in a row.
const EMPTY_PAGES: usize = 1_000;

/// The part of a listed key that is below the prefix; `None` for the marker of the prefix
/// itself. `name` is the store's, for sentences.
pub(in crate::origin) fn below<'a>(
    name: impl FnOnce() -> String,
    prefix: &str,
    key: &'a str,
) -> Result<Option<&'a str>, OriginError> {
    match key.strip_prefix(prefix) {
        Some(path) => Ok(Some(path).filter(|path| !path.is_empty())),
        None => Err(OriginError::Malformed(format!(
            "{} lists \"{}\", which is not below the prefix asked for",
            name(),
            shown(key)
        ))),
    }
}

/// A page of the listing of a store called `name` makes no sense.
pub(in crate::origin) fn unreadable(name: &str, why: &str) -> OriginError {
    OriginError::Malformed(format!("{name} sent a listing that cannot be read: {}", shown(why)))
}

/// How far a listing came.
#[derive(Debug, Default)]
pub(in crate::origin) struct Pages {
    hasher: RandomState,
    /// Hashes of the tokens so far: a listing that goes in a circle shows one again.
    tokens: HashSet<u64>,
    empty: usize,
}

impl Pages {
    /// The token of the page behind one that says that it is not the last.
    pub(in crate::origin) fn next(
        &mut self,
        name: &str,
        empty: bool,
        token: String,
    ) -> Result<String, OriginError> {
        let malformed = |why| OriginError::Malformed(format!("the listing of {name} {why}"));
        self.empty = if empty { self.empty + 1 } else { 0 };
        if self.empty > EMPTY_PAGES {
            return Err(malformed("goes on without any keys"));
        }
        if token.is_empty() {
            return Err(malformed("says that it goes on, and not where"));
        }
        if !self.tokens.insert(self.hasher.hash_one(&token)) {
            return Err(malformed("goes in a circle"));
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_gets_on_or_ends() {
        let next = |pages: &mut Pages, empty, token: &str| pages.next("bucket b", empty, token.into());
        let mut pages = Pages::default();
        assert_eq!(next(&mut pages, false, "a").unwrap(), "a");
        assert!(next(&mut pages, false, "a").unwrap_err().to_string().ends_with("goes in a circle"));
        assert!(next(&mut pages, false, "").unwrap_err().to_string().ends_with("and not where"));
        let endless = (0..=EMPTY_PAGES).find_map(|n| next(&mut pages, true, &n.to_string()).err());
        assert!(endless.unwrap().to_string().ends_with("goes on without any keys"));
    }
}
