//! Origins of every kind at real servers: the same promises everywhere.

// What fails in a fixture can only panic.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use futures::{StreamExt as _, stream};
use hearth_core::manifest::SkipReason;
use hearth_core::object::Validator;
use hearth_node_agent::accounts::Accounts;
use hearth_node_agent::config::OriginConfig;
use hearth_node_agent::credentials::Secrets;
use hearth_node_agent::metrics::Metrics;
use hearth_node_agent::origin::conformance::{self, Collected, Fixture, read};
use hearth_node_agent::origin::{
    Allowed, AllowedHosts, Origin, OriginError, Origins, RetryConfig, Sink, Wanted,
};
use hearth_tests::cluster::{e2e, nodes};
use hearth_tests::datasets::secret;
use hearth_tests::kube_access::install_crypto;
use hearth_tests::ports;
use hearth_tests::run_dir::RunDir;
use hearth_tests::silent_origin::SilentOrigin;
use hearth_tests::stores::azurite::{ACCOUNT, ACCOUNT_KEY, Azurite};
use hearth_tests::stores::gcs::Gcs;
use hearth_tests::stores::hdfs::Hdfs;
use hearth_tests::stores::nginx::{Nginx, PASSWORD, USERNAME};
use hearth_tests::stores::{CONTAINER, Store};
use serde_json::{Value, json};

/// Origins whose Datasets find one Secret with these values under every name.
fn origins(secret: &[(&str, &str)]) -> Origins {
    configured(&OriginConfig::default(), secret)
}

fn configured(config: &OriginConfig, secret: &[(&str, &str)]) -> Origins {
    counted(config, secret, Arc::new(Metrics::new().unwrap()))
}

fn counted(config: &OriginConfig, secret: &[(&str, &str)], metrics: Arc<Metrics>) -> Origins {
    install_crypto();
    let values: BTreeMap<String, Vec<u8>> =
        secret.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
    let secrets = Secrets::new(move |_, _| Box::pin(std::future::ready(Ok(values.clone()))));
    let hosts = AllowedHosts::new(vec!["127.0.0.1".to_owned()]);
    let allowed = Allowed { web_servers: hosts.clone(), name_nodes: hosts, ..Allowed::default() };
    Origins::new(config, allowed, secrets, Accounts::none(), metrics).unwrap()
}

async fn open(origins: &Origins, spec: &Value) -> Result<Arc<dyn Origin>, OriginError> {
    origins.open("ns", &serde_json::from_value(spec.clone()).unwrap()).await
}

/// A folder of its own in a store for each part of the suite.
fn folder() -> String {
    static FOLDERS: AtomicUsize = AtomicUsize::new(0);
    format!("su//ite {}/", FOLDERS.fetch_add(1, Ordering::Relaxed))
}

/// A folder of a store.
struct Folder<'a, S> {
    store: &'a S,
    origins: &'a Origins,
    spec: Value,
    prefix: String,
}

impl<'a, S> Folder<'a, S> {
    /// `spec` is that of the store's container.
    fn new(store: &'a S, origins: &'a Origins, spec: &Value) -> Self {
        let (mut spec, prefix) = (spec.clone(), folder());
        spec["uri"] = json!(format!("{}/{prefix}", spec["uri"].as_str().unwrap()));
        Self { store, origins, spec, prefix }
    }
}

impl<S: Store> Fixture for Folder<'_, S> {
    async fn origin(&self) -> Arc<dyn Origin> {
        open(self.origins, &self.spec).await.unwrap()
    }

    async fn put(&self, key: &str, content: &[u8]) {
        self.store.put(&format!("{}{key}", self.prefix), content).await.unwrap();
    }

    async fn delete(&self, key: &str) {
        self.store.delete(&format!("{}{key}", self.prefix)).await.unwrap();
    }

    fn key_prefix(&self) -> &str {
        &self.prefix
    }
}

struct OfNginx<'a>(&'a Nginx, String);

impl OfNginx<'_> {
    fn new(server: &Nginx) -> OfNginx<'_> {
        let folder = format!("{CONTAINER}/{}", folder().replace("//", "/"));
        std::fs::create_dir_all(server.root().join(&folder)).unwrap();
        OfNginx(server, folder)
    }
}

impl Fixture for OfNginx<'_> {
    async fn origin(&self) -> Arc<dyn Origin> {
        let spec = json!({"uri": format!("{}/{}", self.0.endpoint(), self.1)});
        open(&origins(&[]), &spec).await.unwrap()
    }

    async fn put(&self, key: &str, content: &[u8]) {
        self.0.put(&format!("{}{key}", self.1), content).unwrap();
    }

    async fn delete(&self, key: &str) {
        std::fs::remove_file(self.0.root().join(&self.1).join(key)).unwrap();
    }

    fn key_prefix(&self) -> &str {
        ""
    }
}

struct OfHdfs<'a> {
    store: &'a Hdfs,
    origins: &'a Origins,
    directory: String,
}

impl Fixture for OfHdfs<'_> {
    async fn origin(&self) -> Arc<dyn Origin> {
        // There may be nothing in it yet.
        self.store.make(&self.directory).await.unwrap();
        let uri = format!("hdfs://{}/{CONTAINER}/{}", self.store.name_node(), self.directory);
        open(self.origins, &json!({"uri": uri})).await.unwrap()
    }

    async fn put(&self, key: &str, content: &[u8]) {
        self.store.put(&format!("{}{key}", self.directory), content).await.unwrap();
    }

    async fn put_all(&self, objects: &[(&str, &[u8])]) {
        // Each is written in many steps, most of which are waited for.
        let puts = objects.iter().map(|(key, content)| self.put(key, content));
        stream::iter(puts).buffer_unordered(16).collect::<()>().await;
    }

    async fn delete(&self, key: &str) {
        self.store.delete(&format!("{}{key}", self.directory)).await.unwrap();
    }

    fn key_prefix(&self) -> &str {
        ""
    }

    fn forbidden(&self) -> &[char] {
        &[':']
    }
}

/// Collects, and restarts the name node when the first object comes.
struct Restarting<'a> {
    collected: Collected,
    store: Option<&'a mut Hdfs>,
}

impl Sink for Restarting<'_> {
    fn object(&mut self, path: &str, size: u64, modified: i64, of: Validator) -> Result<(), OriginError> {
        if let Some(store) = self.store.take() {
            store.restart_name_node().unwrap();
        }
        self.collected.object(path, size, modified, of)
    }

    fn skip(&mut self, key: &str, reason: SkipReason) {
        self.collected.skip(key, reason);
    }
}

/// What is no file, or hard to name, costs nothing but itself.
async fn nasty_keys_are_listed_and_read(fixture: impl Fixture) {
    let keys = ["a//b", "dir/", "/lead", " ", "tab\tkey", "plain"];
    for key in keys {
        fixture.put(key, key.as_bytes()).await;
    }
    let origin = fixture.origin().await;
    let mut collected = Collected::default();
    origin.list(&mut collected).await.unwrap();
    assert_eq!(collected.objects.len(), keys.len(), "{:?}", collected.objects.keys());
    for key in keys {
        let (size, validator) = &collected.objects[key];
        let whole = format!("{}{key}", fixture.key_prefix());
        let wanted = Wanted { key: &whole, validator, size: *size, range: 0..*size };
        assert_eq!(read(origin.get(wanted).await.unwrap()).await.unwrap(), key.as_bytes(), "{key:?}");
    }
}

/// Of so many pages the later ones are asked for in several places at once.
async fn a_long_listing_has_every_object_once(fixture: impl Fixture) {
    let keys: Vec<String> = (0..5_000).map(|n| format!("{:03}/{n:04}", n % 250)).collect();
    let objects: Vec<(&str, &[u8])> = keys.iter().map(|key| (key.as_str(), b"x".as_slice())).collect();
    fixture.put_all(&objects).await;
    // It panics when something is listed twice.
    let mut collected = Collected::default();
    fixture.origin().await.list(&mut collected).await.unwrap();
    assert_eq!(collected.objects.len(), keys.len());
}

/// So many that a store whose listings begin only at prefixes lists each directory by itself; `requests` have been made.
async fn large_directories_have_every_object_once<S: Store>(
    fixture: Folder<'_, S>,
    requests: impl Fn() -> u64,
) {
    let beside = (0..4_900).map(|number| format!("b/deep/{number:04}"));
    let inside = (0..5_300).map(|number| format!("b/deep/c/{number:04}"));
    let keys: Vec<String> = beside.chain(inside).chain(["a/x".to_owned(), "beside".to_owned()]).collect();
    let objects: Vec<(&str, &[u8])> = keys.iter().map(|key| (key.as_str(), b"x".as_slice())).collect();
    fixture.put_all(&objects).await;
    for (start, count) in [("", keys.len()), ("b/de", keys.len() - 2)] {
        let before = requests();
        // A key that comes twice is an error of its own.
        let mut collected = Collected::default();
        fixture.origin().await.list_prefix(start, &mut collected).await.unwrap();
        assert_eq!(collected.objects.len(), count);
        let made = requests() - before;
        assert!(made > 6, "{made} requests are those of the pages alone");
    }
}

/// The error of a listing, or of opening the origin.
async fn refused(origins: &Origins, spec: &Value) -> OriginError {
    match open(origins, spec).await {
        Ok(origin) => origin.list(&mut Collected::default()).await.unwrap_err(),
        Err(error) => error,
    }
}

#[tokio::test]
async fn google_cloud_storage_conforms() -> Result<()> {
    let dir = RunDir::create("gcs")?;
    let store = Gcs::start(dir.path()).await?;
    let origins = origins(&[]);
    let options = json!({"endpoint": store.endpoint(), "anonymous": true});
    let spec = json!({"uri": format!("gs://{CONTAINER}"), "options": options});
    conformance::suite(|| Folder::new(&store, &origins, &spec)).await;
    nasty_keys_are_listed_and_read(Folder::new(&store, &origins, &spec)).await;
    a_long_listing_has_every_object_once(Folder::new(&store, &origins, &spec)).await;
    let missing = json!({"uri": "gs://nowhere", "options": options});
    let error = refused(&origins, &missing).await;
    assert!(matches!(error, OriginError::NotFound(_)), "{error}");
    dir.remove();
    Ok(())
}

#[tokio::test]
async fn azure_blob_storage_conforms() -> Result<()> {
    let dir = RunDir::create("azurite")?;
    let store = Azurite::start(dir.path()).await?;
    let metrics = Arc::new(Metrics::new().unwrap());
    let secret = [("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT_KEY)];
    let right = counted(&OriginConfig::default(), &secret, Arc::clone(&metrics));
    let listed = || metrics.origin_requests.with_label_values(&["az", "list", "ok"]).get();
    let options = json!({"endpoint": store.endpoint(), "account": ACCOUNT});
    let spec = json!({"uri": format!("az://{CONTAINER}"), "secretRef": {"name": "s"}, "options": options});
    conformance::suite(|| Folder::new(&store, &right, &spec)).await;
    nasty_keys_are_listed_and_read(Folder::new(&store, &right, &spec)).await;
    large_directories_have_every_object_once(Folder::new(&store, &right, &spec), listed).await;

    let mut missing = spec.clone();
    missing["uri"] = json!("az://nowhere");
    let error = refused(&right, &missing).await;
    assert!(matches!(error, OriginError::NotFound(_)), "{error}");
    let token = origins(&[("AZURE_STORAGE_SAS_TOKEN", "sv=2023-11-03&sig=hush")]);
    let error = refused(&token, &spec).await.to_string();
    assert!(error.contains("its key HEARTH_ENDPOINTS is missing"), "{error}");
    let wrong = origins(&[("AZURE_STORAGE_ACCOUNT_KEY", "aHVzaA==")]);
    let error = refused(&wrong, &spec).await;
    assert!(matches!(error, OriginError::Denied(_)), "{error}");
    assert!(error.to_string().contains("denies access to the credentials in Secret ns/s"), "{error}");

    let public = json!({"uri": spec["uri"], "options":
        {"endpoint": store.endpoint(), "account": ACCOUNT, "anonymous": true}});
    let error = refused(&right, &public).await;
    assert!(error.to_string().contains("requests without credentials"), "{error}");
    store.publish().await?;
    open(&right, &public).await?.list(&mut Collected::default()).await?;
    dir.remove();
    Ok(())
}

#[tokio::test]
async fn web_servers_conform() -> Result<()> {
    let dir = RunDir::create("nginx")?;
    let server = Nginx::start(dir.path()).await?;
    conformance::suite(|| OfNginx::new(&server)).await;

    server.put("private/a b.bin", b"hush")?;
    server.put("private/files.txt", b"a b.bin\n")?;
    let (here, endpoint) = ("HEARTH_ENDPOINTS", server.endpoint());
    let user = origins(&[("username", USERNAME), ("password", PASSWORD), (here, endpoint)]);
    for (path, options, expected) in [
        ("private/", json!({}), vec!["a b.bin", "files.txt"]),
        ("private/a%20b.bin", json!({}), vec!["a b.bin"]),
        ("private/files.txt", json!({"fileList": true}), vec!["a b.bin"]),
    ] {
        let uri = format!("{}/{path}", server.endpoint());
        let spec = json!({"uri": uri, "secretRef": {"name": "s"}, "options": options});
        let origin = open(&user, &spec).await?;
        let mut collected = Collected::default();
        origin.list(&mut collected).await?;
        assert_eq!(collected.objects.keys().collect::<Vec<_>>(), expected, "{path}");
        let (size, validator) = &collected.objects["a b.bin"];
        let wanted = Wanted { key: "a b.bin", validator, size: *size, range: 1..3 };
        assert_eq!(read(origin.get(wanted).await?).await?, b"us");
        let wrong = origins(&[("username", USERNAME), ("password", "wrong"), (here, endpoint)]);
        let error = refused(&wrong, &spec).await;
        assert!(error.to_string().contains("denies access to the credentials in Secret ns/s"), "{error}");
    }
    dir.remove();
    Ok(())
}

#[tokio::test]
async fn hdfs_conforms() -> Result<()> {
    let dir = RunDir::create("hdfs")?;
    let mut store = Hdfs::start(dir.path()).await?;
    let retry = RetryConfig { attempts: 20, budget: 1.0 };
    let origins = configured(&OriginConfig { retry, ..OriginConfig::default() }, &[]);
    conformance::suite(|| {
        let directory = folder().replace("//", "/");
        OfHdfs { store: &store, origins: &origins, directory }
    })
    .await;

    store.put("closed/a/1", b"hush").await?;
    store.close("closed/a").await?;
    let at = |path: &str| format!("hdfs://{}/{CONTAINER}/{path}", store.name_node());
    for (spec, reason, what) in [
        (json!({"uri": at("nowhere")}), "NotFound", "does not exist"),
        (json!({"uri": at("closed/a/1"), "options": {"user": "hdfs"}}), "NotFound", "is no directory"),
        (json!({"uri": at("closed")}), "Denied", "may not be read by user hearth: Permission denied"),
        (json!({"uri": "hdfs://10.0.0.1"}), "Refused", "hdfsOrigins.allowedHosts"),
        (
            json!({"uri": "hdfs://ns", "options": {"nameNodes": ["127.0.0.1", "10.0.0.1"]}}),
            "Refused",
            "host 10.0.0.1 is not allowed",
        ),
    ] {
        let error = refused(&origins, &spec).await;
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }

    // A name node that hangs, one that is gone, and the one that is active.
    let silent = SilentOrigin::start().await?;
    let gone = format!("127.0.0.1:{}", ports::free()?);
    let spec = json!({"uri": format!("hdfs://ns/{CONTAINER}"), "options": {
        "nameNodes": [silent.address(), gone, store.name_node()], "user": "hdfs", "timeout": "2s",
    }});
    let origin = open(&origins, &spec).await?;
    let mut collected = Collected::default();
    origin.list(&mut collected).await?;
    let (size, validator) = &collected.objects["closed/a/1"];
    let wanted = Wanted { key: "closed/a/1", validator, size: *size, range: 1..4 };
    assert_eq!(read(origin.get(wanted).await?).await?, b"ush");

    // A listing of more than one page goes on where it was interrupted.
    let mut again = Restarting { collected: Collected::default(), store: Some(&mut store) };
    origin.list(&mut again).await?;
    assert!(again.store.is_none() && again.collected.objects == collected.objects);
    dir.remove();
    Ok(())
}

#[test]
fn datasets_of_every_kind_of_store_are_listed_and_fetched() -> Result<()> {
    let hosts = json!({"allowedHosts": ["127.0.0.1"]});
    let hosts = json!({"httpOrigins": hosts, "hdfsOrigins": hosts});
    e2e(&nodes(1).agent_config(&hosts), async |cluster| {
        let gcs = Gcs::start(cluster.dir()).await?;
        let azurite = Azurite::start(cluster.dir()).await?;
        let nginx = Nginx::start(cluster.dir()).await?;
        let hdfs = Hdfs::start(cluster.dir()).await?;
        let content = vec![7; 1 << 20];
        gcs.put("images/1.bin", &content).await?;
        azurite.put("images/1.bin", &content).await?;
        nginx.put("private/images/1.bin", &content)?;
        hdfs.put("images/1.bin", &content).await?;
        let account =
            json!({"client_email": "x", "private_key_id": "x", "private_key": "x", "disable_oauth": true});
        for (name, values) in [
            (
                "gs",
                json!({"GOOGLE_APPLICATION_CREDENTIALS_JSON": account.to_string(), "HEARTH_ENDPOINTS": gcs.endpoint()}),
            ),
            ("az", json!({"AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY})),
            (
                "http",
                json!({"username": USERNAME, "password": PASSWORD, "HEARTH_ENDPOINTS": nginx.endpoint()}),
            ),
        ] {
            cluster.kube.apply(&secret(name, &values)).await?;
        }
        let (gs, az) = (format!("gs://{CONTAINER}/images"), format!("az://{CONTAINER}/images"));
        for (name, uri, options) in [
            ("gs", gs, json!({"endpoint": gcs.endpoint()})),
            ("az", az, json!({"endpoint": azurite.endpoint(), "account": ACCOUNT})),
            ("http", format!("{}/private/images/", nginx.endpoint()), json!({})),
            ("hdfs", format!("hdfs://{}/{CONTAINER}/images", hdfs.name_node()), json!({})),
        ] {
            let mut origin = json!({"uri": uri, "options": options});
            if name != "hdfs" {
                origin["secretRef"] = json!({"name": name});
            }
            cluster.dataset(name, json!({"origins": [origin]})).await?;
            let status = cluster.listed(name).await?;
            assert_eq!(
                (&status["version"]["files"], &status["version"]["bytes"]),
                (&json!(1), &json!(1 << 20))
            );
            cluster.warm_up(name, "node-1").await?;
        }
        Ok(())
    })
}
