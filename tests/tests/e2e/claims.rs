//! Every dataset has a claim `hearth-NAME` wherever it may be used, for as long as it may, and pods that mount only
//! the claim are placed by warmth. Kubernetes' own controllers bind, protect and collect.

use anyhow::{Context, Result, bail, ensure};
use hearth_tests::cluster::{Cluster, e2e, nodes};
use hearth_tests::datasets::{FETCH, USER};
use hearth_tests::kube_access::PATIENCE;
use hearth_tests::pods::pod;
use hearth_tests::wait::eventually;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

const CLAIM: &str = "hearth-weights";

/// Makes the dataset `weights` of a local folder, or changes whom it is shared with.
async fn dataset(cluster: &Cluster, namespace: &str, shared_with: &[&str]) -> Result<()> {
    let dir = cluster.dir().join("origin");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("weights.bin"), vec![1; 5 << 20])?;
    let dataset = json!({
        "apiVersion": "hearth.dev/v1alpha1", "kind": "Dataset",
        "metadata": {"name": "weights", "namespace": namespace},
        "spec": {
            "origins": [{"uri": format!("file://{}", dir.display())}],
            "shareWith": {"namespaces": shared_with},
        },
    });
    cluster.kube.apply(&dataset.to_string()).await
}

async fn delete_dataset(cluster: &Cluster, namespace: &str) -> Result<()> {
    cluster.kube.kubectl(&["delete", "datasets.hearth.dev", "weights", "-n", namespace], "").await.map(drop)
}

/// Waits until the claim is bound to a volume that knows it, and returns both.
async fn bound(cluster: &Cluster, namespace: &str) -> Result<(PersistentVolumeClaim, PersistentVolume)> {
    bound_to_other_than(cluster, namespace, "").await
}

/// Likewise, of a claim that is not the one of this UID.
async fn bound_to_other_than(
    cluster: &Cluster,
    namespace: &str,
    before: &str,
) -> Result<(PersistentVolumeClaim, PersistentVolume)> {
    eventually(&format!("claim {namespace}/{CLAIM} to be bound"), FETCH, async || {
        let claim = cluster.kube.api::<PersistentVolumeClaim>(namespace).get(CLAIM).await?;
        let (uid, phase) =
            (claim.uid().unwrap_or_default(), claim.status.as_ref().and_then(|s| s.phase.clone()));
        let ending = claim.metadata.deletion_timestamp.is_some();
        ensure!(
            uid != before && !ending && phase.as_deref() == Some("Bound"),
            "{uid} is {phase:?}, ending: {ending}"
        );
        let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).context("no volume")?;
        let volume = cluster.kube.all::<PersistentVolume>().get(&volume).await?;
        let of = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()?.uid.clone());
        ensure!(of.as_ref() == Some(&uid), "the volume is of {of:?}");
        Ok((claim, volume))
    })
    .await
}

/// Waits until there is no claim in a namespace.
async fn no_claim(cluster: &Cluster, namespace: &str) -> Result<()> {
    eventually(&format!("claim {namespace}/{CLAIM} to be gone"), FETCH, async || {
        match cluster.kube.api::<PersistentVolumeClaim>(namespace).get_opt(CLAIM).await? {
            None => Ok(()),
            Some(claim) => bail!("{:?}", claim.metadata),
        }
    })
    .await
}

/// Waits until there are so many volumes of ours, and none of them is without its claim.
async fn volumes(cluster: &Cluster, count: usize) -> Result<()> {
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=hearth");
    eventually(&format!("{count} volumes"), FETCH, async || {
        let seen = cluster.kube.all::<PersistentVolume>().list(&ours).await?.items;
        let phases: Vec<_> =
            seen.iter().map(|volume| volume.status.as_ref().and_then(|s| s.phase.as_deref())).collect();
        ensure!(phases.len() == count && phases.iter().all(|phase| *phase == Some("Bound")), "{phases:?}");
        Ok(())
    })
    .await
}

#[test]
fn a_claim_is_there_wherever_the_dataset_may_be_used_and_places_its_pods() -> Result<()> {
    e2e(&nodes(3), async |cluster| {
        cluster.kube.create_namespace("team").await?;
        dataset(cluster, USER, &["team", "later"]).await?;
        let (claim, volume) = bound(cluster, USER).await?;
        let spec = serde_json::to_value(volume.spec)?;
        assert_eq!(
            (&spec["csi"]["driver"], &spec["accessModes"]),
            (&json!("hearth.dev"), &json!(["ReadOnlyMany"]))
        );
        assert_eq!(spec["csi"]["volumeAttributes"], json!({"dataset": "weights"}));
        assert_eq!(claim.owner_references()[0].kind, "Dataset");
        assert_eq!(claim.labels()["hearth.dev/dataset"], "weights");
        let status: Value = serde_json::to_value(claim.status)?;
        assert_eq!(status["capacity"]["storage"], "1Gi");
        let (_, volume) = bound(cluster, "team").await?;
        let spec = serde_json::to_value(volume.spec)?;
        assert_eq!(spec["csi"]["volumeAttributes"], json!({"dataset": "default:weights"}));
        cluster.kube.create_namespace("later").await?;
        bound(cluster, "later").await?;

        cluster.listed("weights").await?;
        cluster.warm_up("weights", "node-2").await?;
        for namespace in [USER, "team"] {
            let mounts = pod("mounts").namespace(namespace).claims(CLAIM).required("100%");
            mounts.create(&cluster.kube).await?;
            assert_eq!(cluster.kube.node_of(namespace, "mounts", PATIENCE).await?, "node-2", "{namespace}");
            cluster.kube.event(namespace, "mounts", "node-2 holds 100 %", PATIENCE).await?;
        }

        // Not while a pod uses it.
        dataset(cluster, USER, &["later"]).await?;
        eventually("the claim's end to be asked for", PATIENCE, async || {
            let claim = cluster.kube.api::<PersistentVolumeClaim>("team").get(CLAIM).await?;
            ensure!(claim.metadata.deletion_timestamp.is_some(), "it is to stay");
            Ok(())
        })
        .await?;
        volumes(cluster, 3).await?;
        cluster.kube.delete_pod("team", "mounts").await?;
        no_claim(cluster, "team").await?;
        volumes(cluster, 2).await?;

        cluster.kube.delete_pod(USER, "mounts").await?;
        delete_dataset(cluster, USER).await?;
        no_claim(cluster, USER).await?;
        no_claim(cluster, "later").await?;
        volumes(cluster, 0).await
    })
}

#[test]
fn what_goes_and_comes_again_is_bound_again() -> Result<()> {
    e2e(&nodes(1), async |cluster| {
        cluster.kube.create_namespace("team").await?;
        dataset(cluster, USER, &["team"]).await?;
        let (claim, _) = bound(cluster, USER).await?;
        bound(cluster, "team").await?;

        delete_dataset(cluster, USER).await?;
        dataset(cluster, USER, &["team"]).await?;
        let (claim, _) = bound_to_other_than(cluster, USER, &claim.uid().unwrap_or_default()).await?;
        bound(cluster, "team").await?;

        for (namespace, uid) in [(USER, claim.uid()), ("team", bound(cluster, "team").await?.0.uid())] {
            let claims = cluster.kube.api::<PersistentVolumeClaim>(namespace);
            claims.delete(CLAIM, &DeleteParams::default()).await?;
            bound_to_other_than(cluster, namespace, &uid.unwrap_or_default()).await?;
        }
        volumes(cluster, 2).await?;

        // What changes while nobody leads is seen by the next who does.
        cluster.extenders[0].workload.kill();
        let end = ["delete", "datasets.hearth.dev", "weights", "-n", USER, "--wait=false"];
        cluster.kube.kubectl(&end, "").await?;
        cluster.extenders[0].workload.start().await?;
        no_claim(cluster, USER).await?;
        no_claim(cluster, "team").await?;
        volumes(cluster, 0).await
    })
}

#[test]
fn what_is_not_hearths_is_left_alone_and_the_owner_is_told() -> Result<()> {
    e2e(&nodes(1), async |cluster| {
        for namespace in ["team", "other"] {
            cluster.kube.create_namespace(namespace).await?;
        }
        let foreign = json!({
            "metadata": {"name": CLAIM},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        });
        let foreign: PersistentVolumeClaim = cluster.kube.create("team", foreign).await?;
        dataset(cluster, USER, &["team"]).await?;
        bound(cluster, USER).await?;
        let told = cluster.kube.event(USER, "weights", "was not made by Hearth", PATIENCE).await?;
        assert!(told.starts_with("ClaimProblem: in namespace team the claim hearth-weights"), "{told}");
        let seen = cluster.kube.api::<PersistentVolumeClaim>("team").get(CLAIM).await?;
        assert_eq!((seen.uid(), seen.metadata.labels), (foreign.uid(), None));

        // Nor could it: RBAC alone would let it.
        let account = "--as=system:serviceaccount:hearth-system:hearth-extender";
        let refused = cluster.kube.kubectl(&["delete", "pvc", CLAIM, "-n", "team", account], "").await;
        let refused = refused.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.contains("only claims and volumes that are labelled"), "{refused:?}");

        dataset(cluster, "other", &[USER]).await?;
        let told = cluster.kube.event("other", "weights", "a Dataset of its own", PATIENCE).await?;
        assert!(told.contains("in namespace default") && told.contains("dataset: other:weights"), "{told}");

        cluster.kube.kubectl(&["delete", "pvc", CLAIM, "-n", "team"], "").await?;
        bound(cluster, "team").await?;
        Ok(())
    })
}
