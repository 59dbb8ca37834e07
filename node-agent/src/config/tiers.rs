//! The `store` section: one cache directory, and others where a node has them.

use super::units::Size;
use anyhow::{Context, ensure};
use hearth_core::evict::{WatermarkError, Watermarks};
use hearth_core::tier::Medium;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The `store` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StoreSection {
    /// Directory, made when it is not there. Its file system is best its own.
    pub directory: PathBuf,
    /// What it is on: `SSD`, `HDD` or `MEM`. Say so of an HDD: less is left unsynced there, which an
    /// agent that starts after a power cut has to read.
    pub medium: Medium,
    /// Most bytes of blocks to hold, such as `500Gi`, or a share of the file system such as
    /// `60%`; as much as `minFree` leaves when absent. With `0` nothing is kept, and all is read
    /// from the origins.
    pub capacity: Option<Size>,
    /// What must stay free on its file system, bytes or percent. Keep it above
    /// kubelet's eviction threshold.
    pub min_free: Size,
    /// Percent of the capacity above which nothing is taken in, 1 to 100: what is there
    /// makes room, the least valuable first.
    pub high_watermark: u8,
    /// Percent of the capacity down to which it makes room then, below the former.
    pub low_watermark: u8,
    /// Further directories to keep blocks in, each on a file system of its own.
    pub tiers: Vec<TierSection>,
    /// Bytes per second at which what is stored is read again and compared with its checksums,
    /// such as `10Mi`, while the disks have time; 0 for never.
    pub scrub_rate: Size,
}

/// A further directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TierSection {
    /// Directory, or `DIRECTORY/*` for every file system that is mounted in there. It is not made:
    /// nodes that do not have it do without.
    pub directory: PathBuf,
    /// What it is on: `SSD`, `HDD` or `MEM`.
    pub medium: Medium,
    /// As that of the store. Of memory all that is there counts, inodes too, and it is also kept
    /// within what the agent's own limit leaves.
    #[serde(default)]
    pub capacity: Option<Size>,
    /// As that of the store; 5% when absent.
    #[serde(default)]
    pub min_free: Option<Size>,
    /// As that of the store.
    #[serde(default = "high_watermark")]
    pub high_watermark: u8,
    /// As that of the store.
    #[serde(default = "low_watermark")]
    pub low_watermark: u8,
}

fn high_watermark() -> u8 {
    100
}

fn low_watermark() -> u8 {
    95
}

impl Default for StoreSection {
    fn default() -> Self {
        // kubelet evicts pods at 15 % free of the image file system, at 10 % of its own.
        Self {
            directory: "/var/lib/hearth".into(),
            medium: Medium::Ssd,
            capacity: None,
            min_free: Size::Percent(20),
            high_watermark: high_watermark(),
            low_watermark: low_watermark(),
            tiers: Vec::new(),
            // A terabyte in 29 hours.
            scrub_rate: Size::Bytes(10 << 20),
        }
    }
}

impl StoreSection {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.scrub_rate.bytes().is_some(),
            "store.scrubRate is {}, and bytes per second such as 10Mi are allowed",
            self.scrub_rate
        );
        self.watermarks().context("store.highWatermark and store.lowWatermark")?;
        let mut directories: Vec<&Path> = vec![&self.directory];
        for (index, tier) in self.tiers.iter().enumerate() {
            let name = format!("store.tiers[{index}]");
            let directory = &tier.directory;
            ensure!(
                directory.is_absolute(),
                "{name}.directory is {}, and an absolute path is allowed",
                directory.display()
            );
            ensure!(
                !directories.iter().any(|other| directory.starts_with(other) || other.starts_with(directory)),
                "{name}.directory is {}, and none that has another tier in it or is in one is allowed",
                directory.display()
            );
            directories.push(directory);
            tier.watermarks().with_context(|| format!("{name}.highWatermark and {name}.lowWatermark"))?;
        }
        Ok(())
    }

    /// Both watermarks.
    pub fn watermarks(&self) -> Result<Watermarks, WatermarkError> {
        Watermarks::new(self.high_watermark, self.low_watermark)
    }
}

impl TierSection {
    /// Both watermarks.
    pub fn watermarks(&self) -> Result<Watermarks, WatermarkError> {
        Watermarks::new(self.high_watermark, self.low_watermark)
    }

    /// What must stay free.
    pub fn min_free(&self) -> Size {
        self.min_free.unwrap_or(Size::Percent(5))
    }
}
