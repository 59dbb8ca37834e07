//! One batch of pods, scheduled with Hearth and without.

use std::time::{Duration, Instant};

use anyhow::Result;
use hearth_tests::cluster::Cluster;
use hearth_tests::datasets::USER;
use hearth_tests::kube_access::PATIENCE;
use hearth_tests::pods::pod;
use serde_json::json;

use crate::data::{IMAGES, MODEL};

/// A pod to be, and what it reads.
struct Plan {
    name: String,
    datasets: String,
}

/// The pods of the demo.
pub(crate) struct Batch {
    plans: Vec<Plan>,
}

/// Where one pod went.
pub(crate) struct Placed {
    pub(crate) name: String,
    pub(crate) datasets: String,
    /// Bytes that it asks for.
    pub(crate) requested: u64,
    pub(crate) node: String,
    /// How much of them the node held when the pod was created.
    pub(crate) percent: u8,
}

/// What came of a batch.
pub(crate) struct Outcome {
    pub(crate) pods: Vec<Placed>,
    /// Bytes that the origin had to send.
    pub(crate) origin_bytes: u64,
    /// Requests that it had to answer.
    pub(crate) origin_gets: u64,
    /// Until every pod's data was on its node.
    pub(crate) until_local: Duration,
}

impl Batch {
    /// Four pods that serve the model, four that train on all images, four that look at a part of them.
    pub(crate) fn new() -> Self {
        let flags = format!("{IMAGES}/signs_and_symbols/flags/**");
        let kinds = [("serve", MODEL), ("train", IMAGES), ("flags", &flags)];
        let plans = (1..=4).flat_map(|i| {
            kinds.map(|(kind, datasets)| Plan { name: format!("{kind}-{i}"), datasets: datasets.to_owned() })
        });
        Self { plans: plans.collect() }
    }

    pub(crate) fn len(&self) -> usize {
        self.plans.len()
    }

    /// Schedules all pods, by the named scheduler or the default one, and waits until all their data is local.
    pub(crate) async fn run(&self, cluster: &Cluster, scheduler: Option<&str>) -> Result<Outcome> {
        cluster.s3.proxy.reset();
        let started = Instant::now();
        let mut before = Vec::new();
        for plan in &self.plans {
            before.push(cluster.explain(&plan.datasets).await?);
        }
        for plan in &self.plans {
            // A quarter of a node each, as pods with a GPU might ask.
            let mut pod =
                pod(&plan.name).datasets(&plan.datasets).resources(json!({"requests": {"cpu": "12"}}));
            if let Some(name) = scheduler {
                pod = pod.scheduler(name);
            }
            pod.create(&cluster.kube).await?;
        }
        let mut pods = Vec::new();
        for (plan, before) in self.plans.iter().zip(before) {
            let node = cluster.kube.node_of(USER, &plan.name, PATIENCE).await?;
            pods.push(Placed {
                name: plan.name.clone(),
                datasets: plan.datasets.clone(),
                requested: before.requested_bytes,
                percent: before.percent(&node),
                node,
            });
        }
        for pod in &pods {
            cluster.warm(&pod.datasets, &pod.node, 100).await?;
        }
        let until_local = started.elapsed();
        let counts = cluster.s3.proxy.counts();
        for pod in &pods {
            cluster.kube.delete_pod(USER, &pod.name).await?;
        }
        Ok(Outcome { pods, origin_bytes: counts.bytes, origin_gets: counts.gets, until_local })
    }
}

/// A pod for a person to try.
pub(crate) fn example() -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "mine", "annotations": {"hearth.dev/datasets": MODEL}},
        "spec": {"containers": [{"name": "main", "image": "none"}]},
    })
    .to_string()
}
