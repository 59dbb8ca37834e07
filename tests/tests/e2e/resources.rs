//! The shipped definitions on a real API server: bad specs are refused with a sentence, absent fields get their defaults.

use anyhow::{Context, Result, bail, ensure};
use hearth_tests::cache::workspace;
use hearth_tests::control_plane::ControlPlane;
use hearth_tests::kube_access::{Kube, PATIENCE};
use hearth_tests::run_dir::RunDir;
use hearth_tests::wait::eventually;
use serde_json::{Value, json};

/// Applies one resource of ours and returns it as the API server keeps it.
async fn apply(kube: &Kube, kind: &str, spec: Value) -> Result<Value> {
    let object = json!({
        "apiVersion": "hearth.dev/v1alpha1", "kind": kind,
        "metadata": {"name": "images", "namespace": "default"},
        "spec": spec,
    });
    kube.apply(&object.to_string()).await?;
    let kept = kube
        .kubectl(&["get", &format!("{}s.hearth.dev", kind.to_lowercase()), "images", "-o", "json"], "")
        .await?;
    serde_json::from_str(&kept).context("kubectl printed no JSON")
}

/// The API server refuses such an Eviction with this sentence.
async fn refuses(kube: &Kube, spec: Value, sentence: &str) -> Result<()> {
    match apply(kube, "Eviction", spec.clone()).await {
        Ok(_) => bail!("accepted: {spec}"),
        Err(e) => ensure!(format!("{e:#}").contains(sentence), "{spec}: {e:#}"),
    }
    Ok(())
}

fn dataset(origin: &Value, more: &Value) -> Value {
    let mut spec = json!({"origins": [origin]});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    spec
}

#[tokio::test]
async fn the_api_server_refuses_bad_specs_with_a_sentence_and_sets_defaults() -> Result<()> {
    let dir = RunDir::create("resources")?;
    let mut plane = ControlPlane::start(dir.path()).await?;
    let kube = plane.admin.clone();
    let crds = workspace().join("manifests/base/crds");
    let crds = crds.to_str().context("the workspace's path is not UTF-8")?;
    kube.kubectl(&["apply", "--server-side", "-f", crds], "").await?;
    kube.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=20s"], "").await?;
    let good = &json!({"uri": "s3://bucket/images"});
    eventually("the API server to serve datasets", PATIENCE, async || {
        apply(&kube, "Dataset", dataset(good, &json!({}))).await.map(drop)
    })
    .await?;

    let kept = apply(&kube, "Dataset", dataset(good, &json!({}))).await?;
    assert_eq!((&kept["spec"]["refresh"], &kept["spec"]["origins"][0]["path"]), (&json!("10m"), &json!("/")));

    let with = |uri: &str, options: &Value| dataset(&json!({"uri": uri, "options": options}), &json!({}));
    for spec in [
        with("gs://my_bucket.example/images", &json!({"anonymous": true})),
        with(
            "s3://bucket",
            &json!({"timeout": "1m30s", "concurrency": 4, "requestsPerSecond": 100, "bytesPerSecond": "100Mi", "proxy": "http://proxy:3128"}),
        ),
        with("az://box/images", &json!({"account": "acct", "endpoint": "http://127.0.0.1:10000"})),
        with("az://$web", &json!({"account": "acct"})),
        with("https://host:8443/images/files.txt", &json!({"fileList": true})),
        dataset(&json!({"uri": "http://host"}), &json!({})),
        with("hdfs://namenode:9000/images", &json!({"user": "ann", "timeout": "10s", "concurrency": 4})),
        with("hdfs://name_service", &json!({"nameNodes": ["nn1.example", "nn2.example:9000"]})),
    ] {
        apply(&kube, "Dataset", spec).await?;
    }
    let file = json!({"uri": "file:///data", "secretRef": {"name": "x"}});
    let both = json!({"uri": "gs://bucket", "secretRef": {"name": "x"}, "options": {"anonymous": true}});
    let account = |uri: &str, more: &Value| {
        let mut origin = json!({"uri": uri, "serviceAccountRef": {"name": "reader"}});
        for (key, value) in more.as_object().into_iter().flatten() {
            origin[key] = value.clone();
        }
        dataset(&origin, &json!({}))
    };
    apply(&kube, "Dataset", account("s3://bucket", &json!({}))).await?;
    apply(&kube, "Dataset", account("az://box", &json!({"options": {"account": "acct"}}))).await?;
    for (spec, sentence) in [
        (json!({"origins": []}), "origins"),
        (json!({"origins": vec![good; 33]}), "origins"),
        (with("s3://bucket", &json!({"timeout": "0s"})), "timeout must be a duration from 1s to 10m"),
        (with("s3://bucket", &json!({"timeout": "1h"})), "timeout must be a duration from 1s to 10m"),
        (with("s3://bucket", &json!({"concurrency": 0})), "concurrency"),
        (with("s3://bucket", &json!({"requestsPerSecond": 0})), "requestsPerSecond"),
        (
            with("s3://bucket", &json!({"bytesPerSecond": "much"})),
            "bytesPerSecond must be a positive quantity",
        ),
        (with("s3://bucket", &json!({"proxy": "http://user:word@proxy"})), "proxy must be http(s)://HOST"),
        (with("s3://bucket", &json!({"caBundle": "trust me"})), "caBundle must be PEM"),
        (dataset(good, &json!({"files": {"list": {}}})), "list must name one of configMap and path"),
        (
            dataset(good, &json!({"files": {"list": {"path": "a", "configMap": {"name": "a", "key": "b"}}}})),
            "list must name one of configMap and path",
        ),
        (dataset(good, &json!({"files": {"list": {"configMap": {"name": "a"}}}})), "key"),
        (dataset(&json!({"uri": "gopher://x"}), &json!({})), "uri must be s3://BUCKET"),
        (dataset(&json!({"uri": "s3://UPPER/x"}), &json!({})), "uri must be s3://BUCKET"),
        (dataset(&json!({"uri": "file://relative"}), &json!({})), "uri must be s3://BUCKET"),
        (dataset(&file, &json!({})), "a file:// origin takes none"),
        (dataset(&json!({"uri": "gs://UPPER"}), &json!({})), "uri must be s3://BUCKET"),
        (dataset(&json!({"uri": "http://user@host/x"}), &json!({})), "uri must be s3://BUCKET"),
        (dataset(&json!({"uri": "https://host/x?signature=1"}), &json!({})), "uri must be s3://BUCKET"),
        (dataset(&json!({"uri": "az://box"}), &json!({})), "options.account is the storage account"),
        (with("s3://bucket", &json!({"account": "acct"})), "options.account is the storage account"),
        (with("az://box", &json!({"account": "a.b"})), "options.account"),
        (with("gs://bucket", &json!({"region": "eu"})), "are for s3:// origins"),
        (with("http://host/", &json!({"endpoint": "http://h"})), "options.endpoint is for stores"),
        (with("http://host/", &json!({"fileList": true})), "options.fileList is for http(s)://"),
        (with("s3://bucket", &json!({"fileList": true})), "options.fileList is for http(s)://"),
        (dataset(&json!({"uri": "hdfs:///images"}), &json!({})), "uri must be s3://BUCKET"),
        (dataset(&json!({"uri": "hdfs://user@host/x"}), &json!({})), "uri must be s3://BUCKET"),
        (
            dataset(&json!({"uri": "hdfs://host/x", "secretRef": {"name": "x"}}), &json!({})),
            "Kerberos is not supported",
        ),
        (with("hdfs://host", &json!({"endpoint": "http://h"})), "are for what is reached over HTTP"),
        (with("hdfs://host", &json!({"proxy": "http://proxy:3128"})), "are for what is reached over HTTP"),
        (with("hdfs://host", &json!({"anonymous": true})), "are for what is reached over HTTP"),
        (with("s3://bucket", &json!({"user": "ann"})), "are for hdfs:// origins"),
        (with("http://host/", &json!({"nameNodes": ["nn"]})), "are for hdfs:// origins"),
        (with("hdfs://service:8020", &json!({"nameNodes": ["nn"]})), "which has no port"),
        (with("hdfs://service", &json!({"nameNodes": ["hdfs://nn"]})), "nameNodes"),
        (with("hdfs://service", &json!({"nameNodes": vec!["nn"; 9]})), "nameNodes"),
        (with("hdfs://host", &json!({"user": "ann@REALM"})), "user"),
        (dataset(&both, &json!({})), "exclude each other"),
        (account("http://host/", &json!({})), "serviceAccountRef is for s3://"),
        (account("file:///data", &json!({})), "serviceAccountRef is for s3://"),
        (
            account("s3://bucket", &json!({"secretRef": {"name": "x"}})),
            "serviceAccountRef and secretRef exclude",
        ),
        (
            account("s3://bucket", &json!({"options": {"anonymous": true}})),
            "options.anonymous and serviceAccountRef exclude each other",
        ),
        (account("s3://bucket", &json!({"serviceAccountRef": {}})), "name"),
        (dataset(&json!({"uri": "s3://bucket", "path": "/a/../b"}), &json!({})), "path must begin with /"),
        (
            dataset(&json!({"uri": "s3://bucket", "options": {"endpoint": "minio:9000"}}), &json!({})),
            "endpoint must be http(s)://HOST",
        ),
        (dataset(good, &json!({"refresh": "1s"})), "refresh must be Never or a duration"),
        (dataset(good, &json!({"refresh": "soon"})), "refresh must be Never or a duration"),
        (dataset(good, &json!({"cache": {"quota": "-5Gi"}})), "quota must be a positive quantity"),
        (dataset(good, &json!({"cache": {"priority": 1001}})), "priority"),
        (dataset(good, &json!({"cache": {"pinned": "always"}})), "pinned"),
        (dataset(good, &json!({"cache": {"replicas": -1}})), "replicas"),
        (dataset(good, &json!({"cache": {"maxReplicas": 3}})), "maxReplicas must be at least replicas"),
        (
            dataset(good, &json!({"cache": {"replicas": 4, "maxReplicas": 3}})),
            "maxReplicas must be at least replicas",
        ),
        (dataset(good, &json!({"reffresh": "10m"})), "reffresh"),
    ] {
        match apply(&kube, "Dataset", spec.clone()).await {
            Ok(_) => bail!("accepted: {spec}"),
            Err(e) => {
                ensure!(format!("{e:#}").contains(sentence), "{spec} is refused without {sentence:?}: {e:#}")
            }
        }
    }

    apply(&kube, "Warmup", json!({"dataset": {"name": "images"}, "nodes": {"replicas": 2}})).await?;
    for (spec, sentence) in [
        (json!({"dataset": {"name": "another"}}), "cannot be changed"),
        (json!({"dataset": {"name": "images"}, "nodes": {"replicas": 0}}), "replicas"),
        (
            json!({"dataset": {"name": "images"}, "nodes": {"replicas": 2, "pendingPods": true}}),
            "replicas and pendingPods exclude each other",
        ),
        (json!({"dataset": {"name": "images"}, "priority": 5000}), "priority"),
        (json!({"dataset": {"name": "images"}, "activeDeadlineSeconds": 0}), "activeDeadlineSeconds"),
        (json!({"dataset": {"name": "images"}, "ttlSecondsAfterFinished": -1}), "ttlSecondsAfterFinished"),
        (json!({"dataset": {"name": "images"}, "suspend": "now"}), "suspend"),
        (json!({"dataset": {"name": "images"}, "what": "Both"}), "what"),
        (json!({"dataset": {"name": "images"}, "what": "Metadata"}), "cannot be changed"),
        (json!({"dataset": {"name": "images"}, "what": "Metadata", "paths": ["a/**"]}), "paths are for data"),
    ] {
        match apply(&kube, "Warmup", spec.clone()).await {
            Ok(_) => bail!("accepted: {spec}"),
            Err(e) => {
                ensure!(format!("{e:#}").contains(sentence), "{spec} is refused without {sentence:?}: {e:#}")
            }
        }
    }

    let template = json!({"spec": {"dataset": {"name": "images"}, "paths": ["train/**"]}});
    let kept =
        apply(&kube, "CronWarmup", json!({"schedule": "30 4 * * 1-5", "warmupTemplate": template})).await?;
    assert_eq!(
        ["concurrencyPolicy", "successfulWarmupsHistoryLimit", "failedWarmupsHistoryLimit"]
            .map(|field| kept["spec"][field].clone()),
        [json!("Forbid"), json!(3), json!(1)]
    );
    // What a Warmup may not, its template may.
    let changed = json!({"spec": {"dataset": {"name": "another"}, "paths": []}});
    apply(
        &kube,
        "CronWarmup",
        json!({"schedule": "@hourly", "timeZone": "Asia/Tokyo", "warmupTemplate": changed}),
    )
    .await?;
    for (spec, sentence) in [
        (json!({"schedule": "* * * *"}), "schedule must be five fields"),
        (json!({"schedule": "@sometimes"}), "schedule must be five fields"),
        (json!({"timeZone": "UTC; rm"}), "timeZone must be a name"),
        (json!({"concurrencyPolicy": "Maybe"}), "concurrencyPolicy"),
        (json!({"startingDeadlineSeconds": 0}), "startingDeadlineSeconds"),
        (json!({"successfulWarmupsHistoryLimit": -1}), "successfulWarmupsHistoryLimit"),
        (json!({"warmupTemplate": {"spec": {}}}), "dataset"),
        (json!({"warmupTemplate": {"spec": {"dataset": {"name": "images"}, "priority": 1001}}}), "priority"),
    ] {
        let mut all = json!({"schedule": "@hourly", "warmupTemplate": template});
        for (key, value) in spec.as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
        match apply(&kube, "CronWarmup", all).await {
            Ok(_) => bail!("accepted: {spec}"),
            Err(e) => {
                ensure!(format!("{e:#}").contains(sentence), "{spec} is refused without {sentence:?}: {e:#}")
            }
        }
    }

    let kept = apply(&kube, "Eviction", json!({"dataset": {"name": "images"}, "paths": ["a/**"]})).await?;
    assert_eq!(
        (&kept["spec"]["what"], &kept["spec"]["activeDeadlineSeconds"]),
        (&json!("Data"), &json!(300))
    );
    kube.kubectl(&["delete", "evictions.hearth.dev", "images"], "").await?;
    let names = json!({"names": ["node-1"]});
    apply(&kube, "Eviction", json!({"dataset": {"name": "images"}, "nodes": names})).await?;
    refuses(
        &kube,
        json!({"dataset": {"name": "another"}, "nodes": names}),
        "dataset, paths and what cannot be changed",
    )
    .await?;
    kube.kubectl(&["delete", "evictions.hearth.dev", "images"], "").await?;
    for (more, sentence) in [
        (json!({"nodes": {}}), "nodes takes either names or nodeSelector"),
        (
            json!({"nodes": {"names": ["a"], "nodeSelector": {"a": "b"}}}),
            "nodes takes either names or nodeSelector",
        ),
        (json!({"nodes": {"names": []}}), "names"),
        (json!({"what": "Everything"}), "what"),
        (json!({"what": "Metadata", "paths": ["a"]}), "paths are for what: Data"),
        (json!({"paths": [""]}), "paths"),
        (json!({"activeDeadlineSeconds": 0}), "activeDeadlineSeconds"),
        (json!({"ttlSecondsAfterFinished": -1}), "ttlSecondsAfterFinished"),
    ] {
        let mut spec = more;
        spec["dataset"] = json!({"name": "images"});
        refuses(&kube, spec, sentence).await?;
    }

    // What people type.
    kube.kubectl(&["get", "hds,hev,hwu,hcw", "-o", "wide"], "").await?;
    kube.kubectl(&["get", "hearth"], "").await?;
    plane.stop();
    dir.remove();
    Ok(())
}
