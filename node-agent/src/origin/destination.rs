//! Where credentials may be sent.
//!
//! Whoever may write a Dataset says where its requests go, and need not be whose the Secret is. A
//! signature is for one request of one host. A token or a password can be used elsewhere by whoever is sent it.

use super::OriginError;
use hearth_api::OriginOptions;
use reqwest::Url;

/// Where the requests of an origin go.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    /// Scheme, host and port.
    url: String,
    /// Whether it is the cloud itself, by its certificate.
    own: bool,
}

impl Destination {
    /// `clouds` are the domains that are the cloud's own, of which there may be none.
    pub(super) fn new(url: &str, clouds: &[&str], options: Option<&OriginOptions>) -> Self {
        let below = |host: &str, domain: &str| {
            host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let Some(parsed) = parse(url) else { return Self { url: url.to_owned(), own: false } };
        let host = parsed.host_str().unwrap_or_default();
        let own = parsed.scheme() == "https"
            && clouds.iter().any(|domain| below(host, domain))
            && options.is_none_or(|options| options.ca_bundle.is_none());
        Self { url: canonical(&parsed), own }
    }

    /// Refuses what is not for here. `named` is the text that names the endpoints that it is for, of `owner`
    /// and in a place there; `as_it_is` when it is of use to whoever is sent it.
    pub(crate) fn check(
        &self,
        named: Option<&str>,
        as_it_is: bool,
        owner: impl FnOnce() -> (String, String),
    ) -> Result<(), OriginError> {
        let why = match named {
            Some(named) => {
                let mut named = named.split([',', ' ', '\t', '\n']).filter(|endpoint| !endpoint.is_empty());
                if named.any(|endpoint| parse(endpoint).is_some_and(|url| canonical(&url) == self.url)) {
                    return Ok(());
                }
                "names other endpoints"
            }
            None if !as_it_is || self.own => return Ok(()),
            None => {
                "is missing, which names the endpoints that get its tokens and passwords besides a cloud's \
                 own, reached without options.caBundle"
            }
        };
        let (owner, place) = owner();
        Err(OriginError::Denied(format!("{owner} is not for {}: its {place} {why}", self.url)))
    }
}

fn parse(url: &str) -> Option<Url> {
    Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))
}

fn canonical(url: &Url) -> String {
    url.origin().ascii_serialization()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, named: Option<&str>, as_it_is: bool) -> Result<(), String> {
        let to = Destination::new(url, &["googleapis.com"], None);
        let owner = || ("Secret ns/s".to_owned(), "key K".to_owned());
        to.check(named, as_it_is, owner).map_err(|error| error.to_string())
    }

    #[test]
    fn a_token_goes_to_the_cloud_and_where_its_owner_says() {
        for url in ["https://storage.googleapis.com", "https://storage-x.p.googleapis.com:443"] {
            assert_eq!(check(url, None, true), Ok(()), "{url}");
        }
        for url in [
            "https://evil.example",
            "http://storage.googleapis.com",
            "https://evilgoogleapis.com",
            "https://storage.googleapis.com.evil.example",
            "https://storage.googleapis.com@evil.example",
        ] {
            assert!(check(url, None, true).unwrap_err().contains("its key K is missing"), "{url}");
        }
        let named = Some("https://a.example,\nhttp://B.example:80/ https://c.example:8443");
        for url in ["https://a.example:443", "http://b.example", "https://C.example:8443"] {
            assert_eq!(check(url, named, true), Ok(()), "{url}");
        }
        for url in [
            "http://a.example",
            "https://a.example:8443",
            "https://c.example",
            "https://storage.googleapis.com",
            "https://x.a.example",
        ] {
            let refused = check(url, named, true).unwrap_err();
            assert!(refused.ends_with("its key K names other endpoints"), "{refused}");
        }
        assert!(check("https://a.example", Some("*"), true).is_err());
    }

    #[test]
    fn a_signature_goes_anywhere_unless_its_owner_says_where() {
        assert_eq!(check("http://minio:9000", None, false), Ok(()));
        assert_eq!(check("http://minio:9000", Some("http://minio:9000"), false), Ok(()));
        let refused = check("http://evil.example", Some("http://minio:9000"), false).unwrap_err();
        assert_eq!(refused, "Secret ns/s is not for http://evil.example: its key K names other endpoints");
    }

    #[test]
    fn a_cloud_behind_another_authority_is_not_itself() {
        let options = OriginOptions { ca_bundle: Some("PEM".to_owned()), ..OriginOptions::default() };
        let to = Destination::new("https://storage.googleapis.com", &["googleapis.com"], Some(&options));
        assert!(to.check(None, true, Default::default).is_err());
    }
}
