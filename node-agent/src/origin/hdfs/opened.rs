//! Files that were opened a moment ago. A name node answers with where all blocks of a file
//! are: for each range of a large one that would be much work for nothing.

use hdfs_native::file::FileReader;
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A node fetches a few files at a time; one of a terabyte takes some megabytes.
const KEPT: usize = 16;
/// Blocks move, and data nodes that failed come back.
const LONGEST: Duration = Duration::from_secs(60);

/// One content of one file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Content {
    pub(super) path: String,
    /// Nanoseconds since 1970.
    pub(super) modified: i64,
    pub(super) size: u64,
}

/// What was opened last.
pub(super) struct Opened(Mutex<LruCache<Content, (Instant, Arc<FileReader>)>>);

impl Default for Opened {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(NonZeroUsize::new(KEPT).unwrap_or(NonZeroUsize::MIN))))
    }
}

impl Opened {
    pub(super) fn get(&self, content: &Content) -> Option<Arc<FileReader>> {
        let mut kept = self.0.lock();
        let (since, reader) = kept.get(content)?;
        if since.elapsed() < LONGEST {
            return Some(reader.clone());
        }
        kept.pop(content);
        None
    }

    pub(super) fn keep(&self, content: Content, reader: Arc<FileReader>) {
        self.0.lock().put(content, (Instant::now(), reader));
    }

    /// What cannot be read where it was is opened anew.
    pub(super) fn forget(&self, content: &Content) {
        self.0.lock().pop(content);
    }
}
