//! Stores made in bulk are like stores that were filled.

use super::*;
use crate::store::{Store, bulk};

#[test]
fn a_store_made_in_bulk_holds_what_was_picked() {
    let directory = tempfile::tempdir().unwrap();
    let config = StoreConfig { directory: directory.path().to_owned(), ..config() };
    let names: Vec<String> = (0..3000).map(|number| format!("{number:08}")).collect();
    let files: Vec<(&str, &str, u64)> = names.iter().map(|name| (name.as_str(), "1", 10)).collect();
    let version = Version::new("ns", &files);
    let hash = bulk::make(&config, "ns/d", &version.bytes, |file| file % 3 == 0).unwrap();
    let store = Store::open(&config).unwrap();
    let expected: Vec<u32> = (0..3000).step_by(3).collect();
    assert_eq!(store.held(&hash).unwrap().iter().collect::<Vec<_>>(), expected);
    assert_eq!(store.usage().unwrap().used_bytes, 10_000);
}
