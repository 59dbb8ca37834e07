//! Warm-ups: data is there before any pod asks.

use anyhow::{Result, bail, ensure};
use hearth_tests::cluster::{Cluster, e2e, nodes};
use hearth_tests::datasets::{FETCH, USER};
use hearth_tests::pods::pod;
use hearth_tests::wait::eventually;
use serde_json::{Value, json};

const MIB: usize = 1 << 20;

/// Waits for a status of the warm-up that is as told.
async fn progress(cluster: &Cluster, is: impl Fn(&Value) -> bool) -> Result<Value> {
    eventually("the warm-up's status to show progress", FETCH, async || {
        let status = cluster.resource("warmup", "images").await?["status"].clone();
        if is(&status) { Ok(status) } else { bail!("{status}") }
    })
    .await
}

#[test]
fn a_warmup_fetches_to_as_many_nodes_as_asked_and_says_how_far_it_is_also_when_the_extender_dies()
-> Result<()> {
    e2e(&nodes(3), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        for i in 0..8 {
            bucket.put(&format!("images/{i}.bin"), vec![i; MIB]).await?;
        }
        cluster.s3_dataset("images", &bucket, "images").await?;
        cluster.s3.proxy.hold_gets_after(0);
        cluster.warmup("images", "images", json!({"nodes": {"replicas": 2}})).await?;
        progress(cluster, |status| status["bytesDone"] == 0 && status["bytesTotal"] == 16 * MIB).await?;

        // A part of the way, the status says how far and how fast it is, and how long it will take.
        cluster.s3.proxy.hold_gets_after(4);
        let status = progress(cluster, |status| {
            status["bytesDone"].as_u64().is_some_and(|done| done > 0)
                && ["rate", "eta"].iter().all(|field| status[field].is_string())
        })
        .await?;
        assert!(status["bytesPerSecond"].as_u64().is_some_and(|rate| rate > 0), "{status}");
        assert!(status["rate"].as_str().is_some_and(|rate| rate.ends_with("/s")), "{status}");

        // Whoever counts may die: what is done is done.
        cluster.extenders[0].workload.kill();
        cluster.extenders[0].workload.start().await?;
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

#[test]
fn a_warmup_fetches_to_the_nodes_with_the_labels_that_it_names() -> Result<()> {
    e2e(&nodes(3), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        bucket.put("images/1.bin", vec![1; MIB]).await?;
        cluster.s3_dataset("images", &bucket, "images").await?;
        cluster.kube.kubectl(&["label", "node", "node-2", "node-3", "pool=gpu"], "").await?;

        cluster.warmup("images", "images", json!({"nodes": {"nodeSelector": {"pool": "gpu"}}})).await?;

        progress(cluster, |status| status["nodes"]["summary"] == "2/2").await?;
        let seen = cluster.explain("images").await?;
        let percents = ["node-1", "node-2", "node-3"].map(|node| seen.percent(node));
        assert_eq!(percents, [0, 100, 100], "{seen:?}");
        assert_eq!(cluster.s3.proxy.counts().bytes, 2 * MIB as u64);
        Ok(())
    })
}

#[test]
fn a_warmup_waits_while_it_is_suspended_gives_up_at_its_deadline_and_goes_after_its_end() -> Result<()> {
    e2e(&nodes(1), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        for i in 0..4 {
            bucket.put(&format!("images/{i}.bin"), vec![i; MIB]).await?;
        }
        cluster.s3_dataset("images", &bucket, "images").await?;
        let reason = |status: &Value| status["conditions"][0]["reason"].clone();

        cluster.warmup("images", "images", json!({"suspend": true, "activeDeadlineSeconds": 3})).await?;
        progress(cluster, |status| reason(status) == "Suspended").await?;
        ensure!(cluster.s3.proxy.counts().bytes == 0, "it was suspended");

        // It goes on, and the origin does not: the deadline passes.
        cluster.s3.proxy.hold_gets_after(1);
        cluster.warmup("images", "images", json!({"suspend": false, "activeDeadlineSeconds": 3})).await?;
        progress(cluster, |status| reason(status) == "DeadlineExceeded").await?;
        cluster.s3.proxy.release_gets();

        // With more time it completes, and is gone soon after.
        let spec = json!({"activeDeadlineSeconds": 600, "ttlSecondsAfterFinished": 1});
        cluster.warmup("images", "images", spec).await?;
        eventually("the warm-up to be gone", FETCH, async || {
            let left = cluster.kube.kubectl(&["get", "warmups.hearth.dev", "-o", "name"], "").await?;
            ensure!(left.trim().is_empty(), "{left}");
            Ok(())
        })
        .await?;
        cluster.warm("images", "node-1", 100).await
    })
}

#[test]
fn a_warmup_names_the_files_that_could_not_be_fetched_until_they_are() -> Result<()> {
    e2e(&nodes(2), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        for i in 0..4 {
            bucket.put(&format!("images/{i}.bin"), vec![i; MIB]).await?;
        }
        cluster.s3_dataset_with("images", &bucket, "images", json!({"refresh": "Never"})).await?;
        bucket.put("images/1.bin", vec![7; MIB]).await?;
        bucket.delete("images/3.bin").await?;
        cluster.warmup("images", "images", json!({"paths": ["[12].bin", "3.bin"]})).await?;

        let status =
            progress(cluster, |status| status["filesFailed"] == 4 && status["filesDone"] == 2).await?;
        let failed: Vec<_> = status["failedFiles"].as_array().into_iter().flatten().collect();
        let said = |field: &str| failed.iter().map(|file| file[field].clone()).collect::<Vec<_>>();
        assert_eq!(said("path"), ["1.bin", "3.bin"], "{status}");
        assert_eq!(said("reason"), ["Changed", "Gone"], "{status}");
        assert_eq!(said("nodes"), [2, 2], "{status}");
        assert!(
            said("message").iter().all(|why| why.as_str().is_some_and(|why| !why.is_empty())),
            "{status}"
        );
        let described =
            cluster.kube.kubectl(&["describe", "warmups.hearth.dev", "images", "-n", USER], "").await?;
        ensure!(described.contains("Failed Files:") && described.contains("3.bin"), "{described}");

        // What is there now is another version, of which nothing fails.
        let asks = ["-n", USER, "annotate", "datasets.hearth.dev", "images", "hearth.dev/refresh=now"];
        cluster.kube.kubectl(&asks, "").await?;
        let status =
            progress(cluster, |status| status["filesTotal"] == 4 && status["filesDone"] == 4).await?;
        assert!(status["filesFailed"].is_null() && status["failedFiles"].is_null(), "{status}");
        Ok(())
    })
}

#[test]
fn a_warmup_goes_to_the_nodes_on_which_pods_are_pending() -> Result<()> {
    e2e(&nodes(3), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        for i in 0..2 {
            bucket.put(&format!("images/{i}.bin"), vec![i; MIB]).await?;
        }
        cluster.s3_dataset("images", &bucket, "images").await?;
        cluster.kube.kubectl(&["label", "node", "node-3", "pool=gpu"], "").await?;
        cluster.warmup("images", "images", json!({"nodes": {"pendingPods": true}})).await?;
        progress(cluster, |status| status["conditions"][0]["reason"] == "NoPendingPods").await?;

        // One that nobody puts anywhere, and may be put on one node only.
        let waits = pod("waits").datasets("images/0.bin").node_selector("pool", "gpu").scheduler("nobody");
        waits.create(&cluster.kube).await?;
        let warm_on = async |nodes: &str, percents: [u8; 3]| {
            let done = |status: &Value| {
                status["nodes"]["summary"] == nodes && status["conditions"][0]["reason"] == "Complete"
            };
            progress(cluster, done).await?;
            let seen = cluster.explain("images").await?;
            let found = ["node-1", "node-2", "node-3"].map(|node| seen.percent(node));
            assert_eq!(found, percents, "{seen:?}");
            anyhow::Ok(())
        };
        warm_on("1/1", [0, 0, 100]).await?;
        // One that is bound, and gets more than it asks for itself.
        pod("bound").datasets("images/0.bin").on_node("node-2").create(&cluster.kube).await?;
        warm_on("2/2", [0, 100, 100]).await?;

        // They run, or are gone: nobody is pending, and what was done stays done.
        let runs = ["patch", "pod", "bound", "-n", USER, "--subresource=status", "--type=merge", "-p"];
        cluster.kube.kubectl(&[&runs[..], &[r#"{"status":{"phase":"Running"}}"#]].concat(), "").await?;
        cluster.kube.kubectl(&["delete", "pod", "waits", "-n", USER], "").await?;
        warm_on("0/0", [0, 100, 100]).await
    })
}
