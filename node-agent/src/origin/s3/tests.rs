//! What is particular to S3; the rest is in the conformance suite.

use super::fake::{BUCKET, FakeS3, Faults};
use crate::accounts::Accounts;
use crate::config::OriginConfig;
use crate::credentials::Secrets;
use crate::metrics::Metrics;
use crate::origin::conformance::{self, Collected, Fixture, read};
use crate::origin::{Allowed, Origin, OriginError, Origins, RetryConfig, Wanted};
use hearth_core::manifest::SkipReason;
use hearth_core::object::Validator;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Opens the fake's bucket as a Dataset would.
pub(crate) fn origins(retry: RetryConfig) -> Origins {
    hearth_runtime::tls::install_provider();
    let secrets = Secrets::new(|_, name| {
        let values = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "key")];
        let values: BTreeMap<_, _> =
            values.into_iter().map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec())).collect();
        Box::pin(std::future::ready(if name == "s" {
            Ok(values)
        } else {
            Err(OriginError::Denied(format!("no Secret {name}")))
        }))
    });
    let config = OriginConfig { retry, read_timeout: Duration::from_secs(5), ..OriginConfig::default() };
    let metrics = Arc::new(Metrics::new().unwrap());
    Origins::new(&config, Allowed::default(), secrets, Accounts::none(), metrics).unwrap()
}

pub(crate) fn spec(endpoint: &str, bucket: &str, prefix: &str) -> hearth_api::Origin {
    serde_json::from_value(serde_json::json!({
        "uri": format!("s3://{bucket}/{prefix}"), "secretRef": {"name": "s"}, "options": {"endpoint": endpoint}
    }))
    .unwrap()
}

struct Bucket {
    fake: Arc<FakeS3>,
    prefix: String,
}

impl Bucket {
    async fn new() -> Self {
        Self { fake: Arc::new(FakeS3::start().await), prefix: "pre fix//".to_owned() }
    }

    fn faults(&self) -> &Mutex<Faults> {
        &self.fake.faults
    }

    async fn with_retries(&self, attempts: usize) -> Arc<dyn Origin> {
        let retry = RetryConfig { attempts, budget: 1.0 };
        origins(retry)
            .open("ns", &spec(&self.fake.endpoint(), BUCKET, self.prefix.trim_end_matches('/')))
            .await
            .unwrap()
    }
}

impl Fixture for Bucket {
    async fn origin(&self) -> Arc<dyn Origin> {
        self.with_retries(0).await
    }

    async fn put(&self, key: &str, content: &[u8]) {
        self.faults().lock().put(format!("{}{key}", self.prefix).as_bytes(), content);
    }

    async fn delete(&self, key: &str) {
        self.faults().lock().objects.remove(format!("{}{key}", self.prefix).as_bytes());
    }

    fn key_prefix(&self) -> &str {
        &self.prefix
    }
}

#[tokio::test]
async fn it_conforms() {
    // The suite's fixtures are made without waiting: each has a folder of one server.
    let fake = Arc::new(FakeS3::start().await);
    let next = std::cell::Cell::new(0);
    conformance::suite(|| {
        next.set(next.get() + 1);
        Bucket { fake: fake.clone(), prefix: format!("p {}/", next.get()) }
    })
    .await;
}

async fn get(
    origin: &Arc<dyn Origin>,
    key: &str,
    etag: &str,
    size: u64,
    range: std::ops::Range<u64>,
) -> Result<Vec<u8>, OriginError> {
    let validator = Validator::etag(etag);
    read(origin.get(Wanted { key, validator: &validator, size, range }).await?).await
}

#[tokio::test]
async fn nasty_keys_cost_only_themselves() {
    let bucket = Bucket { prefix: String::new(), ..Bucket::new().await };
    let keys: [&[u8]; 9] =
        [b"a//b", b"/lead", b"dir/", b"../up", b"\xff\xfe", b"nul\0", b"ok", b"a\nb", b" "];
    for key in keys {
        bucket.faults().lock().put(key, b"x");
    }
    let mut collected = Collected::default();
    let origin = bucket.origin().await;
    origin.list(&mut collected).await.unwrap();
    assert_eq!(collected.skipped, [("\u{fffd}\u{fffd}".to_owned(), SkipReason::NotUtf8)]);
    let found: Vec<&str> = collected.objects.keys().map(String::as_str).collect();
    assert_eq!(found, [" ", "../up", "/lead", "a\nb", "a//b", "dir/", "nul\0", "ok"]);
    // What the manifest would take can also be read.
    for key in ["a//b", "a\nb", " ", "dir/", "/lead"] {
        let (size, validator) = &collected.objects[key];
        let wanted = Wanted { key, validator, size: *size, range: 0..1 };
        assert_eq!(read(origin.get(wanted).await.unwrap()).await.unwrap(), b"x", "{key:?}");
    }
}

#[tokio::test]
async fn a_long_listing_is_made_in_several_places_at_once() {
    for ignores_start_after in [false, true] {
        let bucket = Bucket::new().await;
        {
            let mut faults = bucket.faults().lock();
            (faults.page, faults.ignores_start_after) = (7, ignores_start_after);
            for n in 0..1000 {
                faults.put(format!("{}train/n{:04}/é {n}", bucket.prefix, n * 7919 % 613).as_bytes(), b"x");
            }
            faults.put(&[bucket.prefix.as_bytes(), b"train/n0300/\xff"].concat(), b"x");
        }
        let mut collected = Collected::default();
        bucket.origin().await.list(&mut collected).await.unwrap();
        assert_eq!(collected.objects.len(), 1000);
        assert_eq!(collected.skipped.len(), 1);
        assert!(bucket.faults().lock().begun_behind.len() > 1, "it was split");
    }
}

#[tokio::test]
async fn a_store_with_an_order_of_its_own_is_listed_page_by_page_from_the_second_time_on() {
    let bucket = Bucket::new().await;
    {
        let mut faults = bucket.faults().lock();
        (faults.page, faults.folds_case) = (7, true);
        for n in 0..500 {
            // It shows when the listing has been split.
            let letter = if n > 100 && n % 2 == 0 { 'N' } else { 'n' };
            faults.put(format!("{}train/{letter}{n:04}", bucket.prefix).as_bytes(), b"x");
        }
    }
    let origin = bucket.origin().await;
    let error = origin.list(&mut Collected::default()).await.unwrap_err().to_string();
    assert!(error.ends_with("from the next time on it is listed page by page"), "{error}");
    // Another prefix: requests of the first listing may still be on their way.
    let mut collected = Collected::default();
    origin.list_prefix("/train/", &mut collected).await.unwrap();
    assert_eq!(collected.objects.len(), 500);
    let begun = bucket.faults().lock().begun_behind.clone();
    assert!(
        begun.iter().all(|prefix| !prefix.ends_with(b"train/")),
        "no page began but where the one before said"
    );
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_found_out() {
    let bucket = Bucket { prefix: String::new(), ..Bucket::new().await };
    bucket.put("a", b"old").await;
    let old = bucket.faults().lock().objects[b"a".as_slice()].1.clone();
    bucket.put("a", b"new").await;
    bucket.faults().lock().ignores_conditions = true;
    let origin = bucket.origin().await;
    for range in [0..3, 0..1] {
        assert!(matches!(get(&origin, "a", &old, 3, range).await, Err(OriginError::Changed(_))));
    }
}

#[tokio::test]
async fn a_store_that_ignores_ranges_is_refused() {
    let bucket = Bucket { prefix: String::new(), ..Bucket::new().await };
    bucket.put("a", b"abc").await;
    bucket.faults().lock().ignores_ranges = true;
    let etag = bucket.faults().lock().objects[b"a".as_slice()].1.clone();
    let origin = bucket.origin().await;
    assert_eq!(get(&origin, "a", &etag, 3, 0..3).await.unwrap(), b"abc");
    assert!(matches!(get(&origin, "a", &etag, 3, 1..3).await, Err(OriginError::Malformed(_))));
}

#[tokio::test]
async fn listings_are_tried_again_and_no_more_than_allowed() {
    let bucket = Bucket::new().await;
    bucket.put("a", b"x").await;
    let slow =
        || (503, vec![("retry-after", "0".to_owned())], "<Error><Code>SlowDown</Code></Error>".to_owned());
    bucket.faults().lock().answers.extend([slow(), slow()]);
    let mut collected = Collected::default();
    bucket.with_retries(2).await.list(&mut collected).await.unwrap();
    assert_eq!(collected.objects.len(), 1);
    bucket.faults().lock().answers.extend([slow(), slow(), slow()]);
    let error = bucket.with_retries(2).await.list(&mut Collected::default()).await.unwrap_err();
    assert!(matches!(error, OriginError::Throttled { retry_after: Some(Duration::ZERO), .. }), "{error}");
    assert_eq!(bucket.faults().lock().answers.len(), 0);
}

#[tokio::test]
async fn listings_end() {
    let bucket = Bucket::new().await;
    for n in 0..3 {
        bucket.put(&format!("{n}"), b"x").await;
    }
    {
        let mut faults = bucket.faults().lock();
        (faults.page, faults.circles) = (1, true);
    }
    struct Nobody;
    impl crate::origin::Sink for Nobody {
        fn object(&mut self, _: &str, _: u64, _: i64, _: Validator) -> Result<(), OriginError> {
            Ok(())
        }
        fn skip(&mut self, _: &str, _: SkipReason) {}
    }
    let error = bucket.origin().await.list(&mut Nobody).await.unwrap_err();
    assert!(error.to_string().ends_with("goes in a circle"), "{error}");
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let fake = FakeS3::start().await;
    let origins = origins(RetryConfig { attempts: 0, budget: 0.0 });
    let list = async |spec: &hearth_api::Origin| match origins.open("ns", spec).await {
        Ok(origin) => origin.list(&mut Collected::default()).await.unwrap_err(),
        Err(error) => error,
    };
    let missing = list(&spec(&fake.endpoint(), "nowhere", "")).await;
    assert!(matches!(missing, OriginError::NotFound(_)), "{missing}");
    assert!(missing.to_string().starts_with("bucket nowhere at http://127.0.0.1:"), "{missing}");
    let mut no_secret = spec(&fake.endpoint(), BUCKET, "");
    no_secret.secret_ref = Some(hearth_api::SecretReference { name: "other".into() });
    assert!(matches!(list(&no_secret).await, OriginError::Denied(_)));
    let nobody = list(&spec("http://127.0.0.1:1", BUCKET, "")).await;
    assert!(
        matches!(&nobody, OriginError::Unavailable(why) if why.contains("cannot be reached")),
        "{nobody}"
    );
    let file = serde_json::from_value(serde_json::json!({"uri": "file:///data"})).unwrap();
    let refused = list(&file).await;
    assert!(refused.to_string().contains("fileOrigins.allowedRoots"), "{refused}");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error() {
    let bucket = Bucket { prefix: String::new(), ..Bucket::new().await };
    bucket.put("a", &[7; 1000]).await;
    let etag = bucket.faults().lock().objects[b"a".as_slice()].1.clone();
    bucket.faults().lock().cuts.push_back((400, tokio::sync::watch::channel(true).1));
    let origin = bucket.origin().await;
    let error = get(&origin, "a", &etag, 1000, 0..1000).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
}
