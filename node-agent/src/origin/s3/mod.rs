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
mod page;
mod place;
mod sts;
#[cfg(test)]
pub(crate) mod tests;

pub(super) use credentials::Credentials;
pub(super) use place::Place;

use super::web::ranges::PageByPage;
use super::web::{Dialect, Refusal, Request, Web};
use super::{ByteStream, OriginError, Sink, Wanted};
use object_store::aws::AwsAuthorizer;

/// A bucket, or what lies below a prefix of it.
#[derive(Debug)]
pub(super) struct S3 {
    pub(super) place: Place,
    pub(super) credentials: Credentials,
    pub(super) page_by_page: PageByPage,
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

    fn denied(&self) {
        self.credentials.doubt();
    }

    fn refusal(&self, refusal: &Refusal) -> OriginError {
        answer::error(&self.place, &self.credentials.shown(), refusal)
    }

    async fn list(web: &Web<Self>, start: &str, sink: &mut dyn Sink) -> Result<(), OriginError> {
        list::list(web, start, sink).await
    }

    async fn get(web: &Web<Self>, wanted: &Wanted<'_>) -> Result<ByteStream, OriginError> {
        web.validated(wanted, &web.dialect.place.object(wanted.key)).await
    }
}
