//! nginx with pages that index a folder, one part of it behind a password.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};

use super::CONTAINER;
use crate::binaries;
use crate::control_plane::healthy;
use crate::ports;
use crate::process::{Process, Program};

/// Who may read what is below `/private/`.
pub const USERNAME: &str = "hearth-test";
/// The password.
pub const PASSWORD: &str = "hearth-test-password";

/// The running server. [`CONTAINER`] is a folder of it, and `private` another.
#[derive(Debug)]
pub struct Nginx {
    endpoint: String,
    root: PathBuf,
    _server: Process,
}

impl Nginx {
    /// Starts it on a folder in `dir`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(dir: &Path) -> Result<Self> {
        let dir = dir.join("nginx");
        let root = dir.join("www");
        for folder in [CONTAINER, "private"] {
            fs::create_dir_all(root.join(folder)).context("cannot make nginx's folders")?;
        }
        let port = ports::free()?;
        fs::write(dir.join("users"), format!("{USERNAME}:{{PLAIN}}{PASSWORD}\n"))?;
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {}/tmp-{what};\n", dir.display()))
            .concat();
        let (at, www) = (dir.display(), root.display());
        let config = format!(
            "daemon off;\nmaster_process off;\npid {at}/nginx.pid;\nerror_log stderr warn;\n\
             events {{ worker_connections 512; }}\n\
             http {{\n{temporary}access_log off;\ndefault_type application/octet-stream;\n\
             server {{\nlisten 127.0.0.1:{port};\nroot {www};\nautoindex on;\n\
             location /private/ {{ auth_basic private; auth_basic_user_file {at}/users; }}\n}}\n}}\n"
        );
        let file = dir.join("nginx.conf");
        fs::write(&file, config).context("cannot write nginx's configuration")?;
        let mut server = Program::new("nginx", binaries::nginx()?, &dir)
            .arg("-p")
            .arg(&dir)
            .arg("-e")
            .arg("stderr")
            .arg("-c")
            .arg(file)
            .start()?;
        let endpoint = format!("http://127.0.0.1:{port}");
        let http = reqwest::Client::builder().no_proxy().build()?;
        healthy(&mut server, &http, &endpoint).await?;
        Ok(Self { endpoint, root, _server: server })
    }

    /// Its base URL.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The folder that it serves.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes a file, over the old one if there is one, with a time of its own: nginx makes its ETags of whole seconds
    /// and the size.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, path: &str, content: &[u8]) -> Result<()> {
        static SECONDS: AtomicU64 = AtomicU64::new(1_767_225_600);
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().context("the path has no folder")?)?;
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(SECONDS.fetch_add(1, Ordering::Relaxed));
        fs::File::options().write(true).open(&path)?.set_modified(time).context("cannot set a file's time")
    }
}
