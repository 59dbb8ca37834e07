//! The demo cleans up after itself, whenever it is told to end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hearth_tests::kube_access::PATIENCE;
use hearth_tests::process::{Process, Program};
use hearth_tests::wait::eventually;

/// It may have to wait for the clusters of other tests.
const UP: Duration = Duration::from_secs(900);

/// A process as `/proc` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    pid: String,
    parent: Option<u32>,
    command: String,
}

fn processes() -> Result<Vec<Seen>> {
    let mut seen = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let read = |file: &str| std::fs::read_to_string(entry.path().join(file));
        // Those that end while one looks, and what is no process.
        let (Ok(stat), Ok(command)) = (read("stat"), read("cmdline")) else { continue };
        // The name in brackets may itself hold brackets and spaces.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        seen.push(Seen { pid: entry.file_name().to_string_lossy().into_owned(), parent, command });
    }
    Ok(seen)
}

/// What the demo has started, and where its files are.
fn started(demo: &Process) -> Result<(Vec<Seen>, PathBuf)> {
    let children: Vec<Seen> = processes()?.into_iter().filter(|p| p.parent == Some(demo.pid())).collect();
    let etcd = children
        .iter()
        .flat_map(|child| child.command.split('\0'))
        .find_map(|argument| argument.strip_prefix("--data-dir="))
        .with_context(|| format!("no etcd among {children:?}"))?;
    let dir = Path::new(etcd).parent().context("etcd's folder lies nowhere")?.to_owned();
    Ok((children, dir))
}

fn start(logs: &Path) -> Result<Process> {
    Program::new("demo", env!("CARGO_BIN_EXE_hearth-demo"), logs).arg("--nodes=3").arg("--keep").start()
}

async fn nothing_is_left((children, dir): (Vec<Seen>, PathBuf)) -> Result<()> {
    ensure!(!dir.exists(), "{} is left", dir.display());
    let name = dir.to_string_lossy();
    eventually("the demo's processes to be gone", PATIENCE, async || {
        let left = processes()?.into_iter().filter(|process| {
            let same = |child: &Seen| child.pid == process.pid && child.command == process.command;
            process.command.contains(&*name) || children.iter().any(same)
        });
        let left: Vec<Seen> = left.collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn ctrl_c_leaves_no_process_and_no_files() -> Result<()> {
    let logs = tempfile::tempdir()?;
    let mut demo = start(logs.path())?;
    eventually("the demo to be up", UP, async || {
        demo.check_running()?;
        ensure!(demo.log_tail(usize::MAX).contains("up after"), "{}", demo.log_tail(5));
        Ok(())
    })
    .await?;
    let seen = started(&demo)?;
    ensure!(seen.0.len() >= 9, "a control plane, an S3 server, an extender and three agents: {seen:?}");

    let status = demo.interrupt(PATIENCE).await?;

    ensure!(status.success(), "{status}: {}", demo.log_tail(20));
    nothing_is_left(seen).await
}

#[tokio::test]
async fn so_does_sigterm_while_the_cluster_starts() -> Result<()> {
    let logs = tempfile::tempdir()?;
    let mut demo = start(logs.path())?;
    let seen = eventually("the demo to start its first programs", UP, async || {
        demo.check_running()?;
        started(&demo)
    })
    .await?;

    let status = demo.stop(PATIENCE).await?;

    ensure!(status.success(), "{status}: {}", demo.log_tail(20));
    nothing_is_left(seen).await
}
