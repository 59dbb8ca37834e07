//! Pods that insist on warm nodes: they wait, say why, and go on when a node gets warm.

use std::time::Duration;

use anyhow::Result;
use hearth_core::decide::REASON_COLD;
use hearth_tests::cluster::{e2e, nodes};
use hearth_tests::datasets::USER;
use hearth_tests::kube_access::PATIENCE;
use hearth_tests::pods::pod;

const MIB: usize = 1 << 20;

#[test]
fn required_waits_with_our_reason_and_goes_on_when_a_node_gets_warm_and_nothing_else_happens() -> Result<()> {
    e2e(&nodes(2), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        bucket.put("images/a.bin", vec![1; 4 * MIB]).await?;
        cluster.s3_dataset("images", &bucket, "images").await?;
        pod("trainer").datasets("images").required("80%").create(&cluster.kube).await?;

        let said = cluster.kube.event(USER, "trainer", REASON_COLD, PATIENCE).await?;
        assert!(said.starts_with("FailedScheduling: 0/3 nodes are available: "), "{said}");
        assert!(
            said.contains(&format!("2 {REASON_COLD}")),
            "both nodes are counted under one reason: {said}"
        );

        // A warm-up makes no pod, node or other object that the scheduler reacts to.
        cluster.warmup("images", "images", serde_json::json!({"nodes": {"replicas": 1}})).await?;
        let node = cluster.kube.node_of(USER, "trainer", PATIENCE).await?;
        assert_eq!(cluster.explain("images").await?.percent(&node), 100);
        Ok(())
    })
}

#[test]
fn min_warm_is_the_threshold() -> Result<()> {
    e2e(&nodes(2), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        bucket.put("images/a/1.bin", vec![1; 3 * MIB]).await?;
        bucket.put("images/b/2.bin", vec![2; MIB]).await?;
        cluster.s3_dataset("images", &bucket, "images").await?;
        cluster.warm_up("images/a/**", "node-2").await?;

        pod("asks-for-80").datasets("images").required("80%").create(&cluster.kube).await?;
        pod("asks-for-70").datasets("images").required("70%").create(&cluster.kube).await?;

        assert_eq!(cluster.kube.node_of(USER, "asks-for-70", PATIENCE).await?, "node-2");
        cluster.kube.unschedulable(USER, "asks-for-80", "warm", PATIENCE).await?;
        Ok(())
    })
}

#[test]
fn wait_holds_out_for_a_warm_node_that_long_and_then_takes_any() -> Result<()> {
    e2e(&nodes(2), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        bucket.put("images/a.bin", vec![1; MIB]).await?;
        cluster.s3_dataset("images", &bucket, "images").await?;
        // Fetching is held back, or the first pod's node would soon be warm.
        cluster.s3.proxy.hold_gets_after(0);
        let waits = |name, time| pod(name).datasets("images").annotation("hearth.dev/locality", time);
        waits("impatient", "wait=3s").create(&cluster.kube).await?;
        waits("patient", "wait=10m").create(&cluster.kube).await?;

        cluster.kube.unschedulable(USER, "impatient", "warm", PATIENCE).await?;
        cluster.kube.node_of(USER, "impatient", Duration::from_secs(30)).await?;
        cluster.kube.unschedulable(USER, "patient", "warm", PATIENCE).await?;

        cluster.s3.proxy.release_gets();
        cluster.kube.node_of(USER, "patient", PATIENCE).await?;
        Ok(())
    })
}

#[test]
fn preemption_kills_no_pod_on_a_node_that_the_filter_would_reject() -> Result<()> {
    e2e(&nodes(4), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        bucket.put("images/a.bin", vec![1; MIB]).await?;
        cluster.s3_dataset("images", &bucket, "images").await?;
        cluster.warm_up("images", "node-3").await?;
        cluster
            .kube
            .apply("{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: urgent}, value: 1000}")
            .await?;
        let all = serde_json::json!({"requests": {"cpu": "40"}});
        for node in ["node-1", "node-2", "node-3", "node-4"] {
            pod(&format!("fills-{node}")).resources(all.clone()).on_node(node).create(&cluster.kube).await?;
        }

        pod("urgent")
            .datasets("images")
            .required("100%")
            .resources(all)
            .priority_class("urgent")
            .create(&cluster.kube)
            .await?;

        // The warm node's pod gives way; those on cold nodes would have died for nothing.
        cluster.kube.gone(USER, "fills-node-3", PATIENCE).await?;
        assert_eq!(cluster.kube.node_of(USER, "urgent", PATIENCE).await?, "node-3");
        for cold in ["fills-node-1", "fills-node-2", "fills-node-4"] {
            assert!(cluster.kube.lives(USER, cold).await?, "{cold} was killed");
        }
        Ok(())
    })
}
