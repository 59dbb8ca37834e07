//! SIGTERM, as kubelet sends it: what is under way is answered, the Lease is free, and the programs say that all went well.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hearth_tests::cluster::{Cluster, e2e, nodes};
use hearth_tests::datasets::imagined;
use hearth_tests::kube_access::PATIENCE;
use hearth_tests::wait::eventually;
use hearth_tests::workload::NAMESPACE;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Who holds the extenders' Lease.
async fn holder(cluster: &Cluster) -> Result<Option<String>> {
    let lease = cluster.kube.api::<Lease>(NAMESPACE).get("hearth-extender").await?;
    Ok(lease.spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty()))
}

/// Waits until nobody listens there.
async fn closed(address: &str) -> Result<()> {
    eventually(&format!("{address} to be closed"), PATIENCE, async || {
        if TcpStream::connect(address).await.is_ok() { bail!("it is open") } else { Ok(()) }
    })
    .await
}

#[test]
fn an_extender_answers_the_call_under_way_and_releases_its_lease() -> Result<()> {
    e2e(&nodes(1), async |cluster| {
        eventually("the extender to lead", PATIENCE, async || {
            holder(cluster).await?.map(drop).context("nobody holds the Lease")
        })
        .await?;
        let address = cluster.extenders[0].scheduler_url.trim_start_matches("http://").to_owned();
        let body = json!({"Pod": imagined("images")?, "Nodes": null, "NodeNames": ["node-1"]}).to_string();
        let (first, second) = body.split_at(body.len() / 2);
        let mut call = TcpStream::connect(&address).await?;
        let head =
            format!("POST /prioritize HTTP/1.1\r\nHost: extender\r\nContent-Length: {}\r\n\r\n", body.len());
        call.write_all(format!("{head}{first}").as_bytes()).await?;
        // The call is known to be under way when one that came later is answered.
        cluster.explain("images").await?;

        let (stopped, answered) = tokio::join!(cluster.extenders[0].workload.stop(), async {
            // It takes no new calls, and still hears this one to its end.
            closed(&address).await?;
            call.write_all(second.as_bytes()).await?;
            let mut answer = String::new();
            tokio::time::timeout(Duration::from_secs(5), call.read_to_string(&mut answer)).await??;
            anyhow::Ok(answer)
        });

        let answer = answered?;
        ensure!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("[]"), "{answer:?}");
        stopped?;
        assert_eq!(holder(cluster).await?, None, "the Lease is not free");
        Ok(())
    })
}

#[test]
fn an_agent_ends_in_order_in_the_middle_of_a_fetch_and_goes_on_where_it_was() -> Result<()> {
    e2e(&nodes(1), async |cluster| {
        cluster.images_half_fetched().await?;

        cluster.agent("node-1")?.stop().await?;

        // Nothing can be fetched yet: what it holds now, it held before.
        cluster.agent("node-1")?.start().await?;
        cluster.agent("node-1")?.ready().await?;
        cluster.warm("images", "node-1", 50).await?;
        cluster.s3.proxy.release_gets();
        cluster.warm("images", "node-1", 100).await
    })
}
