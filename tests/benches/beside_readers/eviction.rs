//! Reads while much is given up.

use crate::foreground::{Foreground, Latencies};
use crate::{NODE, SIZE, number, origin};
use anyhow::{Result, ensure};
use hearth_tests::cluster::Cluster;
use hearth_tests::environment;
use hearth_tests::measure::{empty_page_cache, median};
use hearth_tests::volumes::Driver;
use hearth_tests::wait::eventually;
use serde_json::json;
use std::time::{Duration, Instant};

/// Files that are read.
const READ: usize = 10_000;
/// Files that are given up.
const GIVEN_UP: u64 = 100_000;
/// They go in so many parts, with reads without anything beside them before each: a disk that others
/// share has good and bad minutes.
const ROUNDS: usize = 5;
const QUIET: usize = 6_000;
/// MiB that the limit leaves beside what stays.
const ROOM: u64 = 64;
const FETCH: Duration = Duration::from_secs(900);
const EVICT: Duration = Duration::from_secs(600);

/// Reads without anything beside them, and while files are given up.
struct Round {
    quiet: Latencies,
    beside: Latencies,
}

impl Round {
    fn ratio(&self, percent: usize) -> f64 {
        self.beside.percentile(percent) / self.quiet.percentile(percent)
    }
}

pub(crate) async fn measure(cluster: &mut Cluster) -> Result<()> {
    let files = usize::try_from(environment::number("HEARTH_BENCH_FILES", GIVEN_UP)?)?;
    let (old, read) = (origin::start(files, SIZE).await?, origin::start(READ, SIZE).await?);
    let driver = Driver::of(cluster, NODE);
    let _keeper = driver.keeper(cluster, "10m").await?;
    old.dataset(cluster, "old", json!({"priority": -1})).await?;
    read.dataset(cluster, "read", json!({})).await?;
    cluster.warmup("old", "old", json!({"nodes": {"replicas": 1}})).await?;
    cluster.warmup("read", "read", json!({"nodes": {"replicas": 1}})).await?;
    let all = ((files + READ) * SIZE) as f64;
    let began = Instant::now();
    old.answered(files).await?;
    eventually("everything to be fetched", FETCH, async || {
        let used = number(cluster, "hearth_agent_store_used_bytes", &[]).await?;
        ensure!(used >= all, "{used} of {all} bytes are here");
        Ok(())
    })
    .await?;
    eprintln!("fetched {:.1} GB in {:.0} s", all / 1e9, began.elapsed().as_secs_f64());
    let root = driver.publish("reader", &json!({"dataset": "read", "wait": "100%"})).await?;
    ensure!(driver.kind("reader")? != "fuse.hearth", "it is not wholly there");
    tokio::task::spawn_blocking(empty_page_cache).await??;

    let (mut rounds, mut took, mut given_up) = (Vec::new(), Duration::ZERO, 0.0);
    for left in (0..ROUNDS).rev() {
        let quiet = Foreground::run(&root, QUIET).await?;
        let used = number(cluster, "hearth_agent_store_used_bytes", &[]).await?;
        let capacity = (((READ + files * left / ROUNDS) * SIZE) as u64 >> 20) + ROOM;
        let agent = cluster.agent(NODE)?;
        agent.stop().await?;
        agent.configure(&json!({"store": {"capacity": format!("{capacity}Mi")}}))?;
        agent.start().await?;
        agent.ready().await?;
        let down_to = async |most: f64| {
            eventually("files to be given up", EVICT, async || {
                let used = number(cluster, "hearth_agent_store_used_bytes", &[]).await?;
                ensure!(used <= most, "{used} bytes are held");
                Ok(())
            })
            .await
        };
        down_to(used - 1.0).await?;
        let (began, reader) = (Instant::now(), Foreground::start(&root)?);
        down_to((capacity << 20) as f64).await?;
        took += began.elapsed();
        rounds.push(Round { quiet, beside: reader.end()? });
        given_up += (used - number(cluster, "hearth_agent_store_used_bytes", &[]).await?) / SIZE as f64;
    }
    println!(
        "\n{given_up} files of {SIZE} bytes given up in {:.1} s, beside one reader of files of the same size",
        took.as_secs_f64()
    );
    println!("{:24} {:>8} {:>10} {:>10} {:>10}", "", "reads", "p50", "p99", "slowest");
    for round in &rounds {
        row("alone", &round.quiet);
        row("beside it", &round.beside);
    }
    let ratio = |percent| median(rounds.iter().map(|round| round.ratio(percent)));
    println!("{:24} {:>8} {:>8.2} × {:>8.2} ×", "median of the ratios", "", ratio(50), ratio(99));
    driver.unpublish("reader").await
}

fn row(name: &str, latencies: &Latencies) {
    let at = |percent| latencies.percentile(percent);
    println!("{name:24} {:>8} {:>7.2} ms {:>7.2} ms {:>7.2} ms", latencies.count(), at(50), at(99), at(100));
}
