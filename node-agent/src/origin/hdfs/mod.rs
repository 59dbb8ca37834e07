//! `hdfs://`: a directory of the Hadoop file system.
//!
//! Name nodes say what there is and where its blocks are, data nodes have the bytes. Nobody proves
//! who they are: clusters with Kerberos are not supported, and which name nodes may be asked at all
//! is the operator's to say.

mod answer;
mod cluster;
mod list;
mod opened;
mod place;

pub(super) use cluster::Clusters;
pub use place::Place;

use super::budget::Budget;
use super::{ByteStream, Found, Origin, OriginError, Retries, Sink, Turn, Urgency, Wanted, shown};
use crate::metrics::Metrics;
use bytes::Bytes;
use cluster::Cluster;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt, stream};
use hdfs_native::client::FileStatus;
use hdfs_native::file::FileReader;
use hearth_core::object::Validator;
use opened::{Content, Opened};
use std::fmt;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

const SCHEME: &str = "hdfs";

/// An opened directory.
pub(super) struct Hdfs {
    place: Place,
    cluster: Arc<Cluster>,
    opened: Arc<Opened>,
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
}

impl Hdfs {
    pub(super) fn open(
        place: Place,
        clusters: &Clusters,
        timeout: Duration,
        budget: Arc<Budget>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OriginError> {
        let cluster = clusters.of(place.asked().clone(), timeout)?;
        Ok(Self { place, cluster, opened: Arc::default(), budget, metrics })
    }

    async fn counted<T>(
        &self,
        operation: &str,
        request: impl Future<Output = Result<T, OriginError>>,
    ) -> Result<T, OriginError> {
        let result = request.await;
        let outcome = result.as_ref().map_or_else(OriginError::outcome, |_| "ok");
        self.metrics.origin_requests.with_label_values(&[SCHEME, operation, outcome]).inc();
        result
    }

    /// What a path is now; `None` when it is no file.
    async fn status(&self, key: &str) -> Result<Option<Found>, OriginError> {
        let (path, what) = (self.place.path(key), self.place.shown(key));
        self.budget.request().await;
        match self.cluster.ask(&what, |client| async move { client.get_file_info(&path).await }).await {
            Ok(status) => Ok((!status.isdir).then(|| Found {
                size: status.length as u64,
                validator: Validator::Modified(modified(&status)),
            })),
            Err(OriginError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn reader(&self, key: &str) -> Result<Arc<FileReader>, OriginError> {
        let (path, what) = (self.place.path(key), self.place.shown(key));
        self.budget.request().await;
        match self.cluster.ask(&what, |client| async move { client.read(&path).await }).await {
            Ok(reader) => Ok(Arc::new(reader)),
            Err(OriginError::NotFound(_)) => Err(OriginError::Gone(format!("{what} is no longer there"))),
            Err(error) => Err(error),
        }
    }

    /// A reader of the wanted content.
    ///
    /// Blocks never change once they are written, and a file that is written anew has others: what
    /// was opened before the file was seen to be as it was listed is of that content, and stays so.
    /// What remains: a file that was another while it was opened and is the listed one again a
    /// moment later, by renaming; one that is truncated and appended to while it is read; and two
    /// contents of one size within the same millisecond, the finest that HDFS tells.
    async fn content(&self, wanted: &Wanted<'_>) -> Result<(Content, Arc<FileReader>), OriginError> {
        let Validator::Modified(modified) = *wanted.validator else {
            return Err(OriginError::Malformed(format!(
                "{} was not listed by an hdfs:// origin: it has an ETag",
                shown(wanted.key)
            )));
        };
        let content = Content { path: self.place.path(wanted.key), modified, size: wanted.size };
        let reader = match self.opened.get(&content) {
            Some(reader) => reader,
            None => self.reader(wanted.key).await?,
        };
        let listed = Found { size: wanted.size, validator: wanted.validator.clone() };
        let is_listed = self.status(wanted.key).await?.is_some_and(|now| now == listed);
        if !is_listed || reader.file_length() as u64 != wanted.size {
            self.opened.forget(&content);
            let what = self.place.shown(wanted.key);
            return Err(OriginError::Changed(format!("{what} is no longer as it was listed")));
        }
        if wanted.range != (0..wanted.size) {
            self.opened.keep(content.clone(), reader.clone());
        }
        Ok((content, reader))
    }

    fn chunks(
        &self,
        key: &str,
        content: Content,
        reader: &FileReader,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, OriginError>> + Send + 'static + use<> {
        let (cluster, opened, what) = (self.cluster.clone(), self.opened.clone(), self.place.shown(key));
        let length = range.end - range.start;
        let chunks = reader.read_range_stream(range.start as usize, length as usize);
        // As with name nodes: what makes no sense is panicked about.
        let chunks = AssertUnwindSafe(chunks).catch_unwind().boxed();
        stream::try_unfold((chunks, length), move |(mut chunks, left)| {
            let (cluster, opened, what, content) =
                (cluster.clone(), opened.clone(), what.clone(), content.clone());
            async move {
                if left == 0 {
                    return Ok(None);
                }
                let error = match tokio::time::timeout(cluster.timeout(), chunks.next()).await {
                    Ok(Some(Ok(Ok(chunk)))) => {
                        let left = left.saturating_sub(chunk.len() as u64);
                        return Ok(Some((chunk, (chunks, left))));
                    }
                    Ok(Some(Ok(Err(error)))) => cluster.meaning(&what, &error),
                    Ok(Some(Err(_))) => {
                        OriginError::Malformed(format!("{what} comes in a way that makes no sense"))
                    }
                    Ok(None) => OriginError::Unavailable(format!("{what} has blocks that are not there")),
                    Err(_) => cluster.late(&what),
                };
                opened.forget(&content);
                Err(error)
            }
        })
    }
}

impl Origin for Hdfs {
    fn list<'a>(&'a self, sink: &'a mut dyn Sink) -> BoxFuture<'a, Result<(), OriginError>> {
        list::list(self, sink).boxed()
    }

    fn find<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Found>, OriginError>> {
        async move {
            // Not what is listed, or not below the directory.
            if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
                return Ok(None);
            }
            let ask = || async {
                let _turn = self.budget.turn(Urgency::Background).await;
                self.counted("head", self.status(path)).await
            };
            self.budget.retries.run(ask).await
        }
        .boxed()
    }

    fn retries(&self) -> &Retries {
        &self.budget.retries
    }

    fn turn(&self, urgency: Urgency) -> BoxFuture<'_, Turn> {
        self.budget.turn(urgency).boxed()
    }

    fn most_at_once(&self) -> usize {
        self.budget.most_at_once()
    }

    fn get<'a>(&'a self, wanted: Wanted<'a>) -> BoxFuture<'a, Result<ByteStream, OriginError>> {
        async move {
            let (content, reader) = self.counted("get", self.content(&wanted)).await?;
            let chunks = self.chunks(wanted.key, content, &reader, wanted.range);
            Ok(self.budget.paced(chunks, self.metrics.origin_bytes.with_label_values(&[SCHEME])))
        }
        .boxed()
    }
}

impl fmt::Debug for Hdfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hdfs")
            .field("place", &self.place)
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// Nanoseconds since 1970.
fn modified(status: &FileStatus) -> i64 {
    i64::try_from(status.modification_time).unwrap_or(i64::MAX).saturating_mul(1_000_000)
}
