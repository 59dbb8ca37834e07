//! Access to the API server as one identity, in the words in which tests speak.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt as _;

use crate::binaries;
use crate::wait::eventually;

/// Long enough for a busy machine with two cores; a test that meets it has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The API server as seen by one identity.
#[derive(Clone)]
pub struct Kube {
    /// For whatever has no helper here.
    pub client: Client,
    kubeconfig: PathBuf,
}

impl std::fmt::Debug for Kube {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kube").field("kubeconfig", &self.kubeconfig).finish_non_exhaustive()
    }
}

async fn client(kubeconfig: &Path, acting_as: Option<String>) -> Result<Client> {
    install_crypto();
    let file =
        Kubeconfig::read_from(kubeconfig).with_context(|| format!("cannot read {}", kubeconfig.display()))?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    config.auth_info.impersonate = acting_as;
    Ok(Client::try_from(config)?)
}

impl Kube {
    /// Connects as the identity of a kubeconfig.
    ///
    /// # Errors
    /// When the kubeconfig cannot be used.
    pub async fn connect(kubeconfig: &Path) -> Result<Self> {
        Ok(Self { client: client(kubeconfig, None).await?, kubeconfig: kubeconfig.to_owned() })
    }

    /// A client that acts as another user, such as a ServiceAccount.
    ///
    /// # Errors
    /// When the kubeconfig cannot be used.
    pub async fn acting_as(&self, user: &str) -> Result<Client> {
        client(&self.kubeconfig, Some(user.to_owned())).await
    }

    /// The kubeconfig behind it.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A namespaced API.
    #[must_use]
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// A cluster-wide API.
    #[must_use]
    pub fn all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// Runs kubectl and returns what it prints.
    ///
    /// # Errors
    /// When kubectl fails; the message is kubectl's own.
    pub async fn kubectl(&self, args: &[&str], stdin: &str) -> Result<String> {
        let mut child = tokio::process::Command::new(binaries::kubernetes("kubectl")?)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(args)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start kubectl")?;
        let mut pipe = child.stdin.take().context("kubectl has no stdin")?;
        pipe.write_all(stdin.as_bytes()).await.context("cannot write to kubectl")?;
        drop(pipe);
        let output = tokio::time::timeout(PATIENCE * 2, child.wait_with_output())
            .await
            .with_context(|| format!("kubectl {} hangs", args.join(" ")))??;
        if !output.status.success() {
            bail!("kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs lines of a shell in which `kubectl` is the one of the cluster.
    ///
    /// # Errors
    /// When one of them fails; the message is what they print.
    pub async fn shell(&self, script: &str) -> Result<()> {
        let kubectl = binaries::kubernetes("kubectl")?;
        let beside = kubectl.parent().context("kubectl lies nowhere")?;
        let path = format!("{}:{}", beside.display(), std::env::var("PATH").unwrap_or_default());
        let mut shell = tokio::process::Command::new("sh");
        shell.args(["-euc", script]).env("KUBECONFIG", &self.kubeconfig).env("PATH", path).kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE * 2, shell.output())
            .await
            .with_context(|| format!("it hangs: {script}"))??;
        if !output.status.success() {
            bail!("{script}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Server-side applies YAML as a user would.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn apply(&self, yaml: &str) -> Result<()> {
        self.kubectl(&["apply", "--server-side", "-f", "-"], yaml).await.map(drop)
    }

    /// Server-side applies a kustomization, as the install does.
    ///
    /// # Errors
    /// When it cannot be built or the API server refuses it.
    pub async fn apply_kustomization(&self, dir: &Path) -> Result<()> {
        let dir = dir.to_str().context("the path of a kustomization is not UTF-8")?;
        // Objects of a kind whose definition comes in the same set are refused until the API server knows it.
        eventually(&format!("`kubectl apply -k {dir}`"), PATIENCE, async || {
            self.kubectl(&["apply", "--server-side", "-k", dir], "").await
        })
        .await
        .map(drop)
    }

    /// Makes a namespace that pods can be created in (its default ServiceAccount is there).
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn create_namespace(&self, name: &str) -> Result<()> {
        let namespace = Namespace {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        self.all::<Namespace>().create(&PostParams::default(), &namespace).await?;
        self.wait_for_default_account(name).await
    }

    /// Waits until the controller manager has made the namespace's default ServiceAccount: pods are refused before.
    ///
    /// # Errors
    /// When it does not appear.
    pub async fn wait_for_default_account(&self, namespace: &str) -> Result<()> {
        let accounts = self.api::<ServiceAccount>(namespace);
        eventually(&format!("default ServiceAccount in {namespace}"), PATIENCE, async || {
            Ok(accounts.get("default").await.map(drop)?)
        })
        .await
    }

    /// Creates an object of any namespaced kind from JSON.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn create<K>(&self, namespace: &str, json: serde_json::Value) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + serde::Serialize
            + Clone
            + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(json).context("the test's object does not fit its kind")?;
        Ok(self.api::<K>(namespace).create(&PostParams::default(), &object).await?)
    }

    /// The node that the pod was put on.
    ///
    /// # Errors
    /// When it is not put anywhere within `within`; the message has the scheduler's own reason.
    pub async fn node_of(&self, namespace: &str, pod: &str, within: Duration) -> Result<String> {
        let pods = self.api::<Pod>(namespace);
        eventually(&format!("pod {namespace}/{pod} to be put on a node"), within, async || {
            let seen = pods.get(pod).await?;
            match seen.spec.as_ref().and_then(|s| s.node_name.clone()) {
                Some(node) => Ok(node),
                None => bail!(
                    "pending: {}",
                    scheduled_message(&seen).unwrap_or("no word of a scheduler yet".into())
                ),
            }
        })
        .await
    }

    /// What the scheduler says about a pod that it cannot place, once it says `reason`.
    ///
    /// # Errors
    /// When it does not say so within `within`, or the pod was placed.
    pub async fn unschedulable(
        &self,
        namespace: &str,
        pod: &str,
        reason: &str,
        within: Duration,
    ) -> Result<String> {
        let pods = self.api::<Pod>(namespace);
        eventually(
            &format!("pod {namespace}/{pod} to be unschedulable with {reason:?}"),
            within,
            async || {
                let seen = pods.get(pod).await?;
                if let Some(node) = seen.spec.as_ref().and_then(|s| s.node_name.as_ref()) {
                    bail!("it was put on {node}");
                }
                match scheduled_message(&seen) {
                    Some(message) if message.contains(reason) => Ok(message),
                    Some(message) => bail!("{message}"),
                    None => bail!("no word of a scheduler yet"),
                }
            },
        )
        .await
    }

    /// Deletes a pod at once: no kubelet would ever confirm a graceful end.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn delete_pod(&self, namespace: &str, pod: &str) -> Result<()> {
        self.api::<Pod>(namespace).delete(pod, &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }

    /// The UID of a Node object.
    ///
    /// # Errors
    /// When there is no such node.
    pub async fn node_uid(&self, node: &str) -> Result<String> {
        self.all::<Node>().get(node).await?.uid().context("the node has no UID")
    }

    /// Whether the pod is there and nobody has asked for its end.
    ///
    /// # Errors
    /// When the API server does not say.
    pub async fn lives(&self, namespace: &str, pod: &str) -> Result<bool> {
        let seen = self.api::<Pod>(namespace).get_opt(pod).await?;
        Ok(seen.is_some_and(|p| p.metadata.deletion_timestamp.is_none()))
    }

    /// Waits until the pod is deleted or asked to end, as a preempted one is.
    ///
    /// # Errors
    /// When it still lives after `within`.
    pub async fn gone(&self, namespace: &str, pod: &str, within: Duration) -> Result<()> {
        eventually(&format!("pod {namespace}/{pod} to end"), within, async || {
            if self.lives(namespace, pod).await? { bail!("it lives") } else { Ok(()) }
        })
        .await
    }

    /// The messages of all events about an object, oldest first, each as `Reason: message`.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn events(&self, namespace: &str, object: &str) -> Result<Vec<String>> {
        let only = ListParams::default().fields(&format!("involvedObject.name={object}"));
        let mut events = self.api::<Event>(namespace).list(&only).await?.items;
        events.sort_by_key(|e| e.metadata.creation_timestamp.clone());
        Ok(events
            .into_iter()
            .map(|e| format!("{}: {}", e.reason.unwrap_or_default(), e.message.unwrap_or_default()))
            .collect())
    }

    /// Waits for an event about an object whose `Reason: message` contains `text`.
    ///
    /// # Errors
    /// When there is none within `within`.
    pub async fn event(&self, namespace: &str, object: &str, text: &str, within: Duration) -> Result<String> {
        eventually(&format!("an event about {namespace}/{object} with {text:?}"), within, async || {
            let events = self.events(namespace, object).await?;
            match events.iter().find(|e| e.contains(text)) {
                Some(event) => Ok(event.clone()),
                None => bail!("{events:?}"),
            }
        })
        .await
    }

    /// A token of a ServiceAccount bound to a pod, as kubelet asks for when it mounts one.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn pod_token(&self, pod: &Pod, audience: Option<&str>) -> Result<String> {
        let namespace = pod.namespace().context("the pod has no namespace")?;
        let account = pod
            .spec
            .as_ref()
            .and_then(|s| s.service_account_name.clone())
            .context("the pod has no ServiceAccount")?;
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: audience.map(str::to_owned).into_iter().collect(),
                // A demo that stays up for a day must not lose its tokens.
                expiration_seconds: Some(24 * 3600),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: Some(pod.name_any()),
                    uid: pod.uid(),
                }),
            },
            ..TokenRequest::default()
        };
        let answer = self
            .api::<ServiceAccount>(&namespace)
            .create_token_request(&account, &PostParams::default(), &request)
            .await
            .with_context(|| format!("no token for ServiceAccount {namespace}/{account}"))?;
        Ok(answer.status.context("the token request has no status")?.token)
    }
}

/// Chooses ring for all TLS of this process; without a choice the first client panics.
pub fn install_crypto() {
    // Fails when it is installed already, and there is no other provider in this workspace.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The message of the condition `PodScheduled`, where the scheduler says why not.
fn scheduled_message(pod: &Pod) -> Option<String> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == "PodScheduled")?.message.clone()
}
