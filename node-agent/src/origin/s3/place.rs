//! Where a bucket is reached, and the URLs of its keys.

use crate::origin::OriginError;
use crate::origin::shown;
use crate::origin::web::Endpoint;
use crate::origin::web::percent::encode;
use crate::origin::web::ranges::Begin;
use hearth_api::{Addressing, OriginOptions};

const DEFAULT_REGION: &str = "us-east-1";

/// A bucket as it is reached.
#[derive(Debug)]
pub(in crate::origin) struct Place {
    /// URL of the bucket without a trailing slash.
    base: String,
    bucket: String,
    prefix: String,
    region: String,
    endpoint: Endpoint,
}

impl Place {
    pub(in crate::origin) fn new(
        bucket: &str,
        prefix: String,
        options: Option<&OriginOptions>,
    ) -> Result<Self, OriginError> {
        let given = options.and_then(|options| options.endpoint.as_deref());
        let region = options.and_then(|options| options.region.as_deref()).unwrap_or(DEFAULT_REGION);
        if !region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(OriginError::Refused(format!(
                "options.region is \"{}\", and letters, digits and - are allowed",
                shown(region)
            )));
        }
        let endpoint = match given {
            Some(endpoint) => Endpoint::parse(endpoint)?,
            None => Endpoint::parse(&format!("https://s3.{region}.{}", partition(region)))?,
        };
        let virtual_hosted = match options.and_then(|options| options.addressing) {
            Some(addressing) => addressing == Addressing::VirtualHosted,
            // No certificate covers a name with more dots.
            None => given.is_none() && !bucket.contains('.'),
        };
        let base =
            if virtual_hosted { endpoint.below(bucket) } else { format!("{}/{bucket}", endpoint.as_str()) };
        if reqwest::Url::parse(&base).is_err() {
            return Err(OriginError::Refused(format!("{base} cannot be the URL of a bucket")));
        }
        Ok(Self { base, bucket: bucket.to_owned(), prefix, region: region.to_owned(), endpoint })
    }

    pub(super) fn region(&self) -> &str {
        &self.region
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// URL of the store.
    pub(super) fn endpoint(&self) -> &str {
        self.endpoint.as_str()
    }

    /// For sentences: the bucket and who has it.
    pub(super) fn name(&self) -> String {
        format!("bucket {} at {}", self.bucket, self.endpoint.as_str())
    }

    /// For sentences: one object.
    pub(super) fn shown(&self, key: &str) -> String {
        format!("s3://{}/{}", self.bucket, shown(key))
    }

    /// URL of an object.
    pub(super) fn object(&self, key: &str) -> String {
        let mut url = String::with_capacity(self.base.len() + 1 + key.len() + key.len() / 4);
        url.push_str(&self.base);
        url.push('/');
        encode(&mut url, key, true);
        url
    }

    /// URL of a page of the listing of what is below the prefix and begins with `start` there:
    /// the page at a token, or the first one of what is behind a path.
    pub(super) fn listing(&self, start: &str, begin: Begin<'_>) -> String {
        let mut url = format!("{}?encoding-type=url&list-type=2&prefix=", self.base);
        encode(&mut url, &self.prefix, false);
        encode(&mut url, start, false);
        match begin {
            Begin::Behind("") => {}
            Begin::Behind(path) => {
                url.push_str("&start-after=");
                encode(&mut url, &self.prefix, false);
                encode(&mut url, path, false);
            }
            Begin::Token { token, .. } => {
                url.push_str("&continuation-token=");
                encode(&mut url, token, false);
            }
        }
        url
    }
}

/// AWS in China has a domain of its own.
pub(super) fn partition(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(bucket: &str, options: &serde_json::Value) -> String {
        let options: OriginOptions = serde_json::from_value(options.clone()).unwrap();
        match Place::new(bucket, String::new(), Some(&options)) {
            Ok(place) => place.object("k"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn buckets_are_addressed_as_documented() {
        use serde_json::json;
        assert_eq!(base("b", &json!({})), "https://b.s3.us-east-1.amazonaws.com/k");
        assert_eq!(base("b.c", &json!({})), "https://s3.us-east-1.amazonaws.com/b.c/k");
        assert_eq!(base("b", &json!({"region": "cn-north-1"})), "https://b.s3.cn-north-1.amazonaws.com.cn/k");
        assert_eq!(base("b", &json!({"addressing": "Path"})), "https://s3.us-east-1.amazonaws.com/b/k");
        assert_eq!(base("b", &json!({"endpoint": "http://minio:9000/"})), "http://minio:9000/b/k");
        assert_eq!(
            base("b", &json!({"endpoint": "https://oss.example", "addressing": "VirtualHosted"})),
            "https://b.oss.example/k"
        );
    }

    #[test]
    fn keys_are_encoded_once() {
        let options = serde_json::from_value(serde_json::json!({"endpoint": "http://h"})).unwrap();
        let place = Place::new("b", "p//q/".into(), Some(&options)).unwrap();
        assert_eq!(place.object("a//b c+é%/?#"), "http://h/b/a//b%20c%2B%C3%A9%25/%3F%23");
        assert_eq!(
            place.listing("", Begin::Token { token: "t/=", behind: "" }),
            "http://h/b?encoding-type=url&list-type=2&prefix=p%2F%2Fq%2F&continuation-token=t%2F%3D"
        );
    }
}
