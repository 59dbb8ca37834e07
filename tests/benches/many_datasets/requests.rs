//! What the API server has been asked, by its own count.

use anyhow::{Context, Result};
use hearth_tests::cluster::Cluster;
use std::collections::BTreeMap;
use std::time::Duration;

/// Requests by verb and resource; those that last, as watches do, are left out.
pub(crate) struct Requests(BTreeMap<String, f64>);

impl Requests {
    pub(crate) async fn read(cluster: &Cluster) -> Result<Self> {
        let text = cluster.kube.kubectl(&["get", "--raw", "/metrics"], "").await?;
        let mut requests = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
            let (series, value) = line.rsplit_once(' ').context("a metric without a value")?;
            let label = |name: &str| {
                let (_, rest) = series.split_once(&format!("{name}=\""))?;
                rest.split('"').next().filter(|value| !value.is_empty())
            };
            let verb = label(",verb").or_else(|| label("{verb")).unwrap_or("?");
            if matches!(verb, "WATCH" | "CONNECT") {
                continue;
            }
            let resource: Vec<&str> =
                [label(",resource"), label(",subresource")].into_iter().flatten().collect();
            *requests.entry(format!("{verb} {}", resource.join("/"))).or_default() += value.parse::<f64>()?;
        }
        Ok(Self(requests))
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        let grown =
            |(name, count): (&String, &f64)| (name.clone(), count - before.0.get(name).unwrap_or(&0.0));
        Self(self.0.iter().map(grown).filter(|(_, count)| *count > 0.0).collect())
    }

    /// Prints them a second; the API server's and its controllers' own are among them.
    pub(crate) fn print(&self, time: Duration) {
        let rate = |count: f64| count / time.as_secs_f64();
        println!("  {:.1} requests/s to the API server:", rate(self.0.values().sum()));
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by(|a, b| b.1.total_cmp(a.1));
        for (name, count) in all.into_iter().filter(|(_, count)| rate(**count) >= 0.05) {
            println!("    {:>7.2}/s {name}", rate(*count));
        }
    }
}
