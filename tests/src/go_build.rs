//! Builds a Go module of `tests/` once and keeps the binary in the cache folder, named by what it was built from.

use std::io::{BufRead as _, BufReader, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cache;

/// A program that is built from a Go module in `tests/`.
pub(crate) struct GoProgram {
    /// Folder in `tests/` that holds `go.mod`.
    pub(crate) module: &'static str,
    /// Package to build, as `go build` takes it.
    pub(crate) package: &'static str,
    /// Flags for the linker.
    pub(crate) ldflags: &'static str,
    /// What the person who waits should know.
    pub(crate) note: &'static str,
    /// Names by which the binary is to be called; it may look at its own name.
    pub(crate) names: &'static [&'static str],
}

impl GoProgram {
    /// The folder with the binary under each of its names, built first if it is not there yet.
    pub(crate) fn provide(&self) -> Result<PathBuf> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(self.module);
        let dir = cache::dir()?.join(format!("{}-{}", self.module, self.fingerprint(&source)?));
        if self.complete(&dir) {
            return Ok(dir);
        }
        let _lock = cache::lock(&format!("build-{}", self.module))?;
        if self.complete(&dir) {
            return Ok(dir);
        }
        let started = Instant::now();
        eprintln!("building {} from Go modules, once: {}", self.module, self.note);
        // Whatever is in the folder is half of an earlier build; the binary appears by a rename, links come after it.
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let half = dir.join(".half-built");
        self.build(&source, &half)?;
        let binary = dir.join(".binary");
        std::fs::rename(&half, &binary).context("cannot name the built binary")?;
        for name in self.names {
            let link = dir.join(name);
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(".binary", &link)
                .with_context(|| format!("cannot link {}", link.display()))?;
        }
        eprintln!("built {} in {} s, kept in {}", self.module, started.elapsed().as_secs(), dir.display());
        Ok(dir)
    }

    fn complete(&self, dir: &Path) -> bool {
        self.names.iter().all(|name| dir.join(name).exists())
    }

    /// Changes whenever a rebuild could give another binary.
    fn fingerprint(&self, source: &Path) -> Result<String> {
        let mut hash = blake3::Hasher::new();
        hash.update(self.ldflags.as_bytes());
        hash.update(self.package.as_bytes());
        for name in ["go.mod", "go.sum", "main.go"] {
            let path = source.join(name);
            match std::fs::read(&path) {
                Ok(bytes) => hash.update(&bytes),
                // A module that only pins another's program has no source of its own.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
            };
        }
        Ok(hash.finalize().to_hex()[..12].to_owned())
    }

    fn build(&self, source: &Path, output: &Path) -> Result<()> {
        let go = |args: &[&str]| {
            let mut command = Command::new("go");
            command.current_dir(source).args(args);
            command
        };
        let list = go(&["list", "-deps", self.package]).stderr(Stdio::inherit()).output().context(
            "cannot run `go`: install Go 1.26 or newer (`make deps` does), or set KUBEBUILDER_ASSETS",
        )?;
        if !list.status.success() {
            bail!("`go list` failed in {}", source.display());
        }
        let packages = list.stdout.lines().count();

        // `-v` names each package when its compilation starts: that is the progress. No other flags: a flag that
        // changes the build's identity (-trimpath, CGO_ENABLED) would miss Go's own cache.
        let mut child = go(&["build", "-v", "-ldflags", self.ldflags, "-o"])
            .arg(output)
            .arg(self.package)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run `go build`")?;
        let mut progress = Progress::new(packages);
        let mut said = Vec::new();
        let stderr = child.stderr.take().context("`go build` has no stderr")?;
        for line in BufReader::new(stderr.take(64 << 20)).lines() {
            let line = line.context("cannot read what `go build` says")?;
            progress.package(&line);
            said.push(line);
        }
        progress.bar.finish_and_clear();
        if !child.wait().context("cannot wait for `go build`")?.success() {
            let tail = said.len().saturating_sub(30);
            bail!("`go build` failed in {}:\n{}", source.display(), said[tail..].join("\n"));
        }
        Ok(())
    }
}

/// A bar on a terminal, a line now and then elsewhere (CI logs).
struct Progress {
    bar: ProgressBar,
    packages: usize,
    done: usize,
    last_line: Instant,
}

impl Progress {
    fn new(packages: usize) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::new(packages as u64)
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) =
            ProgressStyle::with_template("  [{elapsed_precise}] {wide_bar} {pos}/{len} packages {msg}")
        {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar, packages, done: 0, last_line: Instant::now() }
    }

    fn package(&mut self, name: &str) {
        self.done += 1;
        self.bar.set_position(self.done as u64);
        self.bar.set_message(name.rsplit('/').next().unwrap_or_default().to_owned());
        if self.bar.is_hidden() && self.last_line.elapsed() > Duration::from_secs(15) {
            self.last_line = Instant::now();
            eprintln!("  {} of at most {} packages compiled, now {name}", self.done, self.packages);
        }
    }
}
