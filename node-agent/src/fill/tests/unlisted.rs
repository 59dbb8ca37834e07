//! What a dataset shows and does not take: it comes for who reads it, and nothing of it stays.

use super::*;
use hearth_api::{CacheSpec, FilesSpec, Unlisted};

const BIG: usize = 2 * BLOCK + 7;

/// A bucket of which the dataset takes `kept`, and shows the rest.
async fn shown(cache: Option<CacheSpec>) -> (World, ManifestHash, Manifest) {
    let objects = [("kept/a", 10), ("shown/big", BIG), ("shown/small", 2000), ("z/kept", 30)];
    let world = World::new(&objects).await;
    let mut dataset = world.dataset();
    let include = vec!["kept".into(), "z".into()];
    dataset.spec.files = Some(FilesSpec { include, unlisted: Unlisted::Show, ..FilesSpec::default() });
    dataset.spec.cache = cache;
    world.api.put(DATASET, &dataset);
    let (hash, manifest) = list(&world.origins, &dataset).await;
    assert_eq!((manifest.file_count(), manifest.unlisted_count(), manifest.blocks()), (4, 2, 2));
    (world, hash, manifest)
}

/// Asks for blocks as readers do, again and again, until all have come.
async fn reading(filling: &Filling, hash: ManifestHash, numbers: std::ops::Range<u32>) -> Vec<u8> {
    let mut coming: Vec<_> = numbers.clone().map(|number| filling.demands.wait_for(hash, number)).collect();
    let mut asking = tokio::time::interval(Duration::from_millis(50));
    let all = async {
        let mut bytes = Vec::new();
        for coming in &mut coming {
            bytes.extend_from_slice(&coming.block().await);
        }
        bytes
    };
    let again = async {
        loop {
            asking.tick().await;
            filling.demands.demand(hash, numbers.clone());
        }
    };
    tokio::select! {
        bytes = all => bytes,
        never = again => never,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_read_each_time_and_never_kept() {
    // Room and quota are for what is kept.
    let cache = CacheSpec { quota: Some("41".into()), ..CacheSpec::default() };
    let (world, hash, manifest) = shown(Some(cache)).await;
    let filling = world.start(&manifest, 2, Some(1000));
    filling.want(vec![want(hash, &[], 1)]);
    filling.held(&hash, 2).await;
    let done = || filling.metrics.wants.with_label_values(&["done"]).get() == 1;
    eventually(|| "done".into(), done).await;
    assert_eq!(world.gets().keys().collect::<Vec<_>>(), ["kept/a", "z/kept"], "nobody has read the others");
    is_read_through(&filling, hash, &manifest, "shown/small", &content(2, 2000)).await;
    let big = manifest.find("shown/big").unwrap().blocks();
    assert!(reading(&filling, hash, big.clone()).await == content(1, BIG));
    assert_eq!(world.gets()["shown/small"].len(), 2);
    assert_eq!(filling.store.held(&hash).unwrap(), [0, 1].into_iter().collect());
    assert_eq!(filling.store.usage().unwrap().used_bytes, 40);
    assert!(done());
    assert_eq!(filling.metrics.fill_missing_blocks.get(), 0);
    assert_eq!(filling.status.borrow().troubles, []);
    let file = manifest.find("shown/small").unwrap().index;
    let home = filling.store.home().id();
    let refused = filling.store.write_block(home, &hash, file, 0, vec![0; 2000].into()).await.unwrap_err();
    assert!(refused.to_string().contains("unlisted"), "{refused}");
    filling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_comes_while_the_rest_is_fetched_and_once_for_all_wants() {
    let (world, hash, manifest) = shown(None).await;
    let filling = world.start(&manifest, 1, None);
    world.fake.held.send_replace(Some("kept"));
    filling.want(vec![want(hash, &[], 1), want(hash, &["shown"], 1)]);
    eventually(|| "begun".into(), || filling.metrics.fill_running.get() == 1).await;
    let small = manifest.find("shown/small").unwrap().blocks();
    let number = small.start;
    let mut coming = filling.demands.wait_for(hash, number);
    filling.demands.demand(hash, small);
    assert!(coming.block().await == content(2, 2000));
    assert_eq!(world.gets()["shown/small"].len(), 1);
    world.fake.held.send_replace(None);
    filling.held(&hash, 2).await;
    filling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_is_refused_and_an_origin_that_fails_is_asked_again() {
    let (world, hash, manifest) = shown(None).await;
    let filling = world.start(&manifest, 2, None);
    filling.want(vec![want(hash, &[], 1)]);
    filling.held(&hash, 2).await;
    world.fake.faults.lock().put(b"shown/small", &content(9, 2000));
    let small = manifest.find("shown/small").unwrap().first_block;
    let refused = || {
        filling.demands.demand(hash, [small]);
        filling.demands.is_refused(&hash, small)
    };
    eventually(|| "it is not refused".into(), refused).await;
    filling.troubled(TroubleKind::Changed).await;
    let down = || (500, vec![], String::new());
    world.fake.faults.lock().answers.extend([down(), down(), down()]);
    let big = manifest.find("shown/big").unwrap().blocks();
    assert!(reading(&filling, hash, big).await == content(1, BIG));
    assert_eq!(filling.store.held(&hash).unwrap().len(), 2);
    filling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_to_be_unlisted_goes_with_the_version_that_kept_it() {
    let (world, hash, manifest) = shown(None).await;
    let (all, listed) = world.list().await;
    let filling = world.start(&listed, 2, None);
    filling.want(vec![want(all, &[], 1)]);
    filling.held(&all, u64::from(listed.blocks())).await;
    filling.want(vec![]);
    filling.store.put_manifest(hash, "ns/d", &manifest.encode()).unwrap();
    filling.store.adopt(&hash).unwrap();
    assert_eq!(filling.store.held(&hash).unwrap(), [0, 1].into_iter().collect());
    filling.store.retire(&all).unwrap();
    eventually(
        || format!("{:?}", filling.store.usage().unwrap()),
        || filling.store.usage().unwrap().used_bytes == 40,
    )
    .await;
    filling.stop().await;
}
