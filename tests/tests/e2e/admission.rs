//! The shipped admission policies on a real API server: which pods get the gate's resources, that they lose nothing, and what the extender may change of Datasets.

use anyhow::{Context, Result};
use hearth_api::Dataset;
use hearth_tests::cluster::{Cluster, e2e, nodes};
use hearth_tests::pods::{PodPlan, pod};
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

const DATASET: &str = "hearth.dev/dataset";
const REQUIRED: &str = "hearth.dev/required";

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|s| s.init_containers.as_ref()).into_iter().flatten();
    init.chain(spec.map(|s| &s.containers).into_iter().flatten())
}

/// The quantity of a resource as `(request, limit)`, summed over no containers: one of them has to have it.
fn gate(pod: &Pod, resource: &str) -> Option<(String, String)> {
    containers(pod).find_map(|c| {
        let resources = c.resources.as_ref()?;
        let request = resources.requests.as_ref()?.get(resource)?;
        let limit = resources.limits.as_ref()?.get(resource)?;
        Some((request.0.clone(), limit.0.clone()))
    })
}

/// Creates the pod and says which of the two resources it got.
async fn gates(cluster: &Cluster, plan: PodPlan) -> Result<(bool, bool)> {
    let pod = plan.create(&cluster.kube).await?;
    for resource in [DATASET, REQUIRED] {
        if let Some(quantities) = gate(&pod, resource) {
            assert_eq!(quantities, ("0".to_owned(), "0".to_owned()), "{resource} must ask for nothing");
        }
    }
    Ok((gate(&pod, DATASET).is_some(), gate(&pod, REQUIRED).is_some()))
}

#[test]
fn pods_are_recognised_by_annotation_volume_and_claim_and_others_are_left_alone() -> Result<()> {
    e2e(&nodes(1).without_programs(), async |cluster| {
        let asked = [
            ("annotation", pod("annotation").datasets("images/train/**"), (true, false)),
            ("volume", pod("volume").mounts("images"), (true, false)),
            ("claim", pod("claim").claims("hearth-images"), (true, false)),
            ("required", pod("required").datasets("images").required("80%"), (true, true)),
            ("required volume", pod("required-volume").mounts("images").required("100%"), (true, true)),
            (
                "wait",
                pod("wait").datasets("images").annotation("hearth.dev/locality", "wait=90s"),
                (true, true),
            ),
            // A block scalar in YAML ends with a newline.
            (
                "required and a newline",
                pod("newline").datasets("images").annotation("hearth.dev/locality", "required\n"),
                (true, true),
            ),
            (
                "preferred",
                pod("preferred").datasets("images").annotation("hearth.dev/locality", "preferred"),
                (true, false),
            ),
            ("plain", pod("plain"), (false, false)),
            ("another claim", pod("another-claim").claims("my-hearth-images"), (false, false)),
            (
                "another annotation",
                pod("another").annotation("example.com/datasets", "images"),
                (false, false),
            ),
            // Locality of no data is no locality.
            ("locality alone", pod("locality-alone").required("80%"), (false, false)),
        ];
        for (what, plan, expected) in asked {
            let got = gates(cluster, plan).await.with_context(|| what.to_owned())?;
            assert_eq!(got, expected, "(dataset, required) of the pod with: {what}");
        }
        Ok(())
    })
}

#[test]
fn a_pod_keeps_its_own_requests_and_limits_in_every_shape() -> Result<()> {
    e2e(&nodes(1).without_programs(), async |cluster| {
        let own = json!({"cpu": "250m", "memory": "64Mi"});
        let shapes = [
            ("none", json!(null)),
            ("empty", json!({})),
            ("requests", json!({"requests": own})),
            ("limits", json!({"limits": own})),
            ("both", json!({"requests": own, "limits": own})),
        ];
        for (name, resources) in shapes {
            for (init, first) in [("", "containers"), ("-init", "initContainers")] {
                let mut plan = pod(&format!("{name}{init}")).datasets("images").required("80%");
                plan = match init {
                    "" => plan.resources(resources.clone()),
                    _ => plan.resources(resources.clone()).init_container(&resources),
                };
                let created = plan.create(&cluster.kube).await?;
                assert!(
                    gate(&created, DATASET).is_some() && gate(&created, REQUIRED).is_some(),
                    "{name} in {first}"
                );
                for container in containers(&created) {
                    assert_eq!(
                        without_gates(container)?,
                        defaulted(&resources),
                        "{name}, container {}",
                        container.name
                    );
                }
            }
        }
        Ok(())
    })
}

/// A container's resources as if the policy were not there.
fn without_gates(container: &Container) -> Result<Value> {
    let mut resources = serde_json::to_value(&container.resources)?;
    for part in ["requests", "limits"] {
        if let Some(map) = resources.get_mut(part).and_then(Value::as_object_mut) {
            map.remove(DATASET);
            map.remove(REQUIRED);
        }
    }
    Ok(without_empty(resources))
}

/// What the API server makes of `resources` by itself: a limit without a request is the request too.
fn defaulted(resources: &Value) -> Value {
    let mut resources = without_empty(resources.clone());
    if let Some(limits) = resources.get("limits").cloned().filter(|_| resources.get("requests").is_none()) {
        resources["requests"] = limits;
    }
    resources
}

fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().map(|(k, v)| (k, without_empty(v)));
            Value::Object(kept.filter(|(_, v)| v.as_object().is_none_or(|m| !m.is_empty())).collect())
        }
        Value::Null => json!({}),
        other => other,
    }
}

#[test]
fn a_gated_pod_is_scheduled_on_nodes_that_know_nothing_of_the_resources() -> Result<()> {
    e2e(&nodes(1).without_programs(), async |cluster| {
        // No extender runs: pods that only prefer warm nodes are placed all the same.
        pod("trainer").datasets("images").create(&cluster.kube).await?;
        let node = cluster.kube.node_of("default", "trainer", hearth_tests::kube_access::PATIENCE).await?;
        assert_eq!(node, "node-1");
        Ok(())
    })
}

#[test]
fn the_extender_may_change_nothing_of_a_dataset_but_its_finalizer() -> Result<()> {
    e2e(&nodes(1).without_programs(), async |cluster| {
        cluster.dataset("images", json!({"origins": [{"uri": "s3://bucket"}]})).await?;
        let extender = "system:serviceaccount:hearth-system:hearth-extender";
        let datasets: Api<Dataset> = Api::default_namespaced(cluster.kube.acting_as(extender).await?);
        let patch = async |patch: Value| {
            datasets.patch("images", &PatchParams::default(), &Patch::Merge(patch)).await
        };
        patch(json!({"metadata": {"finalizers": ["hearth.dev/cached-data"]}})).await?;
        let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "gone"});
        for change in [
            json!({"spec": {"refresh": "Never"}}),
            json!({"metadata": {"labels": {"a": "b"}}}),
            json!({"metadata": {"annotations": {"a": "b"}}}),
            json!({"metadata": {"ownerReferences": [owner]}}),
            json!({"metadata": {"finalizers": ["hearth.dev/cached-data", "example.com/mine"]}}),
        ] {
            let refused =
                patch(change.clone()).await.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(refused.contains("nothing of a Dataset but its own finalizer"), "{change}: {refused:?}");
        }
        patch(json!({"metadata": {"finalizers": null}})).await?;
        Ok(())
    })
}
