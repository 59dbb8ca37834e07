//! A real S3 server that honours conditional requests, and buckets filled from folders.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ObjectStoreExt as _, WriteMultipart};

use crate::binaries;
use crate::control_plane::healthy;
use crate::origin_proxy::OriginProxy;
use crate::ports;
use crate::process::{Process, Program};

/// The server's only account.
pub const ACCESS_KEY: &str = "hearth-test";
/// Its secret.
pub const SECRET_KEY: &str = "hearth-test-secret";
/// Its region.
pub const REGION: &str = "us-east-1";

/// Buckets are also served under `BUCKET.` and this name.
pub const DOMAIN: &str = "s3.test";

/// Above this an object is uploaded in parts, as any client would.
const PART: u64 = 8 << 20;

/// The running server. Agents reach it through [`S3::proxy`], which counts; uploads go beside it.
#[derive(Debug)]
pub struct S3 {
    /// What the agents see.
    pub proxy: OriginProxy,
    direct: String,
    root: PathBuf,
    server: Process,
}

impl S3 {
    /// Starts the server on the folder `root`, made if it is not there.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(root: &Path, logs: &Path) -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST, root, logs).await
    }

    /// Likewise, for agents that reach it at another of this machine's addresses.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start_at(address: Ipv4Addr, root: &Path, logs: &Path) -> Result<Self> {
        std::fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
        let listen = format!("127.0.0.1:{}", ports::free()?);
        let mut server = Program::new("s3-server", binaries::s3_server()?, logs)
            .env("ROOT_ACCESS_KEY", ACCESS_KEY)
            .env("ROOT_SECRET_KEY", SECRET_KEY)
            .flag("port", &listen)
            .flag("health", "/health")
            .flag("virtual-domain", DOMAIN)
            .arg("--quiet")
            // As stores do.
            .arg("--keep-alive")
            .arg("posix")
            .arg(root)
            .start()?;
        let direct = format!("http://{listen}");
        let http = reqwest::Client::builder().no_proxy().build()?;
        healthy(&mut server, &http, &format!("{direct}/health")).await?;
        let proxy = OriginProxy::start(address, &direct).await?;
        Ok(Self { proxy, direct, root: root.to_owned(), server })
    }

    /// The server itself, beside the proxy: uncounted, and nothing between.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.direct
    }

    /// Ends the server at once, as an outage does.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn bucket(&self, name: &str) -> Result<Bucket> {
        // The server takes every folder below its root for a bucket.
        std::fs::create_dir_all(self.root.join(name))
            .with_context(|| format!("cannot make bucket {name}"))?;
        let store = AmazonS3Builder::new()
            .with_endpoint(&self.direct)
            .with_allow_http(true)
            .with_bucket_name(name)
            .with_region(REGION)
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(SECRET_KEY)
            .build()?;
        Ok(Bucket { name: name.to_owned(), store: Arc::new(store) })
    }

    /// Removes a bucket with all that is in it, if there is one.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove_bucket(&self, name: &str) -> Result<()> {
        let folder = self.root.join(name);
        if folder.exists() {
            std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove bucket {name}"))?;
        }
        Ok(())
    }
}

/// One bucket, written to directly and not counted.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    store: Arc<AmazonS3>,
}

impl Bucket {
    /// The URI of a folder in it, for a Dataset.
    #[must_use]
    pub fn uri(&self, folder: &str) -> String {
        format!("s3://{}/{folder}", self.name)
    }

    /// Writes an object, over the old one if there is one.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn put(&self, key: &str, content: impl Into<bytes::Bytes>) -> Result<()> {
        let content = content.into();
        let path =
            object_store::path::Path::parse(key).with_context(|| format!("{key:?} cannot be a key here"))?;
        if content.len() as u64 <= PART {
            self.store.put(&path, content.into()).await?;
        } else {
            let upload = self.store.put_multipart(&path).await?;
            let mut parts = WriteMultipart::new_with_chunk_size(upload, usize::try_from(PART)?);
            parts.put(content);
            parts.finish().await?;
        }
        Ok(())
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn delete(&self, key: &str) -> Result<()> {
        Ok(self.store.delete(&object_store::path::Path::parse(key)?).await?)
    }

    /// Uploads every file below `dir` to `folder`, sixteen at a time, and tells `progress` the size of each one done.
    /// Returns the number of files and their bytes.
    ///
    /// # Errors
    /// When a file cannot be read or the server refuses it.
    pub async fn put_tree(&self, dir: &Path, folder: &str, progress: impl Fn(u64)) -> Result<(u64, u64)> {
        let mut files = Vec::new();
        for entry in walkdir::WalkDir::new(dir) {
            let entry = entry.with_context(|| format!("cannot list {}", dir.display()))?;
            if entry.file_type().is_file() {
                files.push(entry.into_path());
            }
        }
        if files.is_empty() {
            bail!("there are no files in {}", dir.display());
        }
        stream::iter(files)
            .map(|file| async move {
                let name = file.strip_prefix(dir)?.to_str().context("a file's name is not UTF-8")?;
                let content = tokio::fs::read(&file)
                    .await
                    .with_context(|| format!("cannot read {}", file.display()))?;
                let size = content.len() as u64;
                self.put(&format!("{folder}/{name}"), content).await?;
                anyhow::Ok(size)
            })
            .buffer_unordered(16)
            .inspect_ok(|size| progress(*size))
            .try_fold((0, 0), async |(files, bytes), size| Ok((files + 1, bytes + size)))
            .await
    }
}
