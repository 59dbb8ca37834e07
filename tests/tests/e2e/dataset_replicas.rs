//! Datasets that keep replicas: on how many nodes they are whole, pods or not, and where when nodes go.

use anyhow::{Context, Result, ensure};
use hearth_tests::cluster::{Cluster, e2e, nodes};
use hearth_tests::datasets::{FETCH, USER};
use hearth_tests::pods::pod;
use hearth_tests::wait::eventually;
use serde_json::{Value, json};

const MIB: usize = 1 << 20;

/// Waits until the status counts as many warm replicas of as many wanted.
async fn replicas(cluster: &Cluster, summary: &str) -> Result<Value> {
    eventually(&format!("{summary} replicas"), FETCH, async || {
        let status = cluster.resource("dataset", "images").await?["status"].clone();
        ensure!(status["replicas"]["summary"] == summary, "{status}");
        Ok(status)
    })
    .await
}

async fn cache(cluster: &Cluster, cache: Value) -> Result<()> {
    let patch = json!({"spec": {"cache": cache}}).to_string();
    let patch = ["patch", "datasets.hearth.dev", "images", "-n", USER, "--type=merge", "-p", &patch];
    cluster.kube.kubectl(&patch, "").await.map(drop)
}

/// Nodes that hold all of it.
async fn whole(cluster: &Cluster) -> Result<Vec<String>> {
    let explained = cluster.explain("images").await?;
    let mut whole: Vec<String> =
        explained.nodes.into_iter().filter(|node| node.percent == 100).map(|node| node.node).collect();
    whole.sort();
    Ok(whole)
}

#[test]
fn replicas_come_move_away_from_cordoned_nodes_and_follow_readers() -> Result<()> {
    e2e(&nodes(3), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        for i in 0..4 {
            bucket.put(&format!("images/{i}.bin"), vec![i; MIB]).await?;
        }
        let spec = json!({"cache": {"replicas": 1}});
        cluster.s3_dataset_with("images", &bucket, "images", spec).await?;
        let status = replicas(cluster, "1/1").await?;
        ensure!(status["replicas"]["nodes"] == 1, "{status}");
        let first = whole(cluster).await?.pop().context("no node is whole")?;

        // The list of files goes ahead, to all nodes, and no byte with it.
        let fetched = cluster.s3.proxy.counts().bytes;
        cluster.warmup("lists", "images", json!({"what": "Metadata"})).await?;
        let status = cluster.condition("warmup", "lists", "Complete", "True").await?;
        ensure!(status["nodes"]["summary"] == "3/3" && status["filesDone"] == 12, "{status}");
        ensure!(cluster.s3.proxy.counts().bytes == fetched);

        // Another node takes the place of one that is cordoned.
        cluster.kube.kubectl(&["cordon", &first], "").await?;
        eventually("another node to be whole", FETCH, async || {
            let whole = whole(cluster).await?;
            ensure!(whole.len() == 2 && whole.contains(&first), "{whole:?}");
            Ok(())
        })
        .await?;
        replicas(cluster, "1/1").await?;
        cluster.kube.kubectl(&["uncordon", &first], "").await?;

        // As many as nodes read it, though each reads a part only.
        cache(cluster, json!({"maxReplicas": 3})).await?;
        for node in ["node-1", "node-2", "node-3"] {
            pod(&format!("reader-{node}"))
                .on_node(node)
                .datasets("images/0.bin")
                .create(&cluster.kube)
                .await?;
        }
        replicas(cluster, "3/3").await?;
        ensure!(whole(cluster).await? == ["node-1", "node-2", "node-3"]);
        cache(cluster, json!({"maxReplicas": null, "replicas": null})).await?;
        eventually("no replicas to be wanted", FETCH, async || {
            let status = cluster.resource("dataset", "images").await?["status"].clone();
            ensure!(status["replicas"].is_null(), "{status}");
            Ok(())
        })
        .await
    })
}
