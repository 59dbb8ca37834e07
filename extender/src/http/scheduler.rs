//! kube-scheduler's calls: decode, decide, encode.

use super::explain;
use crate::metrics::Outcome;
use crate::state::State;
use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State as Shared};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hearth_core::decide::{self, Decided, Now};
use hearth_core::index::{ClusterIndex, Problem};
use hearth_core::pod::{Demand, PodFacts};
use hearth_core::wire::scheduler::{CallError, parse_call, parse_preempt};
use hearth_runtime::request_id::with_request_id;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

/// No call takes longer: kube-scheduler has given up long before.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why nobody is judged yet.
pub(super) const NOT_YET: &str = "this extender has just started and does not know the cluster yet";

/// What the handlers live by.
#[derive(Clone)]
pub struct Handlers {
    /// The shared state.
    pub state: Arc<State>,
    /// Warnings about pods go there to become Events.
    pub warnings: Arc<dyn Warnings>,
    /// The API server, to look pods up by name; `None` in a dry world.
    pub client: Option<kube::Client>,
}

/// Takes warnings about pods.
pub trait Warnings: Send + Sync {
    /// Something about the pod's datasets is wrong; each sentence becomes an Event once.
    fn warn(&self, pod: &PodFacts, problems: Vec<String>);
}

/// The routes.
pub fn router(handlers: Handlers, body_limit: usize) -> Router {
    Router::new()
        .route("/prioritize", post(prioritize))
        .route("/filter", post(filter))
        .route("/preempt", post(preempt))
        .route("/explain", get(explain::of_pod).post(explain::of_body))
        .layer(DefaultBodyLimit::max(body_limit))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, TIMEOUT))
        .layer(CatchPanicLayer::new())
        .layer(middleware::from_fn(with_request_id))
        .with_state(handlers)
}

/// Serves until `shutdown`, then ends what is under way.
pub async fn serve(listen: SocketAddr, router: Router, shutdown: CancellationToken) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("scheduler.listen {listen} cannot be used"))?;
    // Replies are small and each is waited for: do not let them wait for more.
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!("TCP_NODELAY: {error}");
        }
    });
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await?;
    Ok(())
}

/// A body, or why it is none: that is counted, too.
type Body = Result<Bytes, BytesRejection>;

async fn prioritize(Shared(handlers): Shared<Handlers>, body: Body) -> Response {
    handlers.answer("prioritize", body, |body| {
        let call = parse_call(body)?;
        let decided =
            handlers.decide(&call.pod, |index, now, demand| decide::prioritize(index, now, &call, demand));
        Ok((call.pod, decided))
    })
}

async fn filter(Shared(handlers): Shared<Handlers>, body: Body) -> Response {
    handlers.answer("filter", body, |body| {
        let call = parse_call(body)?;
        let decided =
            handlers.decide(&call.pod, |index, now, demand| decide::filter(index, now, &call, demand));
        Ok((call.pod, decided))
    })
}

async fn preempt(Shared(handlers): Shared<Handlers>, body: Body) -> Response {
    handlers.answer("preempt", body, |body| {
        let call = parse_preempt(body)?;
        let decided =
            handlers.decide(&call.pod, |index, now, demand| decide::preempt(index, now, &call, demand));
        Ok((call.pod, decided))
    })
}

impl Handlers {
    /// Decides for a pod under the read guard, after its demand was made ready.
    fn decide(
        &self,
        pod: &PodFacts,
        decide: impl FnOnce(&ClusterIndex, Now, Option<Demand>) -> Decided,
    ) -> Decided {
        let now = self.state.now();
        let demand = self.state.demand(pod);
        // The watch has mostly prepared the pod by now; a call may also be faster.
        if let Some(demand) = &demand
            && !self.state.read(|index| index.unprepared(demand).is_empty())
        {
            self.state.prepare(demand);
        }
        self.state.read(|index| decide(index, now, demand))
    }

    fn answer(
        &self,
        verb: &'static str,
        body: Body,
        decide: impl FnOnce(&[u8]) -> Result<(PodFacts, Decided), CallError>,
    ) -> Response {
        let mut observer = self.state.metrics.call(verb);
        let mut refuse = |status: StatusCode, why: &dyn std::fmt::Display| {
            observer.ended(Outcome::Refused);
            tracing::warn!(verb, "a call was refused: {why}");
            (status, format!("{why}\n")).into_response()
        };
        // An empty index would call every dataset unknown and every node cold. As an
        // error the scheduler takes it for what it is: it tries again, or does without us.
        if !self.state.agents(|agents| agents.synced) {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, &NOT_YET);
        }
        let body = match body {
            Ok(body) => body,
            Err(rejection) => return refuse(rejection.status(), &rejection.body_text()),
        };
        let (pod, decided) = match decide(&body) {
            Ok(decided) => decided,
            Err(error) => return refuse(StatusCode::BAD_REQUEST, &error),
        };
        self.state.metrics.candidates.observe(decided.candidates as f64);
        self.state.metrics.taken.observe(decided.taken as f64);
        tracing::debug!(
            verb,
            namespace = pod.metadata.namespace,
            pod = pod.metadata.name,
            candidates = decided.candidates,
            taken = decided.taken,
            "decided"
        );
        if let Some(decision) = decided.decision {
            // A manifest on its way here is nothing that the pod's owner could mend.
            let weighed = decision.weighing.problems.iter();
            let weighed = weighed.filter(|problem| !matches!(problem, Problem::NoManifest(_)));
            let weighed = weighed.map(ToString::to_string);
            let problems: Vec<String> = decision.demand.problems.iter().cloned().chain(weighed).collect();
            if !problems.is_empty() {
                self.warnings.warn(&pod, problems);
            }
            self.state.remember(&pod.metadata.uid, decision);
        }
        observer.ended(Outcome::Answered);
        // The length is known, so that the connection is kept: no layer may stream this.
        ([(header::CONTENT_TYPE, "application/json")], decided.reply).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use axum::body::to_bytes;
    use axum::http::Request;
    use hearth_core::index::Settings;
    use parking_lot::Mutex;
    use tower::ServiceExt;

    #[derive(Default)]
    struct Kept(Mutex<Vec<String>>);

    impl Warnings for Kept {
        fn warn(&self, _: &PodFacts, problems: Vec<String>) {
            self.0.lock().extend(problems);
        }
    }

    /// Panics at every warning.
    struct Clumsy;

    impl Warnings for Clumsy {
        fn warn(&self, _: &PodFacts, _: Vec<String>) {
            panic!("a bug");
        }
    }

    const UNKNOWN_DATASET: &str = r#"{"Pod":{"metadata":{"namespace":"n","name":"p","uid":"u","annotations":{"hearth.dev/datasets":"none,No!"}}},"Nodes":null,"NodeNames":["a"]}"#;

    fn state() -> Arc<State> {
        let state = State::new(Settings::default(), Metrics::new().unwrap());
        state.set_agents(|agents| agents.synced = true);
        Arc::new(state)
    }

    async fn post(handlers: Handlers, verb: &str, body: &str) -> Response {
        let request =
            Request::post(format!("/{verb}")).body(axum::body::Body::from(body.to_owned())).unwrap();
        router(handlers, 1 << 20).oneshot(request).await.unwrap()
    }

    async fn call(verb: &str, body: &str) -> (StatusCode, String, Vec<String>) {
        let kept = Arc::new(Kept::default());
        let handlers = Handlers { state: state(), warnings: kept.clone(), client: None };
        let response = post(handlers, verb, body).await;
        assert!(response.headers().contains_key("x-request-id"));
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let problems = kept.0.lock().clone();
        (status, String::from_utf8(body.to_vec()).unwrap(), problems)
    }

    #[tokio::test]
    async fn bodies_that_cannot_be_answered_are_refused_in_one_sentence() {
        for verb in ["filter", "prioritize"] {
            let (status, why, _) = call(verb, r#"{"Pod":{},"Nodes":{"items":[]},"NodeNames":null}"#).await;
            assert_eq!(status, StatusCode::BAD_REQUEST);
            assert!(why.contains("nodeCacheCapable") && why.trim_end().lines().count() == 1, "{why}");
        }
        for body in ["", "{", "[]", r#"{"Pod":null}"#] {
            let (status, why, _) = call("preempt", body).await;
            assert_eq!(status, StatusCode::BAD_REQUEST);
            assert_eq!(why.trim_end().lines().count(), 1, "{why}");
        }
        let (status, ..) = call("filter", &" ".repeat(2 << 20)).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn an_unknown_dataset_warns_and_a_preferred_pod_still_schedules() {
        let body = UNKNOWN_DATASET;
        let (status, reply, problems) = call("prioritize", body).await;
        assert_eq!((status, reply.as_str()), (StatusCode::OK, "[]"));
        assert_eq!(problems.len(), 2, "{problems:?}");
        let (_, reply, _) = call("filter", body).await;
        assert!(reply.contains(r#""NodeNames":["a"]"#), "{reply}");
        let required =
            body.replace("\"annotations\":{", "\"annotations\":{\"hearth.dev/locality\":\"required\",");
        let (_, reply, _) = call("filter", &required).await;
        assert!(reply.contains(r#""NodeNames":[]"#) && reply.contains(decide::REASON_PROBLEM), "{reply}");
    }

    #[tokio::test]
    async fn a_pod_without_datasets_is_answered_with_nothing() {
        let (status, reply, _) =
            call("prioritize", r#"{"Pod":{"metadata":{}},"Nodes":null,"NodeNames":["a"]}"#).await;
        assert_eq!((status, reply.as_str()), (StatusCode::OK, "[]"));
    }

    #[tokio::test]
    async fn nobody_is_judged_before_the_cluster_is_known() {
        let state = Arc::new(State::new(Settings::default(), Metrics::new().unwrap()));
        let kept = Arc::new(Kept::default());
        for verb in ["filter", "prioritize", "preempt"] {
            let handlers = Handlers { state: state.clone(), warnings: kept.clone(), client: None };
            let response = post(handlers, verb, UNKNOWN_DATASET).await;
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        }
        assert!(kept.0.lock().is_empty(), "no Event says that the dataset is unknown");
    }

    #[tokio::test]
    async fn a_panic_costs_one_call() {
        let state = state();
        let handlers = || Handlers { state: state.clone(), warnings: Arc::new(Clumsy), client: None };
        let response = post(handlers(), "prioritize", UNKNOWN_DATASET).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let harmless = r#"{"Pod":{"metadata":{}},"Nodes":null,"NodeNames":["a"]}"#;
        assert_eq!(post(handlers(), "prioritize", harmless).await.status(), StatusCode::OK);
        let text = prometheus::TextEncoder::new().encode_to_string(&state.metrics.registry.gather()).unwrap();
        for outcome in ["answered", "failed"] {
            let line = format!("calls_total{{outcome=\"{outcome}\",verb=\"prioritize\"}} 1");
            assert!(text.contains(&line), "{line} is not in:\n{text}");
        }
    }
}
