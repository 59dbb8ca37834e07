//! What every provider must do, run against each: here with fakes, and with real servers by
//! the end-to-end tests. What it finds is said by a panic, as in any test.

#![allow(clippy::unwrap_used, clippy::panic, async_fn_in_trait)]

use super::{ByteStream, Origin, OriginError, Sink, Wanted};
use futures::TryStreamExt;
use futures::future::join_all;
use hearth_core::manifest::SkipReason;
use hearth_core::object::Validator;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// A place to put objects into, and the provider's view of it.
pub trait Fixture {
    /// Opens the origin.
    async fn origin(&self) -> Arc<dyn Origin>;
    /// Writes an object, over an older one.
    async fn put(&self, key: &str, content: &[u8]);
    /// Writes many.
    async fn put_all(&self, objects: &[(&str, &[u8])]) {
        for some in objects.chunks(16) {
            join_all(some.iter().map(|(key, content)| self.put(key, content))).await;
        }
    }
    /// Deletes an object.
    async fn delete(&self, key: &str);
    /// What keys begin with before the listed path.
    fn key_prefix(&self) -> &str;
    /// Characters that the store takes in no key.
    fn forbidden(&self) -> &[char] {
        &[]
    }
}

/// Keeps what is listed.
#[derive(Debug, Default)]
pub struct Collected {
    /// Sizes and validators by path.
    pub objects: BTreeMap<String, (u64, Validator)>,
    /// Keys that cannot be objects.
    pub skipped: Vec<(String, SkipReason)>,
}

impl Sink for Collected {
    fn object(
        &mut self,
        path: &str,
        size: u64,
        modified: i64,
        validator: Validator,
    ) -> Result<(), OriginError> {
        assert!(modified > 0, "{path} has no time");
        assert!(self.objects.insert(path.to_owned(), (size, validator)).is_none(), "{path} is listed twice");
        Ok(())
    }

    fn skip(&mut self, key: &str, reason: SkipReason) {
        self.skipped.push((key.to_owned(), reason));
    }
}

/// Takes a few and then no more.
struct Full(usize);

impl Sink for Full {
    fn object(&mut self, _: &str, _: u64, _: i64, _: Validator) -> Result<(), OriginError> {
        self.0 = self.0.checked_sub(1).ok_or_else(|| OriginError::Refused("full".to_owned()))?;
        Ok(())
    }

    fn skip(&mut self, _: &str, _: SkipReason) {}
}

/// All that is promised by the port.
pub async fn suite<F: Fixture>(new: impl Fn() -> F) {
    lists_every_object_once(&new()).await;
    an_empty_origin_is_no_error(&new()).await;
    a_sink_may_end_the_listing(&new()).await;
    finds_an_object_by_its_path(&new()).await;
    reads_exactly_the_range(&new()).await;
    a_changed_object_is_never_read(&new()).await;
    a_lost_object_is_gone(&new()).await;
    an_unchanged_object_keeps_its_validator(&new()).await;
}

/// All bytes of a stream.
pub async fn read(stream: ByteStream) -> Result<Vec<u8>, OriginError> {
    stream
        .try_fold(Vec::new(), async |mut all, chunk| {
            all.extend_from_slice(&chunk);
            Ok(all)
        })
        .await
}

async fn list(fixture: &impl Fixture) -> Collected {
    let mut collected = Collected::default();
    fixture.origin().await.list(&mut collected).await.unwrap();
    collected
}

async fn get(
    fixture: &impl Fixture,
    path: &str,
    (size, validator): &(u64, Validator),
    range: Range<u64>,
) -> Result<Vec<u8>, OriginError> {
    let key = format!("{}{path}", fixture.key_prefix());
    let origin = fixture.origin().await;
    read(origin.get(Wanted { key: &key, validator, size: *size, range }).await?).await
}

async fn lists_every_object_once(fixture: &impl Fixture) {
    // More than one page or batch, deep paths, and characters that URLs and XML care about.
    let mut keys: Vec<String> = (0..1200).map(|n| format!("many/{n:04}")).collect();
    keys.extend(
        ["a b+c%20&<>\"'", "ünï/c😀de", "deep/1/2/3/4/5/6/7/8/x", "empty", "#?;=@:,!$()*[]{}|^~`"]
            .map(|key| key.replace(fixture.forbidden(), "")),
    );
    let objects: Vec<(&str, &[u8])> =
        keys.iter().map(|key| (key.as_str(), if key == "empty" { b"" } else { key.as_bytes() })).collect();
    fixture.put_all(&objects).await;
    let collected = list(fixture).await;
    let lost: Vec<_> = keys.iter().filter(|key| !collected.objects.contains_key(*key)).collect();
    assert!(lost.is_empty(), "{} keys are not listed, the first is {:?}", lost.len(), lost[0]);
    assert_eq!(collected.objects.len(), keys.len());
    assert_eq!(collected.skipped, []);
    for start in ["many/110", "deep/1/2", "none"] {
        let mut part = Collected::default();
        fixture.origin().await.list_prefix(start, &mut part).await.unwrap();
        let of = |collected: &Collected| -> Vec<_> {
            collected.objects.clone().into_iter().filter(|(path, _)| path.starts_with(start)).collect()
        };
        assert_eq!(of(&part), of(&collected));
    }
    for (path, object) in &collected.objects {
        let size = if path == "empty" { 0 } else { path.len() as u64 };
        assert_eq!(object.0, size, "{path}");
        if size > 0 && !path.starts_with("many/1") {
            assert_eq!(get(fixture, path, object, 0..size).await.unwrap(), path.as_bytes());
        }
    }
}

async fn an_empty_origin_is_no_error(fixture: &impl Fixture) {
    assert!(list(fixture).await.objects.is_empty());
}

async fn a_sink_may_end_the_listing(fixture: &impl Fixture) {
    for n in 0..5 {
        fixture.put(&format!("{n}"), b"x").await;
    }
    let error = fixture.origin().await.list(&mut Full(2)).await.unwrap_err();
    assert_eq!(error, OriginError::Refused("full".to_owned()));
}

async fn finds_an_object_by_its_path(fixture: &impl Fixture) {
    for key in ["a.b", "a/b", "ab"] {
        fixture.put(key, key.as_bytes()).await;
    }
    let listed = list(fixture).await.objects;
    let origin = fixture.origin().await;
    for key in ["a.b", "a/b", "ab"] {
        let found = origin.find(key).await.unwrap().map(|found| (found.size, found.validator));
        assert_eq!(found.as_ref(), listed.get(key), "{key}");
    }
    for key in ["a", "b", "a/b/c", "A", "a/c"] {
        assert_eq!(origin.find(key).await.unwrap(), None, "{key}");
    }
}

async fn reads_exactly_the_range(fixture: &impl Fixture) {
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    fixture.put("big", &content).await;
    let object = list(fixture).await.objects["big"].clone();
    let size = content.len() as u64;
    for range in [0..size, 0..1, size - 1..size, 1_000_000..2_500_000, 7..8] {
        let expected = &content[range.start as usize..range.end as usize];
        let read = get(fixture, "big", &object, range.clone()).await.unwrap();
        assert!(read == expected, "{range:?} has {} bytes", read.len());
    }
}

async fn a_changed_object_is_never_read(fixture: &impl Fixture) {
    fixture.put("same-size", b"1234567890").await;
    fixture.put("shorter", b"1234567890").await;
    fixture.put("longer", b"1234567890").await;
    let before = list(fixture).await.objects;
    fixture.put("same-size", b"abcdefghij").await;
    fixture.put("shorter", b"abc").await;
    fixture.put("longer", b"abcdefghijklm").await;
    for (path, object) in &before {
        for range in [0..10, 8..10, 0..1] {
            let error = get(fixture, path, object, range.clone()).await.unwrap_err();
            // Whoever asks Google for a generation learns only that it is not there.
            assert!(error.is_of_the_object(), "{path} {range:?}: {error}");
        }
    }
    let after = list(fixture).await.objects;
    assert!(before.keys().eq(after.keys()));
    for (path, object) in &before {
        assert_ne!(object, &after[path], "{path}");
    }
}

async fn a_lost_object_is_gone(fixture: &impl Fixture) {
    fixture.put("a", b"1").await;
    let object = list(fixture).await.objects["a"].clone();
    fixture.delete("a").await;
    let error = get(fixture, "a", &object, 0..1).await.unwrap_err();
    // Azure answers that the condition is not met.
    assert!(error.is_of_the_object(), "{error}");
}

async fn an_unchanged_object_keeps_its_validator(fixture: &impl Fixture) {
    fixture.put("a", b"1").await;
    fixture.put("b", b"1").await;
    let before = list(fixture).await.objects;
    fixture.put("b", b"2").await;
    let after = list(fixture).await.objects;
    assert_eq!(before["a"], after["a"]);
    assert_ne!(before["b"], after["b"]);
}
