//! What a store says when objects change: notices in the shapes that S3 and compatible stores
//! send, and which origins they are about.

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use std::collections::BTreeSet;

/// An object that came, changed or went.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Changed {
    bucket: String,
    /// As far as it is UTF-8: what else there is of it cannot be a file.
    key: String,
}

/// S3's event message, which MinIO and Ceph send alike, one of Amazon EventBridge, or either as Amazon
/// SNS wraps it. What else they say is of no use here: the listing tells.
#[derive(Deserialize)]
#[serde(untagged)]
enum Notice {
    #[serde(rename_all = "PascalCase")]
    Message {
        records: Vec<Record>,
    },
    Bridged {
        detail: Detail,
    },
    #[serde(rename_all = "PascalCase")]
    Wrapped {
        message: String,
    },
    /// Sent once, when somebody sets up a bucket to tell.
    #[serde(rename_all = "PascalCase")]
    Trial {
        event: Trial,
    },
}

#[derive(Deserialize)]
enum Trial {
    #[serde(rename = "s3:TestEvent")]
    Sent,
}

#[derive(Deserialize)]
struct Record {
    s3: Detail,
}

#[derive(Deserialize)]
struct Detail {
    bucket: Bucket,
    object: Object,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Deserialize)]
struct Object {
    key: String,
}

/// What a notice is about, each once; a sentence when it is none.
pub fn read(body: &[u8]) -> Result<BTreeSet<Changed>, String> {
    let parse = |body: &[u8]| {
        serde_json::from_slice(body).map_err(|error: serde_json::Error| match error.is_data() {
            true => {
                "the body is no notice: Records[].s3 or detail with bucket.name and object.key are needed"
                    .to_owned()
            }
            false => format!("the body is no JSON: {error}"),
        })
    };
    let notice = match parse(body)? {
        Notice::Wrapped { message } => parse(message.as_bytes())?,
        notice => notice,
    };
    Ok(match notice {
        // As in a form: a space is a plus.
        Notice::Message { records } => records
            .into_iter()
            .map(|Record { s3: Detail { bucket, object } }| Changed {
                bucket: bucket.name,
                key: readable(&percent_decode_str(&object.key.replace('+', " ")).collect::<Vec<u8>>()),
            })
            .collect(),
        Notice::Bridged { detail: Detail { bucket, object } } => {
            BTreeSet::from([Changed { bucket: bucket.name, key: object.key }])
        }
        Notice::Trial { event: Trial::Sent } => BTreeSet::new(),
        Notice::Wrapped { .. } => return Err("the body is a message in a message in a message".to_owned()),
    })
}

/// A key up to the first byte that is no UTF-8.
fn readable(key: &[u8]) -> String {
    key.utf8_chunks().next().map_or_else(String::new, |chunk| chunk.valid().to_owned())
}

impl Changed {
    /// Where it is, as origins' URIs have it.
    pub fn uri(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }

    /// Whether an origin of this URI may have it. Of buckets with one name at several stores each
    /// counts: one listing too many does no harm.
    pub fn concerns(&self, uri: &str) -> bool {
        let Some(place) = uri.strip_prefix("s3://") else { return false };
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        // As origins are read, whose prefixes end in one slash.
        let prefix = prefix.trim_end_matches('/');
        bucket == self.bucket && self.key.starts_with(prefix)
    }
}

/// Prefixes that all of these URIs begin with, `most` of them at most unless there are more buckets: where there would be more,
/// those of the deepest folders give way to their folders.
pub fn prefixes(uris: impl IntoIterator<Item = String>, most: usize) -> BTreeSet<String> {
    let mut prefixes: BTreeSet<String> = uris.into_iter().collect();
    loop {
        drop_covered(&mut prefixes);
        let depth = |uri: &String| folder(uri).map_or(0, |folder| folder.matches('/').count());
        let deepest = prefixes.iter().map(depth).max().unwrap_or(0);
        if prefixes.len() <= most || deepest == 0 {
            return prefixes;
        }
        prefixes = std::mem::take(&mut prefixes)
            .into_iter()
            .map(|uri| match folder(&uri) {
                Some(folder) if depth(&uri) == deepest => folder.to_owned(),
                _ => uri,
            })
            .collect();
    }
}

/// The folder of an object, or of a folder; none of a bucket.
fn folder(uri: &str) -> Option<&str> {
    let (bucket, key) = uri.strip_prefix("s3://")?.split_once('/')?;
    let key = key.strip_suffix('/').unwrap_or(key);
    let end = match key.rfind('/') {
        Some(slash) => slash + 1,
        None if key.is_empty() => return None,
        None => 0,
    };
    Some(&uri[.."s3://".len() + bucket.len() + 1 + end])
}

/// Leaves those that begin with no other one.
fn drop_covered(prefixes: &mut BTreeSet<String>) {
    let mut last: Option<String> = None;
    // In this order a prefix stands right before all that begins with it.
    prefixes.retain(|uri| {
        let is_covered = last.as_ref().is_some_and(|last| uri.starts_with(last.as_str()));
        if !is_covered {
            last = Some(uri.clone());
        }
        !is_covered
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn changed(bucket: &str, key: &str) -> Changed {
        Changed { bucket: bucket.to_owned(), key: key.to_owned() }
    }

    #[test]
    fn notices_of_stores_are_read() {
        let message = br#"{"EventName": "s3:ObjectCreated:Put", "Records": [
            {"eventSource": "aws:s3", "s3": {"bucket": {"name": "b", "arn": "a"}, "object": {"key": "a+b/%C3%A9%2B", "size": 1}}},
            {"s3": {"bucket": {"name": "b"}, "object": {"key": "c"}}},
            {"s3": {"bucket": {"name": "b"}, "object": {"key": "c/%FFd"}}},
            {"s3": {"bucket": {"name": "b"}, "object": {"key": "c"}}}]}"#;
        let found = BTreeSet::from([changed("b", "a b/\u{e9}+"), changed("b", "c"), changed("b", "c/")]);
        assert_eq!(read(message), Ok(found));
        let bridged = br#"{"detail-type": "Object Created", "source": "aws.s3",
            "detail": {"bucket": {"name": "b"}, "object": {"key": "a+b", "size": 1}}}"#;
        assert_eq!(read(bridged), Ok(BTreeSet::from([changed("b", "a+b")])));
        let wrapped = br#"{"Type": "Notification", "MessageId": "1", "TopicArn": "t",
            "Message": "{\"Records\": [{\"s3\": {\"bucket\": {\"name\": \"b\"}, \"object\": {\"key\": \"a%2Bb\"}}}]}"}"#;
        assert_eq!(read(wrapped), Ok(BTreeSet::from([changed("b", "a+b")])));
        for of_nothing in
            [r#"{"Records": []}"#, r#"{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}"#]
        {
            assert_eq!(read(of_nothing.as_bytes()), Ok(BTreeSet::new()));
        }
    }

    #[test]
    fn what_is_no_notice_gets_a_sentence() {
        for (body, sentence) in [
            (&b"hello"[..], "no JSON"),
            (b"{\"Records\": [", "no JSON"),
            (b"[]", "Records[].s3"),
            (b"{\"Records\": [{\"s3\": {}}]}", "Records[].s3"),
            (b"{\"Service\": \"Amazon S3\", \"Event\": \"s3:Other\"}", "Records[].s3"),
            (b"{\"Type\": \"Notification\", \"Message\": \"hello\"}", "no JSON"),
            (b"{\"Message\": \"{\\\"Message\\\": \\\"{}\\\"}\"}", "in a message"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.contains(sentence), "{error}");
        }
    }

    #[test]
    fn many_changes_are_those_of_their_folders() {
        let of = |uris: &[&str], most| -> Vec<String> {
            prefixes(uris.iter().map(|uri| format!("s3://{uri}")), most)
                .into_iter()
                .map(|uri| uri["s3://".len()..].to_owned())
                .collect()
        };
        assert_eq!(of(&["b/x/1", "b/x/2", "b/y"], 3), ["b/x/1", "b/x/2", "b/y"]);
        assert_eq!(of(&["b/x/1", "b/x/2", "b/y"], 2), ["b/x/", "b/y"]);
        assert_eq!(of(&["b/x/1", "b/x/12", "b/y"], 2), ["b/x/1", "b/y"]);
        assert_eq!(of(&["b/x/1", "b/y/1", "b/z/1/2"], 1), ["b/"]);
        assert_eq!(of(&["b/x", "c/x", "c"], 1), ["b/", "c"]);
    }

    proptest! {
        #[test]
        fn every_change_begins_with_one_prefix(uris in prop::collection::btree_set("s3://[bc](/[xy]{0,2}){1,4}", 0..20), most in 2usize..8) {
            let found = prefixes(uris.clone(), most);
            prop_assert!(found.len() <= most);
            for uri in &uris {
                let of = found.iter().filter(|prefix| uri.starts_with(prefix.as_str()));
                prop_assert_eq!(of.count(), 1);
            }
        }
    }

    #[test]
    fn an_origin_is_concerned_by_what_is_below_its_prefix() {
        for (uri, concerns) in [
            ("s3://b", true),
            ("s3://b/train", true),
            ("s3://b/train/", true),
            ("s3://b/train//", true),
            ("s3://b/test", false),
            ("s3://bb/train", false),
            ("gs://b/train", false),
        ] {
            assert_eq!(changed("b", "train/x").concerns(uri), concerns, "{uri}");
        }
    }
}
