//! The harness itself: a real control plane starts, schedules, and leaves nothing behind.

use std::collections::BTreeMap;

use anyhow::Result;
use hearth_tests::control_plane::ControlPlane;
use hearth_tests::kube_access::PATIENCE;
use hearth_tests::nodes;
use hearth_tests::pods::pod;
use hearth_tests::process::Program;
use hearth_tests::run_dir::RunDir;
use hearth_tests::wait::eventually;

#[tokio::test]
async fn real_scheduler_places_a_pod_on_a_simulated_node() -> Result<()> {
    let dir = RunDir::create("control-plane")?;
    let mut plane = ControlPlane::start(dir.path()).await?;
    plane.start_scheduler(None).await?;
    nodes::create(&plane.admin, "node-1", &BTreeMap::new()).await?;
    plane.admin.wait_for_default_account("default").await?;

    pod("plain").create(&plane.admin).await?;

    assert_eq!(plane.admin.node_of("default", "plain", PATIENCE).await?, "node-1");
    plane.stop();
    dir.remove();
    Ok(())
}

/// Not a test of its own: [`nothing_survives_a_killed_test`] runs it in a process and kills that.
#[test]
fn a_test_that_is_killed() -> Result<()> {
    let Some(dir) = std::env::var_os("HEARTH_TEST_KILLED") else { return Ok(()) };
    let dir = std::path::PathBuf::from(dir);
    let child = Program::new("sleeper", "/bin/sleep", &dir).arg("1000").start()?;
    std::fs::write(dir.join("pid.half"), child.pid().to_string())?;
    std::fs::rename(dir.join("pid.half"), dir.join("pid"))?;
    std::thread::park();
    Ok(())
}

#[tokio::test]
async fn nothing_survives_a_killed_test() -> Result<()> {
    let dir = RunDir::create("killed")?;
    let mut test = std::process::Command::new(std::env::current_exe()?)
        .args(["--exact", "control_plane::a_test_that_is_killed"])
        .env("HEARTH_TEST_KILLED", dir.path())
        .spawn()?;
    let pid = eventually("the child to start", PATIENCE, async || {
        Ok(std::fs::read_to_string(dir.path().join("pid"))?)
    })
    .await?;

    test.kill()?;
    test.wait()?;

    let command = format!("/proc/{pid}/cmdline");
    eventually("the kernel to kill the child", PATIENCE, async || {
        let alive = std::fs::read_to_string(&command).unwrap_or_default();
        anyhow::ensure!(!alive.contains("sleep"), "{alive} lives");
        Ok(())
    })
    .await?;
    dir.remove();
    Ok(())
}
