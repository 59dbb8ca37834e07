//! Pods as users write them.

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::kube_access::Kube;

/// A pod to be created; one container that is never started.
#[derive(Debug, Clone)]
pub struct PodPlan {
    namespace: String,
    pod: Value,
}

/// A plain pod in the namespace `default`.
#[must_use]
pub fn pod(name: &str) -> PodPlan {
    PodPlan {
        namespace: "default".to_owned(),
        pod: json!({
            "metadata": {"name": name, "annotations": {}},
            "spec": {
                "containers": [{"name": "main", "image": "none"}],
                "volumes": [],
                "terminationGracePeriodSeconds": 0,
            },
        }),
    }
}

impl PodPlan {
    /// Into another namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// With `hearth.dev/datasets`.
    #[must_use]
    pub fn datasets(self, value: &str) -> Self {
        self.annotation("hearth.dev/datasets", value)
    }

    /// With `hearth.dev/locality: required`, and from how much warmth on ("80%").
    #[must_use]
    pub fn required(self, min_warm: &str) -> Self {
        self.annotation("hearth.dev/locality", "required").annotation("hearth.dev/min-warm", min_warm)
    }

    /// With any annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.pod["metadata"]["annotations"][key] = value.into();
        self
    }

    /// With an inline CSI volume of a dataset.
    #[must_use]
    pub fn mounts(self, dataset: &str) -> Self {
        self.volume(json!({
            "name": "data",
            "csi": {"driver": "hearth.dev", "readOnly": true, "volumeAttributes": {"dataset": dataset}},
        }))
    }

    /// With a volume from a claim.
    #[must_use]
    pub fn claims(self, claim: &str) -> Self {
        self.volume(json!({"name": "data", "persistentVolumeClaim": {"claimName": claim, "readOnly": true}}))
    }

    fn volume(mut self, volume: Value) -> Self {
        if let Some(volumes) = self.pod["spec"]["volumes"].as_array_mut() {
            volumes.push(volume);
        }
        self
    }

    /// With these `resources` of its container.
    #[must_use]
    pub fn resources(mut self, resources: Value) -> Self {
        self.pod["spec"]["containers"][0]["resources"] = resources;
        self
    }

    /// With an init container before its container.
    #[must_use]
    pub fn init_container(mut self, resources: &Value) -> Self {
        self.pod["spec"]["initContainers"] =
            json!([{"name": "init", "image": "none", "resources": resources}]);
        self
    }

    /// Put on a node by whoever creates it, past the scheduler.
    #[must_use]
    pub fn on_node(mut self, node: &str) -> Self {
        self.pod["spec"]["nodeName"] = node.into();
        self
    }

    /// Only for nodes with this label.
    #[must_use]
    pub fn node_selector(mut self, key: &str, value: &str) -> Self {
        self.pod["spec"]["nodeSelector"] = json!({ key: value });
        self
    }

    /// Of a priority class.
    #[must_use]
    pub fn priority_class(mut self, name: &str) -> Self {
        self.pod["spec"]["priorityClassName"] = name.into();
        self
    }

    /// For another scheduler than the default one.
    #[must_use]
    pub fn scheduler(mut self, name: &str) -> Self {
        self.pod["spec"]["schedulerName"] = name.into();
        self
    }

    /// As a ServiceAccount's.
    #[must_use]
    pub fn service_account(mut self, name: &str) -> Self {
        self.pod["spec"]["serviceAccountName"] = name.into();
        self
    }

    /// Creates it and returns what the API server made of it.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn create(self, kube: &Kube) -> Result<Pod> {
        kube.create(&self.namespace, self.pod).await
    }
}
