//! Listing one Dataset, from a fake bucket to its status.

use super::*;
use crate::origin::s3::fake::FakeS3;
use crate::store::Store;
use crate::testing::*;
use serde_json::Value;

struct World {
    fake: FakeS3,
    api: FakeApi,
    lister: Lister,
    store: Store,
    _directory: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let (fake, api, directory) =
            (FakeS3::start().await, FakeApi::default(), tempfile::tempdir().unwrap());
        let store = open_store(&directory.path().join("store"), None);
        let lister = Lister {
            client: api.client(),
            origins: patient_origins(),
            manifests: Manifests::new(store.clone(), watch::channel(Vec::new()).1),
            metrics: metrics(),
        };
        Self { fake, api, lister, store, _directory: directory }
    }

    /// Lists, and puts what was written into the Dataset as the API server would.
    async fn list(&self, dataset: &mut Dataset) -> (bool, Option<Value>) {
        self.api.put(DATASET, dataset);
        let ended = self.lister.one("ns/d".into(), Arc::new(dataset.clone())).await;
        let mut patches = self.api.patches();
        assert!(patches.len() <= 1);
        let status = patches.pop().map(|(path, patch)| {
            assert_eq!(path, format!("{DATASET}/status"));
            assert_eq!(patch["metadata"]["uid"], "uid-d");
            patch["status"].clone()
        });
        if let Some(status) = &status {
            dataset.status = serde_json::from_value(status.clone()).unwrap();
        }
        (ended.succeeded, status)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_named_when_it_can_be_had_and_only_once() {
    let world = World::new().await;
    let mut dataset = dataset(&world.fake);
    for (key, content) in [("a", "1"), ("b//c", "2")] {
        world.fake.faults.lock().put(key.as_bytes(), content.as_bytes());
    }
    let (succeeded, status) = world.list(&mut dataset).await;
    let status = status.unwrap();
    assert!(succeeded);
    assert_eq!((&status["version"]["files"], &status["skipped"]["count"]), (&1.into(), &1.into()));
    assert_eq!(status["conditions"][0]["status"], "True");
    let hash = ManifestHash::parse(status["version"]["manifest"].as_str().unwrap()).unwrap();
    assert!(world.store.is_adopted(&hash));
    // Nothing changed: nothing is written.
    assert_eq!(world.list(&mut dataset).await, (true, None));
    world.fake.faults.lock().put(b"a", b"changed");
    let (_, status) = world.list(&mut dataset).await;
    assert_ne!(status.unwrap()["version"]["manifest"], hash.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_said_and_the_version_stays() {
    let world = World::new().await;
    let mut dataset = dataset(&world.fake);
    world.fake.faults.lock().put(b"a", b"1");
    world.list(&mut dataset).await;
    let version = dataset.status.clone().unwrap().version;
    let good = dataset.spec.clone();
    for (reason, change) in [
        (
            "NotFound",
            Box::new(|d: &mut Dataset| d.spec.origins[0].uri = "s3://nowhere".into())
                as Box<dyn Fn(&mut Dataset)>,
        ),
        ("Refused", Box::new(|d| d.spec.origins[0].uri = "file:///data".into())),
        ("Refused", Box::new(|d| d.spec.refresh = "soon".into())),
        (
            "Refused",
            Box::new(|d| {
                d.spec.files = Some(hearth_api::FilesSpec { include: vec!["{a".into()], exclude: vec![] })
            }),
        ),
        ("Denied", Box::new(|d| d.spec.origins[0].secret_ref.as_mut().unwrap().name = "none".into())),
    ] {
        dataset.spec = good.clone();
        change(&mut dataset);
        dataset.metadata.generation = dataset.metadata.generation.map(|generation| generation + 1);
        let (succeeded, status) = world.list(&mut dataset).await;
        let condition = &status.unwrap()["conditions"][0];
        assert!(!succeeded);
        assert_eq!(
            (&condition["status"], &condition["reason"]),
            (&"False".into(), &reason.into()),
            "{condition}"
        );
        assert_eq!(dataset.status.as_ref().unwrap().version, version);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_never_listed_again_is_listed_once() {
    let world = World::new().await;
    let mut dataset = dataset(&world.fake);
    dataset.spec.refresh = "Never".into();
    world.fake.faults.lock().put(b"a", b"1");
    assert!(world.list(&mut dataset).await.1.is_some());
    world.fake.faults.lock().put(b"b", b"1");
    assert_eq!(world.list(&mut dataset).await, (true, None));
    dataset.metadata.generation = Some(2);
    assert_eq!(world.list(&mut dataset).await.1.unwrap()["version"]["files"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_that_is_gone_troubles_nobody() {
    let world = World::new().await;
    let dataset = dataset(&world.fake);
    let ended = world.lister.one("ns/d".into(), Arc::new(dataset)).await;
    assert!(ended.succeeded && ended.written.is_none());
}
