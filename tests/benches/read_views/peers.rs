//! Other mounts of the same bucket, where they are installed.

use anyhow::{Context, Result, ensure};
use hearth_tests::process::{Process, Program};
use hearth_tests::s3::{ACCESS_KEY, REGION, SECRET_KEY};
use hearth_tests::wait::eventually;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// They take a moment.
const MOUNT: Duration = Duration::from_secs(30);

/// A mount that ends with this value.
pub(crate) struct Peer {
    pub(crate) root: PathBuf,
    _process: Process,
}

impl Peer {
    /// Starts the program, and waits until it has mounted `root`.
    pub(crate) async fn start(name: &str, program: &Program, root: PathBuf) -> Result<Self> {
        let mut process = program.start()?;
        eventually(&format!("{name} to be mounted"), MOUNT, async || {
            process.check_running()?;
            let mounts = fs::read_to_string("/proc/self/mounts")?;
            ensure!(
                mounts.contains(root.to_str().context("a path is not UTF-8")?),
                "{}",
                process.log_tail(5)
            );
            Ok(())
        })
        .await?;
        Ok(Self { root, _process: process })
    }

    /// The same, of which only this folder is read.
    pub(crate) fn below(mut self, folder: &str) -> Self {
        self.root.push(folder);
        self
    }
}

/// Those that are known here.
pub(crate) const NAMES: [&str; 3] = ["s3fs", "rclone", "mount-s3"];

pub(crate) fn is_installed(name: &str) -> bool {
    Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Mounts `bucket` of the S3 server at `endpoint` with an empty cache below `directory`. All are told that nothing changes.
pub(crate) async fn mount(name: &str, endpoint: &str, bucket: &str, directory: &Path) -> Result<Peer> {
    let (root, cache) = (directory.join("mount"), directory.join("cache"));
    fs::create_dir_all(&root)?;
    fs::create_dir_all(&cache)?;
    let program = Program::new(name, name, directory);
    let program = match name {
        "s3fs" => {
            let password = directory.join("password");
            fs::write(&password, format!("{ACCESS_KEY}:{SECRET_KEY}"))?;
            fs::set_permissions(&password, Permissions::from_mode(0o600))?;
            let option = |program: Program, text: String| program.arg("-o").arg(text);
            [
                format!("url={endpoint}"),
                "use_path_request_style".to_owned(),
                format!("use_cache={}", cache.display()),
                format!("passwd_file={}", password.display()),
                "ro,parallel_count=16,max_stat_cache_size=200000".to_owned(),
            ]
            .into_iter()
            .fold(program.arg(bucket).arg(&root).arg("-f"), option)
        }
        "mount-s3" => program
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .arg(bucket)
            .arg(&root)
            .arg("--foreground")
            .arg("--read-only")
            .arg("--force-path-style")
            .flag("region", REGION)
            .flag("endpoint-url", endpoint)
            .flag("cache", &cache)
            .flag("metadata-ttl", "indefinite"),
        _ => program
            .env("RCLONE_CONFIG_S3_TYPE", "s3")
            .env("RCLONE_CONFIG_S3_PROVIDER", "Other")
            .env("RCLONE_CONFIG_S3_ENDPOINT", endpoint)
            .env("RCLONE_CONFIG_S3_ACCESS_KEY_ID", ACCESS_KEY)
            .env("RCLONE_CONFIG_S3_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("RCLONE_CONFIG", directory.join("none"))
            // With one that is not asked for here it does not start.
            .env("AWS_CA_BUNDLE", "")
            .arg("mount")
            .arg(format!("s3:{bucket}"))
            .arg(&root)
            .flag("vfs-cache-mode", "full")
            .flag("cache-dir", &cache)
            .flag("vfs-cache-max-size", "20G")
            .flag("dir-cache-time", "24h")
            .arg("--read-only"),
    };
    Peer::start(name, &program, root).await
}
