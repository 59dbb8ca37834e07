//! The harness's origin: conditional requests are honoured and what agents ask for is counted.

use std::time::Duration;

use anyhow::Result;
use hearth_tests::kube_access::install_crypto;
use hearth_tests::run_dir::RunDir;
use hearth_tests::s3::{ACCESS_KEY, Bucket, REGION, S3, SECRET_KEY};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore as _, ObjectStoreExt as _};

async fn server() -> Result<(RunDir, S3, Bucket)> {
    install_crypto();
    let dir = RunDir::create("s3")?;
    let s3 = S3::start(&dir.path().join("s3"), dir.path()).await?;
    let bucket = s3.bucket("data")?;
    Ok((dir, s3, bucket))
}

/// A client that goes the way of the agents.
fn agent(s3: &S3) -> Result<AmazonS3> {
    Ok(AmazonS3Builder::new()
        .with_endpoint(s3.proxy.endpoint())
        .with_allow_http(true)
        .with_bucket_name("data")
        .with_region(REGION)
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key(SECRET_KEY)
        .build()?)
}

#[tokio::test]
async fn ranges_and_listings_are_counted_and_uploads_are_not() -> Result<()> {
    let (dir, s3, bucket) = server().await?;
    let big = vec![7_u8; 20 << 20];
    bucket.put("train/big.bin", big).await?;
    bucket.put("train/ä b+c.txt", "hello").await?;
    let agent = agent(&s3)?;

    let listed = agent.list_with_delimiter(Some(&Path::from("train"))).await?;
    let part = agent.get_range(&Path::parse("train/big.bin")?, 1 << 20..3 << 20).await?;
    let small = agent.get(&Path::parse("train/ä b+c.txt")?).await?.bytes().await?;

    assert_eq!(listed.objects.len(), 2);
    assert_eq!((part.len(), &small[..]), (2 << 20, &b"hello"[..]));
    let counts = s3.proxy.counts();
    assert_eq!((counts.gets, counts.lists, counts.bytes), (2, 1, (2 << 20) + 5));
    assert_eq!(counts.by_object["data/train/big.bin"], 2 << 20);
    dir.remove();
    Ok(())
}

#[tokio::test]
async fn an_overwritten_object_is_refused_to_who_asks_for_the_old_one() -> Result<()> {
    let (dir, s3, bucket) = server().await?;
    bucket.put("x", "old").await?;
    let agent = agent(&s3)?;
    let etag = agent.head(&Path::from("x")).await?.e_tag;
    bucket.put("x", "new").await?;

    let asked = GetOptions { if_match: etag, range: Some((0..2).into()), ..GetOptions::default() };
    let refused = agent.get_opts(&Path::from("x"), asked).await;

    assert!(matches!(refused, Err(object_store::Error::Precondition { .. })), "{refused:?}");
    assert_eq!(s3.proxy.counts().changed, 1);
    dir.remove();
    Ok(())
}

#[tokio::test]
async fn gets_can_be_held_back() -> Result<()> {
    let (dir, s3, bucket) = server().await?;
    bucket.put("x", "content").await?;
    let agent = agent(&s3)?;
    s3.proxy.hold_gets_after(1);

    agent.get(&Path::from("x")).await?;
    let mut held = tokio::spawn(async move { agent.get(&Path::from("x")).await.map(drop) });
    let early = tokio::time::timeout(Duration::from_millis(300), &mut held).await;

    assert!(early.is_err(), "a GET passed that was to be held");
    s3.proxy.release_gets();
    held.await??;
    dir.remove();
    Ok(())
}
