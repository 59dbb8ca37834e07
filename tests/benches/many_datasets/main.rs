//! Thousands of Datasets and Warmups in one API server: what Hearth's programs take while nothing happens, how long
//! one more takes, and whether origins that do not answer delay the others.
//!
//! `cargo bench -p hearth-tests --bench many_datasets`
//!
//! Everything is real: the control plane, the shipped install, an extender and two agents, on one machine. The
//! same is measured with few objects first, in the same cluster: what does not grow is flat. `HEARTH_DATASETS=500`
//! makes it shorter; there are twice as many Warmups.

mod programs;
mod requests;
mod seen;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use hearth_api::{Dataset, Warmup};
use hearth_tests::cluster::{Cluster, e2e, nodes};
use hearth_tests::datasets::{USER, credentials};
use hearth_tests::measure::median;
use hearth_tests::silent_origin::SilentOrigin;
use kube::api::PostParams;
use programs::Programs;
use requests::Requests;
use seen::Seen;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Datasets with which it begins.
const FEW: usize = 100;
/// Datasets with which it ends, unless told otherwise.
const MANY: usize = 5_000;
/// Warmups for each Dataset.
const WARMUPS: usize = 2;
/// Objects that are made at one time.
const MAKING: usize = 16;
/// Longest time until all that was made is well.
const SETTLE: Duration = Duration::from_secs(1_800);
/// After that, before anything is measured.
const REST: Duration = Duration::from_secs(10);
/// How long it is measured what is done while nothing happens.
const QUIET: Duration = Duration::from_secs(30);
/// How often one more is made.
const PROBES: usize = 10;
/// Datasets whose origin takes connections and never answers.
const BAD: usize = 64;

fn main() -> Result<()> {
    let many = match std::env::var("HEARTH_DATASETS") {
        Ok(count) => count.parse().context("HEARTH_DATASETS is a number of Datasets")?,
        Err(_) => MANY,
    };
    e2e(&nodes(2).more_time(Duration::from_secs(7_200)), async |cluster| {
        Bench::new(cluster).await?.run(many).await
    })
}

struct Bench<'a> {
    cluster: &'a Cluster,
    datasets: Seen,
    warmups: Seen,
    made: usize,
}

impl<'a> Bench<'a> {
    async fn new(cluster: &'a Cluster) -> Result<Self> {
        cluster.kube.apply(&credentials()).await?;
        let datasets = Seen::follow::<Dataset>(
            cluster,
            |dataset| dataset.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default(),
            "Ready",
        );
        let warmups = Seen::follow::<Warmup>(
            cluster,
            |warmup| warmup.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default(),
            "Complete",
        );
        Ok(Self { cluster, datasets, warmups, made: 0 })
    }

    async fn run(mut self, many: usize) -> Result<()> {
        for count in [FEW.min(many), many] {
            let took = self.grow_to(count).await?;
            println!("\n{count} Datasets, {} Warmups: all well after {took:.0?}", count * WARMUPS);
            tokio::time::sleep(REST).await;
            self.quiet().await?;
            let (datasets, warmups) = self.probe(&format!("probe-{count}")).await?;
            println!(
                "one more Dataset is Ready after {datasets}, a Warmup of it is Complete after {warmups}"
            );
        }
        let one_host = self.bad("one-host", |_| "127.0.0.1".to_owned()).await?;
        println!("beside {BAD} new Datasets of one origin that does not answer: {one_host}");
        let hosts = self.bad("hosts", |number| format!("127.0.1.{}", number + 1)).await?;
        println!("beside {BAD} more of {BAD} such origins: {hosts}");
        Ok(())
    }

    /// Makes Datasets until there are so many, with their Warmups; the time until all are well.
    async fn grow_to(&mut self, count: usize) -> Result<Duration> {
        let started = Instant::now();
        let new: Vec<String> = (self.made..count).map(|number| format!("set-{number:05}")).collect();
        self.made = count;
        futures::stream::iter(&new)
            .map(|name| self.make_dataset(name))
            .buffer_unordered(MAKING)
            .try_collect::<Vec<()>>()
            .await?;
        let what = format!("{} Datasets to be Ready", new.len());
        self.datasets.all(&what, &new, SETTLE).await?;
        println!("{what}: {:.0?} since the first was made", started.elapsed());
        let warmups: Vec<String> =
            new.iter().flat_map(|name| (0..WARMUPS).map(move |number| format!("{name}-{number}"))).collect();
        futures::stream::iter(&warmups)
            .map(|name| self.make_warmup(name))
            .buffer_unordered(MAKING)
            .try_collect::<Vec<()>>()
            .await?;
        let what = format!("{} Warmups to be Complete", warmups.len());
        self.warmups.all(&what, &warmups, SETTLE).await?;
        Ok(started.elapsed())
    }

    /// A Dataset of a folder with two small files.
    async fn make_dataset(&self, name: &str) -> Result<()> {
        let folder: PathBuf = self.cluster.dir().join("origin").join(name);
        std::fs::create_dir_all(&folder)?;
        for number in 0..WARMUPS {
            std::fs::write(folder.join(format!("{number}.bin")), [number as u8; 1_000])?;
        }
        let spec = json!({"origins": [{"uri": format!("file://{}", folder.display())}], "refresh": "1h"});
        self.create::<Dataset>("Dataset", name, spec).await
    }

    /// A Warmup of one file; `name` is that of the Dataset and the file's number.
    async fn make_warmup(&self, name: &str) -> Result<()> {
        let (dataset, number) = name.rsplit_once('-').context("its name has no number")?;
        let spec = json!({"dataset": {"name": dataset}, "paths": [format!("{number}.bin")], "nodes": {"replicas": 1}});
        self.create::<Warmup>("Warmup", name, spec).await
    }

    async fn create<K>(&self, kind: &str, name: &str, spec: Value) -> Result<()>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + serde::Serialize,
    {
        let object = json!({
            "apiVersion": "hearth.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": USER}, "spec": spec,
        });
        let object: K = serde_json::from_value(object)?;
        self.cluster.kube.api::<K>(USER).create(&PostParams::default(), &object).await?;
        Ok(())
    }

    /// What is done while nothing happens.
    async fn quiet(&self) -> Result<()> {
        let programs = Programs::of(self.cluster).await?;
        let (before, requests) = (programs.cpu()?, Requests::read(self.cluster).await?);
        tokio::time::sleep(QUIET).await;
        let (after, later) = (programs.cpu()?, Requests::read(self.cluster).await?);
        programs.print(&before, &after, QUIET)?;
        later.since(&requests).print(QUIET);
        Ok(())
    }

    /// Makes one more Dataset and then a Warmup of it, a few times.
    async fn probe(&self, prefix: &str) -> Result<(Times, Times)> {
        let (mut datasets, mut warmups) = (Times::default(), Times::default());
        for number in 0..PROBES {
            let name = format!("{prefix}-{number}");
            datasets.0.push(self.time_of_dataset(&name).await?);
            let warmup = format!("{name}-0");
            let started = Instant::now();
            self.make_warmup(&warmup).await?;
            self.warmups.all("the Warmup to be Complete", &[warmup], SETTLE).await?;
            warmups.0.push(started.elapsed());
        }
        Ok((datasets, warmups))
    }

    async fn time_of_dataset(&self, name: &str) -> Result<Duration> {
        let started = Instant::now();
        self.make_dataset(name).await?;
        self.datasets.all("the Dataset to be Ready", &[name.to_owned()], SETTLE).await?;
        Ok(started.elapsed())
    }

    /// Makes Datasets whose origins do not answer, and good ones right after.
    async fn bad(&self, prefix: &str, host: impl Fn(usize) -> String) -> Result<Times> {
        let silent = SilentOrigin::start().await?;
        for number in 0..BAD {
            let name = format!("bad-{prefix}-{number}");
            self.create::<Dataset>("Dataset", &name, silent.dataset(&host(number))).await?;
        }
        let mut times = Times::default();
        for number in 0..PROBES {
            times.0.push(self.time_of_dataset(&format!("good-{prefix}-{number}")).await?);
        }
        Ok(times)
    }
}

#[derive(Default)]
struct Times(Vec<Duration>);

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0.iter().map(Duration::as_secs_f64);
        let longest = seconds.clone().fold(0.0, f64::max);
        write!(f, "{:.1} s (median of {}, longest {longest:.1} s)", median(seconds), self.0.len())
    }
}
