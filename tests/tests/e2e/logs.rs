//! One call can be followed through the logs by its request id, in the format and at the level that are shipped.

use anyhow::{Context, Result, ensure};
use hearth_tests::cache::workspace;
use hearth_tests::cluster::{Cluster, e2e, nodes};
use hearth_tests::kube_access::PATIENCE;
use hearth_tests::wait::eventually;
use hearth_tests::workload::NAMESPACE;
use kube::ResourceExt as _;
use serde_json::{Value, json};

/// The `log` section of a shipped configuration file.
fn shipped(file: &str) -> Result<Value> {
    let text =
        std::fs::read_to_string(workspace().join(file)).with_context(|| format!("cannot read {file}"))?;
    let config: Value = serde_yaml_ng::from_str(&text)?;
    ensure!(config["log"]["format"] == "json", "{file} no longer ships JSON logs: {}", config["log"]);
    Ok(json!({ "log": config["log"] }))
}

/// Every line of a program's log, each of which has to be JSON.
fn lines(cluster: &Cluster, program: &str) -> Result<Vec<Value>> {
    let file = cluster.plane.logs().join(format!("{program}.log"));
    let parse =
        |line: &str| serde_json::from_str(line).with_context(|| format!("no JSON in {program}: {line}"));
    std::fs::read_to_string(&file)?.lines().map(parse).collect()
}

/// Waits for a line that says `what` about the request `id`.
async fn told(cluster: &Cluster, program: &str, id: &str, what: &str) -> Result<Value> {
    eventually(&format!("{program} to log {what:?} about {id}"), PATIENCE, async || {
        let lines = lines(cluster, program)?;
        let says = |line: &&Value| {
            line["span"]["id"] == id && line["message"].as_str().is_some_and(|said| said.contains(what))
        };
        lines.iter().find(says).cloned().with_context(|| format!("none of {} lines does", lines.len()))
    })
    .await
}

#[test]
fn a_refused_call_is_found_in_the_log_by_the_id_that_came_with_it_or_with_its_answer() -> Result<()> {
    let logs = shipped("scheduler-config/control-plane/extender-config.yaml")?;
    e2e(&nodes(1).extender_config(logs), async |cluster| {
        let http = reqwest::Client::builder().no_proxy().build()?;
        let call = || http.post(format!("{}/filter", cluster.extenders[0].scheduler_url)).body("{");

        let answer = call().header("x-request-id", "given-by-the-caller").send().await?;
        assert_eq!(answer.status(), 400);
        assert_eq!(answer.headers()["x-request-id"], "given-by-the-caller");
        let line = told(cluster, "extender-1", "given-by-the-caller", "a call was refused").await?;
        assert_eq!((&line["level"], &line["span"]["path"]), (&json!("WARN"), &json!("/filter")), "{line}");

        let answer = call().send().await?;
        let made = answer.headers()["x-request-id"].to_str()?;
        told(cluster, "extender-1", made, "a call was refused").await?;
        Ok(())
    })
}

#[test]
fn an_agents_refused_report_has_the_same_id_in_both_logs() -> Result<()> {
    let extender = shipped("scheduler-config/control-plane/extender-config.yaml")?;
    let agent = shipped("manifests/base/node-agent-config.yaml")?;
    e2e(&nodes(1).extender_config(extender).agent_config(&agent), async |cluster| {
        // From now on its token is one of a pod that is gone.
        let pod = cluster.agents["node-1"].pod.name_any();
        cluster.kube.delete_pod(NAMESPACE, &pod).await?;

        let id = eventually("the agent to log that a request was refused", PATIENCE, async || {
            let lines = lines(cluster, "agent-node-1")?;
            let refused =
                |line: &&Value| line["message"].as_str().is_some_and(|m| m.contains("answered with 403"));
            let line = lines.iter().find(refused).context("no line says so")?;
            line["id"].as_str().map(str::to_owned).context("the line has no id")
        })
        .await?;
        told(cluster, "extender-1", &id, "an agent was refused").await?;
        Ok(())
    })
}
