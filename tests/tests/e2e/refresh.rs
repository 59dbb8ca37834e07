//! Datasets are listed again when somebody asks for it, and when their store tells of changes.

use anyhow::{Result, ensure};
use hearth_tests::cluster::{e2e, nodes};
use hearth_tests::datasets::{FETCH, USER};
use hearth_tests::wait::eventually;
use serde_json::json;

/// Three pages of a listing.
const FILES: usize = 2_500;

#[test]
fn new_objects_are_found_when_somebody_asks_and_when_their_store_tells() -> Result<()> {
    let secrets = tempfile::tempdir()?;
    let token_file = secrets.path().join("token");
    std::fs::write(&token_file, "hush")?;
    e2e(&nodes(1).extender_config(json!({"notices": {"tokenFile": token_file}})), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        let has_files = async |dataset: &str, count: usize| {
            eventually(&format!("{count} files of {dataset} to be listed"), FETCH, async || {
                let status = cluster.listed(dataset).await?;
                ensure!(status["version"]["files"] == count, "{status}");
                Ok(())
            })
            .await
        };
        bucket.put("images/1.bin", vec![1; 10]).await?;
        cluster.s3_dataset_with("images", &bucket, "images", json!({"refresh": "Never"})).await?;

        bucket.put("images/2.bin", vec![2; 10]).await?;
        let asks = ["-n", USER, "annotate", "datasets.hearth.dev", "images", "hearth.dev/refresh=now"];
        cluster.kube.kubectl(&asks, "").await?;
        has_files("images", 2).await?;

        let extender = &cluster.extenders[0];
        let notify = async |token: &str, key: &str| -> Result<(u16, String)> {
            let notice = json!({"Records": [{"s3": {"bucket": {"name": "data"}, "object": {"key": key}}}]});
            let url = format!("{}/v1/notices/s3", extender.agents_url);
            let request = extender.agents_client.post(url).bearer_auth(token).body(notice.to_string());
            let answer = request.send().await?;
            Ok((answer.status().as_u16(), answer.text().await?))
        };
        bucket.put("images/3.bin", vec![3; 10]).await?;
        ensure!(notify("wrong", "images/3.bin").await?.0 == 401);
        ensure!(notify("hush", "others/3.bin").await?.1.starts_with("0 Datasets"));
        let told = cluster.resource("dataset", "images").await?["status"]["notifiedAt"].clone();
        ensure!(told.is_null(), "{told}");
        ensure!(notify("hush", "images/3.bin").await?.1.starts_with("1 Dataset"));
        has_files("images", 3).await?;
        for outcome in ["refused", "unconcerned", "taken"] {
            let label = format!("outcome=\"{outcome}\"");
            let count = extender.workload.metric("hearth_extender_notices_total", &[&label]).await?;
            ensure!(count == Some(1.0), "{outcome}: {count:?}");
        }

        // Of what takes several pages to list, only what the store has told of is listed again.
        let tree = cluster.dir().join("tree");
        for n in 0..FILES {
            let folder = tree.join(format!("{}", n % 10));
            std::fs::create_dir_all(&folder)?;
            std::fs::write(folder.join(format!("{n:05}.txt")), b"x")?;
        }
        bucket.put_tree(&tree, "many", |_| ()).await?;
        cluster.s3_dataset_with("many", &bucket, "many", json!({"refresh": "1h"})).await?;
        cluster.s3.proxy.reset();
        bucket.put("many/7/new.txt", vec![7; 10]).await?;
        bucket.delete("many/3/00003.txt").await?;
        bucket.put("many/4/untold.txt", vec![4; 10]).await?;
        ensure!(notify("hush", "many/7/new.txt").await?.1.starts_with("1 Dataset"));
        has_files("many", FILES + 1).await?;
        ensure!(notify("hush", "many/3/00003.txt").await?.1.starts_with("1 Dataset"));
        has_files("many", FILES).await?;
        let lists = cluster.s3.proxy.counts().lists;
        ensure!(lists == 2, "{lists} pages were listed");
        Ok(())
    })
}
