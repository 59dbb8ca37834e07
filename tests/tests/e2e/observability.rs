//! A real Prometheus scrapes the running programs: every query of the dashboard and of the alerts returns data.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hearth_tests::binaries;
use hearth_tests::cache::workspace;
use hearth_tests::cluster::{Cluster, e2e, nodes};
use hearth_tests::datasets::USER;
use hearth_tests::kube_access::PATIENCE;
use hearth_tests::pods::pod;
use hearth_tests::ports;
use hearth_tests::process::{Process, Program};
use hearth_tests::wait::eventually;
use serde_json::{Value, json};

const MIB: usize = 1 << 20;

/// Several scrapes after the last thing that happened.
const SCRAPED: Duration = Duration::from_secs(60);

fn shipped(file: &str) -> PathBuf {
    workspace().join("manifests/overlays/prometheus").join(file)
}

fn yaml(file: &str) -> Result<Value> {
    let text = std::fs::read_to_string(shipped(file)).with_context(|| format!("cannot read {file}"))?;
    serde_yaml_ng::from_str(&text).with_context(|| format!("{file} is not YAML"))
}

#[test]
fn the_alerts_speak_when_they_should_and_not_otherwise() -> Result<()> {
    let output = Command::new(binaries::prometheus("promtool")?)
        .args(["test", "rules"])
        .arg(shipped("alerts-test.yaml"))
        .output()?;
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    ensure!(output.status.success(), "promtool test rules: {said}");
    ensure!(
        yaml("prometheus-rule.yaml")?["spec"] == yaml("alerts.yaml")?,
        "prometheus-rule.yaml is stale: its spec has to be what alerts.yaml says"
    );
    Ok(())
}

/// A query, and where it stands.
struct Query {
    place: String,
    text: String,
}

/// What the panels of the dashboard ask, with Grafana's variables filled in.
fn panels() -> Result<Vec<Query>> {
    let dashboard = yaml("dashboard.json")?;
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().context("the dashboard has no panels")? {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let text = target["expr"].as_str().context("a target has no expr")?;
            let text = text.replace("$__rate_interval", "5m").replace("$__range", "10m");
            ensure!(!text.contains('$'), "a variable that is not known here: {text}");
            queries.push(Query { place: format!("panel {}", panel["title"]), text });
        }
    }
    ensure!(!queries.is_empty(), "the dashboard asks nothing");
    Ok(queries)
}

/// What the alerts measure: a rule that is silent returns nothing, so what it compares has to return something.
fn measures() -> Result<Vec<Query>> {
    let rules = yaml("alerts.yaml")?;
    let groups = rules["groups"].as_array().context("there are no groups of alerts")?;
    let mut queries = Vec::new();
    for rule in groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten()) {
        let expression = rule["expr"].as_str().context("a rule has no expr")?;
        for comparison in expression.split(" and ") {
            let measure = comparison
                .rsplit_once(" < ")
                .or_else(|| comparison.rsplit_once(" > "))
                .filter(|(_, bound)| bound.parse::<f64>().is_ok())
                .with_context(|| format!("{} should compare with a number: {comparison}", rule["alert"]))?;
            queries.push(Query { place: format!("alert {}", rule["alert"]), text: measure.0.to_owned() });
        }
    }
    Ok(queries)
}

/// The running Prometheus.
struct Prometheus {
    process: Process,
    url: String,
    http: reqwest::Client,
}

impl Prometheus {
    async fn start(cluster: &Cluster) -> Result<Self> {
        let dir = cluster.dir().join("prometheus");
        std::fs::create_dir_all(&dir)?;
        let config = dir.join("prometheus.yaml");
        std::fs::write(&config, serde_yaml_ng::to_string(&scrape_config(cluster))?)?;
        let address = format!("127.0.0.1:{}", ports::free()?);
        let process = Program::new("prometheus", binaries::prometheus("prometheus")?, &cluster.plane.logs())
            .flag("config.file", &config)
            .flag("storage.tsdb.path", dir.join("data"))
            .flag("web.listen-address", &address)
            .flag("log.level", "warn")
            .start()?;
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        let mut prometheus = Self { process, url: format!("http://{address}"), http };
        eventually("Prometheus to be ready", PATIENCE, async || {
            prometheus.process.check_running()?;
            prometheus.http.get(format!("{}/-/ready", prometheus.url)).send().await?.error_for_status()?;
            Ok(())
        })
        .await?;
        Ok(prometheus)
    }

    /// Waits until every program has been scraped.
    async fn sees_all(&self, cluster: &Cluster) -> Result<()> {
        let programs = cluster.agents.len() + cluster.extenders.len();
        eventually("Prometheus to scrape every program", PATIENCE, async || {
            let targets = self.get("targets", &[("state", "active")]).await?;
            let up =
                targets["activeTargets"].as_array().into_iter().flatten().filter(|t| t["health"] == "up");
            ensure!(up.count() == programs, "{targets}");
            Ok(())
        })
        .await
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let url = reqwest::Url::parse_with_params(&format!("{}/api/v1/{path}", self.url), parameters)?;
        let answer: Value = serde_json::from_str(&self.http.get(url).send().await?.text().await?)?;
        ensure!(answer["status"] == "success", "{answer}");
        Ok(answer["data"].clone())
    }

    /// Fails unless the query returns at least one number.
    async fn has_data(&self, query: &Query) -> Result<()> {
        let data = self.get("query", &[("query", &query.text)]).await?;
        let samples = data["result"].as_array().cloned().unwrap_or_default();
        let number = |sample: &Value| sample["value"][1].as_str().and_then(|v| v.parse::<f64>().ok());
        ensure!(
            samples.iter().filter_map(number).any(f64::is_finite),
            "{}: {} returns {}",
            query.place,
            query.text,
            data["result"]
        );
        Ok(())
    }
}

/// Every program with the labels that pod-monitors.yaml gives it.
fn scrape_config(cluster: &Cluster) -> Value {
    let target = |admin: &str, node: &str| {
        json!({
            "targets": [admin.trim_start_matches("http://")],
            "labels": {"node": node, "namespace": "hearth-system"},
        })
    };
    let agents: Vec<Value> = cluster.agents.iter().map(|(node, agent)| target(&agent.admin, node)).collect();
    let extenders: Vec<Value> =
        cluster.extenders.iter().map(|extender| target(&extender.workload.admin, "control-plane")).collect();
    json!({
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"},
        "rule_files": [shipped("alerts.yaml")],
        "scrape_configs": [
            {"job_name": "hearth-extender", "honor_labels": true, "static_configs": extenders},
            {"job_name": "hearth-node-agent", "static_configs": agents},
        ],
    })
}

/// Pods with data and without warmth, with warmth, and one that insists on it.
async fn use_it(cluster: &Cluster, origin: &Path) -> Result<()> {
    let bucket = cluster.s3.bucket("data")?;
    for i in 0..4 {
        bucket.put(&format!("images/{i}.bin"), vec![i; MIB]).await?;
    }
    cluster.s3_dataset("images", &bucket, "images").await?;
    std::fs::create_dir_all(origin)?;
    std::fs::write(origin.join("weights.bin"), vec![1; MIB])?;
    cluster.file_dataset("weights", origin).await?;
    cluster.place("first", "images, weights").await?;
    cluster.warm_up("images", "node-2").await?;
    cluster.place("second", "images").await?;
    pod("third").datasets("images").required("100%").create(&cluster.kube).await?;
    cluster.kube.node_of(USER, "third", PATIENCE).await.map(drop)
}

#[test]
fn every_query_of_the_dashboard_and_the_alerts_returns_data() -> Result<()> {
    // Before the cluster starts, since it may take a while.
    binaries::prometheus("prometheus")?;
    let mut queries = panels()?;
    queries.extend(measures()?);
    e2e(&nodes(3), async |cluster| {
        let prometheus = Prometheus::start(cluster).await?;
        // What happened before the first look of a counter is no increase.
        prometheus.sees_all(cluster).await?;
        use_it(cluster, &cluster.dir().join("origin")).await?;

        eventually("every query to return data", SCRAPED, async || {
            let mut empty = Vec::new();
            for query in &queries {
                if let Err(why) = prometheus.has_data(query).await {
                    empty.push(format!("{why:#}"));
                }
            }
            if empty.is_empty() { Ok(()) } else { bail!("{} without:\n{}", empty.len(), empty.join("\n")) }
        })
        .await?;

        let rules = prometheus.get("rules", &[]).await?;
        for rule in rules["groups"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|g| g["rules"].as_array().into_iter().flatten())
        {
            ensure!(rule["health"] == "ok", "{} cannot be evaluated: {}", rule["name"], rule["lastError"]);
            ensure!(
                rule["state"] != "firing",
                "{} fires in a healthy cluster: {}",
                rule["name"],
                rule["alerts"]
            );
        }
        Ok(())
    })
}
