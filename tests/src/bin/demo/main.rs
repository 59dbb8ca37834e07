//! The demo: a real kube-scheduler brings pods to the nodes that hold their data.
//!
//! Control plane, S3 server, agents and extender start; real images and real model weights are uploaded and warmed on a
//! few nodes; then one batch of pods is scheduled twice, with Hearth and by a scheduler that does not know it.

mod batch;
mod data;
mod table;

use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use hearth_tests::cluster::{Cluster, nodes};
use hearth_tests::{binaries, cache, programs};
use tokio::signal::unix::{SignalKind, signal};

use crate::batch::Batch;
use crate::data::Upload;

/// Shows on this machine how Hearth brings pods to the nodes that hold their data.
#[derive(Parser)]
struct Options {
    /// Stay up afterwards, with a kubeconfig to play with, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Nodes of the cluster, each with an agent of its own.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u8).range(3..=30))]
    nodes: u8,
}

fn main() -> Result<()> {
    let options = Options::parse();
    binaries::prepare()?;
    programs::hearth("hearth-extender")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
        // At any moment: what was started ends, and its files go, when the demo's future is dropped.
        tokio::select! {
            outcome = demo(&options) => return outcome,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        println!("\nended everything");
        Ok(())
    });
    // Not to be waited for: a download, or another demo.
    runtime.shutdown_background();
    outcome
}

async fn demo(options: &Options) -> Result<()> {
    // Its S3 server's content is kept, and two servers may not share it.
    let _only = tokio::task::spawn_blocking(|| cache::lock("demo")).await??;
    let started = Instant::now();
    println!(
        "starting etcd, kube-apiserver, kube-scheduler, an S3 server, {} nodes with agents, and the extender",
        options.nodes
    );
    let wanted = nodes(usize::from(options.nodes)).s3_root(cache::dir()?.join("demo-s3")).leaves_nothing();
    let mut cluster = Cluster::start("demo", &wanted).await?;
    println!("  up after {:.1} s", started.elapsed().as_secs_f32());

    let outcome = show(&mut cluster).await;
    if outcome.is_err() {
        eprintln!("{}", cluster.describe().await);
    } else if options.keep {
        stay(&cluster).await?;
    }
    cluster.finish();
    outcome
}

async fn show(cluster: &mut Cluster) -> Result<()> {
    let uploads = data::upload(&cluster.s3).await?;
    for Upload { dataset, bucket, folder, .. } in &uploads {
        let status = cluster.s3_dataset(dataset, bucket, folder).await?;
        println!("  dataset {dataset}: {}", data::summary(&status));
    }
    data::warm(cluster).await?;

    let batch = Batch::new();
    println!("scheduling {} pods with Hearth", batch.len());
    let with = batch.run(cluster, None).await?;
    println!("scheduling the same pods without Hearth");
    let plain = cluster.plane.start_plain_scheduler("plain-scheduler").await?;
    let without = batch.run(cluster, Some("plain-scheduler")).await?;
    drop(plain);
    println!("\n{}", table::render(&with, &without));
    Ok(())
}

async fn stay(cluster: &Cluster) -> Result<()> {
    println!("\nThe cluster stays up. In another terminal:");
    println!("  export KUBECONFIG={}", cluster.kube.kubeconfig().display());
    println!(
        "  export PATH={}:$PATH",
        binaries::kubernetes("kubectl")?.parent().unwrap_or("/".as_ref()).display()
    );
    println!("  kubectl get hds,hwu,nodes,pods,events");
    println!("  kubectl apply -f - <<<'{}'", batch::example());
    println!("  curl -s {}/metrics", cluster.extenders[0].workload.admin);
    println!("S3: {} (bucket `demo`). Logs: {}", cluster.s3.proxy.endpoint(), cluster.plane.logs().display());
    println!("Ctrl-C ends it.");
    std::future::pending::<()>().await;
    Ok(())
}
