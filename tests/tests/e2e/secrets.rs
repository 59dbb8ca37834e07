//! Credentials: whose they may be, how they are changed, and that none is ever seen anywhere.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use hearth_tests::binaries;
use hearth_tests::cluster::{Cluster, e2e, nodes};
use hearth_tests::datasets::{FETCH, USER, origin, secret};
use hearth_tests::process::Program;
use hearth_tests::s3::{ACCESS_KEY, SECRET_KEY};
use hearth_tests::stores::minio::{Minio, ROLE};
use hearth_tests::stores::nginx::{Nginx, PASSWORD, USERNAME};
use hearth_tests::stores::{CONTAINER, Store as _};
use hearth_tests::wait::eventually;
use serde_json::{Value, json};

const WRONG_SECRET: &str = "planted-wrong-secret-key";
const WRONG_PASSWORD: &str = "planted wrong password";

/// What somebody reads, and what is certainly in it.
struct Place {
    name: String,
    text: String,
    /// The same search finds this: it does look there.
    control: &'static str,
}

fn place(name: impl Into<String>, text: String, control: &'static str) -> Place {
    Place { name: name.into(), text, control }
}

/// A process's command line or environment.
fn of_process(pid: u32, what: &str) -> Result<String> {
    let bytes = fs::read(format!("/proc/{pid}/{what}")).with_context(|| format!("cannot read {what}"))?;
    Ok(String::from_utf8_lossy(&bytes).replace('\0', "\n"))
}

/// All that people, other programs and collectors see of Hearth.
async fn seen(cluster: &Cluster) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    let (agent, extender) = (&cluster.agents["node-1"], &cluster.extenders[0]);
    for (name, workload) in [("agent-node-1", agent), ("extender-1", &extender.workload)] {
        let log = cluster.plane.logs().join(format!("{name}.log"));
        places.push(place(format!("{name}'s log"), fs::read_to_string(log)?, "TRACE"));
        places.push(place(format!("{name}'s metrics"), workload.metrics().await?, "hearth_"));
        let pid = workload.pid().context("it does not run")?;
        places.push(place(format!("{name}'s command line"), of_process(pid, "cmdline")?, "--config="));
        places.push(place(format!("{name}'s environment"), of_process(pid, "environ")?, "PATH="));
    }
    let all = "datasets.hearth.dev,warmups.hearth.dev,pods,nodes,leases,configmaps,persistentvolumes";
    for (kinds, control) in [(all, "images"), ("events", "PlacedByWarmth")] {
        let arguments = ["get", kinds, "-A", "-o", "yaml", "--show-managed-fields"];
        places.push(place(kinds, cluster.kube.kubectl(&arguments, "").await?, control));
    }
    places.push(place("explain", extender.told(USER, "reader-of-images").await?, "node-1"));
    Ok(places)
}

/// Every way in which a value may be written.
fn spellings(value: &str) -> Vec<String> {
    let base64 = base64(value);
    let escaped = value.bytes().fold(String::new(), |mut text, byte| {
        let _ = if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            write!(text, "{}", char::from(byte))
        } else {
            write!(text, "%{byte:02X}")
        };
        text
    });
    let bytes = format!("{:?}", value.as_bytes());
    vec![value.to_owned(), base64, escaped, bytes.trim_matches(['[', ']']).to_owned()]
}

fn base64(value: &str) -> String {
    let encoded = k8s_openapi::ByteString(value.as_bytes().to_vec());
    serde_json::to_value(encoded).ok().and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default()
}

fn nothing_leaks(places: &[Place], secrets: &[String]) -> Result<()> {
    for Place { name, text, control } in places {
        ensure!(text.contains(control), "the search does not find {control:?} in {name}:\n{text}");
        for secret in secrets {
            for spelling in spellings(secret) {
                let line = text.lines().find(|line| line.contains(&spelling));
                ensure!(line.is_none(), "{name} shows {spelling:?}: {}", line.unwrap_or_default());
            }
        }
    }
    Ok(())
}

/// Waits until a dataset is not listed for a reason that has `what` in it, and returns the whole sentence.
async fn told(cluster: &Cluster, dataset: &str, what: &str) -> Result<String> {
    eventually(&format!("{dataset} to say {what:?}"), FETCH, async || {
        let status = cluster.condition("dataset", dataset, "Listed", "False").await?;
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let mut messages = conditions.filter_map(|condition| condition["message"].as_str());
        let said = messages.find(|message| message.contains(what)).map(str::to_owned);
        said.with_context(|| format!("{status}"))
    })
    .await
}

/// Tokens of Hearth's own programs: what signs them is the part that nobody may see.
fn own_tokens(cluster: &Cluster) -> Result<Vec<String>> {
    let agent = cluster.dir().join("agent-node-1/extender-token");
    let mut tokens = vec![fs::read_to_string(agent)?];
    for workload in [&cluster.agents["node-1"], &cluster.extenders[0].workload] {
        let kubeconfig: Value = serde_yaml_ng::from_str(&fs::read_to_string(&workload.kubeconfig)?)?;
        let token = kubeconfig["users"][0]["user"]["tokenFile"].as_str().context("no token")?;
        tokens.push(fs::read_to_string(token)?);
    }
    let signature = |token: String| token.rsplit('.').next().unwrap_or_default().trim().to_owned();
    let signatures: Vec<String> = tokens.into_iter().map(signature).collect();
    ensure!(signatures.len() == 3 && signatures.iter().all(|s| s.len() > 80), "{} tokens", signatures.len());
    Ok(signatures)
}

/// Whether a program that crashes leaves a core dump on this machine.
async fn cores_are_dumped(dir: &Path) -> Result<bool> {
    // Where a process dumps is its own folder.
    let mut sleeper =
        Program::new("sleeper", "/usr/bin/env", dir).arg("-C").arg(dir).arg("sleep").arg("600").start()?;
    eventually("the sleeper to sleep", FETCH, async || {
        let name = fs::read_to_string(format!("/proc/{}/comm", sleeper.pid()))?;
        ensure!(name.trim() == "sleep", "{name}");
        Ok(())
    })
    .await?;
    Ok(std::os::unix::process::ExitStatusExt::core_dumped(&sleeper.crash().await?))
}

#[test]
fn wrong_credentials_are_told_and_mended_without_a_restart_and_none_is_seen_anywhere() -> Result<()> {
    let trace = json!({"log": {"level": "trace"}});
    let hosts = json!({"httpOrigins": {"allowedHosts": ["127.0.0.1"]}});
    let options = nodes(1).agent_config(&trace).agent_config(&hosts).extender_config(trace.clone());
    e2e(&options, async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        bucket.put("images/1.bin", vec![1; 1 << 20]).await?;
        let nginx = Nginx::start(cluster.dir()).await?;
        nginx.put("private/pages/1.bin", &vec![2; 1 << 20])?;
        let web = |password: &str| {
            let here = nginx.endpoint();
            secret("web", &json!({"username": USERNAME, "password": password, "HEARTH_ENDPOINTS": here}))
        };
        let s3 = |key: &str| {
            secret("s3-credentials", &json!({"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": key}))
        };

        cluster.kube.apply(&web(WRONG_PASSWORD)).await?;
        cluster.kube.apply(&s3(WRONG_SECRET)).await?;
        let pages =
            json!({"uri": format!("{}/private/pages/", nginx.endpoint()), "secretRef": {"name": "web"}});
        cluster.dataset("pages", json!({"origins": [pages]})).await?;
        let images = origin(&bucket, "images", cluster.s3.proxy.endpoint());
        cluster.dataset("images", json!({"origins": [images]})).await?;
        let said = told(cluster, "images", "the credentials in Secret default/s3-credentials").await?;
        ensure!(said.contains("(SignatureDoesNotMatch: "), "{said}");
        told(cluster, "pages", "the credentials in Secret default/web (401 Unauthorized)").await?;

        // Nobody restarts anything, and the Datasets stay as they are.
        cluster.kube.apply(&web(PASSWORD)).await?;
        cluster.kube.apply(&s3(SECRET_KEY)).await?;
        for dataset in ["images", "pages"] {
            ensure!(cluster.listed(dataset).await?["version"]["files"] == 1, "{dataset}");
        }
        cluster.place("reader-of-images", "images,pages").await?;
        cluster.warm("images,pages", "node-1", 100).await?;

        let mut secrets = own_tokens(cluster)?;
        secrets.extend([WRONG_SECRET, WRONG_PASSWORD, SECRET_KEY, PASSWORD].map(str::to_owned));
        secrets.extend([PASSWORD, WRONG_PASSWORD].map(|password| base64(&format!("{USERNAME}:{password}"))));
        eventually("the pod's Event", FETCH, async || {
            let events = cluster.kube.kubectl(&["get", "events", "-n", USER], "").await?;
            ensure!(events.contains("PlacedByWarmth"), "{events}");
            Ok(())
        })
        .await?;
        nothing_leaks(&seen(cluster).await?, &secrets)?;

        if cores_are_dumped(cluster.dir()).await? {
            let ended = cluster.agent("node-1")?.crash().await?;
            ensure!(!std::os::unix::process::ExitStatusExt::core_dumped(&ended), "{ended}");
        } else {
            eprintln!("this machine dumps no cores: that the agent leaves none is not tested");
        }
        Ok(())
    })
}

fn account(role: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {
            "name": "reader", "namespace": USER, "annotations": {"eks.amazonaws.com/role-arn": role},
        },
    })
    .to_string()
}

#[test]
fn a_dataset_is_read_with_a_role_that_its_service_account_assumes() -> Result<()> {
    // Before anybody waits for it.
    binaries::minio()?;
    e2e(&nodes(1), async |cluster| {
        let minio = Minio::start(cluster.dir(), &cluster.kube).await?;
        minio.put("images/1.bin", &vec![1; 1 << 20]).await?;
        let agent = cluster.agent("node-1")?;
        agent.stop().await?;
        agent.configure(&json!({"origin": {"webIdentity": {"s3": {"stsEndpoint": minio.endpoint()}}}}))?;
        agent.start().await?;
        cluster.kube.apply(&account("arn:minio:iam:::role/another")).await?;
        let origin = json!({
            "uri": format!("s3://{CONTAINER}/images"), "serviceAccountRef": {"name": "reader"},
            "options": {"endpoint": minio.endpoint()},
        });
        // Another spec is listed at once; what failed is otherwise tried again more and more seldom.
        let dataset = async |refresh: &str| {
            cluster.dataset("images", json!({"origins": [origin], "refresh": refresh})).await
        };

        dataset("10m").await?;
        let message = told(cluster, "images", "may not use ServiceAccount default/reader").await?;
        let (_, command) = message.split_once("grant it with ").context("no command")?;
        cluster.kube.shell(command).await?;
        dataset("11m").await?;
        let message = told(cluster, "images", "denies access to role arn:minio:iam:::role/another").await?;
        ensure!(message.contains("of ServiceAccount default/reader (InvalidParameterValue: "), "{message}");
        cluster.kube.apply(&account(ROLE)).await?;
        dataset("12m").await?;
        ensure!(cluster.listed("images").await?["version"]["files"] == 1, "not one file");
        cluster.warm_up("images", "node-1").await?;
        Ok(())
    })
}
