//! Every kustomization that is shipped builds, also those that no other test installs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use hearth_tests::binaries;
use hearth_tests::cache::workspace;
use hearth_tests::cluster::{e2e, nodes};
use hearth_tests::datasets::USER;
use serde::Deserialize as _;
use serde_json::{Value, json};

const COMPONENT_IN_USE: &str = "tests/kustomize/file-origins";

/// The objects that a kustomization of the workspace makes.
fn build(dir: &str) -> Result<Vec<Value>> {
    let output = Command::new(binaries::kubernetes("kubectl")?)
        .arg("kustomize")
        .arg(workspace().join(dir))
        .output()
        .context("cannot start kubectl")?;
    ensure!(output.status.success(), "{dir}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let objects = serde_yaml_ng::Deserializer::from_str(&text).map(Value::deserialize);
    objects.collect::<Result<_, _>>().with_context(|| format!("{dir} builds no YAML"))
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
    objects.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == name)
}

/// The folders with a kustomization below `dir`, and what it says.
fn kustomizations(dir: &Path) -> Result<Vec<(PathBuf, Value)>> {
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(dir).sort_by_file_name() {
        let entry = entry?;
        if entry.file_name() == "kustomization.yaml" {
            let text = std::fs::read_to_string(entry.path())?;
            let dir = entry.path().parent().context("a file lies nowhere")?.to_owned();
            found.push((dir, serde_yaml_ng::from_str(&text)?));
        }
    }
    Ok(found)
}

#[test]
fn every_kustomization_builds_and_every_component_is_in_one() -> Result<()> {
    let (mut components, mut used) = (BTreeSet::new(), BTreeSet::new());
    for top in ["manifests", "scheduler-config", "tests/kustomize"] {
        for (dir, content) in kustomizations(&workspace().join(top))? {
            let dir = dir.canonicalize()?;
            if content["kind"] == "Component" {
                components.insert(dir);
                continue;
            }
            let objects = build(dir.to_str().context("the path is not UTF-8")?)?;
            ensure!(!objects.is_empty(), "{} makes nothing", dir.display());
            for component in content["components"].as_array().into_iter().flatten() {
                used.insert(dir.join(component.as_str().context("a component is no path")?).canonicalize()?);
            }
        }
    }
    assert_eq!(components, used, "left: the components that there are; right: those that were built");
    Ok(())
}

#[test]
fn cert_manager_takes_the_jobs_place() -> Result<()> {
    let objects = build("manifests/overlays/cert-manager")?;
    for kind in ["Job", "ServiceAccount", "Role", "RoleBinding"] {
        ensure!(find(&objects, kind, "hearth-certificates").is_none(), "the Job's {kind} is there");
    }
    let agent = find(&objects, "DaemonSet", "hearth-node-agent").context("no agent")?;
    let volumes = agent["spec"]["template"]["spec"]["volumes"].as_array().context("no volumes")?;
    let ca = volumes.iter().find(|volume| volume["name"] == "ca").context("no authority")?;
    let secret = json!({"secretName": "hearth-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]});
    assert_eq!((&ca["secret"], &ca["configMap"]), (&secret, &Value::Null));
    // What the extender and the agents mount, cert-manager writes.
    let secrets: Vec<_> = objects
        .iter()
        .filter(|o| o["kind"] == "Certificate")
        .filter_map(|o| o["spec"]["secretName"].as_str())
        .collect();
    assert!(secrets.contains(&"hearth-extender-tls") && secrets.contains(&"hearth-ca"), "{secrets:?}");
    Ok(())
}

#[test]
fn with_the_component_for_file_origins_agents_read_below_its_directory_only() -> Result<()> {
    e2e(&nodes(1).kustomization(COMPONENT_IN_USE), async |cluster| {
        let agent = serde_json::to_value(&cluster.agents["node-1"].pod)?;
        let volume =
            agent["spec"]["volumes"].as_array().into_iter().flatten().find(|v| v["name"] == "file-origins");
        assert_eq!(volume.map(|v| &v["hostPath"]["path"]), Some(&json!("/mnt/datasets")));

        for (name, uri, why) in [
            ("outside", "file:///etc", "allowedRoots of the node agents' configuration names /mnt/datasets"),
            ("inside", "file:///mnt/datasets/of-the-hearth-tests", "/mnt/datasets"),
        ] {
            cluster.dataset(name, json!({"origins": [{"uri": uri}]})).await?;
            let status = cluster.condition("dataset", name, "Listed", "False").await?;
            let conditions = status["conditions"].as_array().into_iter().flatten();
            let message = conditions.filter_map(|c| c["message"].as_str()).find(|m| m.contains(why));
            let message = message.with_context(|| format!("{name} in {USER}: {status}"))?;
            assert_eq!(message.contains("is not allowed"), name == "outside", "{message}");
        }
        Ok(())
    })
}
