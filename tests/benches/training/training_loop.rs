//! The training loop, a process of its own.

use anyhow::{Context, Result, ensure};
use hearth_tests::python;
use hearth_tests::s3::{ACCESS_KEY, SECRET_KEY};
use serde::Deserialize;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// As many as PyTorch suggests for two cores.
pub(crate) const WORKERS: usize = 2;
/// The first, and those after it.
pub(crate) const EPOCHS: usize = 3;

/// To load PyTorch from a cold disk.
const LOAD: Duration = Duration::from_secs(120);
/// No epoch takes longer, or there is nothing to be learnt from this.
const EPOCH: Duration = Duration::from_secs(300);

/// What the loop says of one epoch.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Epoch {
    /// From its beginning to its last step.
    pub(crate) seconds: f64,
    /// In which there was no step.
    pub(crate) waiting: f64,
    pub(crate) images: usize,
    pub(crate) bytes: u64,
}

/// A loop that has loaded all it takes, and is not told yet where the images are.
pub(crate) struct TrainingLoop {
    /// What it decodes with.
    pub(crate) decoder: String,
    process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl TrainingLoop {
    pub(crate) async fn start() -> Result<Self> {
        let python = python::with_torch().context("there is no PyTorch: install Debian's python3-torch")?;
        // It ends with the thread that starts it, and so with this process.
        let mut process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", python, "-B"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/training/loop.py"))
            .args([EPOCHS.to_string(), WORKERS.to_string()])
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the training loop")?;
        let input = process.stdin.take().context("it has no input")?;
        let mut output = BufReader::new(process.stdout.take().context("it has no output")?).lines();
        let decoder = line(&mut output, LOAD).await?;
        Ok(Self { decoder, process, input, output })
    }

    /// Tells it the place, and waits for its epochs.
    pub(crate) async fn run(mut self, place: &str) -> Result<Vec<Epoch>> {
        self.input.write_all(format!("{place}\n").as_bytes()).await?;
        let mut epochs = Vec::with_capacity(EPOCHS);
        for _ in 0..EPOCHS {
            epochs.push(serde_json::from_str(&line(&mut self.output, EPOCH).await?)?);
        }
        let status = timeout(EPOCH, self.process.wait()).await.context("the loop does not end")??;
        ensure!(status.success(), "the loop failed after its epochs: {status}");
        Ok(epochs)
    }
}

async fn line(output: &mut Lines<BufReader<ChildStdout>>, within: Duration) -> Result<String> {
    let line = timeout(within, output.next_line()).await;
    line.with_context(|| format!("the loop says nothing for {within:?}"))??.context("the loop has ended")
}
