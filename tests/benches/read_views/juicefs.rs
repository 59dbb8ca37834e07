//! JuiceFS keeps files in a form of its own: they are copied into it first, and its metadata is a local database,
//! nearer than any server.

use crate::peers::Peer;
use anyhow::{Context, Result, ensure};
use hearth_tests::process::Program;
use hearth_tests::s3::{ACCESS_KEY, SECRET_KEY};
use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

pub(crate) const NAME: &str = "juicefs";
/// What the database is called in calls.
const META: &str = "HEARTH_BENCH_META";
/// Where the files are in it: at its root it shows files of its own, one of which never ends.
const FOLDER: &str = "files";
/// To make a file system or to copy all files; a hundred thousand take minutes.
const COPY: Duration = Duration::from_secs(900);
/// The files do not change: it need not ask again within a day.
const KNOWN: &str = "86400";

/// A file system with the files of a folder in it.
pub(crate) struct JuiceFs {
    database: String,
    bucket: String,
}

impl JuiceFs {
    /// Makes it in `bucket` of the server at `endpoint`; its database lies in `directory`.
    pub(crate) async fn fill(endpoint: &str, bucket: &str, from: &Path, directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let database = format!("sqlite3://{}", directory.join("meta.db").display());
        let url = format!("{endpoint}/{bucket}");
        let format = ["format", "--storage", "s3", "--bucket", &url, "--access-key", ACCESS_KEY];
        let format = format.into_iter().chain(["--secret-key", SECRET_KEY, &database, bucket]);
        call(Command::new(NAME).args(format)).await?;
        let (from, to) = (format!("{}/", from.display()), format!("jfs://{META}/{FOLDER}/"));
        call(Command::new(NAME).args(["sync", &from, &to]).env(META, &database)).await?;
        Ok(Self { database, bucket: bucket.to_owned() })
    }

    /// Mounts it with an empty cache below `directory`, by another endpoint of the same server.
    pub(crate) async fn mount(&self, endpoint: &str, directory: &Path) -> Result<Peer> {
        let (root, cache) = (directory.join("mount"), directory.join("cache"));
        fs::create_dir_all(&root)?;
        let program = Program::new(NAME, NAME, directory)
            .arg("mount")
            .arg("--read-only")
            .arg("--no-usage-report")
            .flag("bucket", format!("{endpoint}/{}", self.bucket))
            .flag("cache-dir", &cache)
            .flag("attr-cache", KNOWN)
            .flag("entry-cache", KNOWN)
            .flag("dir-entry-cache", KNOWN)
            .flag("open-cache", KNOWN)
            // It keeps nothing when a tenth of the disk is all that is free.
            .flag("free-space-ratio", "0.01")
            .arg(&self.database)
            .arg(&root);
        Ok(Peer::start(NAME, &program, root).await?.below(FOLDER))
    }
}

async fn call(command: &mut Command) -> Result<()> {
    let output = timeout(COPY, command.kill_on_drop(true).output()).await;
    let Output { status, stderr, .. } = output.context("juicefs does not end")??;
    ensure!(status.success(), "juicefs failed: {}", String::from_utf8_lossy(&stderr));
    Ok(())
}
