//! The ordinary way: serde_json into owned structs, a map look-up per node, every
//! host answered.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Args {
    pod: Pod,
    node_names: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct HostPriority {
    host: String,
    score: i64,
}

/// Answers prioritize from a map of scores that needs no counting at all.
pub(crate) fn router(names: &[String]) -> Router {
    let scores: HashMap<String, i64> =
        names.iter().enumerate().map(|(n, name)| (name.clone(), n as i64 % 11)).collect();
    Router::new()
        .route("/prioritize", post(prioritize))
        .layer(DefaultBodyLimit::max(8 << 20))
        .with_state(Arc::new(scores))
}

async fn prioritize(State(scores): State<Arc<HashMap<String, i64>>>, body: Bytes) -> Vec<u8> {
    let Ok(args) = serde_json::from_slice::<Args>(&body) else { return Vec::new() };
    std::hint::black_box(args.pod.metadata.annotations);
    let answer: Vec<HostPriority> = args
        .node_names
        .into_iter()
        .map(|host| HostPriority { score: scores.get(&host).copied().unwrap_or(0), host })
        .collect();
    serde_json::to_vec(&answer).unwrap_or_default()
}
