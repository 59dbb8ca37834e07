//! Child processes that never outlive the test: stopped in order when it can, killed by the kernel when it cannot.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, prlimit};

use crate::wait::eventually;

/// What to run and where its output goes.
#[derive(Debug, Clone)]
pub struct Program {
    name: String,
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    log: PathBuf,
}

impl Program {
    /// A program called `name` in messages, whose output is appended to `LOG_DIR/NAME.log`.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>, log_dir: &Path) -> Self {
        let name = name.into();
        let log = log_dir.join(format!("{name}.log"));
        Self { name, path: path.into(), args: Vec::new(), env: Vec::new(), log }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds `--name=value`.
    #[must_use]
    pub fn flag(self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        let mut arg = OsString::from(format!("--{name}="));
        arg.push(value.as_ref());
        self.arg(arg)
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Starts it in a process group of its own.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be started.
    pub fn start(&self) -> Result<Process> {
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot open {}", self.log.display()))?;
        let log_start = log.seek(SeekFrom::End(0)).context("cannot seek in the log")?;
        if log_start > 0 {
            writeln!(log, "──── {} starts again ────", self.name).context("cannot write to the log")?;
        }
        // The kernel kills the child when the thread that made it ends, so that nothing survives a test that is
        // killed with -9. setpriv sets that from outside, where no code of ours runs between fork and exec.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.path)
            .args(&self.args)
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share the log")?)
            .stderr(log);
        let child = spawn(command)
            .with_context(|| format!("cannot start {} ({})", self.name, self.path.display()))?;
        Ok(Process { name: self.name.clone(), log: self.log.clone(), child })
    }
}

/// A command to start, and where to say how that went.
type Order = (Command, mpsc::Sender<std::io::Result<Child>>);

/// Starts children on one thread that lives as long as the process: the death signal follows the thread that
/// forked, and a test's own thread may end before the cluster that it started.
fn spawn(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in orders {
                // The asker waits for this; if it is gone, dropping the child handle is all that is left to do.
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (reply, answer) = mpsc::channel();
    spawner
        .lock()
        .map_err(|_| anyhow!("the spawning thread's queue is poisoned"))?
        .send((command, reply))
        .context("the spawning thread ended")?;
    Ok(answer.recv().context("the spawning thread ended")??)
}

/// A running child. Dropping it kills it and everything it started.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Its name in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails with the tail of its log if it has ended: a wait for readiness asks this to give up at once.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        match self.child.try_wait().context("cannot ask for the child's state")? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}; its log says:\n{}", self.name, self.log_tail(30)),
        }
    }

    /// Ends it with SIGKILL, as a power cut would, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }

    /// Asks it to stop with SIGTERM and waits; kills it when `grace` has passed. Says how it ended.
    ///
    /// # Errors
    /// When it did not stop in time (it is killed then).
    pub async fn stop(&mut self, grace: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM);
        self.ended(grace).await
    }

    /// Likewise with SIGINT, as Ctrl-C does.
    ///
    /// # Errors
    /// When it did not stop in time (it is killed then).
    pub async fn interrupt(&mut self, grace: Duration) -> Result<ExitStatus> {
        self.signal(Signal::INT);
        self.ended(grace).await
    }

    /// Has it crash as an assertion does, with core dumps allowed as far as they can be.
    ///
    /// # Errors
    /// When it does not end (it is killed then).
    pub async fn crash(&mut self) -> Result<ExitStatus> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        // Its own is the test's.
        let most = getrlimit(Resource::Core).maximum;
        prlimit(Some(pid), Resource::Core, Rlimit { current: most, maximum: most })?;
        self.signal(Signal::ABORT);
        self.ended(Duration::from_secs(20)).await
    }

    /// Waits until it ends by itself; kills it when `within` has passed. Says how it ended.
    ///
    /// # Errors
    /// When it did not end in time (it is killed then).
    pub async fn ended(&mut self, within: Duration) -> Result<ExitStatus> {
        let ended = self.wait(within).await;
        if ended.is_err() {
            self.kill();
        }
        ended.with_context(|| format!("it was killed; its log says:\n{}", self.log_tail(30)))
    }

    /// Waits until it ends by itself. Says how it ended.
    ///
    /// # Errors
    /// When it has not ended in time.
    pub async fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let child = &mut self.child;
        let ended = async || child.try_wait().context("cannot ask for the child's state")?.context("it runs");
        eventually(&format!("{} to end", self.name), within, ended).await
    }

    /// The last lines of its output.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Fails only when the group is gone, which is what was wanted.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a file, of which at most the last 64 KiB are read.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(64 << 10)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => {
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(e) => format!("({} cannot be read: {e})", path.display()),
    }
}
