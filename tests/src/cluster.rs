//! A whole cluster with Hearth installed from `manifests/` and `scheduler-config/` as they are shipped.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::cache;
use crate::control_plane::ControlPlane;
use crate::kube_access::{Kube, PATIENCE};
use crate::nodes;
use crate::process::Process;
use crate::programs;
use crate::report;
use crate::run_dir::RunDir;
use crate::s3::S3;
use crate::wait::eventually;
use crate::workload::{Workload, overlay, pods_of};
use crate::{agent, extender};

/// Hearth's own scheduler, where the cluster's cannot be changed: its `schedulerName` and its ServiceAccount.
pub const SECOND_SCHEDULER: &str = "hearth-scheduler";

/// No single test may take longer, unless it says so: it hangs.
const TEST_LIMIT: Duration = Duration::from_secs(240);

/// What a test needs.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    nodes: usize,
    agents: bool,
    extenders: usize,
    agent_config: Value,
    extender_config: Value,
    second_scheduler: bool,
    s3_root: Option<PathBuf>,
    kustomization: Option<PathBuf>,
    leaves_nothing: bool,
    limit: Duration,
}

/// A cluster with `nodes` nodes, an agent on each, and one extender.
#[must_use]
pub fn nodes(nodes: usize) -> ClusterOptions {
    ClusterOptions {
        nodes,
        agents: true,
        extenders: 1,
        agent_config: json!({}),
        extender_config: json!({}),
        second_scheduler: false,
        s3_root: None,
        kustomization: None,
        leaves_nothing: false,
        limit: TEST_LIMIT,
    }
}

impl ClusterOptions {
    /// With this many replicas of the extender; the scheduler asks the first.
    #[must_use]
    pub fn extenders(mut self, count: usize) -> Self {
        self.extenders = count;
        self
    }

    /// With no agents, though their pods are there: as if all were down.
    #[must_use]
    pub fn without_agents(mut self) -> Self {
        self.agents = false;
        self.extender_config(json!({"startup": {"readyAfter": "1s"}}))
    }

    /// Installed for clusters whose own scheduler cannot be changed: Hearth's is a second one, for pods that name
    /// [`SECOND_SCHEDULER`].
    #[must_use]
    pub fn second_scheduler(mut self) -> Self {
        self.second_scheduler = true;
        self
    }

    /// With none of Hearth's programs: only what is applied to the API server.
    #[must_use]
    pub fn without_programs(mut self) -> Self {
        self.agents = false;
        self.extenders = 0;
        self
    }

    /// With an S3 server whose content is kept in this folder, from one cluster to the next.
    #[must_use]
    pub fn s3_root(mut self, root: PathBuf) -> Self {
        self.s3_root = Some(root);
        self
    }

    /// Installed from this folder of the workspace, which has to include the extender beside the cluster's scheduler.
    #[must_use]
    pub fn kustomization(mut self, dir: &str) -> Self {
        self.kustomization = Some(cache::workspace().join(dir));
        self
    }

    /// With its files removed at the end, however that comes: on Ctrl-C, too.
    #[must_use]
    pub fn leaves_nothing(mut self) -> Self {
        self.leaves_nothing = true;
        self
    }

    /// With so much more time for the test, as a soak takes.
    #[must_use]
    pub fn more_time(mut self, more: Duration) -> Self {
        self.limit += more;
        self
    }

    /// With these settings laid over every agent's configuration, and over what was laid over it before.
    #[must_use]
    pub fn agent_config(mut self, config: &Value) -> Self {
        overlay(&mut self.agent_config, config);
        self
    }

    /// With these settings laid over every extender's configuration.
    #[must_use]
    pub fn extender_config(mut self, config: Value) -> Self {
        self.extender_config = config;
        self
    }
}

/// The running cluster. Dropping it ends every program.
#[derive(Debug)]
pub struct Cluster {
    /// Access as cluster admin.
    pub kube: Kube,
    /// The origin.
    pub s3: S3,
    /// The agents, by node.
    pub agents: BTreeMap<String, Workload>,
    /// The extenders; the scheduler asks the first.
    pub extenders: Vec<extender::Extender>,
    second_scheduler: Option<Process>,
    /// etcd, API server, scheduler, controller manager.
    pub plane: ControlPlane,
    dir: RunDir,
}

impl Cluster {
    /// Starts everything and waits until it is ready.
    ///
    /// # Errors
    /// When something cannot be started; logs stay in the folder that is printed.
    pub async fn start(name: &str, options: &ClusterOptions) -> Result<Self> {
        // Built before anybody has to wait for it.
        tokio::task::spawn_blocking(|| programs::hearth("hearth-node-agent")).await??;
        let mut dir = RunDir::create(name)?;
        if options.leaves_nothing {
            dir.remove_at_the_end();
        }
        let failed = format!("the cluster did not start; logs and state are in {}", dir.path().display());
        Self::start_in(dir, options).await.context(failed)
    }

    async fn start_in(dir: RunDir, options: &ClusterOptions) -> Result<Self> {
        let mut plane = ControlPlane::start(dir.path()).await?;
        let kube = plane.admin.clone();
        let root = options.s3_root.clone().unwrap_or_else(|| dir.path().join("s3"));
        let s3 = S3::start(&root, &plane.logs()).await?;
        let shipped = cache::workspace();
        if options.second_scheduler {
            kube.apply_kustomization(&shipped.join("manifests")).await?;
            plane.start_scheduler(None).await?;
        } else {
            let install = shipped.join("manifests/overlays/control-plane");
            kube.apply_kustomization(options.kustomization.as_ref().unwrap_or(&install)).await?;
            plane.start_scheduler(Some(&shipped.join("scheduler-config/kube-scheduler.yaml"))).await?;
        }
        kube.wait_for_default_account("default").await?;
        wait_for_policy(&kube).await?;

        // The extender's place is beside the scheduler, on nodes that take no other pods.
        for i in 1..=options.extenders {
            nodes::create_control_plane(&kube, &format!("control-plane-{i}")).await?;
        }
        for i in 1..=options.nodes {
            nodes::create(&kube, &format!("node-{i}"), &BTreeMap::new()).await?;
        }
        let mut cluster = Self {
            kube,
            s3,
            agents: BTreeMap::new(),
            extenders: Vec::new(),
            second_scheduler: None,
            plane,
            dir,
        };
        cluster.start_programs(options).await?;
        Ok(cluster)
    }

    async fn start_programs(&mut self, options: &ClusterOptions) -> Result<()> {
        let state = self.dir.path();
        let account = if options.second_scheduler { SECOND_SCHEDULER } else { extender::ACCOUNT };
        for (i, pod) in pods_of(&self.kube, account, options.extenders)
            .await?
            .into_iter()
            .take(options.extenders)
            .enumerate()
        {
            let mut extender =
                extender::Extender::prepare(&self.plane, state, i, pod, &options.extender_config).await?;
            extender.workload.start().await?;
            self.extenders.push(extender);
        }
        if options.agents {
            let urls: Vec<String> = self.extenders.iter().map(|e| e.agents_url.clone()).collect();
            for pod in pods_of(&self.kube, agent::ACCOUNT, options.nodes).await? {
                let (node, mut agent) =
                    agent::prepare(&self.plane, state, pod, &urls, &options.agent_config).await?;
                agent.start().await?;
                self.agents.insert(node, agent);
            }
        }
        if let Some(extender) = self.extenders.first().filter(|_| options.second_scheduler) {
            let config = cache::workspace()
                .join("scheduler-config/second-scheduler/hearth-system/kube-scheduler.yaml");
            let kubeconfig = &extender.workload.kubeconfig;
            self.second_scheduler =
                Some(self.plane.start_second_scheduler(SECOND_SCHEDULER, kubeconfig, &config).await?);
        }
        for agent in self.agents.values_mut() {
            agent.ready().await?;
        }
        for extender in &mut self.extenders {
            extender.workload.ready().await?;
        }
        Ok(())
    }

    /// The agent of a node.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn agent(&mut self, node: &str) -> Result<&mut Workload> {
        self.agents.get_mut(node).with_context(|| format!("no agent on {node}"))
    }

    /// The one replica of the extender that leads.
    ///
    /// # Errors
    /// When not exactly one does after a while.
    pub async fn leader(&self) -> Result<usize> {
        eventually("one replica to lead", PATIENCE, async || {
            let mut leads = Vec::new();
            for (i, extender) in self.extenders.iter().enumerate() {
                if extender.workload.metric("hearth_extender_leader", &[]).await? == Some(1.0) {
                    leads.push(i);
                }
            }
            ensure!(leads.len() == 1, "{leads:?} say so");
            Ok(leads[0])
        })
        .await
    }

    /// A folder for the test's own files, removed with the rest.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// All that helps to understand a failure.
    pub async fn describe(&self) -> String {
        report::describe(&self.kube, &self.plane.logs()).await
    }

    /// Ends everything and removes its files: all went well.
    pub fn finish(self) {
        let Self { plane, dir, agents, extenders, second_scheduler, s3, .. } = self;
        drop((second_scheduler, agents, extenders, s3, plane));
        dir.remove();
    }

    /// Ends everything and leaves its files.
    fn abandon(self) {
        eprintln!("logs and state of the failed run are left in {}", self.dir.path().display());
    }
}

/// Waits until the API server applies the admission policy, which it learns of a moment after the policy is made.
pub(crate) async fn wait_for_policy(kube: &Kube) -> Result<()> {
    let trial = || {
        serde_json::from_value::<Pod>(json!({
            "metadata": {"name": "policy-trial", "annotations": {"hearth.dev/datasets": "trial"}},
            "spec": {"containers": [{"name": "main", "image": "none"}]},
        }))
    };
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    eventually("the admission policy to mark pods with datasets", PATIENCE, async || {
        let seen = kube.api::<Pod>("default").create(&dry_run, &trial()?).await?;
        let text = serde_json::to_string(&seen.spec)?;
        ensure!(text.contains("hearth.dev/dataset"), "a pod with a dataset got no resource");
        Ok(())
    })
    .await
}

/// Runs one end-to-end test on a cluster of its own; when it fails, prints what happened in the cluster.
///
/// # Errors
/// Those of the test.
pub fn e2e(options: &ClusterOptions, test: impl AsyncFnOnce(&mut Cluster) -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // libtest names a test's thread after the test.
    let name = std::thread::current().name().unwrap_or("test").replace("::", "-");
    let mut cluster = runtime.block_on(Cluster::start(&name, options))?;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            tokio::time::timeout(options.limit, test(&mut cluster))
                .await
                .map_err(|_| anyhow!("the test did not end within {:?}", options.limit))?
        })
    }));
    if matches!(outcome, Ok(Ok(()))) {
        runtime.block_on(async { cluster.finish() });
    } else {
        eprintln!("{}", runtime.block_on(cluster.describe()));
        runtime.block_on(async { cluster.abandon() });
    }
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}
