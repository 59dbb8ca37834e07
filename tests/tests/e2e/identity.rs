//! An agent speaks for its own node only.

use anyhow::{Context, Result};
use hearth_core::wire::report::{CONTENT_TYPE, Inventory, NodeStatus, PROTOCOL, Report, Speaker, encode};
use hearth_tests::agent::AUDIENCE;
use hearth_tests::cluster::{Cluster, e2e, nodes};

/// The first report of an empty store on a node.
fn first_report(node: &str, node_uid: &str) -> Vec<u8> {
    encode(&Report {
        protocol: PROTOCOL,
        speaker: Speaker {
            node: node.to_owned(),
            node_uid: node_uid.to_owned(),
            store: uuid::Uuid::from_u128(7),
            boot: 1,
        },
        sequence: 0,
        inventory: Inventory::Snapshot(Vec::new()),
        status: NodeStatus::default(),
        orders_seen: 0,
        hold_millis: 0,
    })
}

/// Sends a report as the holder of `token` and returns the status and the sentence.
async fn report(cluster: &Cluster, token: &str, node: &str) -> Result<(u16, String)> {
    let extender = &cluster.extenders[0];
    let uid = cluster.kube.node_uid(node).await?;
    let answer = extender
        .agents_client
        .post(format!("{}/v1/report", extender.agents_url))
        .bearer_auth(token)
        .header("content-type", CONTENT_TYPE)
        .body(first_report(node, &uid))
        .send()
        .await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

#[test]
fn a_report_for_another_node_is_refused() -> Result<()> {
    e2e(&nodes(2), async |cluster| {
        let pod = cluster.agents["node-1"].pod.clone();
        let token = cluster.kube.pod_token(&pod, Some(AUDIENCE)).await?;

        let (status, why) = report(cluster, &token, "node-2").await?;
        assert_eq!(status, 403, "{why}");
        assert!(why.contains("node-1") && why.contains("node-2"), "{why}");

        let (status, why) = report(cluster, &token, "node-1").await?;
        assert_eq!(status, 200, "its own node: {why}");
        Ok(())
    })
}

#[test]
fn a_token_of_another_account_or_audience_or_none_is_refused() -> Result<()> {
    e2e(&nodes(1), async |cluster| {
        let pod = cluster.agents["node-1"].pod.clone();
        let for_the_api_server = cluster.kube.pod_token(&pod, None).await?;
        let extender = cluster.extenders[0].workload.pod.clone();
        let of_the_extender = cluster.kube.pod_token(&extender, Some(AUDIENCE)).await?;
        let good = cluster.kube.pod_token(&pod, Some(AUDIENCE)).await?;
        let tampered = tamper(&good).context("a token has three parts")?;

        for (what, token, expected) in [
            ("for the API server", for_the_api_server.as_str(), 401),
            ("of the extender's account", of_the_extender.as_str(), 403),
            ("with a changed claim", tampered.as_str(), 401),
            ("that is none", "nonsense", 401),
        ] {
            let (status, why) = report(cluster, token, "node-1").await?;
            assert_eq!(status, expected, "a token {what}: {why}");
        }
        Ok(())
    })
}

/// The token with another token's payload under its signature.
fn tamper(token: &str) -> Option<String> {
    let (header, rest) = token.split_once('.')?;
    let (payload, signature) = rest.split_once('.')?;
    // One letter in the middle of the base64 text is another claim.
    let middle = payload.len() / 2;
    let letter = if payload.as_bytes()[middle] == b'A' { "B" } else { "A" };
    Some(format!("{header}.{}{letter}{}.{signature}", &payload[..middle], &payload[middle + 1..]))
}
