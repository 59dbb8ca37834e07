//! What is particular to web servers; the conformance suite runs against a real one.

use crate::accounts::Accounts;
use crate::config::OriginConfig;
use crate::credentials::Secrets;
use crate::metrics::Metrics;
use crate::origin::conformance::{Collected, read};
use crate::origin::{Allowed, AllowedHosts, Origin, OriginError, Origins, RetryConfig, Wanted};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, Response};
use hearth_core::manifest::SkipReason;
use hearth_core::object::Validator;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// A web server that answers by a function of the request.
struct Server(String, JoinHandle<()>);

impl Server {
    async fn start(answer: impl Fn(&Request) -> Response<Body> + Clone + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(move |request: Request| std::future::ready(answer(&request)));
        Self(url, tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }))
    }

    async fn open(&self, path: &str, more: serde_json::Value) -> Result<Arc<dyn Origin>, OriginError> {
        open(&["127.0.0.1"], &format!("{}{path}", self.0), more).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.1.abort();
    }
}

/// Secret `s` has a token for the server of this URI, and every other for nobody.
async fn open(hosts: &[&str], uri: &str, more: serde_json::Value) -> Result<Arc<dyn Origin>, OriginError> {
    hearth_runtime::tls::install_provider();
    let hosts = AllowedHosts::new(hosts.iter().map(|host| (*host).to_owned()).collect());
    let retry = RetryConfig { attempts: 0, budget: 0.0 };
    let config = OriginConfig { retry, ..OriginConfig::default() };
    let metrics = Arc::new(Metrics::new().unwrap());
    let endpoint = uri.to_owned();
    let secrets = Secrets::new(move |_, name| {
        let mut values = BTreeMap::from([("token".to_owned(), b"hush".to_vec())]);
        if name == "s" {
            values.insert("HEARTH_ENDPOINTS".to_owned(), endpoint.clone().into_bytes());
        }
        Box::pin(std::future::ready(Ok(values)))
    });
    let allowed = Allowed { web_servers: hosts, ..Allowed::default() };
    let origins = Origins::new(&config, allowed, secrets, Accounts::none(), metrics).unwrap();
    let mut spec = json!({"uri": uri});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    origins.open("ns", &serde_json::from_value(spec).unwrap()).await
}

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Body::from(body.to_owned())).unwrap()
}

/// A file as a server gives it that takes no notice of conditions and ranges.
fn file(body: &str) -> Response<Body> {
    answer(200, &[("etag", "\"1\""), ("last-modified", "Fri, 02 Jan 2026 03:04:05 GMT")], body)
}

async fn list(origin: &Arc<dyn Origin>) -> Result<Collected, OriginError> {
    let mut collected = Collected::default();
    origin.list(&mut collected).await?;
    Ok(collected)
}

fn names(collected: &Collected) -> Vec<&str> {
    collected.objects.keys().map(String::as_str).collect()
}

#[tokio::test]
async fn a_url_without_a_slash_is_one_file() {
    let server = Server::start(|_| file("abc")).await;
    let origin = server.open("/d/a%20b.bin", json!({})).await.unwrap();
    let collected = list(&origin).await.unwrap();
    assert_eq!(names(&collected), ["a b.bin"]);
    let (size, validator) = &collected.objects["a b.bin"];
    let wanted = Wanted { key: "a b.bin", validator, size: *size, range: 0..3 };
    assert_eq!(read(origin.get(wanted).await.unwrap()).await.unwrap(), b"abc");
    let part = Wanted { key: "a b.bin", validator, size: *size, range: 1..2 };
    assert!(matches!(origin.get(part).await, Err(OriginError::Malformed(_))));
}

#[tokio::test]
async fn a_list_names_files_below_it() {
    let server = Server::start(|request| match request.uri().path() {
        "/d/list.txt" => answer(
            200,
            &[("content-type", "text/plain")],
            &format!(
                "x/a%20b\r\n\n./c\nc\nlost\n../up\nfolder/\nhttp://{}/d/e%20f\nhttp://other/d/g\n",
                request.headers()["host"].to_str().unwrap()
            ),
        ),
        "/d/x/a%2520b" | "/d/c" | "/d/e%20f" => file("abc"),
        _ => answer(404, &[], ""),
    })
    .await;
    let options = json!({"options": {"fileList": true}});
    let collected = list(&server.open("/d/list.txt", options).await.unwrap()).await.unwrap();
    assert_eq!(names(&collected), ["c", "e f", "x/a%20b"]);
    let mut skipped = collected.skipped;
    skipped.sort();
    let not_files = ["folder/", "http://other/d/g", "lost"].map(|key| (key.to_owned(), SkipReason::NotAFile));
    assert_eq!(skipped, [&[("../up".to_owned(), SkipReason::DotSegment)], &not_files[..]].concat());
}

#[tokio::test]
async fn an_index_is_walked_once_and_what_is_closed_costs_only_itself() {
    let server = Server::start(|request| {
        let page = |body| answer(200, &[("content-type", "text/html; charset=utf-8")], body);
        match request.uri().path() {
            "/d/" => page("<a href='../'>up</a><a href='s/'>s</a><a href=a>a</a><a href='s/b'>b</a><a href=shut>x</a><a href='closed/'>y</a>"),
            // A page that links to the folder above as if it lay below, and to itself.
            "/d/s/" => page("<a href='/d/s/'>s</a><a href='/d/'>d</a><a href=b>b</a><a href=moved>m</a>"),
            "/d/a" | "/d/s/b" => file("abc"),
            "/d/s/moved" => answer(301, &[("location", "/d/s/")], ""),
            _ => answer(403, &[], ""),
        }
    })
    .await;
    let collected = list(&server.open("/d/", json!({})).await.unwrap()).await.unwrap();
    assert_eq!(names(&collected), ["a", "s/b"]);
    let mut skipped: Vec<_> = collected.skipped.into_iter().map(|(key, _)| key).collect();
    skipped.sort();
    assert_eq!(skipped, ["closed/", "s/moved", "shut"]);
}

#[tokio::test]
async fn an_index_that_makes_up_folders_ends() {
    let server = Server::start(|_| answer(200, &[("content-type", "text/html")], "<a href='x/'>x</a>")).await;
    let error = list(&server.open("/", json!({})).await.unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("folders in one another"), "{error}");
}

#[tokio::test]
async fn a_server_that_does_not_say_what_it_sends_is_not_believed() {
    let server =
        Server::start(
            |request| {
                if request.method() == Method::HEAD { file("abc") } else { answer(200, &[], "xyz") }
            },
        )
        .await;
    let origin = server.open("/a", json!({})).await.unwrap();
    let objects = list(&origin).await.unwrap().objects;
    let (size, validator) = &objects["a"];
    let wanted = Wanted { key: "a", validator, size: *size, range: 0..3 };
    assert!(matches!(origin.get(wanted).await, Err(OriginError::Changed(_))));
    let other = Wanted { key: "a", validator: &Validator::Modified(1), size: 3, range: 0..3 };
    assert!(matches!(origin.get(other).await, Err(OriginError::Changed(_))));
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let server = Server::start(|request| match request.uri().path() {
        "/text/" => answer(200, &[("content-type", "text/plain")], "no index"),
        "/moved" => answer(302, &[("location", "https://elsewhere/x")], ""),
        "/weak" => answer(200, &[("etag", "W/\"1\"")], "abc"),
        "/secret" if request.headers().get("authorization").is_some_and(|value| value == "Bearer hush") => {
            file("abc")
        }
        "/secret" => answer(401, &[], ""),
        "/busy" => answer(429, &[("retry-after", "3")], ""),
        _ => answer(404, &[], ""),
    })
    .await;
    for (path, reason, part) in [
        ("/text/", "Malformed", "has no index page"),
        ("/moved", "Refused", "redirects to https://elsewhere/x"),
        ("/weak", "Malformed", "tells no strong ETag"),
        ("/secret", "Denied", "denies access to requests without credentials"),
        ("/busy", "Throttled", "asks for fewer requests"),
        ("/lost", "NotFound", "does not exist"),
    ] {
        let error = list(&server.open(path, json!({})).await.unwrap()).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{path}: {error}");
        assert!(error.to_string().contains(part), "{path}: {error}");
    }
    let named = server.open("/secret", json!({"secretRef": {"name": "s"}})).await.unwrap();
    assert_eq!(names(&list(&named).await.unwrap()), ["secret"]);
    let elsewhere = server.open("/secret", json!({"secretRef": {"name": "other"}})).await.unwrap_err();
    assert_eq!(elsewhere.reason(), "Denied");
    assert!(elsewhere.to_string().contains("Secret ns/other is not for http://127.0.0.1:"), "{elsewhere}");
    let account = server.open("/secret", json!({"serviceAccountRef": {"name": "a"}})).await.unwrap_err();
    assert!(account.to_string().contains("is allowed for s3://, gs:// and az:// only"), "{account}");
    let error = open(&["other"], &server.0, json!({})).await.unwrap_err().to_string();
    assert!(error.contains("httpOrigins.allowedHosts"), "{error}");
}
