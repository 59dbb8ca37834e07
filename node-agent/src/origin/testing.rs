//! What tests of origins share.

use super::{ByteStream, OriginError};
use futures::TryStreamExt;

/// All bytes of a stream.
pub(crate) async fn read(stream: ByteStream) -> Result<Vec<u8>, OriginError> {
    stream
        .try_fold(Vec::new(), async |mut all, chunk| {
            all.extend_from_slice(&chunk);
            Ok(all)
        })
        .await
}
