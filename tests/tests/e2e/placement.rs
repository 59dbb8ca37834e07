//! Pods go to the nodes that hold their data.

use anyhow::Result;
use hearth_tests::cluster::{e2e, nodes};
use hearth_tests::datasets::USER;
use hearth_tests::kube_access::PATIENCE;
use hearth_tests::pods::pod;

const MIB: usize = 1 << 20;

#[test]
fn a_warm_node_wins_over_idle_cold_ones_with_an_s3_origin() -> Result<()> {
    e2e(&nodes(3), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        for i in 0..8 {
            bucket.put(&format!("images/{i}.bin"), vec![i; MIB]).await?;
        }
        cluster.s3_dataset("images", &bucket, "images").await?;
        cluster.warm_up("images", "node-2").await?;

        for i in 0..3 {
            assert_eq!(cluster.place(&format!("trainer-{i}"), "images").await?, "node-2");
        }

        let why = cluster.kube.event(USER, "trainer-0", "node-2 holds 100 %", PATIENCE).await?;
        assert!(why.contains("8.4 MB of 8.4 MB"), "{why}");
        Ok(())
    })
}

#[test]
fn a_warm_node_wins_over_idle_cold_ones_with_a_file_origin() -> Result<()> {
    e2e(&nodes(3), async |cluster| {
        let dir = cluster.dir().join("origin");
        std::fs::create_dir_all(dir.join("deep"))?;
        std::fs::write(dir.join("deep/weights.bin"), vec![1; 5 * MIB])?;
        std::fs::write(dir.join("empty"), [])?;
        cluster.file_dataset("weights", &dir).await?;
        cluster.warm_up("weights", "node-3").await?;

        assert_eq!(cluster.place("server", "weights").await?, "node-3");
        Ok(())
    })
}

#[test]
fn the_part_that_is_asked_for_decides_not_the_whole() -> Result<()> {
    e2e(&nodes(2), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        bucket.put("images/train/big.bin", vec![1; 8 * MIB]).await?;
        bucket.put("images/val/small.bin", vec![2; MIB]).await?;
        cluster.s3_dataset("images", &bucket, "images").await?;
        // node-1 holds eight ninths of the dataset, node-2 the ninth that is asked for.
        cluster.warm_up("images/train/**", "node-1").await?;
        cluster.warm_up("images/val/**", "node-2").await?;

        assert_eq!(cluster.place("validates", "images/val/**").await?, "node-2");
        assert_eq!(cluster.place("trains", "images/train/**").await?, "node-1");
        assert_eq!(cluster.place("does-both", "images/{train,val}/**").await?, "node-1");
        Ok(())
    })
}

#[test]
fn a_pod_on_a_cold_node_has_its_data_fetched_once_and_no_more() -> Result<()> {
    e2e(&nodes(2), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        bucket.put("images/train/a.bin", vec![1; 3 * MIB]).await?;
        bucket.put("images/other/b.bin", vec![2; 3 * MIB]).await?;
        cluster.s3_dataset("images", &bucket, "images").await?;
        assert_eq!(cluster.s3.proxy.counts().bytes, 0, "listing must not fetch");

        let node = cluster.place("trainer", "images/train/**").await?;
        cluster.warm("images/train/**", &node, 100).await?;

        let counts = cluster.s3.proxy.counts();
        assert_eq!(counts.bytes, 3 * MIB as u64, "{counts:?}");
        assert_eq!(counts.by_object.keys().collect::<Vec<_>>(), ["data/images/train/a.bin"]);

        // What is there is not fetched again for the next pod.
        assert_eq!(cluster.place("second", "images/train/**").await?, node);
        cluster.kube.event(USER, "second", &format!("{node} holds 100 %"), PATIENCE).await?;
        assert_eq!(cluster.s3.proxy.counts().bytes, 3 * MIB as u64);
        Ok(())
    })
}

#[test]
fn a_pod_that_only_mounts_is_placed_by_its_volume() -> Result<()> {
    e2e(&nodes(3), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        bucket.put("images/a.bin", vec![1; MIB]).await?;
        cluster.s3_dataset("images", &bucket, "images").await?;
        cluster.warm_up("images", "node-2").await?;

        pod("mounts").mounts("images").create(&cluster.kube).await?;

        assert_eq!(cluster.kube.node_of(USER, "mounts", PATIENCE).await?, "node-2");
        Ok(())
    })
}

#[test]
fn pods_without_datasets_cause_no_call() -> Result<()> {
    e2e(&nodes(2).without_agents(), async |cluster| {
        for i in 0..5 {
            let name = format!("plain-{i}");
            pod(&name).create(&cluster.kube).await?;
            cluster.kube.node_of(USER, &name, PATIENCE).await?;
        }
        let before = cluster.extenders[0].calls().await?;
        assert_eq!(before, 0.0, "the extender was called for pods without datasets");

        // The counter counts: a pod with a dataset, even an unknown one, is one call.
        cluster.place("trainer", "unknown").await?;
        assert_eq!(cluster.extenders[0].calls().await?, 1.0);
        Ok(())
    })
}

#[test]
fn a_pod_with_an_unknown_dataset_or_a_bad_annotation_is_warned_and_placed() -> Result<()> {
    e2e(&nodes(2).without_agents(), async |cluster| {
        cluster.place("unknown", "nothing-of-this-name").await?;
        cluster.kube.event(USER, "unknown", "nothing-of-this-name", PATIENCE).await?;
        cluster.place("bad", "images/{a,b").await?;
        cluster.kube.event(USER, "bad", "hearth.dev/datasets", PATIENCE).await?;
        Ok(())
    })
}

#[test]
fn why_is_told_to_a_person_who_asks_about_a_pod() -> Result<()> {
    e2e(&nodes(3), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        bucket.put("images/a.bin", vec![1; MIB]).await?;
        cluster.s3_dataset("images", &bucket, "images").await?;
        cluster.warm_up("images", "node-2").await?;
        pod("trainer").datasets("images").required("100%").create(&cluster.kube).await?;
        cluster.kube.node_of(USER, "trainer", PATIENCE).await?;

        let told = cluster.extenders[0].told(USER, "trainer").await?;

        let mut lines = told.lines();
        let first = lines.next().unwrap_or_default();
        assert!(first.starts_with("1.0 MB of default/images") && first.contains("required"), "{told}");
        let warm = lines.find(|line| line.starts_with("node-2 ")).unwrap_or_default();
        assert!(warm.contains(" 100 %"), "{told}");

        let refused = cluster.extenders[0].told(USER, "nobody").await.unwrap_err().to_string();
        assert_eq!(refused.trim_end(), "404 Not Found: there is no pod nobody in namespace default");
        Ok(())
    })
}
