//! Where a store is, as a Dataset says it.

use crate::origin::{OriginError, shown};

/// The base URL of a store: a scheme, a host and perhaps a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::origin) struct Endpoint {
    url: String,
}

impl Endpoint {
    pub(in crate::origin) fn parse(given: &str) -> Result<Self, OriginError> {
        let url = given.trim_end_matches('/').to_owned();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']' | '_');
        let right = url.split_once("://").is_some_and(|(scheme, authority)| {
            matches!(scheme, "http" | "https") && !authority.is_empty() && authority.chars().all(plain)
        });
        if !right || reqwest::Url::parse(&url).is_err() {
            return Err(OriginError::Refused(format!(
                "options.endpoint is \"{}\", and http(s)://HOST[:PORT] is allowed",
                shown(given)
            )));
        }
        Ok(Self { url })
    }

    /// Without a trailing slash.
    pub(in crate::origin) fn as_str(&self) -> &str {
        &self.url
    }

    /// Host and port.
    pub(in crate::origin) fn authority(&self) -> &str {
        self.url.split_once("://").map_or("", |(_, authority)| authority)
    }

    /// The same with a name before the host.
    pub(in crate::origin) fn below(&self, name: &str) -> String {
        self.url.replacen("://", &format!("://{name}."), 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_hosts_and_nothing_else() {
        for endpoint in ["minio:9000", "http://", "http://a/b", "http://u:p@h", "ftp://h", "http://h?x"] {
            let error = Endpoint::parse(endpoint).unwrap_err().to_string();
            assert!(error.starts_with("options.endpoint is"), "{error}");
        }
        let endpoint = Endpoint::parse("https://h:1/").unwrap();
        assert_eq!((endpoint.as_str(), endpoint.authority()), ("https://h:1", "h:1"));
        assert_eq!(endpoint.below("b"), "https://b.h:1");
    }
}
