//! The port to where objects live, and the one place where a scheme is chosen.
//!
//! A new scheme is a variant of [`Address`], an arm of [`Origins::open`] and a
//! provider that passes the conformance suite.

mod address;
#[cfg(test)]
mod conformance;
mod error;
mod file;
mod retry;
pub(crate) mod s3;
#[cfg(test)]
pub(crate) mod testing;

pub use address::Address;
pub use error::OriginError;
pub(crate) use error::shown;
pub use file::AllowedRoots;
pub use retry::{Pauses, Retries, RetryConfig};

use crate::config::OriginConfig;
use crate::credentials::Secrets;
use crate::metrics::Metrics;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use hearth_core::manifest::SkipReason;
use hearth_core::object::Validator;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Takes what an origin lists.
pub trait Sink: Send {
    /// An object; `path` is its key below the origin's prefix. An error ends the listing.
    fn object(
        &mut self,
        path: &str,
        size: u64,
        modified: i64,
        validator: Validator,
    ) -> Result<(), OriginError>;
    /// Something that cannot be an object.
    fn skip(&mut self, key: &str, reason: SkipReason);
}

/// One object as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Bytes.
    pub size: u64,
    /// Which content it has.
    pub validator: Validator,
}

/// Bytes of one content of one object.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Its whole key, prefix included.
    pub key: &'a str,
    /// Which content of it.
    pub validator: &'a Validator,
    /// How many bytes that content has.
    pub size: u64,
    /// Which of them; never empty and never beyond the size.
    pub range: Range<u64>,
}

/// Bytes as they come: exactly the range that was wanted, or an error at its end.
pub type ByteStream = BoxStream<'static, Result<Bytes, OriginError>>;

/// A place where objects live.
pub trait Origin: Send + Sync + fmt::Debug {
    /// Lists every object of the origin, each once, and tries again what may succeed.
    fn list<'a>(&'a self, sink: &'a mut dyn Sink) -> BoxFuture<'a, Result<(), OriginError>>;

    /// The object of this path below the origin's prefix; `None` when there is none.
    fn find<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Found>, OriginError>>;

    /// Reads bytes of an object, of the wanted content or not at all. Tries once:
    /// the caller knows how far it came.
    fn get<'a>(&'a self, wanted: Wanted<'a>) -> BoxFuture<'a, Result<ByteStream, OriginError>>;
}

/// Opens origins: all that their providers share.
#[derive(Debug)]
pub struct Origins {
    http: reqwest::Client,
    roots: AllowedRoots,
    threads: file::Threads,
    secrets: Secrets,
    platform: s3::PlatformIdentity,
    retries: Arc<Retries>,
    metrics: Arc<Metrics>,
}

impl Origins {
    /// Prepares what the providers share.
    pub fn new(
        config: &OriginConfig,
        roots: AllowedRoots,
        secrets: Secrets,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            http: s3::client(config)?,
            roots,
            threads: file::Threads::default(),
            secrets,
            platform: s3::PlatformIdentity::of(config),
            retries: Arc::new(Retries::new(config.retry.clone())),
            metrics,
        })
    }

    /// The policy by which requests are tried again.
    pub fn retries(&self) -> &Arc<Retries> {
        &self.retries
    }

    /// Opens the origin that a Dataset of `namespace` names.
    pub async fn open(
        &self,
        namespace: &str,
        spec: &hearth_api::Origin,
    ) -> Result<Arc<dyn Origin>, OriginError> {
        match Address::of(spec)? {
            Address::S3 { bucket, prefix, .. } => {
                let secret = spec.secret_ref.as_ref().map(|secret| secret.name.as_str());
                let (secrets, platform) = (&self.secrets, &self.platform);
                let options = spec.options.as_ref();
                let credentials = s3::Credentials::choose(secrets, platform, namespace, secret, options)?;
                // The first look at the Secret: what is wrong with it is told before any request.
                credentials.get().await?;
                let place = s3::Place::new(&bucket, prefix, spec.options.as_ref())?;
                Ok(Arc::new(s3::S3Origin::new(
                    self.http.clone(),
                    place,
                    credentials,
                    self.retries.clone(),
                    self.metrics.clone(),
                )))
            }
            Address::File { directory } => Ok(Arc::new(
                file::FileOrigin::open(&self.roots, directory, self.threads.clone(), self.metrics.clone())
                    .await?,
            )),
        }
    }
}
