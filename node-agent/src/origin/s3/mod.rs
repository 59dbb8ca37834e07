//! `s3://`: S3 and what speaks as it does.
//!
//! Requests are made here and signed by `object_store`, which also knows the
//! platform's ways to get credentials. Its own client is not used: its keys cannot
//! have empty segments, its listing fails whole on one that has, and it tries
//! again behind the caller's back.

mod answer;
mod credentials;
#[cfg(test)]
pub(crate) mod fake;
mod list;
mod place;
#[cfg(test)]
pub(crate) mod tests;

pub(super) use credentials::Credentials;
pub(super) use list::PageByPage;
pub(super) use place::Place;

use super::find::Finder;
use super::web::{Dialect, Refusal, Request, Web};
use super::{ByteStream, Found, Origin, OriginError, Sink, Turn, Wanted};
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::aws::AwsAuthorizer;

/// A bucket, or what lies below a prefix of it.
#[derive(Debug)]
pub(super) struct S3 {
    place: Place,
    credentials: Credentials,
    page_by_page: PageByPage,
}

impl S3 {
    pub(super) fn new(place: Place, credentials: Credentials, page_by_page: PageByPage) -> Self {
        Self { place, credentials, page_by_page }
    }
}

impl Dialect for S3 {
    const SCHEME: &'static str = "s3";

    fn name(&self) -> String {
        self.place.name()
    }

    fn shown(&self, key: &str) -> String {
        self.place.shown(key)
    }

    async fn authorize(&self, request: &mut Request) -> Result<(), OriginError> {
        let Some(credential) = self.credentials.get().await? else { return Ok(()) };
        AwsAuthorizer::new(&credential, "s3", self.place.region()).try_authorize(request, None).map_err(
            |error| OriginError::Refused(format!("a request to {} cannot be signed: {error}", self.name())),
        )
    }

    fn refusal(&self, refusal: &Refusal) -> OriginError {
        answer::error(&self.place, &self.credentials.shown(), refusal)
    }
}

impl Origin for Web<S3> {
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
