//! `az://`: Azure Blob Storage.

mod answer;
mod credentials;
mod list;
mod place;

pub(super) use credentials::Credentials;
pub(super) use place::Place;

use super::find::Finder;
use super::web::{Dialect, Refusal, Request, Web};
use super::{ByteStream, Found, Origin, OriginError, Sink, Turn, Wanted};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{HeaderName, HeaderValue};
use object_store::azure::AzureAuthorizer;

/// The version of the service that answers are read by.
const VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-ms-version"), HeaderValue::from_static("2023-11-03"));

/// A container, or what lies below a prefix of it.
#[derive(Debug)]
pub(super) struct Az {
    place: Place,
    credentials: Credentials,
}

impl Az {
    pub(super) fn new(place: Place, credentials: Credentials) -> Self {
        Self { place, credentials }
    }
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

    fn refusal(&self, refusal: &Refusal) -> OriginError {
        answer::error(&self.name(), &self.credentials.shown(), refusal)
    }
}

impl Origin for Web<Az> {
    fn list<'a>(&'a self, sink: &'a mut dyn Sink) -> BoxFuture<'a, Result<(), OriginError>> {
        list::list(self, "", sink).boxed()
    }

    fn find<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Found>, OriginError>> {
        async move {
            let mut finder = Finder::of(path);
            // In the first page: nothing that begins with the path stands before the path itself.
            let listing = list::list(self, path, &mut finder).await;
            finder.outcome(listing)
        }
        .boxed()
    }

    fn turn(&self) -> BoxFuture<'_, Turn> {
        self.own_turn()
    }

    fn most_at_once(&self) -> usize {
        self.most()
    }

    fn get<'a>(&'a self, wanted: Wanted<'a>) -> BoxFuture<'a, Result<ByteStream, OriginError>> {
        async move { self.validated(&wanted, &self.dialect.place.object(wanted.key)).await }.boxed()
    }
}
