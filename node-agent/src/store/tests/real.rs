//! The machine's own disk, through the public handle.

use super::*;
use crate::store::{Store, Taken, TierId};

#[tokio::test]
async fn a_block_written_is_a_block_read() {
    let directory = tempfile::tempdir().unwrap();
    let config = StoreConfig { directory: directory.path().join("store"), ..config() };
    let version = Arc::new(small());
    let opened = {
        let config = config.clone();
        tokio::task::spawn_blocking(move || Store::open(&config)).await.unwrap().unwrap()
    };
    let (store, wanted) = (opened.clone(), Arc::clone(&version));
    tokio::task::spawn_blocking(move || wanted.put(&store.home().engine)).await.unwrap().unwrap();
    let (_, feed) = opened.subscribe();
    let data = version.content(0, 0);
    let (written, ()) = tokio::join!(
        opened.write_block(TierId::default(), &version.hash, 0, 0, data.clone().into()),
        feed.changed()
    );
    written.unwrap();
    assert!(matches!(feed.take_changes(), Taken::Changes(changes) if changes.len() == 1));
    assert!(matches!(Store::open(&config), Err(StoreError::Locked { .. })));
    drop(opened);

    let version_again = Arc::clone(&version);
    tokio::task::spawn_blocking(move || {
        let store = Store::open(&config).unwrap();
        assert_eq!(store.identity().boot, 2);
        assert_eq!(store.read_block(&version_again.hash, 0, 0).unwrap(), Some(data));
        store.retire(&version_again.hash).unwrap();
        assert_eq!(store.usage().unwrap().used_bytes, 0);
    })
    .await
    .unwrap();
}

/// Past the page cache, where the file system of the temporary directory can.
#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_the_disk_has_otherwise_is_found_and_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let config = StoreConfig { directory: directory.path().join("store"), ..config() };
    let version = small();
    let store = tokio::task::spawn_blocking(move || Store::open(&config)).await.unwrap().unwrap();
    tokio::task::block_in_place(|| version.put(&store.home().engine)).unwrap();
    for (file, block) in [(0, 0), (1, 0), (2, 0), (2, 1)] {
        let data = version.content(file, block);
        store.write_block(TierId::default(), &version.hash, file, block, data.into()).await.unwrap();
        let length = version.content(file, block).len() as u64;
        assert_eq!(store.verify_block(&version.hash, file, block).unwrap(), Some(length));
    }
    let path = directory.path().join("store").join(version.path(2).strip_prefix("/store").unwrap());
    let object = std::fs::File::options().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&object, b"?", block::BLOCK_SIZE + 50).unwrap();
    object.sync_all().unwrap();
    assert_eq!(store.verify_block(&version.hash, 2, 1).unwrap(), None);
    assert_eq!(store.held(&version.hash).unwrap().iter().collect::<Vec<_>>(), [0, 1]);
}
