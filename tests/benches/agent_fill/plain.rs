//! The plain client: object_store, ranged requests in parallel, one file per object.

use crate::job::{CONCURRENCY, Job, Measured, Stopwatch, key};
use hearth_tests::s3::{ACCESS_KEY, REGION, SECRET_KEY};
use object_store::ObjectStoreExt;
use object_store::aws::AmazonS3Builder;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Bytes of one request, at most: what such clients mostly take.
const RANGE: usize = 8 << 20;

pub(crate) async fn fetch(job: &Job) -> anyhow::Result<Measured> {
    let store = AmazonS3Builder::new()
        .with_endpoint(&job.endpoint)
        .with_allow_http(true)
        .with_bucket_name(&job.bucket)
        .with_region(REGION)
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key(SECRET_KEY)
        .build()?;
    let store = Arc::new(store);
    let slots = Arc::new(Semaphore::new(CONCURRENCY));
    let stopwatch = Stopwatch::start()?;
    let mut requests = JoinSet::new();
    for object in 0..job.objects {
        let path = object_store::path::Path::parse(key(&job.folder, object))?;
        let file = Arc::new(File::create(job.directory.join(object.to_string()))?);
        for start in (0..job.size).step_by(RANGE) {
            let range = start as u64..(start + RANGE).min(job.size) as u64;
            let slot = slots.clone().acquire_owned().await?;
            let (store, path, file) = (store.clone(), path.clone(), file.clone());
            requests.spawn(async move {
                let bytes = store.get_range(&path, range.clone()).await?;
                anyhow::ensure!(
                    bytes.len() as u64 == range.end - range.start,
                    "{path} is shorter than expected"
                );
                let written = tokio::task::spawn_blocking(move || {
                    std::hint::black_box(crc32c::crc32c(&bytes));
                    file.write_all_at(&bytes, range.start)?;
                    file.sync_data()
                });
                written.await??;
                drop(slot);
                anyhow::Ok(())
            });
        }
        while let Some(ended) = requests.try_join_next() {
            ended??;
        }
    }
    while let Some(ended) = requests.join_next().await {
        ended??;
    }
    stopwatch.stop()
}
