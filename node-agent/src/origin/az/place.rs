//! Where a container is reached, and the URLs of its blobs.

use crate::origin::web::Endpoint;
use crate::origin::web::percent::encode;
use crate::origin::{OriginError, shown};

/// A container as it is reached.
#[derive(Debug)]
pub(in crate::origin) struct Place {
    account: String,
    container: String,
    prefix: String,
    endpoint: Endpoint,
    /// URL of the container without a trailing slash.
    base: String,
}

impl Place {
    pub(in crate::origin) fn new(
        account: String,
        container: String,
        prefix: String,
        endpoint: Option<&str>,
    ) -> Result<Self, OriginError> {
        let endpoint = match endpoint {
            Some(endpoint) => Endpoint::parse(endpoint)?,
            None => Endpoint::parse(&format!("https://{account}.blob.core.windows.net"))?,
        };
        // An account has a host name of its own, but at an emulator.
        let own_host = endpoint.authority().split('.').next() == Some(account.as_str());
        let base = if own_host {
            format!("{}/{container}", endpoint.as_str())
        } else {
            format!("{}/{account}/{container}", endpoint.as_str())
        };
        Ok(Self { account, container, prefix, endpoint, base })
    }

    pub(super) fn account(&self) -> &str {
        &self.account
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// URL of the store.
    pub(super) fn endpoint(&self) -> &str {
        self.endpoint.as_str()
    }

    /// For sentences: the container and who has it.
    pub(super) fn name(&self) -> String {
        format!("container {} of account {} at {}", self.container, self.account, self.endpoint.as_str())
    }

    /// For sentences: one blob.
    pub(super) fn shown(&self, key: &str) -> String {
        format!("az://{}/{}", self.container, shown(key))
    }

    /// URL of a blob.
    pub(super) fn object(&self, key: &str) -> String {
        let mut url = self.base.clone();
        url.push('/');
        encode(&mut url, key, true);
        url
    }

    /// URL of a page of the listing of what is below the prefix and begins with `start` there; or of its directories
    /// only and of what lies beside them.
    pub(super) fn listing(&self, start: &str, marker: Option<&str>, is_of_directories: bool) -> String {
        let mut url = format!("{}?restype=container&comp=list&maxresults=5000&prefix=", self.base);
        encode(&mut url, &self.prefix, false);
        encode(&mut url, start, false);
        if let Some(marker) = marker {
            url.push_str("&marker=");
            encode(&mut url, marker, false);
        }
        if is_of_directories {
            url.push_str("&delimiter=%2F");
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(endpoint: Option<&str>) -> Place {
        Place::new("acct".into(), "box".into(), "p q/".into(), endpoint).unwrap()
    }

    #[test]
    fn an_account_has_a_host_of_its_own_but_at_an_emulator() {
        assert_eq!(place(None).object("k"), "https://acct.blob.core.windows.net/box/k");
        let china = "https://acct.blob.core.chinacloudapi.cn";
        assert_eq!(place(Some(china)).object("k"), format!("{china}/box/k"));
        assert_eq!(place(Some("http://127.0.0.1:10000")).object("k"), "http://127.0.0.1:10000/acct/box/k");
    }

    #[test]
    fn keys_are_encoded_once() {
        let place = place(None);
        assert!(place.object("a//b c+é%/?#").ends_with("/box/a//b%20c%2B%C3%A9%25/%3F%23"));
        assert!(place.listing("", Some("2!8="), false).ends_with("&prefix=p%20q%2F&marker=2%218%3D"));
        assert!(place.listing("a/", None, true).ends_with("&prefix=p%20q%2Fa%2F&delimiter=%2F"));
    }
}
