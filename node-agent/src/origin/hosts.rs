//! Which hosts origins may name that are no stores of a cloud.
//!
//! An agent reaches what a Dataset's author may not: services of the cluster, other agents
//! of the node, the cloud's metadata. So a host is refused until the operator allows it.

use super::{OriginError, shown};
use reqwest::Url;

/// The hosts that origins of one kind may name: `HOST`, `*.DOMAIN`, both also with `:PORT`,
/// or `*` for all.
#[derive(Clone, Debug, Default)]
pub struct AllowedHosts(Vec<String>);

impl AllowedHosts {
    /// As the configuration has them.
    pub fn new(hosts: Vec<String>) -> Self {
        Self(hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect())
    }

    /// Refuses a host that is not allowed; `setting` is where the configuration names those that are.
    pub(super) fn check(&self, setting: &str, host: &str, port: u16) -> Result<(), OriginError> {
        if self.0.iter().any(|allowed| matches(allowed, host, port)) {
            return Ok(());
        }
        Err(OriginError::Refused(format!(
            "host {} is not allowed: {setting} of the node agents' configuration {}",
            shown(host),
            if self.0.is_empty() { "names none".to_owned() } else { format!("names {}", self.0.join(", ")) }
        )))
    }

    /// Likewise for the host of a URL.
    pub(super) fn check_url(&self, setting: &str, url: &Url) -> Result<(), OriginError> {
        let port = url.port_or_known_default().unwrap_or_default();
        self.check(setting, url.host_str().unwrap_or_default(), port)
    }
}

fn matches(allowed: &str, host: &str, port: u16) -> bool {
    let (name, right_port) = match allowed.rsplit_once(':') {
        // Not the end of an IPv6 address.
        Some((name, given)) if !given.ends_with(']') => (name, given.parse() == Ok(port)),
        _ => (allowed, true),
    };
    let right_host = match name.strip_prefix('*') {
        Some("") => true,
        Some(domain) => domain.starts_with('.') && host.ends_with(domain),
        None => name == host,
    };
    right_host && right_port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_hosts_are_allowed() {
        let allowed = |hosts: &[&str], url: &str| {
            let hosts = AllowedHosts::new(hosts.iter().map(|host| (*host).to_owned()).collect());
            hosts.check_url("some.setting", &Url::parse(url).unwrap()).is_ok()
        };
        for url in ["http://h/", "http://169.254.169.254/latest/"] {
            assert!(!allowed(&[], url) && allowed(&["*"], url));
        }
        assert!(allowed(&["Data.example"], "https://data.EXAMPLE/x"));
        assert!(allowed(&["h:8080"], "http://h:8080/") && !allowed(&["h:8080"], "http://h/"));
        assert!(allowed(&["h:443"], "https://h/"));
        assert!(
            allowed(&["*.example"], "http://a.b.example/") && !allowed(&["*.example"], "http://example/")
        );
        assert!(!allowed(&["*ample"], "http://example/") && !allowed(&["*.example"], "http://evil-example/"));
        assert!(allowed(&["[::1]"], "http://[::1]:80/") && allowed(&["[::1]:80"], "http://[::1]/"));
        assert!(!allowed(&["[::1]:81"], "http://[::1]/"));
    }
}
