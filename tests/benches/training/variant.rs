//! The ways to the images.

use crate::juicefs::{self, JuiceFs};
use crate::peers::{self, Peer};
use crate::{Bench, FOLDER, ROUNDS};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Bucket and dataset of which an earlier run has had everything fetched.
pub(crate) const WARM: &str = "warm";
/// Bucket of those who mount it as it is.
const PEERS: &str = "peers";

/// One row of the table.
pub(crate) enum Variant {
    /// The first or the second copy.
    Plain(usize),
    /// Of a dataset of which the node has nothing: a FUSE view, to its end.
    Cold,
    /// As the pod of a next run gets it: a native view.
    Native,
    Peer(&'static str),
    JuiceFs(JuiceFs),
    /// Each worker asks the server itself.
    Straight,
}

/// Where the loop finds the images for one turn.
pub(crate) struct Place {
    /// Of a folder, or of an S3 server.
    pub(crate) path: String,
    /// The pod whose volume it is.
    pod: Option<String>,
    /// Unmounts when it is dropped.
    _mounted: Option<Peer>,
}

impl Variant {
    /// All that this machine has, with their buckets filled.
    pub(crate) async fn all(bench: &Bench<'_>) -> Result<Vec<Self>> {
        let mut all = vec![Self::Plain(0), Self::Plain(1), Self::Cold, Self::Native];
        bench.upload(PEERS).await?;
        all.extend(peers::NAMES.into_iter().filter(|name| peers::is_installed(name)).map(Self::Peer));
        if peers::is_installed(juicefs::NAME) {
            let directory = bench.cluster.dir().join(juicefs::NAME);
            // Its bucket is made first, as a folder of the server.
            let bucket = bench.cluster.s3.bucket(juicefs::NAME)?;
            let filled =
                JuiceFs::fill(bench.cluster.s3.endpoint(), &bucket.name, &bench.plain[0], &directory).await?;
            all.push(Self::JuiceFs(filled));
        }
        all.push(Self::Straight);
        Ok(all)
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::Plain(0) => "ext4".to_owned(),
            Self::Plain(_) => "ext4 again".to_owned(),
            Self::Peer(name) => (*name).to_owned(),
            Self::Cold => "hearth, cold (FUSE)".to_owned(),
            Self::Native => "hearth, next run (native)".to_owned(),
            Self::JuiceFs(_) => juicefs::NAME.to_owned(),
            Self::Straight => "straight from S3".to_owned(),
        }
    }

    pub(crate) fn rounds(&self) -> usize {
        match self {
            Self::Plain(_) | Self::Cold | Self::Native => ROUNDS,
            Self::Peer(_) | Self::JuiceFs(_) | Self::Straight => 1,
        }
    }

    /// What there is before anybody asks for a volume.
    pub(crate) async fn prepare(&self, bench: &Bench<'_>, round: usize) -> Result<()> {
        if !matches!(self, Self::Cold) {
            return Ok(());
        }
        // Of its own each time: nothing of it has ever been read.
        let name = cold(round);
        bench.upload(&name).await?;
        bench.dataset(&name).await
    }

    pub(crate) async fn open(&self, bench: &Bench<'_>, round: usize) -> Result<Place> {
        let directory = |name: &str| bench.cluster.dir().join(format!("{name}-{round}"));
        let endpoint = bench.cluster.s3.proxy.endpoint();
        match self {
            Self::Plain(copy) => Place::folder(&bench.plain[*copy]),
            Self::Cold => Place::volume(bench, cold(round), &cold(round), true).await,
            Self::Native => Place::volume(bench, format!("next-{round}"), WARM, false).await,
            Self::Peer(name) => {
                Place::mounted(peers::mount(name, &endpoint, PEERS, &directory(name)).await?, FOLDER)
            }
            Self::JuiceFs(filled) => {
                Place::mounted(filled.mount(&endpoint, &directory("juicefs-mount")).await?, "")
            }
            Self::Straight => {
                Ok(Place { path: format!("{endpoint}/{PEERS}/{FOLDER}"), pod: None, _mounted: None })
            }
        }
    }
}

/// Bucket, dataset and pod of a round.
fn cold(round: usize) -> String {
    format!("cold-{round}")
}

impl Place {
    fn folder(path: &Path) -> Result<Self> {
        let path = path.to_str().context("a path is not UTF-8")?.to_owned();
        Ok(Self { path, pod: None, _mounted: None })
    }

    fn mounted(peer: Peer, folder: &str) -> Result<Self> {
        let path: PathBuf = peer.root.join(folder);
        Ok(Self { _mounted: Some(peer), ..Self::folder(&path)? })
    }

    async fn volume(bench: &Bench<'_>, pod: String, dataset: &str, is_cold: bool) -> Result<Self> {
        let path = bench.driver.publish(&pod, &json!({"dataset": dataset})).await?;
        let kind = bench.driver.kind(&pod)?;
        ensure!((kind == "fuse.hearth") == is_cold, "{pod}'s volume is of the kind {kind}");
        Ok(Self { pod: Some(pod), ..Self::folder(&path)? })
    }

    pub(crate) async fn close(self, bench: &Bench<'_>) -> Result<()> {
        match &self.pod {
            Some(pod) => bench.driver.unpublish(pod).await,
            None => Ok(()),
        }
    }
}
