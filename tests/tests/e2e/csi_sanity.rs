//! The Kubernetes project's conformance suite of CSI drivers, against the agent's.

use anyhow::{Result, ensure};
use hearth_tests::binaries;
use hearth_tests::cluster::nodes;
use hearth_tests::datasets::USER;
use hearth_tests::process::Program;
use hearth_tests::volumes::{self, Driver};
use std::time::Duration;

/// It is done in seconds.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn the_conformance_suite_of_drivers_passes() -> Result<()> {
    volumes::e2e(nodes(1), async |cluster| {
        let bucket = cluster.s3.bucket("data")?;
        bucket.put("images/1.bin", vec![1; 100_000]).await?;
        cluster.s3_dataset("images", &bucket, "images").await?;
        let driver = Driver::of(cluster, "node-1");
        let dir = cluster.dir().join("suite");
        std::fs::create_dir_all(&dir)?;
        let suite = Program::new("csi-suite", binaries::csi_suite()?, &cluster.plane.logs())
            .flag("driver", driver.socket())
            .flag("front", dir.join("front.sock"))
            .flag("mountdir", dir.join("mount"))
            .flag("stagingdir", dir.join("staging"))
            .flag("dataset", "images")
            .flag("namespace", USER)
            // Those of the Controller are of the suite's own.
            .flag("ginkgo.focus", "Node Service|Identity Service");
        let mut suite = suite.start()?;
        let status = suite.wait(LIMIT).await?;
        let said = suite.log_tail(60);
        ensure!(status.success() && said.contains("SUCCESS!"), "{said}");
        Ok(())
    })
}
