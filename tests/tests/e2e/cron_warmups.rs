//! Warm-ups by schedule.

use anyhow::{Context, Result, bail, ensure};
use hearth_tests::cluster::{Cluster, e2e, nodes};
use hearth_tests::datasets::{FETCH, USER};
use hearth_tests::kube_access::PATIENCE;
use hearth_tests::wait::eventually;
use hearth_tests::workload::overlay;
use serde_json::{Value, json};
use std::time::Duration;

const MIB: usize = 1 << 20;

/// Makes or changes a CronWarmup `nightly` of the dataset `images`.
async fn nightly(cluster: &Cluster, spec: Value) -> Result<()> {
    let mut all =
        json!({"schedule": "0 * * * *", "warmupTemplate": {"spec": {"dataset": {"name": "images"}}}});
    overlay(&mut all, &spec);
    let object = json!({
        "apiVersion": "hearth.dev/v1alpha1", "kind": "CronWarmup",
        "metadata": {"name": "nightly", "namespace": USER},
        "spec": all,
    });
    cluster.kube.apply(&object.to_string()).await
}

/// As if it had last been at work long ago, so that a run is due at once and nobody waits for a minute to pass.
async fn was_last_at_work_long_ago(cluster: &Cluster) -> Result<()> {
    let status = json!({"status": {"lastScheduleTime": "2026-01-01T00:00:00Z"}}).to_string();
    let patch =
        ["patch", "cronwarmups.hearth.dev", "nightly", "--subresource=status", "--type=merge", "-p", &status];
    cluster.kube.kubectl(&patch, "").await.map(drop)
}

async fn warmups(cluster: &Cluster) -> Result<Vec<Value>> {
    let text = cluster.kube.kubectl(&["get", "warmups.hearth.dev", "-n", USER, "-o", "json"], "").await?;
    let mut list: Value = serde_json::from_str(&text)?;
    let Some(Value::Array(items)) = list.get_mut("items").map(Value::take) else { bail!("no list: {list}") };
    Ok(items)
}

/// Waits for a state of `nightly` and its Warmups that is as told, and returns it.
async fn seen(
    cluster: &Cluster,
    what: &str,
    is: impl Fn(&Value, &[Value]) -> bool,
) -> Result<(Value, Vec<Value>)> {
    // Of the schedule `* * * * *` a run is due within a minute.
    eventually(what, FETCH + PATIENCE, async || {
        let status = cluster.resource("cronwarmup", "nightly").await?["status"].clone();
        let warmups = warmups(cluster).await?;
        if is(&status, &warmups) { Ok((status, warmups)) } else { bail!("{status} {warmups:?}") }
    })
    .await
}

fn reason(status: &Value) -> &str {
    status["conditions"][0]["reason"].as_str().unwrap_or_default()
}

fn complete(warmup: &Value) -> bool {
    warmup["status"]["conditions"][0]["status"] == "True"
}

fn name(warmup: &Value) -> &str {
    warmup["metadata"]["name"].as_str().unwrap_or_default()
}

#[test]
fn warm_ups_are_made_by_schedule_once_each_by_whoever_leads_and_do_as_the_policy_says() -> Result<()> {
    // Two minutes have to pass at worst.
    e2e(&nodes(2).extenders(2).more_time(Duration::from_secs(120)), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        for i in 0..4 {
            bucket.put(&format!("images/{i}.bin"), vec![i; MIB]).await?;
        }
        cluster.s3_dataset("images", &bucket, "images").await?;

        nightly(cluster, json!({"schedule": "0 0 30 2 *"})).await?;
        let (status, _) =
            seen(cluster, "the schedule to be refused", |status, _| reason(status) == "InvalidSpec").await?;
        assert_eq!(
            status["conditions"][0]["message"],
            "spec.schedule \"0 0 30 2 *\" names a day that never comes"
        );
        nightly(cluster, json!({"timeZone": "Mars/Olympus"})).await?;
        seen(cluster, "the time zone to be refused", |status, _| {
            status["conditions"][0]["message"].as_str().is_some_and(|text| text.contains("Mars/Olympus"))
        })
        .await?;
        nightly(cluster, json!({"suspend": true})).await?;
        seen(cluster, "it to be suspended", |status, _| reason(status) == "Suspended").await?;
        was_last_at_work_long_ago(cluster).await?;

        // Missed for months: the latest is made, and no other. It is that of the last full hour.
        let one_node = json!({"warmupTemplate": {"spec": {"nodes": {"replicas": 1}}, "metadata": {"labels": {"team": "vision"}}}});
        nightly(cluster, one_node.clone()).await?;
        let (status, made) = seen(cluster, "one Warmup to be complete", |status, warmups| {
            warmups.iter().any(complete)
                && status["active"].is_null()
                && status["lastSuccessfulTime"].is_string()
        })
        .await?;
        assert_eq!((made.len(), reason(&status)), (1, "Scheduled"), "{status}");
        let first = name(&made[0]).to_owned();
        let minutes: i64 = first.strip_prefix("nightly-").context("its name")?.parse()?;
        assert_eq!((minutes % 60, &made[0]["metadata"]["labels"]["team"]), (0, &json!("vision")), "{made:?}");
        ensure!(status["nextScheduleTime"].as_str() > status["lastScheduleTime"].as_str(), "{status}");
        let warm = cluster.explain("images").await?;
        let chosen: Vec<&str> =
            warm.nodes.iter().filter(|node| node.percent == 100).map(|node| node.node.as_str()).collect();
        assert_eq!(chosen.len(), 1, "{warm:?}");

        // Another replica leads, and makes none a second time. With another schedule one is due at once: a new version
        // has come, and it goes to the node of the last one.
        let leader = cluster.leader().await?;
        cluster.extenders[leader].workload.kill();
        for i in 4..8 {
            bucket.put(&format!("images/{i}.bin"), vec![i; MIB]).await?;
        }
        let mut eager = json!({"refresh": "10s"});
        overlay(
            &mut eager,
            &json!({"origins": [cluster.resource("dataset", "images").await?["spec"]["origins"][0]]}),
        );
        cluster.dataset("images", eager).await?;
        eventually("the new version to be listed", FETCH, async || {
            let seen = cluster.resource("dataset", "images").await?;
            ensure!(seen["status"]["version"]["files"] == 8, "{}", seen["status"]);
            Ok(())
        })
        .await?;
        cluster.s3.proxy.hold_gets_after(0);
        let mut every_minute = json!({"schedule": "* * * * *"});
        overlay(&mut every_minute, &one_node);
        nightly(cluster, every_minute.clone()).await?;
        let (status, made) = seen(cluster, "a second Warmup", |status, warmups| {
            warmups.len() == 2 && status["active"].as_array().is_some_and(|active| active.len() == 1)
        })
        .await?;
        assert!(made.iter().any(|warmup| name(warmup) == first), "{made:?}");
        let second = status["active"][0].as_str().context("its name")?.to_owned();

        // Forbid: the next waits. Replace: it takes the other's place.
        let (status, _) = seen(cluster, "the next to wait", |status, _| reason(status) == "Waits").await?;
        ensure!(status["active"] == json!([second]), "{status}");
        overlay(&mut every_minute, &json!({"concurrencyPolicy": "Replace"}));
        nightly(cluster, every_minute.clone()).await?;
        seen(cluster, "the next to take its place", |status, warmups| {
            warmups.len() == 2
                && warmups.iter().all(|warmup| name(warmup) != second)
                && status["active"].as_array().is_some_and(|active| active.len() == 1)
        })
        .await?;
        overlay(&mut every_minute, &json!({"suspend": true, "successfulWarmupsHistoryLimit": 1}));
        nightly(cluster, every_minute).await?;
        cluster.s3.proxy.release_gets();
        let (_, made) = seen(cluster, "only the last to be kept", |status, warmups| {
            warmups.len() == 1 && complete(&warmups[0]) && status["active"].is_null()
        })
        .await?;
        assert_ne!(name(&made[0]), first);
        for node in ["node-1", "node-2"] {
            let expected = if chosen.contains(&node) { 100 } else { 0 };
            assert_eq!(
                cluster.extenders[1 - leader].explain("images").await?.percent(node),
                expected,
                "{node}"
            );
        }

        // They go with it.
        cluster.kube.kubectl(&["delete", "cronwarmups.hearth.dev", "nightly"], "").await?;
        eventually("its Warmups to be gone", FETCH, async || {
            let left = warmups(cluster).await?;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await
    })
}
