//! Ways to an S3 origin besides a Secret and path-style addresses.

use anyhow::Result;
use hearth_tests::cluster::{e2e, nodes};
use hearth_tests::datasets::USER;
use hearth_tests::s3::{ACCESS_KEY, DOMAIN, REGION, SECRET_KEY};
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
        let proxy = cluster.s3.proxy.endpoint();
        let agent = cluster.agent("node-1")?;
        agent.stop().await?;
        // No name server knows the bucket's host; whoever asks a proxy leaves the look-up to that.
        agent.set_env("http_proxy", &proxy);
        agent.start().await?;

        let options = json!({"endpoint": format!("http://{DOMAIN}"), "addressing": "VirtualHosted"});
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
