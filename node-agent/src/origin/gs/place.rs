//! Where a bucket is reached, and the URLs of its keys.

use crate::origin::web::Endpoint;
use crate::origin::web::percent::encode;
use crate::origin::web::ranges::Begin;
use crate::origin::{OriginError, shown};

const DEFAULT_ENDPOINT: &str = "https://storage.googleapis.com";

/// A bucket as it is reached.
#[derive(Debug)]
pub(in crate::origin) struct Place {
    endpoint: Endpoint,
    bucket: String,
    prefix: String,
}

impl Place {
    pub(in crate::origin) fn new(
        bucket: String,
        prefix: String,
        endpoint: Option<&str>,
    ) -> Result<Self, OriginError> {
        let endpoint = Endpoint::parse(endpoint.unwrap_or(DEFAULT_ENDPOINT))?;
        Ok(Self { endpoint, bucket, prefix })
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
        format!("gs://{}/{}", self.bucket, shown(key))
    }

    /// URL of the bytes of one generation of an object.
    pub(super) fn object(&self, key: &str, generation: &str) -> String {
        let mut url = self.objects();
        url.push('/');
        // A name is one segment, slashes and all.
        encode(&mut url, key, false);
        url.push_str("?alt=media&generation=");
        encode(&mut url, generation, false);
        url
    }

    /// URL of a page of the listing of what is below the prefix and begins with `start` there.
    pub(super) fn listing(&self, start: &str, begin: Begin<'_>) -> String {
        let mut url = self.objects();
        url.push_str(
            "?fields=items(name%2Csize%2Cupdated%2Cgeneration)%2CnextPageToken&maxResults=1000&prefix=",
        );
        encode(&mut url, &self.prefix, false);
        encode(&mut url, start, false);
        let (Begin::Behind(behind) | Begin::Token { behind, .. }) = begin;
        // At the path, if it is there: there is no way to say behind it.
        if !behind.is_empty() {
            url.push_str("&startOffset=");
            encode(&mut url, &self.prefix, false);
            encode(&mut url, behind, false);
        }
        if let Begin::Token { token, .. } = begin {
            url.push_str("&pageToken=");
            encode(&mut url, token, false);
        }
        url
    }

    fn objects(&self) -> String {
        format!("{}/storage/v1/b/{}/o", self.endpoint.as_str(), self.bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_encoded_once() {
        let place = Place::new("b".into(), "p//q/".into(), Some("http://h/")).unwrap();
        assert_eq!(
            place.object("a//b c+é%/?#", "17"),
            "http://h/storage/v1/b/b/o/a%2F%2Fb%20c%2B%C3%A9%25%2F%3F%23?alt=media&generation=17"
        );
        let behind = place.listing("a", Begin::Behind("ab/c d"));
        assert!(behind.ends_with("&prefix=p%2F%2Fq%2Fa&startOffset=p%2F%2Fq%2Fab%2Fc%20d"), "{behind}");
        assert!(
            place
                .listing("", Begin::Token { token: "t/=", behind: "" })
                .ends_with("&prefix=p%2F%2Fq%2F&pageToken=t%2F%3D")
        );
        let google = Place::new("b".into(), String::new(), None).unwrap();
        assert_eq!(google.name(), "bucket b at https://storage.googleapis.com");
    }
}
