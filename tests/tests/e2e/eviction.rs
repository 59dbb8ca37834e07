//! Nodes with less room than what is asked of them: what is worth least makes room, and readers never notice.

use anyhow::{Context, Result, ensure};
use hearth_tests::cluster::{Cluster, nodes};
use hearth_tests::datasets::FETCH;
use hearth_tests::measure::empty_page_cache;
use hearth_tests::volumes::{self, Driver};
use hearth_tests::wait::eventually;
use serde_json::json;

use crate::mib_files::{MIB, dataset, reads_right};

const NODE: &str = "node-1";

/// One of the agent's numbers.
async fn number(cluster: &Cluster, name: &str, labels: &[&str]) -> Result<f64> {
    let agent = cluster.agents.get(NODE).context("no agent")?;
    agent.metric(name, labels).await?.with_context(|| format!("no metric {name}"))
}

async fn used_mib(cluster: &Cluster) -> Result<f64> {
    Ok(number(cluster, "hearth_agent_store_used_bytes", &[]).await? / MIB as f64)
}

#[test]
fn the_least_valuable_dataset_makes_room_and_the_pinned_one_does_not() -> Result<()> {
    volumes::e2e(nodes(1).agent_config(&json!({"store": {"capacity": "10Mi"}})), async |cluster| {
        dataset(cluster, "pinned", 3, json!({"pinned": true})).await?;
        dataset(cluster, "low", 3, json!({"priority": -1})).await?;
        dataset(cluster, "usual", 3, json!({})).await?;
        dataset(cluster, "more", 3, json!({})).await?;
        for name in ["pinned", "low", "usual"] {
            cluster.warmup(name, name, json!({"nodes": {"replicas": 1}})).await?;
            cluster.warm(name, NODE, 100).await?;
        }

        // A pod comes that reads what is not here yet.
        cluster.place("trainer", "more").await?;
        cluster.warm("more", NODE, 100).await?;

        ensure!(used_mib(cluster).await? <= 10.0);
        eventually("the extender to know what is left", FETCH, async || {
            let mut left = Vec::new();
            for name in ["pinned", "low", "usual", "more"] {
                left.push(cluster.explain(name).await?.percent(NODE));
            }
            ensure!(left[0] == 100 && left[1] < 100 && left[2..] == [100, 100], "{left:?}");
            Ok(())
        })
        .await?;
        let evicted = number(cluster, "hearth_agent_evicted_bytes_total", &["reason=\"room\""]).await?;
        ensure!(evicted >= 2.0 * MIB as f64, "{evicted}");

        // What has no room, though all that is worth less is gone, says what holds it.
        dataset(cluster, "big", 9, json!({})).await?;
        cluster.warmup("big", "big", json!({"nodes": {"replicas": 1}})).await?;
        eventually("it to be said why not all is warm", FETCH, async || {
            let status = cluster.resource("warmup", "big").await?["status"].to_string();
            ensure!(status.contains("there is no room") && status.contains("is pinned"), "{status}");
            Ok(())
        })
        .await?;
        ensure!(used_mib(cluster).await? <= 10.0);
        let seen = cluster.explain("pinned").await?;
        ensure!(seen.percent(NODE) == 100, "{seen:?}");
        Ok(())
    })
}

#[test]
fn a_dataset_larger_than_the_node_is_read_to_its_end_beside_one_that_stays() -> Result<()> {
    const NATIVE: usize = 3;
    const LARGE: usize = 16;
    volumes::e2e(nodes(1).agent_config(&json!({"store": {"capacity": "8Mi"}})), async |cluster| {
        dataset(cluster, "native", NATIVE, json!({})).await?;
        dataset(cluster, "large", LARGE, json!({})).await?;
        let driver = Driver::of(cluster, NODE);
        let native = driver.publish("native", &json!({"dataset": "native", "wait": "100%"})).await?;
        ensure!(driver.kind("native")? != "fuse.hearth", "it is not wholly there");

        let large = driver.publish("large", &json!({"dataset": "large"})).await?;
        for _ in 0..3 {
            empty_page_cache()?;
            reads_right(&large, "large", LARGE).await?;
            ensure!(used_mib(cluster).await? <= 8.0);
        }
        reads_right(&native, "native", NATIVE).await?;
        ensure!(number(cluster, "hearth_agent_read_through_bytes_total", &[]).await? > 0.0);
        eventually("as much to be kept as there is room for", FETCH, async || {
            let used = used_mib(cluster).await?;
            ensure!(used > 6.0, "{used} MiB");
            Ok(())
        })
        .await?;

        // The pod that held the other one ends: its room is there for this one.
        driver.unpublish("native").await?;
        eventually("what nobody needs to make room", FETCH, async || {
            let percent = cluster.explain("native").await?.percent(NODE);
            ensure!(percent < 100, "{percent} % of it are here");
            Ok(())
        })
        .await?;
        reads_right(&large, "large", LARGE).await
    })
}

#[test]
fn what_was_mounted_often_before_the_agents_restart_stays_after_it() -> Result<()> {
    volumes::e2e(nodes(1).agent_config(&json!({"store": {"capacity": "8Mi"}})), async |cluster| {
        for name in ["cold", "hot", "more"] {
            dataset(cluster, name, 3, json!({})).await?;
        }
        let driver = Driver::of(cluster, NODE);
        for pod in ["hot-1", "hot-2", "hot-3", "cold-1"] {
            let (name, _) = pod.split_once('-').context("no name")?;
            driver.publish(pod, &json!({"dataset": name, "wait": "100%"})).await?;
            driver.unpublish(pod).await?;
        }
        cluster.agent(NODE)?.stop().await?;
        cluster.agent(NODE)?.start().await?;
        cluster.agent(NODE)?.ready().await?;

        cluster.place("trainer", "more").await?;
        cluster.warm("more", NODE, 100).await?;
        eventually("the one that was mounted once to have made room", FETCH, async || {
            let left =
                [cluster.explain("hot").await?.percent(NODE), cluster.explain("cold").await?.percent(NODE)];
            ensure!(left[0] == 100 && left[1] < 100, "{left:?}");
            Ok(())
        })
        .await
    })
}
