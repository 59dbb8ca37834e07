//! One real node: namespaces of its own, and in them containerd and kubelet, which can be stopped, killed, or lose power.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::command::run;
use super::{cgroups, network, settings};
use crate::binaries;
use crate::kube_access::PATIENCE;
use crate::process::{Process, Program};
use crate::wait::eventually;

/// Bytes of the disk of a node's cache; only what is written takes room.
const DISK: u64 = 1 << 30;

const INIT: &str = include_str!("init.sh");

/// A node. Dropping it cuts its power.
#[derive(Debug)]
pub struct Node {
    /// Its name in the cluster.
    pub name: String,
    index: u8,
    /// What outlives a power cut: `/var/lib` and `/var/log`.
    state: PathBuf,
    logs: PathBuf,
    cgroup: String,
    kubeconfig: PathBuf,
    images: Vec<PathBuf>,
    // In the order in which they are to be dropped.
    kubelet: Option<Process>,
    containerd: Option<Process>,
    init: Option<Init>,
}

/// The first process of the node's PID namespace: all others end with it.
#[derive(Debug)]
struct Init {
    /// Its id as seen from here.
    pid: u32,
    /// Its parent, which ends with it.
    holder: Process,
}

/// What nodes have in common.
pub(super) struct Place<'a> {
    /// Folder of the run.
    pub(super) dir: &'a Path,
    /// Folder of the logs.
    pub(super) logs: &'a Path,
    /// The cluster's authority.
    pub(super) ca: &'a Path,
    /// Archives of the images that every node has.
    pub(super) images: &'a [PathBuf],
}

impl Node {
    /// Prepares node `index`, which is off; 0 is the control plane's and shares its network.
    pub(super) fn prepare(place: &Place<'_>, index: u8, name: &str, kubeconfig: PathBuf) -> Result<Self> {
        let state = place.dir.join(name);
        for below in ["lib/kubelet", "log", "sysctl", "cni"] {
            let path = state.join(below);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        if index != 0 {
            attach_disk(&state)?;
        }
        let cgroup = cgroups::of_node(place.dir, name)?;
        fs::write(state.join("init.sh"), INIT)?;
        fs::write(state.join("containerd.toml"), settings::containerd(&state.join("cni")))?;
        fs::write(state.join("cni/nodes.conflist"), settings::cni(&network::pods(index)).to_string())?;
        fs::write(state.join("kubelet.yaml"), settings::kubelet(place.ca, &cgroup, index == 0).to_string())?;
        Ok(Self {
            name: name.to_owned(),
            index,
            state,
            logs: place.logs.to_owned(),
            cgroup,
            kubeconfig,
            images: place.images.to_vec(),
            kubelet: None,
            containerd: None,
            init: None,
        })
    }

    /// Switches it on: its programs start, with what it had on disk.
    ///
    /// # Errors
    /// When it is on, or something does not start.
    pub async fn power_on(&mut self) -> Result<()> {
        ensure!(self.init.is_none(), "{} is on", self.name);
        cgroups::make_anew(&self.cgroup)?;
        self.init = Some(self.start_init().await?);
        self.start_containerd().await?;
        self.start_kubelet()
    }

    /// Cuts its power: every process ends at once and every mount is gone; its disk stays.
    ///
    /// # Errors
    /// When its processes do not end.
    pub async fn power_off(&mut self) -> Result<()> {
        let mut init = self.init.take().with_context(|| format!("{} is off", self.name))?;
        let pid =
            i32::try_from(init.pid).ok().and_then(Pid::from_raw).context("the node's init has no id")?;
        kill_process(pid, Signal::KILL).context("cannot kill the node's init")?;
        // The kernel ends the namespace's last process before its first.
        init.holder.wait(PATIENCE).await?;
        (self.kubelet, self.containerd) = (None, None);
        Ok(())
    }

    /// Ends kubelet as a crash does; pods go on.
    pub fn kill_kubelet(&mut self) {
        self.kubelet = None;
    }

    /// Starts kubelet again.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_kubelet(&mut self) -> Result<()> {
        let mut program = self.program("kubelet", &binaries::kubernetes("kubelet")?)?;
        for (flag, value) in [
            ("config", self.state.join("kubelet.yaml").as_os_str()),
            ("kubeconfig", self.kubeconfig.as_os_str()),
            ("root-dir", "/var/lib/kubelet".as_ref()),
            ("cert-dir", "/var/lib/kubelet/pki".as_ref()),
            ("node-ip", network::address(self.index).to_string().as_ref()),
            ("hostname-override", self.name.as_ref()),
            ("v", "2".as_ref()),
        ] {
            program = program.flag(flag, value);
        }
        self.kubelet = Some(program.start()?);
        Ok(())
    }

    /// Where a path of the node that outlives a power cut lies here, such as `/var/lib/hearth`.
    #[must_use]
    pub fn disk(&self, path: &str) -> PathBuf {
        self.state.join(path.trim_start_matches("/var/"))
    }

    /// What is mounted on the node, as its kernel says.
    ///
    /// # Errors
    /// When it is off.
    pub fn mounts(&self) -> Result<String> {
        let init = self.init.as_ref().with_context(|| format!("{} is off", self.name))?;
        fs::read_to_string(format!("/proc/{}/mountinfo", init.pid)).context("cannot read the node's mounts")
    }

    async fn start_init(&self) -> Result<Init> {
        let up = self.state.join("up");
        let _ = fs::remove_file(&up);
        let mut program = Program::new(format!("init-{}", self.name), "unshare", &self.logs);
        for flag in
            ["--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        {
            program = program.arg(flag);
        }
        if self.index != 0 {
            program = program.arg("--net");
        }
        let script = self.state.join("init.sh");
        let mut holder = program.arg("--").arg("sh").arg(script).arg(&self.state).arg(&self.name).start()?;
        let pid = eventually(&format!("{} to have its mounts", self.name), PATIENCE, async || {
            holder.check_running()?;
            ensure!(up.exists(), "{}", holder.log_tail(5));
            child_of(holder.pid())
        })
        .await?;
        if self.index != 0 {
            network::attach(self.index, pid)?;
        }
        Ok(Init { pid, holder })
    }

    async fn start_containerd(&mut self) -> Result<()> {
        let program = self.program("containerd", Path::new("containerd"))?;
        let mut containerd = program.arg("--config").arg(self.state.join("containerd.toml")).start()?;
        eventually(&format!("containerd of {} to answer", self.name), PATIENCE, async || {
            containerd.check_running()?;
            self.ctr(&["version"]).await
        })
        .await?;
        self.containerd = Some(containerd);
        let imported = self.state.join("imported");
        if !imported.exists() {
            for image in &self.images {
                let path = image.to_str().context("an image's path is not UTF-8")?;
                self.ctr(&["--namespace", "k8s.io", "image", "import", path]).await?;
            }
            fs::write(imported, "")?;
        }
        Ok(())
    }

    async fn ctr(&self, args: &[&str]) -> Result<()> {
        let init = self.init.as_ref().context("it is off")?.pid.to_string();
        let all: Vec<String> = ["--target", &init, "--mount", "--pid", "ctr"]
            .iter()
            .chain(args)
            .map(ToString::to_string)
            .collect();
        let work = tokio::task::spawn_blocking(move || {
            run("nsenter", &all.iter().map(String::as_str).collect::<Vec<_>>(), "")
        });
        tokio::time::timeout(Duration::from_secs(60), work).await.context("ctr hangs")??.map(drop)
    }

    /// A program of the node, in its namespaces.
    fn program(&self, name: &str, path: &Path) -> Result<Program> {
        let init = self.init.as_ref().with_context(|| format!("{} is off", self.name))?;
        let mut program = Program::new(format!("{name}-{}", self.name), "nsenter", &self.logs);
        for flag in ["--target", &init.pid.to_string(), "--mount", "--uts", "--ipc", "--net", "--pid", "--"] {
            program = program.arg(flag);
        }
        Ok(program.arg(path))
    }
}

/// A disk of its own for the cache: the shipped configuration leaves a fifth of it free, and what is free on the
/// machine's is not the test's to say. It stays for as long as the run's mount namespace, so also without power.
fn attach_disk(state: &Path) -> Result<()> {
    let (image, place) = (state.join("disk"), state.join("lib/hearth"));
    fs::create_dir_all(&place)?;
    fs::File::create(&image)?.set_len(DISK)?;
    let path = |path: &Path| path.to_str().map(str::to_owned).context("a disk's path is not UTF-8");
    run("mkfs.ext4", &["-q", "-m", "0", &path(&image)?], "")?;
    run("mount", &["-o", "loop", &path(&image)?, &path(&place)?], "")?;
    Ok(())
}

/// The only child of a process.
fn child_of(parent: u32) -> Result<u32> {
    for entry in fs::read_dir("/proc").context("cannot list /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // `pid (name) state parent …`; a name may hold anything but ends at the last bracket.
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let found = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        if found.and_then(|found| found.parse().ok()) == Some(parent) {
            return Ok(pid);
        }
    }
    bail!("process {parent} has no child")
}
