//! Two replicas of the extender hear every agent and answer alike.

use anyhow::Result;
use hearth_tests::cluster::{e2e, nodes};
use hearth_tests::datasets::imagined;

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

        // The second goes on alone, and takes over what only one may do.
        cluster.extenders[0].workload.kill();
        let alone = cluster.extenders[1].explain("images").await?;
        assert_eq!(alone.percent("node-2"), 100);
        Ok(())
    })
}
