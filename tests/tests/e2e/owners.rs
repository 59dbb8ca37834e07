//! Pods of one owner get one version of a dataset, whatever is refreshed while they start.

use anyhow::{Context, Result, ensure};
use hearth_tests::cluster::{Cluster, e2e, nodes};
use hearth_tests::datasets::{FETCH, USER};
use hearth_tests::kube_access::PATIENCE;
use hearth_tests::pods::pod;
use hearth_tests::s3::Bucket;
use hearth_tests::wait::eventually;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const MIB: usize = 1 << 20;

/// A dataset `images` of one file; its bucket and its version.
async fn images(cluster: &Cluster) -> Result<(Bucket, String)> {
    let bucket = cluster.s3.bucket("data")?;
    bucket.put("images/old.bin", vec![1; MIB]).await?;
    cluster.s3_dataset_with("images", &bucket, "images", json!({"refresh": "10s"})).await?;
    let version = version(cluster).await?;
    Ok((bucket, version))
}

async fn version(cluster: &Cluster) -> Result<String> {
    let status = cluster.resource("dataset", "images").await?["status"].clone();
    Ok(status["version"]["manifest"].as_str().context("no version")?.to_owned())
}

/// Waits for another version than `old`.
async fn refreshed(cluster: &Cluster, old: &str) -> Result<String> {
    eventually("a new version to be listed", FETCH, async || {
        let version = version(cluster).await?;
        ensure!(version != old, "it is still {version}");
        Ok(version)
    })
    .await
}

/// Waits until exactly these owners hold these versions.
async fn held(cluster: &Cluster, expected: &[(&str, &str)]) -> Result<()> {
    let expected: BTreeMap<&str, &str> = expected.iter().copied().collect();
    eventually(&format!("{expected:?} to be held"), PATIENCE, async || {
        let status = cluster.resource("dataset", "images").await?["status"].clone();
        let held = status["held"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let found: BTreeMap<String, String> =
            held.iter().map(|held| (text(&held["owner"]), text(&held["manifest"]))).collect();
        let found: BTreeMap<&str, &str> = found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        ensure!(found == expected, "{found:?}");
        Ok(())
    })
    .await
}

/// Waits until a replica tells a person that the pod gets this version, and whether that stays so.
async fn gets(cluster: &Cluster, pod: &str, version: &str, held: bool) -> Result<()> {
    let expected = format!("version {version} of default/images{}", if held { ", held" } else { "" });
    for extender in &cluster.extenders {
        eventually(&format!("pod {pod} to get {expected}"), PATIENCE, async || {
            let told = extender.told(USER, pod).await?;
            ensure!(told.lines().any(|line| line == expected), "{told}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Waits until the Job has made so many pods and all are on nodes; their names.
async fn pods_of_job(cluster: &Cluster, count: usize) -> Result<Vec<String>> {
    eventually(&format!("{count} pods of the Job on nodes"), PATIENCE, async || {
        let of_job = ListParams::default().labels("batch.kubernetes.io/job-name=train");
        let pods = cluster.kube.api::<Pod>(USER).list(&of_job).await?.items;
        let placed = pods.iter().filter(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()));
        let names: Vec<String> = placed.map(ResourceExt::name_any).collect();
        ensure!(names.len() == count, "{names:?}");
        Ok(names)
    })
    .await
}

#[test]
fn pods_of_one_job_see_one_version_through_a_refresh_and_the_leaders_death() -> Result<()> {
    e2e(&nodes(2).extenders(2), async |cluster| {
        let (bucket, old) = images(cluster).await?;
        let job: Job = cluster
            .kube
            .create(
                USER,
                json!({
                    "metadata": {"name": "train"},
                    "spec": {"parallelism": 1, "template": {
                        "metadata": {"annotations": {"hearth.dev/datasets": "images"}},
                        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}]},
                    }},
                }),
            )
            .await?;
        let job = job.uid().context("the Job has no UID")?;
        pods_of_job(cluster, 1).await?;
        held(cluster, &[(&job, &old)]).await?;

        bucket.put("images/new.bin", vec![2; MIB]).await?;
        let new = refreshed(cluster, &old).await?;
        let leader = cluster.leader().await?;
        cluster.extenders.remove(leader).workload.kill();

        let more = r#"{"spec": {"parallelism": 3}}"#;
        cluster.kube.kubectl(&["patch", "job", "train", "-n", USER, "-p", more], "").await?;
        for pod in pods_of_job(cluster, 3).await? {
            gets(cluster, &pod, &old, true).await?;
        }
        held(cluster, &[(&job, &old)]).await?;
        // Nobody has asked for the new version's data so far; a pod by itself does.
        let fetched = || cluster.s3.proxy.counts().by_object.into_keys().collect::<Vec<_>>();
        assert_eq!(fetched(), ["data/images/old.bin"]);
        cluster.place("alone", "images").await?;
        gets(cluster, "alone", &new, false).await?;
        eventually("the new version to be fetched", FETCH, async || {
            ensure!(fetched().contains(&"data/images/new.bin".to_owned()), "{:?}", fetched());
            Ok(())
        })
        .await
    })
}

#[test]
fn a_pod_gets_the_version_that_it_names_or_is_told_why_not() -> Result<()> {
    e2e(&nodes(2), async |cluster| {
        let (bucket, old) = images(cluster).await?;
        let named = |name: &str, version: &str| {
            pod(name).datasets("images").annotation("hearth.dev/version", version)
        };
        named("keeps", &old).create(&cluster.kube).await?;
        let owner = format!("version/{old}");
        held(cluster, &[(&owner, &old)]).await?;
        bucket.put("images/new.bin", vec![2; MIB]).await?;
        let new = refreshed(cluster, &old).await?;
        named("comes-later", &format!("images={old}")).create(&cluster.kube).await?;
        cluster.kube.node_of(USER, "comes-later", PATIENCE).await?;
        gets(cluster, "comes-later", &old, true).await?;
        cluster.place("names-none", "images").await?;
        gets(cluster, "names-none", &new, false).await?;

        for (name, version, why) in [
            ("unknown", "00".repeat(32), "neither its current version nor one that its status holds"),
            ("bad", "newest".to_owned(), "should be VERSION"),
        ] {
            named(name, &version).create(&cluster.kube).await?;
            cluster.kube.event(USER, name, why, PATIENCE).await?;
        }
        Ok(())
    })
}
