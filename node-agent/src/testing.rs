//! What tests of several modules share: an API server of a few objects, a store, a bucket.

use crate::config::units::Size;
use crate::lister::listing;
use crate::metrics::Metrics;
use crate::origin::s3::fake::{BUCKET, FakeS3};
use crate::origin::s3::tests::origins;
use crate::origin::{Origins, RetryConfig};
use crate::store::{Store, StoreConfig};
use bytes::Bytes;
use hearth_api::Dataset;
use hearth_core::manifest::{ListedObject, Manifest, ManifestBuilder, ManifestHash, ManifestOrigin};
use hearth_core::object::{AccessDomain, Validator};
use hearth_core::wire::report::Want;
use http::{Request, Response, StatusCode};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// An API server that has what it was given and keeps what it is sent.
#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<Content>>);

#[derive(Default)]
struct Content {
    objects: BTreeMap<String, Value>,
    patches: Vec<(String, Value)>,
    asked: usize,
}

impl FakeApi {
    pub(crate) fn put(&self, path: &str, object: &impl serde::Serialize) {
        self.0.lock().objects.insert(path.to_owned(), serde_json::to_value(object).unwrap());
    }

    /// Refuses what is asked for at a path.
    pub(crate) fn forbid(&self, path: &str) {
        self.put(
            path,
            &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden",
            "message": "not allowed", "code": 403}),
        );
    }

    /// Takes the patches that came since the last time, with their paths.
    pub(crate) fn patches(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.0.lock().patches)
    }

    /// How many requests there have been.
    pub(crate) fn asked(&self) -> usize {
        self.0.lock().asked
    }

    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, std::convert::Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let body = request.into_body().collect_bytes().await.unwrap();
        let mut content = self.0.lock();
        content.asked += 1;
        if method == http::Method::PATCH {
            content.patches.push((path.clone(), serde_json::from_slice(&body).unwrap()));
        }
        match content.objects.get(path.trim_end_matches("/status")) {
            Some(object) => {
                let mut response = Response::new(Body::from(object.to_string().into_bytes()));
                if object["kind"] == "Status" {
                    *response.status_mut() = StatusCode::FORBIDDEN;
                }
                response
            }
            None => {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
                    "message": format!("{path} is not there"), "code": 404});
                let mut response = Response::new(Body::from(status.to_string().into_bytes()));
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        }
    }
}

/// Where the API server has the Dataset `ns/d`.
pub(crate) const DATASET: &str = "/apis/hearth.dev/v1alpha1/namespaces/ns/datasets/d";

/// The Dataset `ns/d` of all that is in the fake's bucket.
pub(crate) fn dataset(fake: &FakeS3) -> Dataset {
    serde_json::from_value(json!({
        "apiVersion": "hearth.dev/v1alpha1", "kind": "Dataset",
        "metadata": {"namespace": "ns", "name": "d", "uid": "uid-d", "generation": 1},
        "spec": {"refresh": "10m", "origins": [
            {"uri": format!("s3://{BUCKET}"), "secretRef": {"name": "s"}, "options": {"endpoint": fake.endpoint()}}
        ]}
    }))
    .unwrap()
}

/// Origins that try again without much ado.
pub(crate) fn patient_origins() -> Arc<Origins> {
    Arc::new(origins(RetryConfig { attempts: 2, budget: 1.0 }))
}

/// Lists a Dataset.
pub(crate) async fn list(origins: &Origins, dataset: &Dataset) -> (ManifestHash, Manifest) {
    let listing = listing::list(origins, &FakeApi::default().client(), dataset).await.unwrap();
    let encoding = listing.manifest.bytes;
    (ManifestHash::of(&encoding), Manifest::decode(&encoding).unwrap())
}

/// A want of a part of `ns/d`.
pub(crate) fn want(manifest: ManifestHash, globs: &[&str], priority: i32) -> Want {
    Want {
        namespace: "ns".into(),
        dataset: "d".into(),
        uid: "uid-d".into(),
        generation: 1,
        manifest,
        globs: globs.iter().map(|glob| (*glob).to_owned()).collect(),
        priority,
    }
}

pub(crate) fn open_store(directory: &Path, capacity: Option<u64>) -> Store {
    Store::open(&StoreConfig { capacity: capacity.map(Size::Bytes), ..StoreConfig::at(directory) }).unwrap()
}

pub(crate) fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new().unwrap())
}

/// Waits until `condition` holds, or panics with what `what` says.
pub(crate) async fn eventually(what: impl Fn() -> String, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(30), waiting).await.is_err() {
        panic!("not in time: {}", what());
    }
}

/// Bytes of each file of [`stored`].
pub(crate) const STORED: u64 = 1000;

/// Puts a version of `ns/NAME` of files of [`STORED`] bytes into a store, by path and tag, all of
/// them held.
pub(crate) async fn stored(store: &Store, files: &[(&str, &str)], name: &str) -> (ManifestHash, Manifest) {
    let origin = ManifestOrigin::whole(AccessDomain::new("ns", None), "s3://b");
    let mut builder = ManifestBuilder::new(vec![origin]);
    for (path, tag) in files {
        builder.push(ListedObject {
            origin: 0,
            path: (*path).to_owned(),
            size: STORED,
            modified: 0,
            validator: Validator::etag(tag),
            unlisted: false,
        });
    }
    let (manifest, _) = builder.finish().unwrap();
    let encoding = manifest.encode();
    let hash = ManifestHash::of(&encoding);
    store.put_manifest(hash, &format!("ns/{name}"), &encoding).unwrap();
    store.adopt(&hash).unwrap();
    for file in 0..files.len() {
        store
            .write_block(store.home().id(), &hash, file, 0, Bytes::from(vec![7; STORED as usize]))
            .await
            .unwrap();
    }
    (hash, manifest)
}
