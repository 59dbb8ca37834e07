//! Which objects of a kind are well, as a watch tells it.

use anyhow::{Context, Result};
use futures::StreamExt;
use hearth_tests::cluster::Cluster;
use hearth_tests::datasets::USER;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, watcher};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::fmt::Debug;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Follows the objects of a kind until it is dropped.
pub(crate) struct Seen {
    well: watch::Receiver<HashSet<String>>,
    task: JoinHandle<()>,
}

impl Seen {
    /// An object is well when the condition of this type is True.
    pub(crate) fn follow<K>(cluster: &Cluster, conditions: fn(&K) -> &[Condition], kind: &'static str) -> Self
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + 'static,
    {
        let objects =
            watcher(cluster.kube.api::<K>(USER), Config::default()).default_backoff().applied_objects();
        let (sender, well) = watch::channel(HashSet::new());
        let task = tokio::spawn(async move {
            let mut objects = std::pin::pin!(objects);
            while let Some(object) = objects.next().await {
                let Ok(object) = object else { continue };
                let is_well = conditions(&object).iter().any(|one| one.type_ == kind && one.status == "True");
                sender.send_if_modified(|well| match is_well {
                    true => well.insert(object.name_any()),
                    false => well.remove(&object.name_any()),
                });
            }
        });
        Self { well, task }
    }

    /// Waits until all of these are well.
    pub(crate) async fn all(&self, what: &str, names: &[String], within: Duration) -> Result<()> {
        let mut well = self.well.clone();
        let all = well.wait_for(|well| names.iter().all(|name| well.contains(name)));
        let all = tokio::time::timeout(within, all).await;
        all.with_context(|| format!("waited {within:?} for: {what}"))?.context("the watch ended").map(drop)
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.task.abort();
    }
}
