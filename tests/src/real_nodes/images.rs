//! Images of Hearth's programs as this workspace builds them, and one of common tools: archives that containerd
//! imports, so that no registry is needed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use super::command::run;
use crate::programs;

/// A shell and its tools, for pods that read; it also holds pods' namespaces.
pub const TOOLS: &str = "hearth-test/tools:1";

/// What readers use.
const APPLETS: &[&str] = &[
    "cat",
    "cut",
    "dd",
    "echo",
    "find",
    "ls",
    "mkdir",
    "rm",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "touch",
    "xargs",
];

/// Trusted authorities: a client that has none does not start.
const AUTHORITIES: &str = "etc/ssl/certs/ca-certificates.crt";

/// Builds all images below `dir` and returns their archives. The names are those of the shipped manifests.
pub(super) fn build(dir: &Path) -> Result<Vec<PathBuf>> {
    let archives = [
        tools(dir)?,
        program(dir, "hearth-extender", "hearth/extender:0.1.0")?,
        program(dir, "hearth-node-agent", "hearth/node-agent:0.1.0")?,
        program(dir, "hearth-keeper", "hearth/keeper:0.1.0")?,
    ];
    Ok(archives.into())
}

fn tools(dir: &Path) -> Result<PathBuf> {
    let root = dir.join("tools");
    let bin = root.join("bin");
    fs::create_dir_all(&bin)?;
    let busybox = run("sh", &["-c", "command -v busybox"], "")?;
    fs::copy(busybox.trim(), bin.join("busybox")).context("cannot copy busybox")?;
    libraries(busybox.trim(), &root)?;
    for applet in APPLETS {
        symlink("busybox", bin.join(applet))?;
    }
    archive(&root, TOOLS, &["/bin/sh", "-c", "while :; do sleep 3600; done"])
}

/// The program, without what is for debuggers, and the libraries that it is linked to.
fn program(dir: &Path, name: &str, image: &str) -> Result<PathBuf> {
    let root = dir.join(name);
    fs::create_dir_all(&root)?;
    let built = programs::hearth(name)?;
    let built = built.to_str().context("a program's path is not UTF-8")?;
    let place = root.join(name);
    run("strip", &["-o", place.to_str().context("a path is not UTF-8")?, built], "")?;
    libraries(built, &root)?;
    copy(&format!("/{AUTHORITIES}"), &root)?;
    archive(&root, image, &[&format!("/{name}")])
}

/// Copies what a program is linked to; nothing when it is static, for which ldd fails.
fn libraries(program: &str, root: &Path) -> Result<()> {
    // `name => /path (address)`, or only the path of the loader.
    for line in run("ldd", &[program], "").unwrap_or_default().lines() {
        if let Some(library) = line.split_whitespace().find(|word| word.starts_with('/')) {
            copy(library, root)?;
        }
    }
    Ok(())
}

fn copy(path: &str, root: &Path) -> Result<()> {
    let to = root.join(path.trim_start_matches('/'));
    fs::create_dir_all(to.parent().context("a file lies in no folder")?)?;
    fs::copy(path, &to).with_context(|| format!("cannot copy {path}"))?;
    Ok(())
}

/// The archive of an image with the one layer `root`, as `docker save` writes it.
fn archive(root: &Path, image: &str, entrypoint: &[&str]) -> Result<PathBuf> {
    let parts = root.with_extension("image");
    fs::create_dir_all(&parts)?;
    let path = |path: &Path| path.to_str().map(str::to_owned).context("an image's path is not UTF-8");
    let layer = path(&parts.join("layer.tar"))?;
    run(
        "tar",
        &["--directory", &path(root)?, "--owner=0", "--group=0", "--create", "--file", &layer, "."],
        "",
    )?;
    let sum = run("sha256sum", &[&layer], "")?;
    let sum = sum.split_whitespace().next().context("sha256sum says nothing")?;
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": entrypoint, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [image], "Layers": ["layer.tar"]}]);
    fs::write(parts.join("config.json"), config.to_string())?;
    fs::write(parts.join("manifest.json"), manifest.to_string())?;
    let archive = root.with_extension("tar");
    let files = ["manifest.json", "config.json", "layer.tar"];
    let args = ["--directory", &path(&parts)?, "--create", "--file", &path(&archive)?];
    run("tar", &[args.as_slice(), files.as_slice()].concat(), "")?;
    Ok(archive)
}
