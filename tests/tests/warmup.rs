//! Warm-ups: data is there before any pod asks.

use anyhow::{Result, bail};
use hearth_tests::cluster::{e2e, nodes};
use hearth_tests::datasets::FETCH;
use hearth_tests::wait::eventually;
use serde_json::json;

const MIB: usize = 1 << 20;

#[test]
fn a_warmup_fetches_to_as_many_nodes_as_asked_and_says_how_far_it_is() -> Result<()> {
    e2e(&nodes(3), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        for i in 0..8 {
            bucket.put(&format!("images/{i}.bin"), vec![i; MIB]).await?;
        }
        cluster.s3_dataset("images", &bucket, "images").await?;
        cluster.s3.proxy.hold_gets_after(4);
        cluster.warmup("images", "images", json!({"nodes": {"replicas": 2}})).await?;

        // Half way, the status says so.
        eventually("the warm-up's status to show progress", FETCH, async || {
            let status = cluster.resource("warmup", "images").await?["status"].clone();
            let (done, all) = (status["bytesDone"].as_u64(), status["bytesTotal"].as_u64());
            match (done, all) {
                (Some(done), Some(all)) if done > 0 && done < all => Ok(()),
                _ => bail!("{status}"),
            }
        })
        .await?;
        cluster.s3.proxy.release_gets();

        let status = cluster.condition("warmup", "images", "Complete", "True").await?;
        assert_eq!(status["bytesDone"], 16 * MIB, "{status}");
        assert_eq!(status["filesDone"], 16, "{status}");
        let warm = cluster.explain("images").await?;
        assert_eq!(warm.nodes.iter().filter(|n| n.percent == 100).count(), 2, "{warm:?}");
        assert_eq!(cluster.s3.proxy.counts().bytes, 16 * MIB as u64);
        Ok(())
    })
}
