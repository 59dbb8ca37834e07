//! Reservations and full disks.

use super::*;
use crate::store::fake_disk::FakeDisk;

#[test]
fn reservations_keep_to_the_capacity() {
    let (disk, version) = (FakeDisk::default(), small());
    let config = StoreConfig { capacity: Some(Size::Bytes(2000)), ..config() };
    let store = Engine::open(Arc::new(disk), &config, &Common::default()).unwrap();
    version.put(&store).unwrap();
    let mut first = store.reserve(1500).unwrap();
    assert!(store.reserve(501).unwrap_err().is_no_space());
    version.write(&store, 0, 0).unwrap();
    first.release(1000);
    assert_eq!(first.bytes(), 500);
    assert!(store.reserve(501).is_err());
    let second = store.reserve(500).unwrap();
    drop((first, second));
    assert!(store.reserve(1001).is_err());
    assert!(store.reserve(1000).is_ok());
    assert_eq!(store.usage().unwrap().used_bytes, 1000);
    assert_eq!(store.usage().unwrap().capacity_bytes, 2000);
}

#[test]
fn reservations_leave_others_their_share() {
    let disk = FakeDisk::default();
    disk.set_capacity(Some(100 << 20));
    let config = StoreConfig { min_free: Size::Percent(15), ..config() };
    let store = Engine::open(Arc::new(disk.clone()), &config, &Common::default()).unwrap();
    let free = (100u64 << 20) - disk.used();
    let keep = (100u64 << 20) / 100 * 15;
    assert!(store.reserve(free - keep + 1).unwrap_err().is_no_space());
    assert!(store.reserve(free - keep).is_ok());
    assert_eq!(store.usage().unwrap().capacity_bytes, free - keep);
}

/// Writes until the disk is full, then frees and writes on.
#[test]
fn a_full_disk_refuses_and_recovers() {
    let disk = FakeDisk::default();
    let names: Vec<String> = (0..40).map(|number| format!("{number:03}")).collect();
    let files: Vec<(&str, &str, u64)> = names.iter().map(|name| (name.as_str(), "1", 400_000)).collect();
    let (version, other) = (Version::new("ns", &files), small());
    disk.set_capacity(Some(40 << 20));
    let store = open(&disk);
    version.put(&store).unwrap();
    other.put(&store).unwrap();
    disk.set_capacity(Some(disk.used() + 4_000_000));
    let written = (0..40).take_while(|file| match version.write(&store, *file, 0) {
        Ok(()) => true,
        Err(error) => {
            assert!(error.is_no_space(), "{error}");
            false
        }
    });
    let written = written.count();
    assert!((5..=10).contains(&written), "{written}");
    assert_eq!(version.held(&store).len(), written);
    assert!((0..written).all(|file| version.read(&store, file, 0)));
    // Not a byte is left, and still it can forget and free.
    disk.set_capacity(Some(disk.used()));
    store.retire(&version.hash).or_else(|_| store.retire(&version.hash)).unwrap();
    assert_eq!(store.shared.space.used(), 0);
    disk.set_capacity(None);
    other.write(&store, 0, 0).unwrap();
    assert!(other.read(&store, 0, 0));
}
