//! What a Dataset may say of its origins: other ways to them than a Secret and path-style addresses, several of them, and a list of files.

use anyhow::{Result, ensure};
use hearth_tests::cluster::{e2e, nodes};
use hearth_tests::datasets::{FETCH, USER, credentials, origin};
use hearth_tests::s3::{ACCESS_KEY, DOMAIN, REGION, SECRET_KEY};
use hearth_tests::wait::eventually;
use serde_json::json;

const MIB: usize = 1 << 20;

#[test]
fn a_dataset_without_a_secret_is_read_with_the_credentials_in_the_agents_environment() -> Result<()> {
    e2e(&nodes(1), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        bucket.put("images/1.bin", vec![1; MIB]).await?;
        let agent = cluster.agent("node-1")?;
        agent.stop().await?;
        agent.set_env("AWS_ACCESS_KEY_ID", ACCESS_KEY);
        agent.set_env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        agent.configure(&json!({"origin": {"platformIdentityNamespaces": [USER]}}))?;
        agent.start().await?;

        let options = json!({"endpoint": cluster.s3.proxy.endpoint(), "region": REGION});
        cluster
            .dataset("images", json!({"origins": [{"uri": bucket.uri("images"), "options": options}]}))
            .await?;

        assert_eq!(cluster.listed("images").await?["version"]["files"], 1);
        cluster.warm_up("images", "node-1").await
    })
}

#[test]
fn a_bucket_is_reached_by_its_own_host_name() -> Result<()> {
    e2e(&nodes(1), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        bucket.put("images/1.bin", vec![1; MIB]).await?;
        // No name server knows the bucket's host; whoever asks a proxy leaves the look-up to that.
        let proxy = cluster.s3.proxy.endpoint();
        let agent = cluster.agent("node-1")?;
        agent.stop().await?;
        agent.configure(&json!({"origin": {"allowedProxies": ["*"]}}))?;
        agent.start().await?;
        let options =
            json!({"endpoint": format!("http://{DOMAIN}"), "addressing": "VirtualHosted", "proxy": proxy});
        let origin =
            json!({"options": options, "uri": bucket.uri("images"), "secretRef": {"name": "s3-credentials"}});
        let status =
            cluster.s3_dataset_with("images", &bucket, "images", json!({"origins": [origin]})).await?;

        assert_eq!(status["version"]["files"], 1, "{status}");
        cluster.warm_up("images", "node-1").await?;
        // Path style would have the bucket before the key.
        let counts = cluster.s3.proxy.counts();
        assert_eq!(
            counts.by_object.into_iter().collect::<Vec<_>>(),
            [("images/1.bin".to_owned(), MIB as u64)]
        );
        Ok(())
    })
}

#[test]
fn an_origin_is_added_and_what_is_there_of_the_first_stays() -> Result<()> {
    e2e(&nodes(1), async |cluster| {
        let (images, labels) = (cluster.s3.bucket("images")?, cluster.s3.bucket("labels")?);
        for i in 0..4 {
            images.put(&format!("v1/{i}.bin"), vec![i; MIB]).await?;
        }
        labels.put("all.json", vec![9; 1000]).await?;
        cluster.s3_dataset("set", &images, "v1").await?;
        cluster.warm_up("set", "node-1").await?;
        let before = cluster.s3.proxy.counts().by_object;

        // Read with a Secret of its own, so that the two are of different access domains.
        cluster.kube.apply(&credentials().replace("s3-credentials", "labels-credentials")).await?;
        let first = origin(&images, "v1", cluster.s3.proxy.endpoint());
        let mut second = origin(&labels, "", cluster.s3.proxy.endpoint());
        second["path"] = json!("/labels");
        second["secretRef"] = json!({"name": "labels-credentials"});
        cluster.dataset("set", json!({"origins": [first, second]})).await?;
        eventually("five files to be listed", FETCH, async || {
            let status = cluster.listed("set").await?;
            ensure!(status["version"]["files"] == 5, "{status}");
            Ok(())
        })
        .await?;
        cluster.warm("set/*.bin", "node-1", 100).await?;
        cluster.warm_up("set", "node-1").await?;

        let mut expected = before;
        expected.insert("labels/all.json".to_owned(), 1000);
        let fetched = cluster.s3.proxy.counts().by_object;
        ensure!(fetched == expected, "{fetched:?}, not {expected:?}");
        Ok(())
    })
}

#[test]
fn a_path_of_two_origins_is_told_and_the_version_stays() -> Result<()> {
    e2e(&nodes(1), async |cluster| {
        let (a, b) = (cluster.s3.bucket("one")?, cluster.s3.bucket("two")?);
        a.put("x.bin", vec![1; 10]).await?;
        b.put("x.bin", vec![2; 10]).await?;
        let version = cluster.s3_dataset("set", &a, "").await?["version"].clone();

        let origins = [&a, &b].map(|bucket| origin(bucket, "", cluster.s3.proxy.endpoint()));
        cluster.dataset("set", json!({"origins": origins})).await?;
        let status = cluster.condition("dataset", "set", "Listed", "False").await?;
        ensure!(status["version"] == version, "{status}");
        let message = status["conditions"].to_string();
        for part in ["\\\"x.bin\\\" is claimed by two", "s3://one?", "s3://two?"] {
            ensure!(message.contains(part), "{part} is not in {message}");
        }
        Ok(())
    })
}

#[test]
fn a_dataset_has_the_files_of_its_list() -> Result<()> {
    e2e(&nodes(1), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        for i in 0..4 {
            bucket.put(&format!("images/{i}.bin"), vec![i; MIB]).await?;
        }
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "train", "namespace": USER}, "data": {"files": "1.bin\n3.bin\n5.bin\n"},
        });
        cluster.kube.apply(&map.to_string()).await?;
        let list = json!({"configMap": {"name": "train", "key": "files"}});
        let status =
            cluster.s3_dataset_with("images", &bucket, "images", json!({"files": {"list": list}})).await?;
        ensure!(status["version"]["files"] == 2, "{status}");
        ensure!(status["missing"] == json!({"count": 1, "example": "5.bin"}), "{status}");
        cluster.warm_up("images", "node-1").await?;
        let fetched: Vec<String> = cluster.s3.proxy.counts().by_object.into_keys().collect();
        ensure!(fetched == ["data/images/1.bin", "data/images/3.bin"], "{fetched:?}");
        Ok(())
    })
}

#[test]
fn a_long_listing_has_every_object_once() -> Result<()> {
    // More pages than one after the other are asked for: the rest is listed in several places at once.
    const FILES: usize = 6_000;
    e2e(&nodes(1), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        let tree = cluster.dir().join("tree");
        for n in 0..FILES {
            let folder = tree.join(format!("train/n{:03}", n % 40 * 7919 % 613));
            std::fs::create_dir_all(&folder)?;
            std::fs::write(folder.join(format!("{n:05}.txt")), b"x")?;
        }
        bucket.put_tree(&tree, "set", |_| ()).await?;
        let status = cluster.s3_dataset("set", &bucket, "set").await?;
        ensure!(status["version"]["files"] == FILES && status["skipped"].is_null(), "{status}");
        Ok(())
    })
}
