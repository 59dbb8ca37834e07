//! kill -9 at random moments of a real agent's fetch: nothing that it reported is lost, and nothing that it claims is wrong.
//!
//! `HEARTH_KILLS` is the number of kills, and `HEARTH_KILL_SEED` repeats a run that failed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hearth_core::block::byte_range;
use hearth_node_agent::store::{Store, StoreConfig};
use hearth_tests::cluster::{Cluster, e2e, nodes};
use hearth_tests::environment;
use tokio::time::Instant;

const DATASET: &str = "images";
const NODE: &str = "node-1";
const DEFAULT_KILLS: u64 = 20;
/// No piece of the fetch takes longer, on a busy machine.
const PIECE: Duration = Duration::from_secs(30);
/// Most requests that are answered between two kills.
const MOST_GETS: u64 = 24;

type Content = BTreeMap<String, Vec<u8>>;

/// Files of all kinds: empty ones, small ones, some of exactly one block, some of several.
fn content(kills: u64, random: &mut fastrand::Rng) -> Content {
    const BLOCK: usize = hearth_core::block::BLOCK_SIZE as usize;
    // At least as many requests as may be answered until the last kill.
    let mut sizes: Vec<(String, usize)> =
        (0..kills * MOST_GETS).map(|i| (format!("small/{i}.jpg"), random.usize(0..200_000))).collect();
    sizes.extend((0..16).map(|i| (format!("large/{i}.tar"), BLOCK * (i % 4) + 700_000 * (i / 4))));
    let mut content = Content::new();
    for (path, size) in sizes {
        let mut bytes = vec![0; size];
        random.fill(&mut bytes);
        content.insert(path, bytes);
    }
    content
}

/// Opens a dead agent's store as its next start will, compares every block that it claims with the source, and returns
/// their bytes.
fn truth(store: &Path, content: &Content) -> Result<u64> {
    let store = Store::open(&StoreConfig::at(store))?;
    let mut bytes = 0;
    for (hash, dataset) in store.manifests() {
        let manifest = store.manifest(&hash)?.with_context(|| format!("{dataset}'s manifest is lost"))?;
        for number in store.held(&hash).unwrap_or_default() {
            let file =
                manifest.file_of_block(number).with_context(|| format!("no file has block {number}"))?;
            let block = u64::from(number - file.first_block);
            let range = byte_range(file.size, block);
            let source = content.get(file.path).with_context(|| format!("{} is no file", file.path))?;
            let held = store.read_block(&hash, file.index, block)?;
            let held = held.with_context(|| format!("{} claims block {block} and has it not", file.path))?;
            ensure!(
                held == source[usize::try_from(range.start)?..usize::try_from(range.end)?],
                "{} block {block} is not what the origin has",
                file.path
            );
            bytes += range.end - range.start;
        }
    }
    Ok(bytes)
}

/// Lets the origin answer a few more requests, waits until some were sent or until the agent has reported more than
/// before, and then a little, so that the moment is any moment.
async fn some_more(cluster: &Cluster, random: &mut fastrand::Rng) -> Result<()> {
    let gets = random.u64(2..=MOST_GETS);
    let target = cluster.s3.proxy.counts().gets + random.u64(1..=gets);
    let held = cluster.explain(DATASET).await?.held(NODE);
    let by_report = random.bool();
    cluster.s3.proxy.hold_gets_after(gets);
    let start = Instant::now();
    loop {
        let done = match by_report {
            true => cluster.explain(DATASET).await?.held(NODE) > held,
            false => cluster.s3.proxy.counts().gets >= target,
        };
        if done {
            break;
        }
        // Asking is pause enough.
        let seen = cluster.explain(DATASET).await?;
        ensure!(start.elapsed() < PIECE, "the fetch does not go on: {seen:?}");
    }
    for _ in 0..random.u64(0..10) {
        cluster.explain(DATASET).await?;
    }
    Ok(())
}

#[test]
fn whenever_an_agent_is_killed_it_keeps_what_it_reported_and_claims_only_what_is_right() -> Result<()> {
    let kills = environment::number("HEARTH_KILLS", DEFAULT_KILLS)?;
    let seed = environment::number("HEARTH_KILL_SEED", fastrand::u64(..))?;
    eprintln!("HEARTH_KILL_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    e2e(&nodes(1), async |cluster| {
        let content = content(kills, &mut random);
        let total: u64 = content.values().map(|bytes| bytes.len() as u64).sum();
        let bucket = cluster.s3.bucket("data")?;
        for (path, bytes) in &content {
            bucket.put(&format!("images/{path}"), bytes.clone()).await?;
        }
        cluster.s3_dataset(DATASET, &bucket, "images").await?;
        cluster.s3.proxy.hold_gets_after(0);
        cluster.place("trainer", DATASET).await?;
        let store = cluster.dir().join(format!("agent-{NODE}/store"));

        for kill in 0..kills {
            some_more(cluster, &mut random).await?;
            let reported = cluster.explain(DATASET).await?.held(NODE);
            cluster.agent(NODE)?.kill();
            let kept = truth(&store, &content).with_context(|| format!("after kill {kill}"))?;
            ensure!(kept >= reported, "kill {kill}: {reported} bytes were reported and {kept} are left");
            cluster.agent(NODE)?.start().await?;
        }
        cluster.s3.proxy.release_gets();
        cluster.warm(DATASET, NODE, 100).await?;
        cluster.agent(NODE)?.kill();
        assert_eq!(truth(&store, &content)?, total);
        Ok(())
    })
}
