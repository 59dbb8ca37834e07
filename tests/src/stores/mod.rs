//! Real servers of the other kinds of stores, each with a container named [`CONTAINER`].

pub mod azurite;
pub mod gcs;
pub mod hdfs;
pub mod minio;
pub mod nginx;

use anyhow::{Result, bail};

/// The bucket or container that a store begins with.
pub const CONTAINER: &str = "data";

/// What is written to, in [`CONTAINER`].
#[allow(async_fn_in_trait)]
pub trait Store {
    /// Writes an object, over the old one if there is one.
    ///
    /// # Errors
    /// When the server refuses it.
    async fn put(&self, key: &str, content: &[u8]) -> Result<()>;

    /// Deletes an object.
    ///
    /// # Errors
    /// When the server refuses.
    async fn delete(&self, key: &str) -> Result<()>;
}

/// Sends a request and turns what is no success into an error.
async fn sent(request: reqwest::RequestBuilder) -> Result<()> {
    let answer = request.send().await?;
    if !answer.status().is_success() {
        bail!("{} {}", answer.status(), answer.text().await.unwrap_or_default());
    }
    Ok(())
}
