//! Nodes with several disks: where data goes, and what becomes of it when one of them is lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use hearth_tests::cluster::{Cluster, nodes};
use hearth_tests::datasets::FETCH;
use hearth_tests::measure::empty_page_cache;
use hearth_tests::volumes::{self, Driver};
use hearth_tests::wait::eventually;
use serde_json::json;

use crate::mib_files::{MIB, dataset, reads_right};

const NODE: &str = "node-1";
const FILES: usize = 3;

async fn number(cluster: &Cluster, name: &str, medium: &str) -> Result<f64> {
    let agent = cluster.agents.get(NODE).context("no agent")?;
    let label = format!("medium=\"{medium}\"");
    agent.metric(name, &[&label]).await?.with_context(|| format!("no metric {name} of {medium}"))
}

/// How many datasets' worth of bytes each of the media has: of MEM, SSD and HDD.
async fn where_it_is(cluster: &Cluster) -> Result<[f64; 3]> {
    let mut all = [0.0; 3];
    for (all, medium) in all.iter_mut().zip(["MEM", "SSD", "HDD"]) {
        *all = number(cluster, "hearth_agent_tier_used_bytes", medium).await? / (FILES * MIB) as f64;
    }
    Ok(all)
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// A disk that can fail, and memory; both go with the test's mounts.
struct Disks {
    memory: PathBuf,
    image: PathBuf,
}

impl Disks {
    fn mount(dir: &Path) -> Result<Self> {
        let (memory, disk) = (dir.join("memory"), dir.join("disks/nvme0"));
        let image = dir.join("disk.img");
        fs::create_dir_all(&memory)?;
        fs::create_dir_all(&disk)?;
        fs::File::create(&image)?.set_len(256 << 20)?;
        let (image_path, disk) = (text(&image)?, text(&disk)?);
        run("mkfs.ext4", &["-q", "-m", "0", image_path])?;
        run("mount", &["-o", "loop", image_path, disk])?;
        let disks = Self { memory, image };
        disks.fresh_memory()?;
        Ok(disks)
    }

    fn fresh_memory(&self) -> Result<()> {
        run("mount", &["-t", "tmpfs", "-o", "size=64m", "tmpfs", text(&self.memory)?]).map(drop)
    }

    fn lose_memory(&self) -> Result<()> {
        run("umount", &["-l", text(&self.memory)?]).map(drop)
    }

    /// The loop device ends before all that is on it: every request fails.
    fn break_disk(&self) -> Result<()> {
        fs::File::options().write(true).open(&self.image)?.set_len(4096)?;
        let device = run("losetup", &["-j", text(&self.image)?])?;
        let device = device.split(':').next().context("the disk is on no loop device")?;
        run("losetup", &["-c", device])?;
        empty_page_cache()
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}

#[test]
fn data_goes_where_it_wishes_and_comes_again_when_a_disk_is_lost() -> Result<()> {
    volumes::e2e(nodes(1), async |cluster| {
        let dir = cluster.dir().to_owned();
        let disks = Disks::mount(&dir)?;
        let agent = cluster.agent(NODE)?;
        agent.stop().await?;
        agent.configure(&json!({"store": {"medium": "HDD"}}))?;
        // As components/disks has them.
        let (memory, others) = (&disks.memory, [dir.join("disks/*"), dir.join("not-on-this-node")]);
        let tiers = format!(
            r#"[{{directory={memory:?},medium="MEM",capacity="32Mi"}},{{directory={:?},medium="SSD"}},{{directory={:?},medium="SSD"}}]"#,
            others[0], others[1]
        );
        agent.set_env("HEARTH_AGENT__STORE__TIERS", &tiers);
        agent.start().await?;
        agent.ready().await?;

        dataset(cluster, "usual", FILES, json!({})).await?;
        dataset(cluster, "hot", FILES, json!({"media": ["MEM", "SSD"]})).await?;
        dataset(cluster, "cold", FILES, json!({"media": ["HDD"]})).await?;
        for name in ["usual", "hot", "cold"] {
            cluster.warmup(name, name, json!({"nodes": {"replicas": 1}})).await?;
            cluster.warm(name, NODE, 100).await?;
        }
        ensure!(where_it_is(cluster).await? == [1.0, 1.0, 1.0], "{:?}", where_it_is(cluster).await?);
        let driver = Driver::of(cluster, NODE);
        for name in ["usual", "hot", "cold"] {
            let target = driver.publish(name, &json!({"dataset": name, "wait": "100%"})).await?;
            ensure!(driver.kind(name)? != "fuse.hearth", "{name} is wholly in one tier");
            reads_right(&target, name, FILES).await?;
        }
        ensure!(driver.kind("hot")? == "tmpfs", "it is read from {}", driver.kind("hot")?);
        for name in ["usual", "hot", "cold"] {
            driver.unpublish(name).await?;
        }

        // The node was restarted: what was in memory is gone, and is fetched again.
        let agent = cluster.agent(NODE)?;
        agent.stop().await?;
        disks.lose_memory()?;
        disks.fresh_memory()?;
        let agent = cluster.agent(NODE)?;
        agent.start().await?;
        agent.ready().await?;
        eventually("what was in memory to be there again", FETCH, async || {
            let there = where_it_is(cluster).await?;
            ensure!(there == [1.0, 1.0, 1.0], "{there:?}");
            Ok(())
        })
        .await?;
        cluster.warm("hot", NODE, 100).await?;

        // A disk fails, with nobody reading: it is noticed, and its data comes into another one.
        disks.break_disk()?;
        eventually("the disk to be noticed that fails", FETCH, async || {
            let failed = number(cluster, "hearth_agent_tier_failed", "SSD").await?;
            ensure!(failed == 1.0, "{failed}");
            Ok(())
        })
        .await?;
        eventually("its data to be in another tier", FETCH, async || {
            let home = number(cluster, "hearth_agent_tier_used_bytes", "HDD").await? / (FILES * MIB) as f64;
            ensure!(home == 2.0, "{home}");
            Ok(())
        })
        .await?;
        cluster.warm("usual", NODE, 100).await?;
        let target = driver.publish("again", &json!({"dataset": "usual", "wait": "100%"})).await?;
        reads_right(&target, "usual", FILES).await?;
        driver.unpublish("again").await
    })
}

#[test]
fn a_node_that_keeps_nothing_reads_all_the_same() -> Result<()> {
    volumes::e2e(nodes(1).agent_config(&json!({"store": {"capacity": "0"}})), async |cluster| {
        dataset(cluster, "usual", FILES, json!({})).await?;
        let driver = Driver::of(cluster, NODE);
        let target = driver.publish("reader", &json!({"dataset": "usual"})).await?;
        reads_right(&target, "usual", FILES).await?;
        let agent = cluster.agents.get(NODE).context("no agent")?;
        let used = agent.metric("hearth_agent_store_used_bytes", &[]).await?;
        ensure!(used == Some(0.0), "{used:?}");
        driver.unpublish("reader").await
    })
}
