//! Where a pod would go, and why: for people.

use super::scheduler::{Handlers, NOT_YET};
use axum::body::Bytes;
use axum::extract::{Query, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hearth_core::decide::Decision;
use hearth_core::explain::explain;
use hearth_core::pod::PodFacts;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde::Deserialize;
use std::time::Duration;

/// Longest wait for the API server.
const LOOK_UP: Duration = Duration::from_secs(3);

/// Which pod to explain.
#[derive(Deserialize)]
pub(super) struct Which {
    namespace: String,
    pod: String,
}

/// `GET /explain?namespace=…&pod=…`: a pod that there is.
pub(super) async fn of_pod(
    Shared(handlers): Shared<Handlers>,
    headers: HeaderMap,
    which: Result<Query<Which>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(Query(which)) = which else {
        return sentence(StatusCode::BAD_REQUEST, "ask with ?namespace=NAMESPACE&pod=NAME, or POST a Pod");
    };
    let Some(client) = handlers.client.clone() else {
        return sentence(StatusCode::NOT_IMPLEMENTED, "this server knows no API server: POST a Pod");
    };
    let pods: Api<Pod> = Api::namespaced(client, &which.namespace);
    let found = tokio::time::timeout(LOOK_UP, pods.get_opt(&which.pod)).await;
    let pod = match found {
        Ok(Ok(Some(pod))) => serde_json::to_value(pod).and_then(serde_json::from_value::<PodFacts>),
        Ok(Ok(None)) => {
            let why = format!("there is no pod {} in namespace {}", which.pod, which.namespace);
            return sentence(StatusCode::NOT_FOUND, &why);
        }
        Ok(Err(error)) => {
            return sentence(StatusCode::BAD_GATEWAY, &format!("the API server refused: {error}"));
        }
        Err(_) => return sentence(StatusCode::GATEWAY_TIMEOUT, "the API server did not answer in time"),
    };
    match pod {
        Ok(pod) => answer(&handlers, &headers, &pod),
        Err(error) => sentence(StatusCode::BAD_GATEWAY, &format!("the pod cannot be read: {error}")),
    }
}

/// `POST /explain` with a Pod as JSON: a pod that might be.
pub(super) async fn of_body(Shared(handlers): Shared<Handlers>, headers: HeaderMap, body: Bytes) -> Response {
    match serde_json::from_slice::<PodFacts>(&body) {
        Ok(mut pod) => {
            if pod.metadata.namespace.is_empty() {
                "default".clone_into(&mut pod.metadata.namespace);
            }
            answer(&handlers, &headers, &pod)
        }
        Err(error) => sentence(StatusCode::BAD_REQUEST, &format!("the body is not a Pod as JSON: {error}")),
    }
}

fn answer(handlers: &Handlers, headers: &HeaderMap, pod: &PodFacts) -> Response {
    if !handlers.state.agents(|agents| agents.synced) {
        return sentence(StatusCode::SERVICE_UNAVAILABLE, NOT_YET);
    }
    let Some(demand) = handlers.state.demand(pod) else {
        return sentence(StatusCode::UNPROCESSABLE_ENTITY, "the pod names and mounts no dataset");
    };
    handlers.state.prepare(&demand);
    let now = handlers.state.now();
    let explanation = handlers.state.read(|index| {
        let weighing = index.weigh(now.monotonic, &demand);
        explain(index, now, &Decision { demand, weighing })
    });
    let wants_text = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.starts_with("text/plain"));
    match wants_text {
        true => explanation.to_text().into_response(),
        false => axum::Json(explanation).into_response(),
    }
}

fn sentence(status: StatusCode, text: &str) -> Response {
    (status, format!("{text}\n")).into_response()
}
