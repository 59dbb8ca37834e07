//! `gs://`: Google Cloud Storage, by its JSON API.
//!
//! Objects are read by their generation, which names one content for ever: the store
//! itself refuses another, and a bucket that keeps old versions goes on to have them.

mod answer;
mod credentials;
mod exchange;
mod list;
mod place;

pub(super) use credentials::Credentials;
pub(super) use place::Place;

use super::web::ranges::PageByPage;
use super::web::{Dialect, Refusal, Request, Web};
use super::{ByteStream, OriginError, Sink, Wanted, shown};
use hearth_core::object::Validator;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderValue};

/// Which generation an answer is of.
const GENERATION: &str = "x-goog-generation";

/// A bucket, or what lies below a prefix of it.
#[derive(Debug)]
pub(super) struct Gs {
    pub(super) place: Place,
    pub(super) credentials: Credentials,
    pub(super) page_by_page: PageByPage,
}

impl Dialect for Gs {
    const SCHEME: &'static str = "gs";

    fn name(&self) -> String {
        self.place.name()
    }

    fn shown(&self, key: &str) -> String {
        self.place.shown(key)
    }

    async fn authorize(&self, request: &mut Request) -> Result<(), OriginError> {
        let Some(credential) = self.credentials.get().await? else { return Ok(()) };
        let mut value = HeaderValue::from_str(&format!("Bearer {}", credential.bearer)).map_err(|_| {
            OriginError::Denied(format!("{} have a token that is no header", self.credentials.shown()))
        })?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
        Ok(())
    }

    fn denied(&self) {
        self.credentials.doubt();
    }

    fn refusal(&self, refusal: &Refusal) -> OriginError {
        answer::error(&self.name(), &self.credentials.shown(), refusal)
    }

    async fn list(web: &Web<Self>, start: &str, sink: &mut dyn Sink) -> Result<(), OriginError> {
        list::list(web, start, sink).await
    }

    async fn get(web: &Web<Self>, wanted: &Wanted<'_>) -> Result<ByteStream, OriginError> {
        let Validator::ETag(generation) = wanted.validator else {
            return Err(OriginError::Malformed(format!(
                "{} was not listed by a gs:// origin: it has no generation",
                shown(wanted.key)
            )));
        };
        // What is stored compressed is wanted as it is stored: so its size was listed.
        let headers = vec![(ACCEPT_ENCODING, "gzip".to_owned())];
        let url = web.dialect.place.object(wanted.key, generation);
        web.object(wanted, &url, headers, |answer| {
            let found = answer.get(GENERATION).and_then(|found| found.to_str().ok());
            match found {
                Some(found) if found != generation => Err("its generation is another"),
                _ => Ok(()),
            }
        })
        .await
    }
}
