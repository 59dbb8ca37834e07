//! Programs die and come back: pods still schedule, and nobody believes what is no longer true.

use anyhow::{Result, bail, ensure};
use hearth_tests::cluster::{Cluster, e2e, nodes};
use hearth_tests::datasets::USER;
use hearth_tests::kube_access::PATIENCE;
use hearth_tests::pods::pod;
use hearth_tests::silent_origin::SilentOrigin;
use hearth_tests::wait::eventually;

const MIB: usize = 1 << 20;

/// A dataset that one node holds.
async fn warm_on(cluster: &Cluster, node: &str) -> Result<()> {
    let bucket = cluster.s3.bucket("data")?;
    for i in 0..4 {
        bucket.put(&format!("images/{i}.bin"), vec![i; MIB]).await?;
    }
    cluster.s3_dataset("images", &bucket, "images").await?;
    cluster.warm_up("images", node).await
}

async fn cold(cluster: &Cluster, node: &str) -> Result<()> {
    eventually(&format!("{node} to count as cold"), PATIENCE, async || {
        let seen = cluster.explain("images").await?;
        if seen.percent(node) > 0 { bail!("{seen:?}") } else { Ok(()) }
    })
    .await
}

#[test]
fn a_killed_agents_node_is_not_chosen_until_it_is_back_without_fetching_again() -> Result<()> {
    e2e(&nodes(3), async |cluster| {
        warm_on(cluster, "node-1").await?;
        cluster.warm_up("images/0.bin", "node-2").await?;
        let fetched = cluster.s3.proxy.counts().bytes;

        cluster.agent("node-1")?.kill();
        cold(cluster, "node-1").await?;
        assert_eq!(cluster.place("while-dead", "images/0.bin").await?, "node-2");

        cluster.agent("node-1")?.start().await?;
        cluster.warm("images", "node-1", 100).await?;
        assert_eq!(cluster.place("when-back", "images").await?, "node-1");
        assert_eq!(cluster.s3.proxy.counts().bytes, fetched, "what was there was fetched again");
        Ok(())
    })
}

#[test]
fn without_extender_pods_schedule_and_those_that_require_wait_and_after_its_restart_all_is_warm() -> Result<()>
{
    e2e(&nodes(2), async |cluster| {
        warm_on(cluster, "node-2").await?;

        cluster.extenders[0].workload.kill();
        pod("plain").create(&cluster.kube).await?;
        cluster.kube.node_of(USER, "plain", PATIENCE).await?;
        cluster.place("prefers", "images").await?;
        pod("requires").datasets("images").required("100%").create(&cluster.kube).await?;
        cluster.kube.event(USER, "requires", "FailedScheduling", PATIENCE).await?;

        cluster.extenders[0].workload.start().await?;
        cluster.extenders[0].workload.ready().await?;
        assert_eq!(
            cluster.explain("images").await?.percent("node-2"),
            100,
            "ready means that the agents were heard"
        );
        // The other pod's node may have become warm by now, too: its agent has fetched for it.
        let node = cluster.kube.node_of(USER, "requires", PATIENCE).await?;
        assert_eq!(cluster.explain("images").await?.percent(&node), 100);
        Ok(())
    })
}

#[test]
fn an_agent_killed_in_the_middle_of_a_fetch_keeps_what_it_reported_and_finishes() -> Result<()> {
    e2e(&nodes(1), async |cluster| {
        cluster.images_half_fetched().await?;

        cluster.agent("node-1")?.kill();
        cold(cluster, "node-1").await?;
        cluster.agent("node-1")?.start().await?;
        cluster.warm("images", "node-1", 50).await?;

        cluster.s3.proxy.reset();
        cluster.s3.proxy.release_gets();
        cluster.warm("images", "node-1", 100).await?;
        let counts = cluster.s3.proxy.counts();
        assert_eq!(counts.bytes, 4 * MIB as u64, "only what was missing: {counts:?}");
        Ok(())
    })
}

#[test]
fn an_origin_under_pressure_is_asked_again_until_the_data_is_there() -> Result<()> {
    e2e(&nodes(1), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        bucket.put("images/a.bin", vec![1; 4 * MIB]).await?;
        cluster.s3_dataset("images", &bucket, "images").await?;
        cluster.s3.proxy.fail_next_gets(3);

        cluster.place("trainer", "images").await?;

        cluster.warm("images", "node-1", 100).await
    })
}

#[test]
fn origins_that_never_answer_delay_no_other() -> Result<()> {
    e2e(&nodes(1), async |cluster| {
        let silent = SilentOrigin::start().await?;
        let bucket = cluster.s3.bucket("data")?;
        bucket.put("images/1.bin", vec![1; MIB]).await?;
        cluster.s3_dataset("images", &bucket, "images").await?;
        // As many of one origin, and of as many origins, as would fill every place.
        for number in 0..20 {
            cluster.dataset(&format!("one-{number}"), silent.dataset("127.0.0.1")).await?;
            cluster.dataset(&format!("many-{number}"), silent.dataset(&format!("127.0.1.{number}"))).await?;
        }
        cluster.s3_dataset("more-images", &bucket, "images").await?;
        for name in ["one-0", "many-0"] {
            let status = cluster.resource("dataset", name).await?["status"].clone();
            ensure!(status["version"].is_null(), "{name} was listed: {status}");
        }
        Ok(())
    })
}
