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

#[test]
fn temporary_measure() {
    let Ok(dir) = std::env::var("HEARTH_BULK_DIR") else { return };
    let config = StoreConfig { directory: dir.into(), ..config() };
    let rss = || {
        let s = std::fs::read_to_string("/proc/self/status").unwrap();
        s.lines().filter(|l| l.starts_with("VmRSS") || l.starts_with("VmHWM")).map(|l| l.to_owned()).collect::<Vec<_>>().join(" ")
    };
    let n: usize = std::env::var("HEARTH_BULK_FILES").unwrap().parse().unwrap();
    if !config.directory.exists() {
        let names: Vec<String> = (0..n).map(|number| format!("{:03}/{number:08}", number / 10000)).collect();
        let files: Vec<(&str, &str, u64)> = names.iter().map(|name| (name.as_str(), "1", 100_000)).collect();
        let version = Version::new("ns", &files);
        let t = std::time::Instant::now();
        bulk::make(&config, "ns/d", &version.bytes, |file| file % 2 == 0 || file > n / 2).unwrap();
        println!("made in {:?} {}", t.elapsed(), rss());
        return;
    }
    println!("before {}", rss());
    let t = std::time::Instant::now();
    let store = Store::open(&config).unwrap();
    println!("open {:?} {}", t.elapsed(), rss());
    let (snapshot, _) = store.subscribe();
    println!("snapshot {:?} {} blocks {}", t.elapsed(), rss(), snapshot[0].blocks.0.len());
    let hash = snapshot[0].manifest;
    let t = std::time::Instant::now();
    let m = store.manifest(&hash).unwrap().unwrap();
    println!("manifest {:?} {}", t.elapsed(), rss());
    for writers in [1usize, 8, 64] {
        let t = std::time::Instant::now();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let missing: Vec<usize> = (1..m.file_count() / 2).step_by(2).filter(|f| store.held(&hash).is_some() && *f > 0).take(20000).collect();
        let start = match writers { 1 => 0, 8 => 1000, _ => 5000 };
        let count = match writers { 1 => 500, 8 => 3000, _ => 8000 };
        let slice: Vec<usize> = missing[start..start + count].to_vec();
        println!("prep {:?}", t.elapsed());
        let t = std::time::Instant::now();
        runtime.block_on(async {
            let mut tasks = Vec::new();
            for w in 0..writers {
                let store = store.clone();
                let mine: Vec<usize> = slice.iter().skip(w).step_by(writers).copied().collect();
                tasks.push(tokio::spawn(async move {
                    for f in mine {
                        store.write_block(&hash, f, 0, vec![7u8; 100_000].into()).await.unwrap();
                    }
                }));
            }
            for t in tasks { t.await.unwrap(); }
        });
        let s = store.stats();
        println!("{writers} writers: {:.0} blocks/s, commits {:?} micros {:?} {}", count as f64 / t.elapsed().as_secs_f64(), s.commits, s.commit_micros, rss());
    }
    if std::env::var("HEARTH_ABORT").is_ok() { std::process::abort(); }
}
