//! Where the cluster's scheduler cannot be changed (EKS, GKE), a second one with the extender in its pod does the same.

use anyhow::Result;
use hearth_tests::cluster::{SECOND_SCHEDULER, e2e, nodes};
use hearth_tests::datasets::USER;
use hearth_tests::kube_access::PATIENCE;
use hearth_tests::pods::pod;

const MIB: usize = 1 << 20;

#[test]
fn the_second_scheduler_brings_pods_to_their_data_with_the_rights_that_are_shipped() -> Result<()> {
    e2e(&nodes(3).second_scheduler(), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        bucket.put("images/a.bin", vec![1; MIB]).await?;
        cluster.s3_dataset("images", &bucket, "images").await?;
        cluster.warm_up("images", "node-2").await?;

        for i in 0..3 {
            let name = format!("trainer-{i}");
            pod(&name).datasets("images").scheduler(SECOND_SCHEDULER).create(&cluster.kube).await?;
            assert_eq!(cluster.kube.node_of(USER, &name, PATIENCE).await?, "node-2");
        }
        // The cluster's own scheduler goes on placing all others, and calls nobody.
        let calls = cluster.extenders[0].calls().await?;
        cluster.place("others", "images").await?;
        assert_eq!(cluster.extenders[0].calls().await?, calls);
        Ok(())
    })
}
