//! What is deleted goes from the nodes' disks, and whoever reads it keeps what it has.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use hearth_api::CACHED_DATA;
use hearth_tests::cluster::{Cluster, e2e, nodes};
use hearth_tests::datasets::{FETCH, USER};
use hearth_tests::volumes::{self, Driver};
use hearth_tests::wait::eventually;
use serde_json::{Value, json};

const MIB: usize = 1 << 20;
const FILES: u8 = 4;
/// What those are told who want some of what is being deleted.
const REFUSED: &str = "is being deleted";

/// Fills a folder of the bucket with files that differ in this byte only, from one filling to the next.
async fn fill(cluster: &Cluster, folder: &str, byte: u8) -> Result<()> {
    let bucket = cluster.s3.bucket("data")?;
    for file in 0..FILES {
        bucket.put(&format!("{folder}/{file}.bin"), content(file, byte)).await?;
    }
    Ok(())
}

fn content(file: u8, byte: u8) -> Vec<u8> {
    let mut content = vec![byte; MIB];
    content[0] = file;
    content
}

/// What a node's store has on its disk, each with its content.
fn objects(cluster: &Cluster, node: &str) -> Result<Vec<Vec<u8>>> {
    files(&cluster.dir().join(format!("agent-{node}/store/objects")))
}

/// The contents of the files below a directory in which files come and go.
fn files(below: &Path) -> Result<Vec<Vec<u8>>> {
    let mut objects = Vec::new();
    for entry in walkdir::WalkDir::new(below) {
        match entry {
            Ok(entry) if entry.file_type().is_file() => {
                objects.push(fs::read(entry.path()).unwrap_or_default())
            }
            Ok(_) => {}
            // It went while we looked.
            Err(error) if error.io_error().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(objects)
}

/// Waits until a node's store has so many objects on its disk.
async fn on_disk(cluster: &Cluster, node: &str, count: usize) -> Result<()> {
    eventually(&format!("{count} objects on the disk of {node}"), FETCH * 2, async || {
        let found = objects(cluster, node)?.len();
        ensure!(found == count, "{found} are there");
        Ok(())
    })
    .await
}

/// Waits until nothing but the first file is on a node's disk: the one that lists knows all
/// datasets, and has that for the other one.
async fn only_the_shared_is_left(cluster: &Cluster, node: &str) -> Result<()> {
    eventually(&format!("the data to be gone from the disk of {node}"), FETCH * 2, async || {
        let left: Vec<u8> =
            objects(cluster, node)?.iter().filter_map(|object| object.first().copied()).collect();
        ensure!(left.iter().all(|file| *file == 0), "files {left:?} are there");
        Ok(())
    })
    .await
}

async fn delete(cluster: &Cluster, dataset: &str) -> Result<()> {
    let end = ["delete", "datasets.hearth.dev", dataset, "-n", USER, "--wait=false"];
    cluster.kube.kubectl(&end, "").await.map(drop)
}

async fn finalizers(cluster: &Cluster, dataset: &str, finalizers: Value) -> Result<()> {
    let patch = json!({"metadata": {"finalizers": finalizers}}).to_string();
    let args = ["patch", "datasets.hearth.dev", dataset, "-n", USER, "--type=merge", "-p", &patch];
    cluster.kube.kubectl(&args, "").await.map(drop)
}

/// Waits until a Dataset is gone.
async fn gone(cluster: &Cluster, dataset: &str) -> Result<()> {
    eventually(&format!("Dataset {dataset} to be gone"), FETCH, async || {
        let left = ["get", "datasets.hearth.dev", dataset, "-n", USER, "--ignore-not-found", "-o", "yaml"];
        let left = cluster.kube.kubectl(&left, "").await?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })
    .await
}

/// Waits until what a resource says of a condition contains this.
async fn says(cluster: &Cluster, kind: &str, name: &str, text: &str) -> Result<Value> {
    eventually(&format!("{kind} {name} to say {text:?}"), FETCH, async || {
        let status = cluster.resource(kind, name).await?["status"].clone();
        if status["conditions"].to_string().contains(text) { Ok(status) } else { bail!("{status}") }
    })
    .await
}

/// Waits until a Dataset is kept by its finalizer.
async fn guarded(cluster: &Cluster, dataset: &str) -> Result<()> {
    eventually(&format!("Dataset {dataset} to have its finalizer"), FETCH, async || {
        let seen = cluster.resource("dataset", dataset).await?["metadata"]["finalizers"].to_string();
        ensure!(seen.contains(CACHED_DATA), "{seen}");
        Ok(())
    })
    .await
}

#[test]
fn a_deleted_datasets_bytes_go_from_every_node_and_a_dead_one_is_not_waited_for_for_ever() -> Result<()> {
    let patience = json!({"removal": {"patience": "40s"}});
    e2e(&nodes(3).extender_config(patience), async |cluster| {
        fill(cluster, "images", 7).await?;
        let bucket = cluster.s3.bucket("data")?;
        cluster.s3_dataset("images", &bucket, "images").await?;
        let part = json!({"files": {"include": ["0.bin"]}});
        cluster.s3_dataset_with("part", &bucket, "images", part).await?;
        cluster.warmup("images", "images", json!({})).await?;
        cluster.condition("warmup", "images", "Complete", "True").await?;
        cluster.warm_up("part", "node-1").await?;
        guarded(cluster, "images").await?;
        for node in ["node-1", "node-2", "node-3"] {
            ensure!(objects(cluster, node)?.len() == usize::from(FILES), "not all is on {node}");
        }

        cluster.agent("node-2")?.kill();
        delete(cluster, "images").await?;
        let status = says(cluster, "dataset", "images", "nodes have let go").await?;
        ensure!(status["conditions"].to_string().contains("\"Deleting\""), "{status}");
        says(cluster, "warmup", "images", REFUSED).await?;
        // What another dataset has, too, is its own.
        only_the_shared_is_left(cluster, "node-3").await?;
        only_the_shared_is_left(cluster, "node-1").await?;
        says(cluster, "dataset", "images", "for node-2, which does not answer").await?;
        gone(cluster, "images").await?;
        cluster.kube.event(USER, "images", "CachedDataLeft: node-2 did not let go", FETCH).await?;
        let removals = &cluster.extenders[0].workload;
        let given_up = removals.metric("hearth_extender_removals_total", &["outcome=\"given-up\""]).await?;
        ensure!(given_up == Some(1.0), "{given_up:?}");

        // When it comes back it has nobody's data.
        ensure!(objects(cluster, "node-2")?.len() == usize::from(FILES));
        cluster.agent("node-2")?.start().await?;
        only_the_shared_is_left(cluster, "node-2").await?;
        cluster.warm("part", "node-1", 100).await
    })
}

/// A cluster's policy by which no Dataset of this name may have a finalizer.
fn policy(name: &str) -> [Value; 2] {
    let version = "admissionregistration.k8s.io/v1";
    let datasets = json!({
        "apiGroups": ["hearth.dev"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"],
        "resources": ["datasets"],
    });
    let expression = format!("object.metadata.name != '{name}' || !has(object.metadata.finalizers)");
    [
        json!({
            "apiVersion": version, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "no-finalizer"},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [datasets]},
                "validations": [{"expression": expression, "message": "none here"}],
            },
        }),
        json!({
            "apiVersion": version, "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": "no-finalizer"},
            "spec": {"policyName": "no-finalizer", "validationActions": ["Deny"]},
        }),
    ]
}

#[test]
fn a_dataset_that_a_policy_keeps_from_being_guarded_delays_no_other_and_is_tried_again() -> Result<()> {
    e2e(&nodes(1), async |cluster| {
        for part in policy("refused") {
            cluster.kube.apply(&part.to_string()).await?;
        }
        let probe = json!({
            "apiVersion": "hearth.dev/v1alpha1", "kind": "Dataset",
            "metadata": {"name": "refused", "namespace": USER, "finalizers": [CACHED_DATA]},
            "spec": {"origins": [{"uri": "s3://bucket"}]},
        });
        eventually("the policy to be in force", FETCH, async || {
            let args = ["create", "--dry-run=server", "-f", "-"];
            let created = cluster.kube.kubectl(&args, &probe.to_string()).await;
            let refused = created.err().map(|error| format!("{error:#}")).unwrap_or_default();
            ensure!(refused.contains("none here"), "{refused}");
            Ok(())
        })
        .await?;

        fill(cluster, "images", 7).await?;
        let bucket = cluster.s3.bucket("data")?;
        cluster.s3_dataset("refused", &bucket, "images").await?;
        cluster.s3_dataset("other", &bucket, "images").await?;
        guarded(cluster, "other").await?;
        delete(cluster, "other").await?;
        gone(cluster, "other").await?;
        let left = cluster.resource("dataset", "refused").await?["metadata"]["finalizers"].clone();
        ensure!(left.is_null(), "the policy is not in force: {left}");

        let end = ["delete", "validatingadmissionpolicybinding", "no-finalizer"];
        cluster.kube.kubectl(&end, "").await?;
        guarded(cluster, "refused").await
    })
}

/// Every file that a volume shows is what was uploaded with this byte.
async fn reads_right(target: &Path, byte: u8) -> Result<()> {
    let target = target.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        for file in 0..FILES {
            let bytes = fs::read(target.join(format!("{file}.bin")))?;
            ensure!(bytes == content(file, byte), "{file}.bin has wrong bytes");
        }
        Ok(())
    });
    read.await?
}

#[test]
fn who_reads_a_deleted_dataset_reads_on_and_one_made_again_shows_nothing_of_it() -> Result<()> {
    const NODE: &str = "node-1";
    const OLD: u8 = 1;
    const NEW: u8 = 2;
    volumes::e2e(nodes(1), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        for name in ["images", "cold"] {
            fill(cluster, name, OLD).await?;
            cluster.s3_dataset(name, &bucket, name).await?;
            guarded(cluster, name).await?;
            finalizers(cluster, name, json!([CACHED_DATA, "example.com/held"])).await?;
        }
        let driver = Driver::of(cluster, NODE);
        let native = driver.publish("native", &json!({"dataset": "images", "wait": "100%"})).await?;
        ensure!(driver.kind("native")? != "fuse.hearth", "it is not wholly there");
        cluster.s3.proxy.hold_gets_after(0);
        let fuse = driver.publish("fuse", &json!({"dataset": "cold"})).await?;
        ensure!(driver.kind("fuse")? == "fuse.hearth", "it is {}", driver.kind("fuse")?);

        for name in ["images", "cold"] {
            delete(cluster, name).await?;
            eventually("Hearth to wait for nobody", FETCH, async || {
                let left = cluster.resource("dataset", name).await?["metadata"]["finalizers"].clone();
                ensure!(left == json!(["example.com/held"]), "{left}");
                Ok(())
            })
            .await?;
            cluster.kube.event(USER, name, "StillRead: pods on node-1", FETCH).await?;
            let why = driver.refused("late", &json!({"dataset": name})).await?;
            ensure!(why.contains(REFUSED), "{why}");
        }
        cluster.s3.proxy.release_gets();
        reads_right(&native, OLD).await?;
        reads_right(&fuse, OLD).await?;

        for name in ["images", "cold"] {
            finalizers(cluster, name, Value::Null).await?;
            gone(cluster, name).await?;
        }
        fill(cluster, "images", NEW).await?;
        cluster.s3_dataset("images", &bucket, "images").await?;
        let again = driver.publish("again", &json!({"dataset": "images", "wait": "100%"})).await?;
        reads_right(&again, NEW).await?;
        reads_right(&native, OLD).await?;

        driver.unpublish("native").await?;
        driver.unpublish("fuse").await?;
        let store = cluster.dir().join(format!("agent-{NODE}/store"));
        eventually("the old bytes to be gone from the disk", FETCH * 2, async || {
            let bytes = |files: Vec<Vec<u8>>| -> Vec<u8> {
                files.iter().filter(|file| file.len() == MIB).map(|file| file[1]).collect()
            };
            let (objects, links) =
                (bytes(files(&store.join("objects"))?), bytes(files(&store.join("views/trees"))?));
            ensure!(objects == vec![NEW; usize::from(FILES)] && links == objects, "{objects:?}, {links:?}");
            Ok(())
        })
        .await?;
        reads_right(&again, NEW).await
    })
}

#[test]
fn nothing_waits_for_hearth_when_it_is_uninstalled_nor_for_ever_when_it_is_gone() -> Result<()> {
    e2e(&nodes(1), async |cluster| {
        let dir = cluster.dir().join("origin");
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("a.bin"), vec![1; MIB])?;
        for name in ["one", "two"] {
            cluster.file_dataset(name, &dir).await?;
            guarded(cluster, name).await?;
        }

        // The extender is gone: what is deleted waits until somebody says that nobody will come.
        cluster.extenders[0].workload.kill();
        delete(cluster, "one").await?;
        let seen = cluster.resource("dataset", "one").await?;
        ensure!(seen["metadata"]["deletionTimestamp"].is_string(), "{seen}");
        let readme = fs::read_to_string(hearth_tests::cache::workspace().join("README.md"))?;
        let freed = command(&readme, "patch datasets.hearth.dev")?;
        cluster.kube.shell(&freed).await?;
        gone(cluster, "one").await?;
        cluster.extenders[0].workload.start().await?;
        guarded(cluster, "two").await?;

        // Its namespace goes first, and with it the right to take finalizers off.
        let install = hearth_tests::cache::workspace().join("manifests/overlays/control-plane");
        let install = install.to_str().context("the workspace's path is not UTF-8")?;
        cluster.kube.kubectl(&["delete", "--wait=false", "-k", install], "").await?;
        eventually("the kind Dataset to be gone", FETCH, async || {
            let left = cluster.kube.kubectl(&["get", "crd", "-o", "name"], "").await?;
            ensure!(!left.contains("datasets.hearth.dev"), "{left}");
            Ok(())
        })
        .await
    })
}

/// Makes an Eviction of the dataset `images`.
async fn evict(cluster: &Cluster, name: &str, mut spec: Value) -> Result<()> {
    spec["dataset"] = json!({"name": "images"});
    let eviction = json!({
        "apiVersion": "hearth.dev/v1alpha1", "kind": "Eviction",
        "metadata": {"name": name, "namespace": USER},
        "spec": spec,
    });
    cluster.kube.apply(&eviction.to_string()).await
}

#[test]
fn an_eviction_takes_what_it_names_from_the_nodes_that_it_names_also_when_an_agent_comes_late() -> Result<()>
{
    e2e(&nodes(2), async |cluster| {
        fill(cluster, "images", 7).await?;
        let bucket = cluster.s3.bucket("data")?;
        cluster.s3_dataset("images", &bucket, "images").await?;
        for node in ["node-1", "node-2"] {
            cluster.warm_up("images", node).await?;
        }
        evict(cluster, "part", json!({"paths": ["0.bin", "1.*"], "nodes": {"names": ["node-1"]}})).await?;
        let status = cluster.condition("eviction", "part", "Complete", "True").await?;
        ensure!(status["nodes"]["summary"] == "1/1" && status["files"] == 2, "{status}");
        ensure!(status["bytes"] == 2 * MIB && status["freed"] == "2.1 MB", "{status}");
        on_disk(cluster, "node-1", 2).await?;
        ensure!(objects(cluster, "node-2")?.len() == usize::from(FILES));
        eventually("the extender to know what is left", FETCH, async || {
            let seen = cluster.explain("images").await?;
            ensure!((seen.percent("node-1"), seen.percent("node-2")) == (50, 100), "{seen:?}");
            Ok(())
        })
        .await?;

        // Whose agent is away does it when it is back, or is not waited for any longer.
        cluster.agent("node-2")?.kill();
        evict(cluster, "hasty", json!({"activeDeadlineSeconds": 2, "nodes": {"names": ["node-2"]}})).await?;
        evict(cluster, "all", json!({"ttlSecondsAfterFinished": 5})).await?;
        let status = says(cluster, "eviction", "hasty", "DeadlineExceeded").await?;
        ensure!(status["conditions"].to_string().contains("node-2 did not do it within"), "{status}");
        on_disk(cluster, "node-1", 0).await?;
        let status = says(cluster, "eviction", "all", "waiting for node-2").await?;
        ensure!(status["nodes"]["summary"] == "1/2", "{status}");
        cluster.agent("node-2")?.start().await?;
        on_disk(cluster, "node-2", 0).await?;
        eventually("the Eviction to be gone after its end", FETCH, async || {
            let left =
                cluster.kube.kubectl(&["get", "evictions.hearth.dev", "-n", USER, "-o", "name"], "").await?;
            ensure!(!left.contains("/all"), "{left}");
            Ok(())
        })
        .await
    })
}

#[test]
fn an_eviction_leaves_what_is_mounted_and_says_so() -> Result<()> {
    const NODE: &str = "node-1";
    volumes::e2e(nodes(1), async |cluster| {
        fill(cluster, "images", 7).await?;
        let bucket = cluster.s3.bucket("data")?;
        cluster.s3_dataset("images", &bucket, "images").await?;
        cluster.warm_up("images", NODE).await?;
        let driver = Driver::of(cluster, NODE);
        let attributes = json!({"dataset": "images", "files": "0.bin", "wait": "100%"});
        let mounted = driver.publish("reader", &attributes).await?;
        ensure!(driver.kind("reader")? != "fuse.hearth", "it is not wholly there");

        evict(cluster, "data", json!({})).await?;
        let status = cluster.condition("eviction", "data", "Complete", "True").await?;
        ensure!(status["files"] == 3, "{status}");
        ensure!(status["kept"] == json!([{"why": "Mounted", "files": 1, "bytes": MIB}]), "{status}");
        ensure!(fs::read(mounted.join("0.bin"))? == content(0, 7), "it has wrong bytes");

        evict(cluster, "kept", json!({"what": "Metadata"})).await?;
        let status = cluster.condition("eviction", "kept", "Complete", "True").await?;
        ensure!(status["files"] == 0 && status["kept"][0]["why"] == "Mounted", "{status}");
        driver.unpublish("reader").await?;
        evict(cluster, "metadata", json!({"what": "Metadata"})).await?;
        let status = cluster.condition("eviction", "metadata", "Complete", "True").await?;
        ensure!(status["files"] == 1 && status["bytes"] == MIB, "{status}");
        on_disk(cluster, NODE, 0).await?;
        let manifests = fs::read_dir(cluster.dir().join("agent-node-1/store/manifests"))?.count();
        ensure!(manifests == 0, "{manifests} lists of files are left");
        // It is fetched again by whoever needs it.
        cluster.warm_up("images", NODE).await
    })
}

/// The lines of a shell block of a page, the first of which that has this in it.
fn command(page: &str, within: &str) -> Result<String> {
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut found = blocks.filter(|block| block.contains(within));
    found.next().map(str::to_owned).with_context(|| format!("no shell block has {within:?}"))
}
