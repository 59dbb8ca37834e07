//! An object that changes at the origin is a new version or an error, never a mixture of old and new.

use anyhow::{Result, bail, ensure};
use hearth_tests::cluster::{Cluster, e2e, nodes};
use hearth_tests::datasets::FETCH;
use hearth_tests::wait::eventually;
use serde_json::json;

const MIB: usize = 1 << 20;
const OLD: u8 = 0x0d;
const NEW: u8 = 0x4e;

/// The bytes that occur in each file below the agent's store that is as long as the object.
fn contents(cluster: &Cluster, length: u64) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(cluster.dir().join("agent-node-1/store")) {
        let entry = entry?;
        if entry.file_type().is_file() && entry.metadata()?.len() == length {
            let mut occurs = [false; 256];
            for byte in std::fs::read(entry.path())? {
                occurs[usize::from(byte)] = true;
            }
            found.push((0..=u8::MAX).filter(|byte| occurs[usize::from(*byte)]).collect());
        }
    }
    Ok(found)
}

#[test]
fn an_object_overwritten_while_it_is_fetched_is_never_mixed() -> Result<()> {
    e2e(&nodes(1), async |cluster| {
        // Three ranged GETs of at most 32 MiB.
        let length = 72 * MIB;
        let bucket = cluster.s3.bucket("data")?;
        bucket.put("images/a.bin", vec![OLD; length]).await?;
        cluster.s3_dataset_with("images", &bucket, "images", json!({"refresh": "10s"})).await?;

        // Some of the old version is there, then the object changes, then the rest is asked for.
        cluster.s3.proxy.hold_gets_after(2);
        cluster.place("trainer", "images").await?;
        eventually("two pieces to be fetched", FETCH, async || {
            let counts = cluster.s3.proxy.counts();
            ensure!(counts.gets >= 2 && counts.bytes > 0, "{counts:?}");
            Ok(())
        })
        .await?;
        bucket.put("images/a.bin", vec![NEW; length]).await?;
        cluster.s3.proxy.release_gets();

        eventually("the origin to refuse pieces of the old version", FETCH, async || {
            let counts = cluster.s3.proxy.counts();
            ensure!(counts.changed > 0, "{counts:?}");
            Ok(())
        })
        .await?;
        // The refresh finds the new version; a pod that asks for it gets all of it.
        eventually("the new version to be whole on the node", FETCH, async || {
            let contents = contents(cluster, length as u64)?;
            for bytes in &contents {
                // A hole reads as zeros: not there yet, but not another version's either.
                assert!(
                    !(bytes.contains(&OLD) && bytes.contains(&NEW)),
                    "old and new in one file: {bytes:?}"
                );
            }
            if contents.contains(&vec![NEW]) { Ok(()) } else { bail!("{contents:?}") }
        })
        .await?;
        cluster.warm("images", "node-1", 100).await
    })
}

#[test]
fn a_refresh_keeps_the_warmth_of_what_did_not_change() -> Result<()> {
    e2e(&nodes(2), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        for i in 0..8 {
            bucket.put(&format!("images/{i}.bin"), vec![OLD; MIB]).await?;
        }
        cluster.s3_dataset_with("images", &bucket, "images", json!({"refresh": "10s"})).await?;
        cluster.warm_up("images", "node-2").await?;
        let before = cluster.resource("dataset", "images").await?["status"]["version"]["manifest"].clone();

        bucket.put("images/8.bin", vec![NEW; MIB]).await?;
        bucket.put("images/0.bin", vec![NEW; MIB]).await?;
        eventually("a new version to be listed", FETCH, async || {
            let status = cluster.resource("dataset", "images").await?["status"].clone();
            ensure!(status["version"]["manifest"] != before, "{status}");
            Ok(())
        })
        .await?;

        // Seven of nine files are the same.
        eventually("the new version to be weighed", FETCH, async || {
            let seen = cluster.explain("images").await?;
            ensure!(
                seen.requested_bytes == 9 * MIB as u64 && seen.held("node-2") >= 7 * MIB as u64,
                "{seen:?}"
            );
            Ok(())
        })
        .await?;
        assert_eq!(cluster.place("trainer", "images").await?, "node-2");
        Ok(())
    })
}
