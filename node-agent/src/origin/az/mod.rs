//! `az://`: Azure Blob Storage.

mod answer;
mod credentials;
mod directories;
mod exchange;
mod list;
mod place;

pub(super) use credentials::Credentials;
pub(super) use place::Place;

use super::web::{Dialect, Refusal, Request, Web};
use super::{ByteStream, Found, OriginError, Sink, Wanted};
use http::header::{HeaderName, HeaderValue};
use object_store::azure::AzureAuthorizer;

/// The version of the service that answers are read by.
const VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-ms-version"), HeaderValue::from_static("2023-11-03"));

/// A container, or what lies below a prefix of it.
#[derive(Debug)]
pub(super) struct Az {
    pub(super) place: Place,
    pub(super) credentials: Credentials,
}

impl Dialect for Az {
    const SCHEME: &'static str = "az";

    fn name(&self) -> String {
        self.place.name()
    }

    fn shown(&self, key: &str) -> String {
        self.place.shown(key)
    }

    async fn authorize(&self, request: &mut Request) -> Result<(), OriginError> {
        let (name, version) = VERSION;
        request.headers_mut().insert(name, version);
        let Some(credential) = self.credentials.get().await? else { return Ok(()) };
        AzureAuthorizer::new(&credential, self.place.account()).try_authorize(request).map_err(|error| {
            OriginError::Refused(format!("a request to {} cannot be signed: {error}", self.name()))
        })
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

    async fn find(web: &Web<Self>, path: &str) -> Result<Option<Found>, OriginError> {
        list::find(web, path).await
    }

    async fn get(web: &Web<Self>, wanted: &Wanted<'_>) -> Result<ByteStream, OriginError> {
        web.validated(wanted, &web.dialect.place.object(wanted.key)).await
    }
}
