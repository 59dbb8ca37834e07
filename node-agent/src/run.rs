//! Puts the agent together and runs it: the only place that starts its tasks.

use crate::accounts::Accounts;
use crate::admin;
use crate::blocks::Blocks;
use crate::config::Config;
use crate::credentials::Secrets;
use crate::csi;
use crate::datasets::Datasets;
use crate::events;
use crate::evict::{Evictor, EvictorParts, OnDemand, OnDemandParts, StandingParts, Standings};
use crate::fill::{Fill, FillParts};
use crate::heat_file::HeatFile;
use crate::identity;
use crate::lister::{self, Lister};
use crate::manifests::Manifests;
use crate::metrics::Metrics;
use crate::origin::{Allowed, AllowedHosts, AllowedRoots, Origins};
use crate::reads::Reads;
use crate::replicas::Replicas;
use crate::reporter::{Reporter, ReporterParts};
use crate::scrub::Scrubber;
use crate::store::{Store, Tier};
use crate::tiers::{self, Mover, MoverParts, TierRoom};
use crate::versions;
use crate::views::{self, ViewParts, Views};
use anyhow::Context;
use futures::FutureExt;
use hearth_core::manifest::ManifestHash;
use hearth_core::wire::report::Speaker;
use hearth_runtime::lease::Election;
use hearth_runtime::tasks::Tasks;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What is under way at the end may take this long.
const GRACE: Duration = Duration::from_secs(8);
/// The ServiceAccount of agents, for the sentence that says how to grant it a Secret.
const ACCOUNT: &str = "hearth-node-agent";

/// Runs the agent until it is asked to end or cannot go on.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new().context("the metrics cannot be registered")?);
    let token = tokio::fs::read_to_string(&config.token_file)
        .await
        .with_context(|| format!("tokenFile {} cannot be read", config.token_file.display()))?;
    let node_uid = identity::node_uid(&token, &config.node_name)?;
    let client = hearth_runtime::kube_client::connect(config.kubeconfig.as_deref()).await?;
    let store = open_store(&config).await?;
    let identity = store.identity();
    tracing::info!(node = config.node_name, store = %identity.uuid, boot = identity.boot, "the store is open");
    for tier in store.tiers() {
        tracing::info!(directory = %tier.directory().display(), medium = %tier.medium(), "a tier of it");
    }

    let allowed = Allowed {
        roots: AllowedRoots::new(config.file_origins.allowed_roots.clone()),
        web_servers: AllowedHosts::new(config.http_origins.allowed_hosts.clone()),
        name_nodes: AllowedHosts::new(config.hdfs_origins.allowed_hosts.clone()),
    };
    let agents = format!("{}:{ACCOUNT}", config.namespace);
    let secrets = Secrets::of_cluster(client.clone(), agents.clone());
    let accounts = Accounts::of_cluster(client.clone(), agents);
    let origins = Arc::new(Origins::new(&config.origin, allowed, secrets, accounts, metrics.clone())?);
    let (replicas, known) = Replicas::new(&config)?;
    let manifests = Manifests::new(store.clone(), known.clone());
    let datasets = Datasets::new(client.clone());
    let shutdown = CancellationToken::new();
    let (told, versions) = versions::channel();
    let (events, event_writer) = events::channel();
    let (blocks, reads) = (Arc::new(Blocks::new(store.clone())), Reads::default());
    let heat = open_heat(&config, reads.clone()).await?;
    let view_parts = ViewParts {
        store: store.clone(),
        blocks: blocks.clone(),
        reads: reads.clone(),
        datasets: datasets.clone(),
        manifests: manifests.clone(),
        versions,
        metrics: metrics.clone(),
        read_timeout: config.fuse.read_timeout,
        events,
        // Without volumes there are no sessions to keep.
        keeper: config.csi.enabled.then(|| config.fuse.keeper_socket.clone()),
        shutdown: shutdown.clone(),
    };
    let views = open_views(&config, view_parts).await?;
    let (all_wants, wants) = watch::channel(Vec::new());
    let standings = Arc::new(Standings::new(StandingParts {
        datasets: datasets.clone(),
        in_use: views.in_use(),
        wants: wants.clone(),
    }));
    let evictor = |tier: &Tier| {
        Evictor::new(EvictorParts {
            store: store.clone(),
            tier: tier.clone(),
            views: views.clone(),
            reads: reads.clone(),
            standings: standings.clone(),
            metrics: metrics.clone(),
            shutdown: shutdown.clone(),
        })
    };
    let disks = store.tiers().to_vec();
    let evictors: Vec<Evictor> = store.tiers().iter().map(evictor).collect();
    let room = TierRoom::new(store.clone(), evictors.clone(), standings.clone());
    let mover = Mover::new(MoverParts {
        store: store.clone(),
        views: views.clone(),
        reads,
        standings,
        metrics: metrics.clone(),
        shutdown: shutdown.clone(),
    });
    let (to_evict, evictions) = watch::channel(Vec::new());
    let (done, evicted) = watch::channel(Vec::new());
    let on_demand = OnDemand::new(OnDemandParts {
        store: store.clone(),
        views: views.clone(),
        wants: wants.clone(),
        orders: evictions,
        done,
        metrics: metrics.clone(),
    });
    let (fill, fill_status) = Fill::new(
        &config.origin,
        FillParts {
            store: store.clone(),
            datasets,
            manifests: manifests.clone(),
            origins: origins.clone(),
            metrics: metrics.clone(),
            demands: views.demands(),
            blocks,
            room: Arc::new(room),
        },
    );
    let speaker =
        Speaker { node: config.node_name.clone(), node_uid, store: identity.uuid, boot: identity.boot };
    let (reporter, ordered) = Reporter::new(ReporterParts {
        speaker,
        store: store.clone(),
        manifests: manifests.clone(),
        replicas: known,
        in_use: views.in_use(),
        forget: {
            let (views, shutdown) = (views.clone(), shutdown.clone());
            Arc::new(move |hash: &ManifestHash| views.forget(hash, &shutdown).map(drop))
        },
        versions: told,
        fill: fill_status,
        evictions: to_evict,
        evicted,
        metrics: metrics.clone(),
    });
    let scrub_rate = config.store.scrub_rate.bytes().filter(|rate| *rate > 0);
    let scrubber = scrub_rate.map(|rate| Scrubber { store: store.clone(), rate, metrics: metrics.clone() });
    let admin = admin::router(&metrics, store, views.clone(), reporter.last_report());
    let (leading, leads) = watch::channel(false);
    let leases: Api<Lease> = Api::namespaced(client.clone(), &config.namespace);
    let election = Election::new(lister::LEASE, &config.node_name);
    let events = event_writer.run(client.clone(), config.node_name.clone(), shutdown.clone());
    let lister = Lister { client, origins, manifests, metrics };

    let mut tasks = Tasks::new(shutdown.clone());
    tasks.spawn(
        "the admin server",
        hearth_runtime::admin::serve(config.admin.listen, admin, shutdown.clone()),
    );
    tasks.spawn("looking up the extender", replicas.run(shutdown.clone()));
    tasks.spawn("reporting", reporter.run(shutdown.clone()));
    let gathered = views::together(ordered, views.wants(), all_wants);
    tasks.spawn(
        "gathering what is wanted",
        shutdown.clone().run_until_cancelled_owned(gathered).map(|_| Ok(())),
    );
    tasks.spawn("fetching", fill.run(wants, shutdown.clone()));
    if let Some(scrubber) = scrubber {
        tasks.spawn("reading again what is stored", scrubber.run(shutdown.clone()));
    }
    for evictor in evictors {
        tasks.spawn("keeping within the store's limits", evictor.run());
    }
    tasks.spawn("moving data between tiers", mover.run());
    for tier in disks {
        tasks.spawn("looking after a disk", tiers::look_after(tier, shutdown.clone()));
    }
    tasks.spawn("keeping how often datasets are mounted", heat.run(shutdown.clone()));
    tasks.spawn("giving up what Evictions name", on_demand.run(shutdown.clone()));
    if config.csi.enabled {
        let served = csi::serve(config.csi, config.node_name, views.clone(), shutdown.clone());
        tasks.spawn("the CSI driver", served);
        tasks.spawn("growing native views", views.run(shutdown.clone()));
    }
    tasks.spawn("writing Events", events);
    tasks.spawn("the lister's election", election.run(leases, leading, shutdown.clone()));
    tasks.spawn("listing", lister.run(leads, shutdown));
    tasks.run(GRACE).await
}

async fn open_views(config: &Config, parts: ViewParts) -> anyhow::Result<Views> {
    // Hard links need the store's file system.
    let directory = config.store.directory.join("views");
    tokio::task::spawn_blocking(move || Views::open(&directory, parts))
        .await
        .context("taking up the published volumes ended")?
        .context("the published volumes cannot be taken up")
}

async fn open_heat(config: &Config, reads: Reads) -> anyhow::Result<HeatFile> {
    let directory = config.store.directory.clone();
    tokio::task::spawn_blocking(move || HeatFile::open(&directory, reads))
        .await
        .context("reading how often datasets were mounted ended")
}

async fn open_store(config: &Config) -> anyhow::Result<Store> {
    let section = config.store.clone();
    tokio::task::spawn_blocking(move || Ok::<_, anyhow::Error>(Store::open_tiers(&tiers::find(&section)?)?))
        .await
        .context("opening the store ended")?
        .with_context(|| format!("the store in {} cannot be opened", config.store.directory.display()))
}
