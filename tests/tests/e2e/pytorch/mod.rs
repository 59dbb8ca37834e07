//! A PyTorch loop reads what the origin has: DataLoader workers over images, weights by a mapping; cold, and warm.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use hearth_tests::cluster::nodes;
use hearth_tests::python;
use hearth_tests::volumes::{self, Driver};
use serde_json::json;

const NODE: &str = "node-1";
const BLOCK: usize = hearth_core::block::BLOCK_SIZE as usize;

/// What the loop says that it has read below `root`.
fn looped(root: &Path) -> Result<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/pytorch/loop.py");
    let python = python::with_torch().context("there is no PyTorch any more")?;
    let output = Command::new(python).arg(script).arg(root).output().context("cannot start python3")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Two tensors of several blocks, as the safetensors format has them.
fn weights(random: &mut fastrand::Rng) -> Vec<u8> {
    let lengths = [BLOCK + 4 * 1000, 2 * BLOCK];
    let header = json!({
        "one": {"dtype": "F32", "shape": [lengths[0] / 4], "data_offsets": [0, lengths[0]]},
        "two": {"dtype": "F32", "shape": [2, lengths[1] / 8], "data_offsets": [lengths[0], lengths[0] + lengths[1]]},
    });
    let header = header.to_string().into_bytes();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    let mut values = vec![0; lengths.iter().sum()];
    random.fill(&mut values);
    file.extend(values);
    file
}

#[test]
fn a_training_loop_reads_what_the_origin_has() -> Result<()> {
    if python::with_torch().is_none() {
        eprintln!("no PyTorch (Debian's python3-torch), so nothing was read by it");
        return Ok(());
    }
    volumes::e2e(nodes(1), async |cluster| {
        let mut random = fastrand::Rng::with_seed(11);
        let plain = cluster.dir().join("plain");
        for i in 0..300 {
            let directory = plain.join(format!("images/class-{}", i % 7));
            fs::create_dir_all(&directory)?;
            let mut bytes = vec![0; random.usize(0..200_000)];
            random.fill(&mut bytes);
            fs::write(directory.join(format!("{i}.jpg")), bytes)?;
        }
        fs::write(plain.join("model.safetensors"), weights(&mut random))?;
        let right = tokio::task::block_in_place(|| looped(&plain))?;

        let bucket = cluster.s3.bucket("data")?;
        bucket.put_tree(&plain, "training", |_| {}).await?;
        cluster.s3_dataset("training", &bucket, "training").await?;
        let driver = Driver::of(cluster, NODE);
        let _keeper = driver.keeper(cluster, "5m").await?;
        cluster.s3.proxy.hold_gets_after(0);
        let cold = driver.publish("cold", &json!({"dataset": "training"})).await?;
        ensure!(driver.kind("cold")? == "fuse.hearth");
        cluster.s3.proxy.release_gets();
        let seen = tokio::task::block_in_place(|| looped(&cold))?;
        ensure!(seen == right, "cold it read {seen}, and {right} is right");
        cluster.warm("training", NODE, 100).await?;
        let warm = driver.publish("warm", &json!({"dataset": "training"})).await?;
        ensure!(driver.kind("warm")? != "fuse.hearth");
        let seen = tokio::task::block_in_place(|| looped(&warm))?;
        ensure!(seen == right, "warm it read {seen}, and {right} is right");
        driver.unpublish("cold").await?;
        driver.unpublish("warm").await
    })
}
