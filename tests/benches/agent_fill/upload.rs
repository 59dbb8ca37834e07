//! What is fetched, at the origin.

use crate::job;
use futures::{StreamExt, TryStreamExt};
use hearth_tests::s3::Bucket;

/// Uploads so many objects of this size below `folder`.
pub(crate) async fn objects(
    bucket: &Bucket,
    folder: &str,
    objects: usize,
    size: usize,
) -> anyhow::Result<()> {
    // The same bytes, but for where each object begins in them: neither side nor the
    // disk looks for repetitions.
    let mut state = 1u64;
    let content: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_le_bytes()
    })
    .take((size + objects) / 8 + 1)
    .flatten()
    .collect();
    let content = bytes::Bytes::from(content);
    futures::stream::iter(0..objects)
        .map(|object| {
            let content = content.slice(object..object + size);
            async move { bucket.put(&job::key(folder, object), content).await }
        })
        .buffer_unordered(16)
        .try_collect()
        .await
}
