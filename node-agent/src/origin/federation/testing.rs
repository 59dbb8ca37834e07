//! A token service and a ServiceAccount, for tests of exchanges.

use super::{Federation, NamedAccount};
use crate::accounts::Accounts;
use crate::config::{AzIdentity, GsIdentity, WebIdentityConfig};
use crate::testing::FakeApi;
use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::task::JoinHandle;

/// What the service was asked.
#[derive(Clone, Debug)]
pub(in crate::origin) struct Asked {
    pub(in crate::origin) path: String,
    pub(in crate::origin) query: Option<String>,
    pub(in crate::origin) authorization: Option<String>,
    pub(in crate::origin) body: String,
}

/// A service that gives the answers that it was told, in order.
pub(in crate::origin) struct TokenService {
    pub(in crate::origin) url: String,
    answers: Arc<Mutex<VecDeque<(StatusCode, String)>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    server: JoinHandle<()>,
}

impl TokenService {
    pub(in crate::origin) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (answers, asked) = (Arc::<Mutex<VecDeque<_>>>::default(), Arc::<Mutex<Vec<_>>>::default());
        let (next, seen) = (answers.clone(), asked.clone());
        let app = Router::new().fallback(move |request: Request| {
            let (next, seen) = (next.clone(), seen.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
                let header =
                    parts.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
                seen.lock().push(Asked {
                    path: parts.uri.path().to_owned(),
                    query: parts.uri.query().map(str::to_owned),
                    authorization: header,
                    body: String::from_utf8(body.to_vec()).unwrap(),
                });
                next.lock().pop_front().unwrap_or((StatusCode::IM_A_TEAPOT, String::new()))
            }
        });
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, answers, asked, server }
    }

    pub(in crate::origin) fn answer(&self, status: StatusCode, body: &str) {
        self.answers.lock().push_back((status, body.to_owned()));
    }

    pub(in crate::origin) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }
}

impl Drop for TokenService {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// ServiceAccount `ns/reader`, whose token is `account-token`; all services are at `service`.
pub(in crate::origin) fn account(annotations: &Value, service: &str) -> NamedAccount {
    hearth_runtime::tls::install_provider();
    let api = FakeApi::default();
    let path = "/api/v1/namespaces/ns/serviceaccounts/reader";
    api.put(
        path,
        &json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"namespace": "ns", "name": "reader", "annotations": annotations}}),
    );
    api.put(
        &format!("{path}/token"),
        &json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {},
            "spec": {"audiences": []},
            "status": {"token": "account-token", "expirationTimestamp": "2099-01-01T00:00:00Z"}}),
    );
    let accounts = Accounts::of_cluster(api.client(), "hearth-system:hearth-node-agent".to_owned());
    let config = WebIdentityConfig {
        gs: GsIdentity {
            audience: Some("//iam.googleapis.com/provider".to_owned()),
            sts_endpoint: service.to_owned(),
            iam_endpoint: service.to_owned(),
        },
        az: AzIdentity { authority: service.to_owned(), ..AzIdentity::default() },
        ..WebIdentityConfig::default()
    };
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    NamedAccount {
        federation: Arc::new(Federation::new(accounts, http, config)),
        namespace: "ns".to_owned(),
        name: "reader".to_owned(),
    }
}

/// The fields of a form.
pub(in crate::origin) fn form(body: &str) -> BTreeMap<String, String> {
    reqwest::Url::parse(&format!("http://h/?{body}")).unwrap().query_pairs().into_owned().collect()
}
