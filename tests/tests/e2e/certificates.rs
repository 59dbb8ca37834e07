//! The install's Job makes the certificates that agents and extenders live by.

use anyhow::{Context, Result, ensure};
use hearth_tests::cluster::{e2e, nodes};
use hearth_tests::kube_access::{Kube, PATIENCE};
use hearth_tests::wait::eventually;
use hearth_tests::workload::{NAMESPACE, run_job};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::json;

/// What the Job made.
#[derive(Debug, PartialEq)]
struct Made {
    secret: Secret,
    authority: String,
}

async fn made(kube: &Kube) -> Result<Made> {
    let secret = kube.api::<Secret>(NAMESPACE).get("hearth-extender-tls").await?;
    let map = kube.api::<ConfigMap>(NAMESPACE).get("hearth-ca").await?;
    let authority = map.data.and_then(|mut data| data.remove("ca.crt")).context("hearth-ca has no ca.crt")?;
    Ok(Made { secret, authority })
}

/// Asks for a page over TLS, trusting one authority; the status, whatever it is.
async fn trusting(pem: &[u8], url: &str) -> Result<u16> {
    let http = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(pem)?])
        .no_proxy()
        .build()?;
    Ok(http.post(format!("{url}/v1/report")).send().await?.status().as_u16())
}

#[test]
fn the_job_makes_them_once_with_the_rights_that_are_shipped_and_reports_go_over_them() -> Result<()> {
    e2e(&nodes(1), async |cluster| {
        run_job(&cluster.plane, "hearth-certificates", "hearth-extender").await?;
        let first = made(&cluster.kube).await?;
        run_job(&cluster.plane, "hearth-certificates", "hearth-extender").await?;
        let second = made(&cluster.kube).await?;
        assert_eq!(first, second, "agents hold the first authority");
        assert_eq!(second.secret.type_.as_deref(), Some("kubernetes.io/tls"));

        // As kubelet mounts them.
        let dir = cluster.dir().join("mounted");
        std::fs::create_dir_all(&dir)?;
        for (key, ByteString(value)) in second.secret.data.unwrap_or_default() {
            std::fs::write(dir.join(key), value)?;
        }
        ensure!(std::fs::read_to_string(dir.join("ca.crt"))? == second.authority, "two authorities");
        std::fs::write(dir.join("hearth-ca.crt"), &second.authority)?;
        let extender = &mut cluster.extenders[0];
        extender.workload.stop().await?;
        extender.workload.configure(
            &json!({"agents": {"tlsCertFile": dir.join("tls.crt"), "tlsKeyFile": dir.join("tls.key")}}),
        )?;
        extender.workload.start().await?;
        let agent = cluster.agents.get_mut("node-1").context("no agent")?;
        agent.stop().await?;
        agent.configure(&json!({"tls": {"caFile": dir.join("hearth-ca.crt")}}))?;
        agent.start().await?;

        let extender = &cluster.extenders[0];
        eventually("the extender to apply a report", PATIENCE, async || {
            let applied = extender.workload.metric("hearth_extender_reports_total", &["outcome=\"applied\""]);
            ensure!(applied.await?.is_some_and(|reports| reports > 0.0), "none yet");
            Ok(())
        })
        .await?;
        // No other authority signed what it serves with; without a token nobody gets further than that.
        assert_eq!(trusting(second.authority.as_bytes(), &extender.agents_url).await?, 401);
        let other = std::fs::read(cluster.plane.pki.ca())?;
        ensure!(trusting(&other, &extender.agents_url).await.is_err(), "any authority would do");
        Ok(())
    })
}
