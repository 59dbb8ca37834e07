//! What a store says when objects change: notices in the shapes that S3 and compatible stores
//! send, and which origins they are about.

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use std::collections::BTreeSet;

/// Objects below one key that came, changed or went.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Changed {
    bucket: String,
    key: String,
}

/// S3's event message, which MinIO and Ceph send alike, or one of Amazon EventBridge. What else
/// they say is of no use here: the listing tells.
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
    let notice = serde_json::from_slice(body).map_err(|error| match error.is_data() {
        true => "the body is no notice: Records[].s3 or detail with bucket.name and object.key are needed"
            .to_owned(),
        false => format!("the body is no JSON: {error}"),
    })?;
    Ok(match notice {
        // As in a form: a space is a plus.
        Notice::Message { records } => records
            .into_iter()
            .map(|Record { s3: Detail { bucket, object } }| Changed {
                bucket: bucket.name,
                key: percent_decode_str(&object.key.replace('+', " ")).decode_utf8_lossy().into_owned(),
            })
            .collect(),
        Notice::Bridged { detail: Detail { bucket, object } } => {
            BTreeSet::from([Changed { bucket: bucket.name, key: object.key }])
        }
    })
}

impl Changed {
    /// Whether an origin of this URI may have it. Of buckets with one name at several stores each
    /// counts: one listing too many does no harm.
    pub fn concerns(&self, uri: &str) -> bool {
        let Some(place) = uri.strip_prefix("s3://") else { return false };
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        bucket == self.bucket && self.key.starts_with(prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(bucket: &str, key: &str) -> Changed {
        Changed { bucket: bucket.to_owned(), key: key.to_owned() }
    }

    #[test]
    fn notices_of_stores_are_read() {
        let message = br#"{"EventName": "s3:ObjectCreated:Put", "Records": [
            {"eventSource": "aws:s3", "s3": {"bucket": {"name": "b", "arn": "a"}, "object": {"key": "a+b/%C3%A9%2B", "size": 1}}},
            {"s3": {"bucket": {"name": "b"}, "object": {"key": "c"}}},
            {"s3": {"bucket": {"name": "b"}, "object": {"key": "c"}}}]}"#;
        let found = BTreeSet::from([changed("b", "a b/\u{e9}+"), changed("b", "c")]);
        assert_eq!(read(message), Ok(found));
        let bridged = br#"{"detail-type": "Object Created", "source": "aws.s3",
            "detail": {"bucket": {"name": "b"}, "object": {"key": "a+b", "size": 1}}}"#;
        assert_eq!(read(bridged), Ok(BTreeSet::from([changed("b", "a+b")])));
        assert_eq!(read(br#"{"Records": []}"#), Ok(BTreeSet::new()));
    }

    #[test]
    fn what_is_no_notice_gets_a_sentence() {
        for (body, sentence) in [
            (&b"hello"[..], "no JSON"),
            (b"{\"Records\": [", "no JSON"),
            (b"[]", "Records[].s3"),
            (b"{\"Records\": [{\"s3\": {}}]}", "Records[].s3"),
            (b"{\"Service\": \"Amazon S3\", \"Event\": \"s3:TestEvent\"}", "Records[].s3"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.contains(sentence), "{error}");
        }
    }

    #[test]
    fn an_origin_is_concerned_by_what_is_below_its_prefix() {
        for (uri, concerns) in [
            ("s3://b", true),
            ("s3://b/train", true),
            ("s3://b/train/", true),
            ("s3://b/test", false),
            ("s3://bb/train", false),
            ("gs://b/train", false),
        ] {
            assert_eq!(changed("b", "train/x").concerns(uri), concerns, "{uri}");
        }
    }
}
