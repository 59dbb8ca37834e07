//! An API server for tests of single requests.

use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use std::convert::Infallible;

/// What is answered to a method: a code, and a body or the message of a failure.
pub(super) type Answers = &'static [(&'static str, u16, &'static str)];

/// A client of one that answers each method so, and others with a failure.
pub(super) fn client(answers: Answers) -> kube::Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let found = answers.iter().find(|(method, ..)| request.method().as_str() == *method);
        let (_, code, body) = found.copied().unwrap_or(("", 500, "{}"));
        let body: Value = match code {
            200 | 201 => serde_json::from_str(body).unwrap(),
            code => json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": body, "reason": if code == 404 { "NotFound" } else { "" }, "code": code}),
        };
        let body = Body::from(body.to_string().into_bytes());
        std::future::ready(Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap()))
    });
    kube::Client::new(service, "n")
}
