//! `http://` and `https://`: a file, the files that a list names, or those that the pages
//! of an index link to.
//!
//! A web server lists no sizes that could be relied on: each file is asked for them by HEAD.

mod credentials;
mod list;
mod page;
mod place;

pub use place::{Listed, Place};

pub(super) use credentials::Credentials;

use super::web::{self, Dialect, Meaning, Refusal, Request, Web};
use super::{ByteStream, Found, OriginError, Sink, Wanted, shown};
use hearth_core::object::Validator;
use http::header::{self, HeaderMap};

/// Files of a web server.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) place: Place,
    pub(super) credentials: Credentials,
}

impl Dialect for Site {
    const SCHEME: &'static str = "http";

    fn name(&self) -> String {
        self.place.uri()
    }

    fn shown(&self, key: &str) -> String {
        format!("{}{}", self.place.base(), shown(key))
    }

    async fn authorize(&self, request: &mut Request) -> Result<(), OriginError> {
        if let Some(value) = self.credentials.get().await? {
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        Ok(())
    }

    fn denied(&self) {
        self.credentials.doubt();
    }

    fn refusal(&self, refusal: &Refusal) -> OriginError {
        let name = self.name();
        if refusal.status.is_redirection() {
            // What is behind the path may be a signature.
            let path = |to: &str| shown(to.split(['?', '#']).next().unwrap_or_default());
            let to = refusal.header(header::LOCATION.as_str()).map_or_else(String::new, path);
            return OriginError::Refused(format!(
                "{name} redirects to {to}, which is not followed: name that"
            ));
        }
        let meaning = Meaning::of(refusal.operation, refusal.status);
        refusal.error(meaning, &name, &self.credentials.shown(), &refusal.said("", ""))
    }

    async fn list(web: &Web<Self>, _: &str, sink: &mut dyn Sink) -> Result<(), OriginError> {
        list::list(web, sink).await
    }

    async fn find(web: &Web<Self>, path: &str) -> Result<Option<Found>, OriginError> {
        list::find(web, path).await
    }

    async fn get(web: &Web<Self>, wanted: &Wanted<'_>) -> Result<ByteStream, OriginError> {
        let headers = vec![web::condition(wanted.validator)];
        let url = web.dialect.place.file(wanted.key);
        web.object(wanted, &url, headers, |answer| same(wanted.validator, answer)).await
    }
}

/// Whether an answer is of the wanted content. A web server may take no notice of the
/// condition, and must then say itself what it sends.
fn same(validator: &Validator, answer: &HeaderMap) -> Result<(), &'static str> {
    let said = match validator {
        Validator::ETag(_) | Validator::HexETag(_) => header::ETAG,
        Validator::Modified(_) => header::LAST_MODIFIED,
    };
    if !answer.contains_key(said) {
        return Err("the answer does not say which content it is of");
    }
    web::same(validator, answer)
}

#[cfg(test)]
mod tests;
