//! Listing one Dataset, from a fake bucket to its status.

use super::*;
use crate::origin::s3::fake::{BUCKET, FakeS3};
use crate::store::Store;
use crate::testing::*;
use hearth_api::NotifiedOf;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
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
        self.list_extent(dataset, Extent::Whole).await
    }

    async fn list_extent(&self, dataset: &mut Dataset, extent: Extent) -> (bool, Option<Value>) {
        self.api.put(DATASET, dataset);
        let ended = self.lister.one("ns/d", dataset, extent).await;
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
                d.spec.files =
                    Some(hearth_api::FilesSpec { include: vec!["{a".into()], ..Default::default() })
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
async fn what_stores_have_told_of_is_listed_and_the_rest_is_as_it_was() {
    let world = World::new().await;
    let mut dataset = dataset(&world.fake);
    dataset.spec.origins[0].path = "all".into();
    let put = |key: &str, content: &str| world.fake.faults.lock().put(key.as_bytes(), content.as_bytes());
    for number in 0..4100 {
        put(&format!("{:02}/{number:04}", number % 40), "1");
    }
    world.list(&mut dataset).await;
    put("00/0000", "changed");
    put("01/9999", "new");
    put("02/quiet", "nobody tells of this");
    world.fake.faults.lock().objects.remove(&b"03/0003"[..]);
    let uri = |key: &str| format!("s3://{BUCKET}/{key}");
    let status = dataset.status.as_mut().unwrap();
    let at = MicroTime(Timestamp::from_second(1).unwrap());
    status.notified_of = Some(NotifiedOf { at: at.clone(), prefixes: vec![uri("00/0000"), uri("01/")] });
    status.notified_at = Some(at.clone());
    let files = |dataset: &Dataset| -> Vec<String> {
        let version = dataset.status.as_ref().unwrap().version.as_ref().unwrap();
        let hash = ManifestHash::parse(&version.manifest).unwrap();
        let manifest = world.store.manifest(&hash).unwrap().unwrap();
        assert_eq!(i64::try_from(manifest.file_count()).unwrap(), version.files);
        manifest.files().map(|file| format!("{} {}", file.path, file.size)).collect()
    };
    let mut expected = files(&dataset);
    assert!(world.list_extent(&mut dataset, Extent::Changes).await.0);
    expected[0] = "all/00/0000 7".into();
    expected.push("all/01/9999 3".into());
    expected.sort();
    assert_eq!(files(&dataset), expected);
    let count = |outcome: &str| world.lister.metrics.listings.with_label_values(&[outcome]).get();
    assert_eq!((count("ok"), count("changes")), (1, 1));

    // Told of too much, all of it is listed: what nobody told of is found.
    let prefixes = (0..9).map(|folder| uri(&format!("{folder:02}/"))).collect();
    dataset.status.as_mut().unwrap().notified_of = Some(NotifiedOf { at, prefixes });
    assert!(world.list_extent(&mut dataset, Extent::Changes).await.0);
    expected.push("all/02/quiet 20".into());
    expected.retain(|file| file != "all/03/0003 1");
    expected.sort();
    assert_eq!(files(&dataset), expected);
    assert_eq!((count("ok"), count("changes")), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_that_is_gone_troubles_nobody() {
    let world = World::new().await;
    let dataset = dataset(&world.fake);
    let ended = world.lister.one("ns/d", &dataset, Extent::Whole).await;
    assert!(ended.succeeded && ended.written.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_origins_make_one_tree_and_a_path_of_both_is_refused() {
    let world = World::new().await;
    let mut dataset = dataset(&world.fake);
    for (key, content) in [("images/1", "1"), ("labels/1", "22"), ("labels/x", "333")] {
        world.fake.faults.lock().put(key.as_bytes(), content.as_bytes());
    }
    let origin = |part: &str, path: &str| {
        let mut origin = dataset.spec.origins[0].clone();
        origin.uri = format!("{}/{part}", origin.uri);
        origin.path = path.to_owned();
        origin
    };
    let (images, labels) = (origin("images", "/"), origin("labels", "/meta"));
    let clashing = origin("labels", "/");
    dataset.spec.origins = vec![images.clone(), labels];
    let status = world.list(&mut dataset).await.1.unwrap();
    assert_eq!((&status["version"]["files"], &status["version"]["bytes"]), (&3.into(), &6.into()));

    let version = dataset.status.clone().unwrap().version;
    dataset.spec.origins = vec![images, clashing];
    let (succeeded, status) = world.list(&mut dataset).await;
    let condition = &status.unwrap()["conditions"][0];
    let message = condition["message"].as_str().unwrap();
    assert!(!succeeded && condition["reason"] == "Refused");
    assert!(message.starts_with("the path \"1\" is claimed by two of spec.origins, s3://"), "{message}");
    assert_eq!(dataset.status.unwrap().version, version);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_says_which_files_there_are_and_what_of_it_is_missing() {
    let world = World::new().await;
    let mut dataset = dataset(&world.fake);
    let put = |key: &str, content: &str| world.fake.faults.lock().put(key.as_bytes(), content.as_bytes());
    for key in ["a", "b", "c/d", "c/e"] {
        put(key, "1");
    }
    put("lists/train", "/c/d\na\nnot/there\nneither\n");
    let list = |source: Value| {
        Some(hearth_api::FilesSpec { list: serde_json::from_value(source).unwrap(), ..Default::default() })
    };
    dataset.spec.files = list(serde_json::json!({"path": "lists/train"}));
    let status = world.list(&mut dataset).await.1.unwrap();
    assert_eq!(status["version"]["files"], 2);
    assert_eq!(status["missing"], serde_json::json!({"count": 2, "example": "neither"}));
    assert_eq!(status["conditions"][0]["reason"], "SomeMissing");

    // The list is part of the version.
    put("lists/train", "c/d\nb\n");
    let next = world.list(&mut dataset).await.1.unwrap();
    assert_eq!((&next["version"]["files"], &next["missing"]), (&2.into(), &Value::Null));
    assert_ne!(next["version"]["manifest"], status["version"]["manifest"]);

    let map: k8s_openapi::api::core::v1::ConfigMap = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "train", "namespace": "ns"}, "data": {"files": "a\nb\nc/e\n"}
    }))
    .unwrap();
    world.api.put("/api/v1/namespaces/ns/configmaps/train", &map);
    dataset.spec.files = list(serde_json::json!({"configMap": {"name": "train", "key": "files"}}));
    assert_eq!(world.list(&mut dataset).await.1.unwrap()["version"]["files"], 3);

    for (source, sentence) in [
        (
            serde_json::json!({"configMap": {"name": "train", "key": "x"}}),
            "spec.files.list: key x of ConfigMap ns/train does not exist",
        ),
        (
            serde_json::json!({"path": "lists"}),
            "spec.files.list: no origin of the dataset has the file lists",
        ),
        (
            serde_json::json!({}),
            "spec.files.list names configMap and path, or neither: one of them is allowed",
        ),
    ] {
        dataset.spec.files = list(source);
        let status = world.list(&mut dataset).await.1.unwrap();
        assert_eq!(status["conditions"][0]["message"], sentence);
        assert_eq!(status["version"]["files"], 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_dataset_does_not_take_is_shown_when_it_says_so() {
    let world = World::new().await;
    let mut dataset = dataset(&world.fake);
    let put = |key: &str, content: &str| world.fake.faults.lock().put(key.as_bytes(), content.as_bytes());
    for key in ["a", "b", "c.tmp", "c/d", "c//e"] {
        put(key, "1");
    }
    put("lists/train", "a\nc.tmp\nnot/there\n");
    let files = |unlisted: &str| {
        let files =
            serde_json::json!({"list": {"path": "lists/train"}, "exclude": ["*.tmp"], "unlisted": unlisted});
        Some(serde_json::from_value::<hearth_api::FilesSpec>(files).unwrap())
    };
    dataset.spec.files = files("Hide");
    let hidden = world.list(&mut dataset).await.1.unwrap();
    assert_eq!((&hidden["version"]["files"], &hidden["version"]["unlisted"]), (&1.into(), &Value::Null));
    assert_eq!(hidden["skipped"], Value::Null);

    dataset.spec.files = files("Show");
    let shown = world.list(&mut dataset).await.1.unwrap();
    assert_eq!((&shown["version"]["files"], &shown["version"]["unlisted"]), (&1.into(), &4.into()));
    assert_eq!((&shown["version"]["bytes"], &shown["version"]["blocks"]), (&1.into(), &1.into()));
    assert_eq!((&shown["missing"]["count"], &shown["skipped"]["count"]), (&1.into(), &1.into()));
    let message = shown["conditions"][0]["message"].as_str().unwrap();
    assert!(message.starts_with("1 files of 1 B in 1 blocks, 4 more are only shown; "), "{message}");
    assert_ne!(shown["version"]["manifest"], hidden["version"]["manifest"]);
    let hash = ManifestHash::parse(shown["version"]["manifest"].as_str().unwrap()).unwrap();
    let manifest = world.store.manifest(&hash).unwrap().unwrap();
    let of = |unlisted: bool| {
        let files = manifest.files().filter(move |file| file.unlisted == unlisted);
        files.map(|file| file.path.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        (of(false), of(true)),
        (vec!["a".into()], ["b", "c/d", "c.tmp", "lists/train"].map(String::from).to_vec())
    );

    // Where all is listed there is nothing to show, and the version is as it ever was.
    dataset.spec.files = None;
    let all = world.list(&mut dataset).await.1.unwrap();
    dataset.spec.files = Some(serde_json::from_value(serde_json::json!({"unlisted": "Show"})).unwrap());
    assert_eq!(world.list(&mut dataset).await.1, None);
    assert_eq!(dataset.status.unwrap().version.unwrap().manifest, all["version"]["manifest"]);
}
