//! What is particular to directories; the rest is in the conformance suite.

use super::*;
use crate::origin::RetryConfig;
use crate::origin::budget::Budgets;
use crate::origin::conformance::{self, Collected, Fixture, read};
use crate::origin::connection::Limits;
use std::os::unix::fs::symlink;

struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().canonicalize().unwrap()
    }

    async fn open_below(&self, roots: Vec<PathBuf>, below: &str) -> Result<FileOrigin, OriginError> {
        let metrics = Arc::new(Metrics::new().unwrap());
        FileOrigin::open(
            &AllowedRoots::new(roots),
            self.path().join(below),
            Threads::default(),
            Budgets::new(RetryConfig::default()).of(String::new(), Limits::default()),
            metrics,
        )
        .await
    }
}

impl Fixture for Directory {
    async fn origin(&self) -> Arc<dyn Origin> {
        Arc::new(self.open_below(vec![self.path()], "").await.unwrap())
    }

    async fn put(&self, key: &str, content: &[u8]) {
        let path = self.path().join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Another inode with another time, as whoever replaces a file makes it.
        let time = std::fs::metadata(&path).and_then(|old| old.modified()).ok();
        std::fs::write(&path, content).unwrap();
        if let Some(time) = time {
            let later = time + Duration::from_millis(1);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        }
    }

    async fn delete(&self, key: &str) {
        std::fs::remove_file(self.path().join(key)).unwrap();
    }

    fn key_prefix(&self) -> &str {
        ""
    }
}

#[tokio::test]
async fn it_conforms() {
    conformance::suite(Directory::new).await;
}

#[tokio::test]
async fn links_and_devices_are_skipped_and_never_followed() {
    let (directory, outside) = (Directory::new(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("secret"), "x").unwrap();
    directory.put("a", b"1").await;
    symlink(outside.path(), directory.path().join("out")).unwrap();
    symlink("a", directory.path().join("b")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, directory.path().join("pipe"), FileType::Fifo, Mode::RWXU, 0)
        .unwrap();
    let origin = directory.origin().await;
    let mut collected = Collected::default();
    origin.list(&mut collected).await.unwrap();
    assert_eq!(collected.objects.keys().collect::<Vec<_>>(), ["a"]);
    let mut skipped = collected.skipped;
    skipped.sort();
    let expected = ["b", "out", "pipe"].map(|name| (name.to_owned(), SkipReason::NotAFile));
    assert_eq!(skipped, expected);
    // Even when a key that was listed leads out by now.
    let stat = rustix::fs::stat(outside.path().join("secret")).unwrap();
    let validator = Validator::Modified(modified(&stat));
    for key in ["out/secret", "../secret", "b"] {
        let wanted = Wanted { key, validator: &validator, size: 1, range: 0..1 };
        assert!(origin.get(wanted).await.is_err(), "{key}");
    }
}

#[tokio::test]
async fn a_pipe_in_a_files_place_does_not_hang() {
    let directory = Directory::new();
    rustix::fs::mknodat(rustix::fs::CWD, directory.path().join("pipe"), FileType::Fifo, Mode::RWXU, 0)
        .unwrap();
    let wanted = Wanted { key: "pipe", validator: &Validator::Modified(1), size: 1, range: 0..1 };
    assert!(matches!(directory.origin().await.get(wanted).await, Err(OriginError::Changed(_))));
}

#[tokio::test]
async fn only_configured_roots_are_allowed() {
    let directory = Directory::new();
    std::fs::create_dir_all(directory.path().join("in/deep")).unwrap();
    symlink("/", directory.path().join("in/out")).unwrap();
    let root = vec![directory.path().join("in")];
    assert!(directory.open_below(root.clone(), "in").await.is_ok());
    assert!(directory.open_below(root.clone(), "in/deep").await.is_ok());
    let error = directory.open_below(vec![], "in").await.unwrap_err().to_string();
    assert!(error.contains("until fileOrigins.allowedRoots"), "{error}");
    for below in ["inside", "", "in/out", "in/out/etc"] {
        let error = directory.open_below(root.clone(), below).await.unwrap_err();
        assert!(matches!(error, OriginError::Refused(_)), "{below}: {error}");
    }
    let error = directory.open_below(root, "in/none").await.unwrap_err();
    assert!(matches!(error, OriginError::NotFound(_)), "{error}");
}

#[tokio::test]
async fn names_that_are_no_utf8_are_skipped() {
    use std::os::unix::ffi::OsStrExt;
    let directory = Directory::new();
    directory.put("a", b"1").await;
    std::fs::write(directory.path().join(std::ffi::OsStr::from_bytes(b"\xff")), "x").unwrap();
    let mut collected = Collected::default();
    directory.origin().await.list(&mut collected).await.unwrap();
    assert_eq!((collected.objects.len(), collected.skipped.len()), (1, 1));
    assert_eq!(collected.skipped[0].1, SkipReason::NotUtf8);
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_not_mixed() {
    let directory = Directory::new();
    let size = CHUNK * (AHEAD + 8);
    directory.put("big", &vec![1; size]).await;
    let origin = directory.origin().await;
    let mut collected = Collected::default();
    origin.list(&mut collected).await.unwrap();
    let (size, validator) = collected.objects["big"].clone();
    let mut stream =
        origin.get(Wanted { key: "big", validator: &validator, size, range: 0..size }).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    // The reader is ahead by no more than its queue: the rest is read after this.
    directory.put("big", &vec![2; size as usize]).await;
    let rest = read(stream).await;
    assert!(matches!(rest, Err(OriginError::Changed(_))), "{:?}", rest.map(|bytes| bytes.len()));
}
