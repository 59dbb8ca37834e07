//! Finds one object in a listing.

use super::{Found, OriginError, Sink};
use hearth_core::manifest::SkipReason;
use hearth_core::object::Validator;

/// Ends a listing when it comes to a path.
pub(super) struct Finder<'a> {
    path: &'a str,
    found: Option<Found>,
}

impl<'a> Finder<'a> {
    pub(super) fn of(path: &'a str) -> Self {
        Self { path, found: None }
    }

    /// What was found in a listing that ended like this.
    pub(super) fn outcome(self, listing: Result<(), OriginError>) -> Result<Option<Found>, OriginError> {
        match (self.found, listing) {
            (None, Err(error)) => Err(error),
            (found, _) => Ok(found),
        }
    }
}

impl Sink for Finder<'_> {
    fn object(&mut self, path: &str, size: u64, _: i64, validator: Validator) -> Result<(), OriginError> {
        if path != self.path {
            return Ok(());
        }
        self.found = Some(Found { size, validator });
        Err(OriginError::Refused("there is no need to go on".to_owned()))
    }

    fn skip(&mut self, _: &str, _: SkipReason) {}
}
