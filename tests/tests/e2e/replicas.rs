//! Two replicas of the extender hear every agent and answer alike.

use anyhow::Result;
use hearth_tests::cluster::{e2e, nodes};
use hearth_tests::datasets::imagined;
use serde_json::json;

const MIB: usize = 1 << 20;
const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

#[test]
fn two_replicas_give_the_same_answers() -> Result<()> {
    e2e(&nodes(3).extenders(2), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        bucket.put("images/a/1.bin", vec![1; 3 * MIB]).await?;
        bucket.put("images/b/2.bin", vec![2; MIB]).await?;
        cluster.s3_dataset("images", &bucket, "images").await?;
        cluster.warm_up("images", "node-2").await?;
        cluster.warm_up("images/b/**", "node-3").await?;
        cluster.all_replicas_agree("images").await?;

        for datasets in ["images", "images/a/**", "images/b/**", "images/{a,b}/*", "unknown"] {
            let pod = imagined(datasets)?;
            let first = cluster.extenders[0].prioritize(&pod, &NODES).await?;
            let second = cluster.extenders[1].prioritize(&pod, &NODES).await?;
            assert_eq!(first, second, "{datasets}");
        }

        Ok(())
    })
}

#[test]
fn when_the_leader_dies_the_other_goes_on_and_takes_over_what_only_one_may_do() -> Result<()> {
    e2e(&nodes(2).extenders(2), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        bucket.put("images/1.bin", vec![1; MIB]).await?;
        cluster.s3_dataset("images", &bucket, "images").await?;
        cluster.warm_up("images", "node-2").await?;
        cluster.all_replicas_agree("images").await?;

        let leader = cluster.leader().await?;
        cluster.extenders.remove(leader).workload.kill();

        assert_eq!(cluster.explain("images").await?.percent("node-2"), 100);
        // Only a leader writes statuses.
        cluster.warmup("images", "images", json!({})).await?;
        let status = cluster.condition("warmup", "images", "Complete", "True").await?;
        assert_eq!(status["nodes"]["summary"], "2/2", "{status}");
        Ok(())
    })
}
