//! Pods on real nodes read datasets through kubelet and the CSI driver, with Hearth installed as it is shipped.
//!
//! One cluster for all cases, one after the other: it takes longer to start than they do to run.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use hearth_tests::datasets::{FETCH, USER};
use hearth_tests::real_nodes::{PODS, RealCluster, digest, e2e, reader};
use hearth_tests::wait::eventually;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::json;

/// The right digest of each dataset.
type Digests = BTreeMap<String, String>;

#[test]
fn pods_read_their_data() -> Result<()> {
    e2e(async |cluster| {
        let digests = datasets(cluster).await?;
        a_pod_goes_to_the_warm_node_and_reads(cluster, &digests).await?;
        nothing_can_be_written(cluster).await?;
        a_pod_on_a_cold_node_starts_at_once_and_fetches_what_it_reads(cluster, &digests).await?;
        a_pod_reads_on_by_fuse_while_its_agent_is_replaced(cluster, &digests).await?;
        two_datasets_in_one_pod(cluster, &digests).await?;
        a_claim_of_a_dataset(cluster, &digests).await?;
        nobody_reads_what_is_not_shared_with_him(cluster).await?;
        a_dataset_deleted_while_it_is_read(cluster, &digests).await?;
        an_agent_that_is_replaced_while_a_pod_reads(cluster, &digests).await?;
        a_kubelet_that_is_restarted_while_a_pod_reads(cluster, &digests).await?;
        a_node_that_loses_power(cluster, &digests).await?;
        Ok(())
    })
}

/// Uploads two folders of small and larger files and makes datasets of them.
async fn datasets(cluster: &RealCluster) -> Result<Digests> {
    let bucket = cluster.s3.bucket("data")?;
    let mut digests = Digests::new();
    for (name, seed) in [("images", 3), ("labels", 5)] {
        let source = cluster.dir().join("source").join(name);
        for i in 0..20_u32 {
            let folder = source.join(format!("part-{}", i % 3));
            std::fs::create_dir_all(&folder)?;
            // Some end within a block, and one has several.
            let length = if i == 7 { 9 << 20 } else { 1000 * i as usize };
            let byte = |n: usize| (n.wrapping_mul(seed) >> 3 ^ n ^ i as usize) as u8;
            std::fs::write(folder.join(format!("{i}.bin")), (0..length).map(byte).collect::<Vec<_>>())?;
        }
        bucket.put_tree(&source, name, |_| {}).await?;
        cluster.dataset(name, &bucket, name).await?;
        digests.insert(name.to_owned(), digest(&source)?);
    }
    Ok(digests)
}

async fn a_pod_goes_to_the_warm_node_and_reads(cluster: &RealCluster, digests: &Digests) -> Result<()> {
    cluster.warm("images", "node-2").await?;
    let before = cluster.s3.proxy.counts().bytes;
    reader("warm").mounts("images").create(&cluster.kube).await?;
    let (seen, node) = cluster.ended("warm").await?;
    ensure!(node == "node-2", "it was put on {node}");
    ensure!(seen == digests["images"], "it read {seen:?}, and {digests:?} is right");
    ensure!(cluster.s3.proxy.counts().bytes == before, "what was warm was fetched again");
    cluster.delete("warm").await
}

async fn nothing_can_be_written(cluster: &RealCluster) -> Result<()> {
    let script =
        "cd /data/images; { touch new; echo x >part-0/3.bin; rm part-1/4.bin; } 2>/dev/termination-log; true";
    reader("writer").mounts("images").on("node-2").script(script).create(&cluster.kube).await?;
    let (seen, _) = cluster.ended("writer").await?;
    ensure!(seen.matches("Read-only file system").count() == 3, "it was told {seen:?}");
    cluster.delete("writer").await
}

async fn a_pod_on_a_cold_node_starts_at_once_and_fetches_what_it_reads(
    cluster: &RealCluster,
    digests: &Digests,
) -> Result<()> {
    let before = cluster.s3.proxy.counts().gets;
    cluster.s3.proxy.hold_gets_after(3);
    reader("cold").mounts("labels").on("node-3").create(&cluster.kube).await?;
    eventually("the pod to run before its data is there", FETCH, async || {
        let phase = cluster.kube.api::<Pod>(USER).get("cold").await?.status.and_then(|status| status.phase);
        ensure!(phase.as_deref() == Some("Running"), "it is {phase:?}");
        Ok(())
    })
    .await?;
    let gets = cluster.s3.proxy.counts().gets;
    ensure!(gets >= before, "{gets} GETs, {before} before");
    cluster.s3.proxy.release_gets();
    let (seen, node) = cluster.ended("cold").await?;
    ensure!(
        node == "node-3" && seen == digests["labels"],
        "on {node} it read {seen:?}; {digests:?} is right"
    );
    cluster.delete("cold").await
}

async fn a_pod_reads_on_by_fuse_while_its_agent_is_replaced(
    cluster: &RealCluster,
    digests: &Digests,
) -> Result<()> {
    // Nothing of it is there when the volume is made, so that it is a FUSE view for the pod's whole life.
    cluster.s3.proxy.hold_gets_after(0);
    let pod =
        reader("reads-on").mounts("labels").on("node-1").for_ever(digests).create(&cluster.kube).await?;
    eventually("its volume to be mounted", PODS, async || {
        let (mounts, _) = traces(cluster, "node-1")?;
        ensure!(mounts.iter().any(|line| line.contains("fuse.hearth")), "{mounts:?}");
        Ok(())
    })
    .await?;
    cluster.s3.proxy.release_gets();
    cluster.goes_on(&pod, 2).await?;
    replace_agent(cluster, "node-1").await?;
    cluster.goes_on(&pod, 3).await?;
    one_trace(cluster, "node-1")?;
    cluster.delete("reads-on").await?;
    no_trace(cluster, "node-1").await
}

async fn two_datasets_in_one_pod(cluster: &RealCluster, digests: &Digests) -> Result<()> {
    reader("both").mounts("images").mounts("labels").as_nobody().on("node-2").create(&cluster.kube).await?;
    let (seen, _) = cluster.ended("both").await?;
    let right = format!("{}\n{}", digests["images"], digests["labels"]);
    ensure!(seen == right, "it read {seen:?}, and {right:?} is right");
    cluster.delete("both").await?;
    no_trace(cluster, "node-2").await
}

async fn a_claim_of_a_dataset(cluster: &RealCluster, digests: &Digests) -> Result<()> {
    reader("claimant").claims("images").on("node-2").create(&cluster.kube).await?;
    let (seen, _) = cluster.ended("claimant").await?;
    ensure!(seen == digests["images"], "it read {seen:?}, and {digests:?} is right");
    cluster.delete("claimant").await?;
    no_trace(cluster, "node-2").await
}

async fn nobody_reads_what_is_not_shared_with_him(cluster: &RealCluster) -> Result<()> {
    cluster.kube.create_namespace("thief").await?;
    let forged = [
        ("names", json!({"dataset": "default:images"}), "default/images"),
        // kubelet's own words go over these.
        (
            "pretends",
            json!({"dataset": "images", "csi.storage.k8s.io/pod.namespace": "default"}),
            "thief/images",
        ),
    ];
    for (name, attributes, dataset) in forged {
        let pod = reader(name).namespace("thief").mounts_with("images", &attributes).on("node-2");
        pod.create(&cluster.kube).await?;
        let event = cluster.kube.event("thief", name, "spec.shareWith", PODS).await?;
        ensure!(event.contains(&format!("Dataset {dataset}")), "{event}");
        let status = cluster.kube.api::<Pod>("thief").get(name).await?.status.unwrap_or_default();
        ensure!(status.phase.as_deref() == Some("Pending"), "{status:?}");
    }
    cluster.kube.kubectl(&["delete", "namespace", "thief", "--wait=false"], "").await?;
    Ok(())
}

async fn a_dataset_deleted_while_it_is_read(cluster: &RealCluster, digests: &Digests) -> Result<()> {
    let bucket = cluster.s3.bucket("data")?;
    cluster.dataset("doomed", &bucket, "images").await?;
    let right = Digests::from([("doomed".to_owned(), digests["images"].clone())]);
    let pod = reader("mourner").mounts("doomed").on("node-1").for_ever(&right).create(&cluster.kube).await?;
    cluster.goes_on(&pod, 2).await?;
    cluster.kube.kubectl(&["delete", "dataset.hearth.dev", "doomed", "-n", USER], "").await?;
    cluster.goes_on(&pod, 10).await?;
    cluster.delete("mourner").await?;
    no_trace(cluster, "node-1").await
}

async fn an_agent_that_is_replaced_while_a_pod_reads(cluster: &RealCluster, digests: &Digests) -> Result<()> {
    let pod = reader("steady").mounts("images").on("node-2").for_ever(digests).create(&cluster.kube).await?;
    cluster.goes_on(&pod, 2).await?;
    replace_agent(cluster, "node-2").await?;
    cluster.goes_on(&pod, 3).await?;

    let restart = ["rollout", "restart", "daemonset", "hearth-node-agent", "-n", "hearth-system"];
    cluster.kube.kubectl(&restart, "").await?;
    cluster.rolled_out("hearth-node-agent").await?;
    cluster.goes_on(&pod, 3).await?;
    one_trace(cluster, "node-2")?;
    can_mount(cluster, "after-the-agent", "node-2", digests).await?;
    // A volume that an earlier agent published is taken away by the present one.
    cluster.delete("steady").await?;
    no_trace(cluster, "node-2").await
}

async fn a_kubelet_that_is_restarted_while_a_pod_reads(
    cluster: &mut RealCluster,
    digests: &Digests,
) -> Result<()> {
    let pod = reader("patient").mounts("images").on("node-2").for_ever(digests).create(&cluster.kube).await?;
    cluster.goes_on(&pod, 2).await?;
    let node = cluster.node("node-2")?;
    node.kill_kubelet();
    node.start_kubelet()?;
    can_mount(cluster, "after-kubelet", "node-2", digests).await?;
    cluster.goes_on(&pod, 3).await?;
    cluster.delete("patient").await?;
    no_trace(cluster, "node-2").await
}

async fn a_node_that_loses_power(cluster: &mut RealCluster, digests: &Digests) -> Result<()> {
    let pod =
        reader("survivor").mounts("labels").on("node-3").for_ever(digests).create(&cluster.kube).await?;
    cluster.goes_on(&pod, 2).await?;
    let (_, starts) = cluster.rounds(&pod).await?;
    let node = cluster.node("node-3")?;
    node.power_off().await?;
    node.power_on().await?;
    eventually("the pod to read again", PODS, async || {
        let (rounds, seen) = cluster.rounds(&pod).await?;
        let events = cluster.kube.events(USER, "survivor").await?;
        ensure!(seen > starts && rounds > 0, "{rounds} rounds in start {seen}: {events:?}");
        Ok(())
    })
    .await?;
    one_trace(cluster, "node-3")?;
    can_mount(cluster, "after-the-power-cut", "node-3", digests).await?;
    cluster.delete("survivor").await?;
    no_trace(cluster, "node-3").await
}

/// Deletes the agent's pod on a node and waits for the next one.
async fn replace_agent(cluster: &RealCluster, node: &str) -> Result<()> {
    let old = cluster.agent_of(node).await?;
    cluster.kube.api::<Pod>("hearth-system").delete(&old, &DeleteParams::default()).await?;
    eventually(&format!("another agent on {node}"), PODS, async || match cluster.agent_of(node).await? {
        new if new == old => bail!("{old} is still there"),
        _ => Ok(()),
    })
    .await?;
    cluster.rolled_out("hearth-node-agent").await
}

/// A new pod on this node reads.
async fn can_mount(cluster: &RealCluster, name: &str, node: &str, digests: &Digests) -> Result<()> {
    reader(name).mounts("labels").on(node).create(&cluster.kube).await?;
    let (seen, _) = cluster.ended(name).await?;
    ensure!(seen == digests["labels"], "{name} read {seen:?}, and {digests:?} is right");
    cluster.delete(name).await
}

/// One volume of ours is mounted on this node as it should be, and is on record.
fn one_trace(cluster: &RealCluster, node: &str) -> Result<()> {
    let (mounts, records) = traces(cluster, node)?;
    ensure!(mounts.len() == 1 && records == 1, "{records} on record; mounted: {mounts:?}");
    ensure!(mounts[0].contains(" ro,nosuid,nodev"), "{mounts:?}");
    Ok(())
}

/// No volume of ours is mounted on this node any more, and none is on record.
async fn no_trace(cluster: &RealCluster, node: &str) -> Result<()> {
    eventually(&format!("{node} to have no volume left"), PODS, async || {
        let (mounts, records) = traces(cluster, node)?;
        ensure!(mounts.is_empty() && records == 0, "{records} on record; mounted: {mounts:?}");
        Ok(())
    })
    .await
}

/// The volumes that are mounted on a node, and how many are on record.
fn traces(cluster: &RealCluster, node: &str) -> Result<(Vec<String>, usize)> {
    let node = cluster.nodes.get(node).with_context(|| format!("there is no {node}"))?;
    let mounts = node.mounts()?;
    let mounts = mounts.lines().filter(|line| line.contains("kubernetes.io~csi"));
    let records = std::fs::read_dir(node.disk("/var/lib/hearth/views/volumes"))?.count();
    Ok((mounts.map(str::to_owned).collect(), records))
}
