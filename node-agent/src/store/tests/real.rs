//! The machine's own disk, through the public handle.

use super::*;
use crate::store::{Store, Taken};

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
    tokio::task::spawn_blocking(move || wanted.put(&store.0)).await.unwrap().unwrap();
    let (_, feed) = opened.subscribe();
    let data = version.content(0, 0);
    let (written, ()) =
        tokio::join!(opened.write_block(&version.hash, 0, 0, data.clone().into()), feed.changed());
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
