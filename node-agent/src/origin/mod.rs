//! The port to where objects live, and the one place where a scheme is chosen.
//!
//! A new scheme is a variant of [`Address`], an arm of [`Origins::open`] and a
//! provider that passes the conformance suite.

mod address;
mod az;
mod budget;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod connection;
mod destination;
mod error;
mod federation;
mod file;
mod find;
mod gs;
mod hdfs;
mod hosts;
mod identity;
mod retry;
pub(crate) mod s3;
mod site;
mod token_client;
mod web;

pub use address::{Address, Bucket};
pub(crate) use destination::Destination;
pub use error::OriginError;
pub(crate) use error::shown;
pub use file::AllowedRoots;
pub use hdfs::Place as HdfsPlace;
pub use hosts::AllowedHosts;
pub use retry::{Pauses, Retries, RetryConfig};
pub use site::{Listed, Place as SitePlace};

use crate::accounts::Accounts;
use crate::config::OriginConfig;
use crate::credentials::Secrets;
use crate::metrics::Metrics;
use budget::Budgets;
use bytes::Bytes;
use connection::{Connection, Limits};
use federation::Federation;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use hearth_core::manifest::SkipReason;
use hearth_core::object::Validator;
use identity::{Identities, PlatformIdentity};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use web::ranges::PageByPage;
use web::{Clients, Dialect, Web};

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

/// The right to one of the requests that an origin allows at one time; ends when it is dropped.
#[derive(Debug, Default)]
pub struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

/// Whether somebody waits for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// A reader does.
    Reader,
    /// Nobody does.
    Background,
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

    /// Likewise, at least those whose paths begin with `start`: origins that cannot look for these list all.
    fn list_prefix<'a>(
        &'a self,
        _start: &'a str,
        sink: &'a mut dyn Sink,
    ) -> BoxFuture<'a, Result<(), OriginError>> {
        self.list(sink)
    }

    /// The object of this path below the origin's prefix; `None` when there is none.
    fn find<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Found>, OriginError>>;

    /// Whether and when what has failed is tried again.
    fn retries(&self) -> &Retries;

    /// Waits until one more request for bytes may be under way; one that a reader waits for goes
    /// before others. Whoever gets bytes takes a turn first, before anything that others need to
    /// end theirs.
    fn turn(&self, _urgency: Urgency) -> BoxFuture<'_, Turn> {
        Box::pin(std::future::ready(Turn::default()))
    }

    /// Requests for bytes that make sense at one time.
    fn most_at_once(&self) -> usize {
        usize::MAX
    }

    /// Reads bytes of an object, of the wanted content or not at all. Tries once:
    /// the caller knows how far it came.
    fn get<'a>(&'a self, wanted: Wanted<'a>) -> BoxFuture<'a, Result<ByteStream, OriginError>>;
}

/// Where origins may be, beyond the stores of clouds: nowhere by default.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// Of `file://`.
    pub roots: AllowedRoots,
    /// Of `http://` and `https://`.
    pub web_servers: AllowedHosts,
    /// Of `hdfs://`.
    pub name_nodes: AllowedHosts,
}

/// Opens origins: all that their providers share.
#[derive(Debug)]
pub struct Origins {
    /// Longest time without a byte.
    timeout: Duration,
    clients: Clients,
    clusters: hdfs::Clusters,
    budgets: Budgets,
    allowed: Allowed,
    proxies: AllowedHosts,
    page_by_page: PageByPage,
    threads: file::Threads,
    secrets: Secrets,
    federation: Arc<Federation>,
    platform: PlatformIdentity,
    metrics: Arc<Metrics>,
}

impl Origins {
    /// Prepares what the providers share.
    pub fn new(
        config: &OriginConfig,
        allowed: Allowed,
        secrets: Secrets,
        accounts: Accounts,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let clients = Clients::new(config)?;
        let federation = Federation::new(accounts, clients.usual().clone(), config.web_identity.clone());
        Ok(Self {
            timeout: config.read_timeout,
            clients,
            clusters: hdfs::Clusters::default(),
            budgets: Budgets::new(config.retry.clone()),
            allowed,
            proxies: AllowedHosts::new(config.allowed_proxies.clone()),
            page_by_page: PageByPage::default(),
            threads: file::Threads::default(),
            secrets,
            federation: Arc::new(federation),
            platform: PlatformIdentity::of(config),
            metrics,
        })
    }

    /// Opens the origin that a Dataset of `namespace` names.
    pub async fn open(
        &self,
        namespace: &str,
        spec: &hearth_api::Origin,
    ) -> Result<Arc<dyn Origin>, OriginError> {
        let (secrets, federation, platform) = (&self.secrets, &self.federation, &self.platform);
        let identities = Identities { secrets, federation, platform, namespace, spec };
        // The first look at a Secret: what is wrong with it is told before any request.
        let address = Address::of(spec)?;
        if spec.service_account_ref.is_some() && matches!(address, Address::Site(_) | Address::File { .. }) {
            return Err(OriginError::Refused(
                "spec.origins[].serviceAccountRef is set, and is allowed for s3://, gs:// and az:// only"
                    .to_owned(),
            ));
        }
        let uri = address.uri();
        match address {
            Address::S3(bucket) => {
                let place = s3::Place::new(&bucket.name, bucket.prefix, spec.options.as_ref())?;
                let credentials = s3::Credentials::choose(identities, &place)?;
                credentials.get().await?;
                self.web(spec, uri, s3::S3 { place, credentials, page_by_page: self.page_by_page.clone() })
            }
            Address::Gs(Bucket { name, prefix, endpoint }) => {
                let place = gs::Place::new(name, prefix, endpoint.as_deref())?;
                let credentials = gs::Credentials::choose(identities, &place)?;
                credentials.get().await?;
                self.web(spec, uri, gs::Gs { place, credentials, page_by_page: self.page_by_page.clone() })
            }
            Address::Az { container: Bucket { name, prefix, endpoint }, account } => {
                let place = az::Place::new(account, name, prefix, endpoint.as_deref())?;
                let credentials = az::Credentials::choose(identities, &place)?;
                credentials.get().await?;
                self.web(spec, uri, az::Az { place, credentials })
            }
            Address::Site(place) => {
                self.allowed.web_servers.check_url("httpOrigins.allowedHosts", place.folder())?;
                let credentials = site::Credentials::choose(identities, &place);
                credentials.get().await?;
                self.web(spec, uri, site::Site { place, credentials })
            }
            Address::Hdfs(place) => {
                for (host, port) in place.asked().hosts() {
                    self.allowed.name_nodes.check("hdfsOrigins.allowedHosts", host, port)?;
                }
                let options = spec.options.as_ref();
                let timeout = Connection::of(options)?.timeout.unwrap_or(self.timeout);
                let budget = self.budgets.of(uri, Limits::of(options)?);
                let origin = hdfs::Hdfs::open(place, &self.clusters, timeout, budget, self.metrics.clone())?;
                Ok(Arc::new(origin))
            }
            Address::File { directory } => Ok(Arc::new(
                file::FileOrigin::open(
                    &self.allowed.roots,
                    directory,
                    self.threads.clone(),
                    self.budgets.of(uri, Limits::default()),
                    self.metrics.clone(),
                )
                .await?,
            )),
        }
    }

    fn web<D: Dialect>(
        &self,
        spec: &hearth_api::Origin,
        uri: String,
        dialect: D,
    ) -> Result<Arc<dyn Origin>, OriginError> {
        let options = spec.options.as_ref();
        if let Some(proxy) = options.and_then(|options| options.proxy.as_deref()) {
            let allows = |proxy| self.proxies.check_url("origin.allowedProxies", &proxy).is_ok();
            let is_allowed = proxy.parse().is_ok_and(allows);
            if !is_allowed {
                return Err(OriginError::Refused(format!(
                    "options.proxy is \"{}\", and origin.allowedProxies of the node agents' configuration does not name its host",
                    shown(proxy)
                )));
            }
        }
        let client = self.clients.of(Connection::of(options)?)?;
        let budget = self.budgets.of(uri, Limits::of(options)?);
        Ok(Arc::new(Web::new(client, dialect, budget, self.metrics.clone())))
    }
}
