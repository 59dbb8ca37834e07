//! Runs a test a second time in network, PID, mount and IPC namespaces of its own: addresses and ports are free there,
//! and all that it starts, mounts and links ends with it, however it ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::cgroups;
use crate::cache;
use crate::process::{Program, tail};
use crate::run_dir::RunDir;
use crate::{binaries, programs};

/// Set inside: the folder of the run.
const INSIDE: &str = "HEARTH_REAL_NODES";

/// No run may take longer: it hangs.
const LIMIT: Duration = Duration::from_secs(1500);

/// What it takes besides what was built here.
const PROGRAMS: &[&str] = &[
    "containerd",
    "ctr",
    "runc",
    "busybox",
    "ip",
    "mkfs.ext4",
    "mount",
    "unshare",
    "nsenter",
    "setsid",
    "strip",
    "ldd",
];

/// The folder of the run, for whoever is inside.
pub(super) fn inside() -> Option<PathBuf> {
    std::env::var_os(INSIDE).map(PathBuf::from)
}

/// Runs the test `name` of the present executable inside.
pub(super) async fn run(name: &str) -> Result<()> {
    let _only = cache::lock("real-nodes")?;
    // Building takes the network, which there is none of inside.
    binaries::kubernetes("kubelet")?;
    binaries::s3_server()?;
    let built = programs::hearth("hearth-node-agent")?;
    let dir = RunDir::create("real-nodes")?;
    let failed = format!("logs and state of the run are in {}", dir.path().display());
    let _janitor = Janitor::start(dir.path())?;
    let log = dir.path().join("test.log");
    let mut program = Program::new("test", "unshare", dir.path())
        .env(INSIDE, dir.path())
        .env("HEARTH_PROGRAMS", built.parent().context("the agent lies in no folder")?);
    for flag in ["--net", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc", "--"] {
        program = program.arg(flag);
    }
    let this = std::env::current_exe().context("cannot find this program's own path")?;
    let mut process = program.arg(this).arg("--exact").arg(name).arg("--nocapture").start()?;
    let status = process.wait(LIMIT).await.with_context(|| format!("{failed}\n{}", tail(&log, 40)))?;
    if !status.success() {
        bail!("{failed}\n{}", tail(&log, 2000));
    }
    drop(process);
    dir.remove();
    Ok(())
}

/// Removes the run's control groups, which belong to no namespace, when the run is over. A process of its own, so
/// that it does so also when this one is killed.
struct Janitor(Child);

impl Janitor {
    fn start(dir: &Path) -> Result<Self> {
        // It reads until the test, which holds the other end, is gone.
        let script = format!("cat; {}", cgroups::removal(dir)?);
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn().context("cannot start the janitor")?))
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Why no kubelet can run here; none when one can.
pub(super) fn unfit() -> Option<String> {
    let check = || -> Result<()> {
        ensure!(rustix::process::geteuid().is_root(), "it takes root");
        ensure!(cgroups::usable(), "it takes control groups of version 1 at /sys/fs/cgroup, writable");
        for program in PROGRAMS {
            let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output()?;
            ensure!(found.status.success(), "{program} is not installed (`make deps` does it)");
        }
        ensure!(Path::new("/dev/loop-control").exists(), "it takes loop devices");
        let cni = Path::new(super::CNI).join("bridge");
        ensure!(cni.exists(), "{} is not there (`make deps` installs it)", cni.display());
        let trial =
            Command::new("unshare").args(["--net", "--pid", "--fork", "--mount-proc", "true"]).output()?;
        ensure!(
            trial.status.success(),
            "namespaces cannot be made: {}",
            String::from_utf8_lossy(&trial.stderr).trim()
        );
        Ok(())
    };
    check().err().map(|why| format!("{why:#}"))
}
