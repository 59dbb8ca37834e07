//! Keeps over restarts how often datasets were mounted of late: without that, the first who
//! needs room or moves data between tiers would not know what is in use.

use crate::durable;
use crate::reads::Reads;
use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// Its name in the store's directory.
const NAME: &str = "heat.json";
/// What this release writes and understands.
const FORMAT: u32 = 1;
/// What came since is written so often.
const EVERY: Duration = Duration::from_secs(60);
/// Most datasets that are kept, the hottest first.
const MOST_DATASETS: usize = 10_000;
/// Longest `namespace/name`.
const LONGEST_NAME: usize = 63 + 1 + 253;
/// Largest file that is read: a larger one is none of ours.
const LARGEST: u64 = 4 << 20;
/// Mounts of late that one dataset can have: more is a damaged file.
const MOST_MOUNTS: f64 = 1e9;

/// What is in the file.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    format: u32,
    /// As of when the counts are, milliseconds since 1970.
    as_of: u64,
    /// Mounts of late, by `namespace/name`.
    mounts: BTreeMap<String, f64>,
}

/// Writes what changes of the mounts.
pub struct HeatFile {
    path: PathBuf,
    reads: Reads,
    /// How many mounts there had been when it was written.
    written: u64,
}

impl HeatFile {
    /// Tells `reads` what is kept in a store's directory. What is damaged is as if it were not there.
    pub fn open(directory: &Path, reads: Reads) -> Self {
        let path = directory.join(NAME);
        match read(&path) {
            Ok(Some(kept)) => {
                // A clock that was set back tells nothing of the time that has passed.
                let ago = now().saturating_sub(kept.as_of);
                reads.resume(kept.mounts, Duration::from_millis(ago));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), "how often datasets were mounted is not known any more: {error:#}");
            }
        }
        Self { path, written: reads.mounts(), reads }
    }

    /// Writes what has changed, every minute and at the end.
    pub async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        while shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            self = self.write().await?;
        }
        self.write().await.map(drop)
    }

    /// Fails only when it panics: the next time may be better.
    async fn write(mut self) -> anyhow::Result<Self> {
        tokio::task::spawn_blocking(move || {
            if let Err(error) = self.write_changes() {
                tracing::warn!(path = %self.path.display(), "how often datasets were mounted is not kept: {error}");
            }
            self
        })
        .await
        .context("writing how often datasets were mounted ended")
    }

    fn write_changes(&mut self) -> io::Result<()> {
        // Before they are read: one that comes meanwhile is written again.
        let mounts = self.reads.mounts();
        if mounts == self.written {
            return Ok(());
        }
        let mut hottest = self.reads.heats();
        hottest.sort_by(|a, b| b.1.total_cmp(&a.1));
        hottest.truncate(MOST_DATASETS);
        let kept = Kept { format: FORMAT, as_of: now(), mounts: hottest.into_iter().collect() };
        durable::replace(&self.path, &serde_json::to_vec(&kept)?)?;
        self.written = mounts;
        Ok(())
    }
}

/// What is kept; `None` when there is nothing yet.
fn read(path: &Path) -> anyhow::Result<Option<Kept>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.context("it cannot be opened")?,
    };
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).context("it cannot be read")?;
    ensure!(bytes.len() as u64 <= LARGEST, "it has more than {LARGEST} bytes");
    let kept: Kept = serde_json::from_slice(&bytes).context("it cannot be understood")?;
    ensure!(kept.format == FORMAT, "its format is {}, and {FORMAT} is understood here", kept.format);
    ensure!(kept.mounts.len() <= MOST_DATASETS, "it has more than {MOST_DATASETS} datasets");
    for (dataset, mounts) in &kept.mounts {
        ensure!(dataset.len() <= LONGEST_NAME && dataset.contains('/'), "mounts has a name of no dataset");
        ensure!(
            (0.0..=MOST_MOUNTS).contains(mounts),
            "mounts of {dataset} is {mounts}, and 0 to {MOST_MOUNTS} is allowed"
        );
    }
    Ok(Some(kept))
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::eventually;
    use proptest::prelude::*;
    use std::fs;

    /// A start of an agent on this directory.
    fn start(directory: &Path) -> (Reads, HeatFile) {
        let reads = Reads::default();
        (reads.clone(), HeatFile::open(directory, reads))
    }

    fn kept(as_of: u64, mounts: &[(&str, f64)]) -> String {
        let mounts = mounts.iter().map(|(dataset, mounts)| ((*dataset).to_owned(), *mounts)).collect();
        serde_json::to_string(&Kept { format: FORMAT, as_of, mounts }).unwrap()
    }

    #[tokio::test]
    async fn what_was_mounted_is_known_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let (reads, file) = start(directory.path());
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(file.run(shutdown.clone()));
        (0..3).for_each(|_| reads.of("ns/hot").mounted());
        reads.of("ns/mild").mounted();
        shutdown.cancel();
        task.await.unwrap().unwrap();
        let (reads, _) = start(directory.path());
        let heat = |dataset| reads.of(dataset).heat();
        assert!((2.9..=3.0).contains(&heat("ns/hot")) && (0.9..=1.0).contains(&heat("ns/mild")));
        assert_eq!(heat("ns/cold"), 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_written_while_the_agent_runs_and_only_when_something_was_mounted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        let (reads, mut file) = start(directory.path());
        file = file.write().await.unwrap();
        assert!(!path.exists(), "there is nothing to keep");
        reads.of("ns/d").mounted();
        file = file.write().await.unwrap();
        fs::remove_file(&path).unwrap();
        file = file.write().await.unwrap();
        assert!(!path.exists(), "nothing has changed");
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(file.run(shutdown.clone()));
        reads.of("ns/d").mounted();
        // So that it has begun to wait.
        tokio::task::yield_now().await;
        tokio::time::advance(EVERY).await;
        eventually(|| "it to be written".to_owned(), || path.exists()).await;
        shutdown.cancel();
        task.await.unwrap().unwrap();
        assert!(path.exists() && !directory.path().join("heat.json.new").exists());
    }

    #[test]
    fn it_has_faded_meanwhile_unless_the_clock_was_set_back() {
        const DAY: u64 = 24 * 60 * 60 * 1000;
        let directory = tempfile::tempdir().unwrap();
        for (as_of, least, most) in [
            (now() - DAY, 3.99, 4.0),
            (now() - 3 * DAY, 0.99, 1.0),
            (now() + 9 * DAY, 7.99, 8.0),
            (u64::MAX, 7.99, 8.0),
            (0, 0.0, 0.0),
        ] {
            fs::write(directory.path().join(NAME), kept(as_of, &[("ns/d", 8.0)])).unwrap();
            let heat = start(directory.path()).0.of("ns/d").heat();
            assert!((least..=most).contains(&heat), "{as_of}: {heat}");
        }
    }

    #[test]
    fn what_is_damaged_is_left_and_written_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        let whole = kept(now(), &[("ns/d", 8.0)]);
        for damaged in [
            whole[..whole.len() / 2].to_owned(),
            String::new(),
            "\0".repeat(100),
            whole.replace("8.0", "-1.0"),
            whole.replace("8.0", "1e300"),
            whole.replace("ns/d", "nowhere"),
            whole.replace("ns/d", &format!("ns/{}", "d".repeat(400))),
            whole.replace("\"format\":1", "\"format\":2"),
            format!("{whole}{}", " ".repeat(usize::try_from(LARGEST).unwrap())),
        ] {
            fs::write(&path, &damaged).unwrap();
            let (reads, mut file) = start(directory.path());
            assert_eq!(reads.of("ns/d").heat(), 0.0, "{:.60}", damaged);
            reads.of("ns/d").mounted();
            file.write_changes().unwrap();
            assert!(start(directory.path()).0.of("ns/d").heat() > 0.9);
        }
    }

    #[test]
    fn of_too_many_the_hottest_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (reads, mut file) = start(directory.path());
        (0..=MOST_DATASETS).for_each(|number| reads.of(&format!("ns/{number}")).mounted());
        (1..=MOST_DATASETS).for_each(|number| reads.of(&format!("ns/{number}")).mounted());
        file.write_changes().unwrap();
        let (reads, _) = start(directory.path());
        assert_eq!(reads.heats().len(), MOST_DATASETS);
        assert_eq!(reads.of("ns/0").heat(), 0.0);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join(NAME), bytes).unwrap();
            start(directory.path());
        }
    }
}
