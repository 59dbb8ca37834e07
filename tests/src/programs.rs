//! Hearth's own programs, built from this workspace in the same profile as the test that runs them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};

use crate::cache;

/// The path of `hearth-extender` or `hearth-node-agent`: from the folder in `HEARTH_PROGRAMS` when that is set, to test
/// what was built elsewhere; otherwise brought up to date at the first call.
///
/// # Errors
/// When the workspace does not build.
pub fn hearth(name: &str) -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("HEARTH_PROGRAMS") {
        return Ok(PathBuf::from(dir).join(name));
    }
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let dir =
        BUILT.get_or_init(|| build().map_err(|e| format!("{e:#}"))).as_ref().map_err(|e| anyhow!("{e}"))?;
    Ok(dir.join(name))
}

fn build() -> Result<PathBuf> {
    let this = std::env::current_exe().context("cannot find this program's own path")?;
    // Test executables lie in `deps`, the demo one folder higher.
    let dir = this.parent().context("this program lies in no folder")?;
    let dir = if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir };
    let profile = match dir.file_name().and_then(|n| n.to_str()) {
        None | Some("debug") => "dev",
        Some(other) => other,
    };
    // The whole workspace, so that cargo unifies features as in `cargo test --workspace` and recompiles nothing.
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(cache::workspace())
        .args(["build", "--quiet", "--workspace", "--bins", "--profile", profile])
        .arg("--target-dir")
        .arg(dir.parent().unwrap_or(Path::new("target")))
        .status()
        .context("cannot run cargo to build the programs under test")?;
    if !status.success() {
        bail!("the programs under test do not build");
    }
    Ok(dir.to_owned())
}
