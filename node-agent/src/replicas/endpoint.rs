//! A URL of the extender, and the addresses behind it.

use anyhow::{Context, bail, ensure};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A URL under which one or more replicas are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    tls: bool,
    host: String,
    port: u16,
}

impl Endpoint {
    /// Takes `https://HOST[:PORT]` apart. Without TLS only this machine is spoken to:
    /// a token travels with every request.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let url: reqwest::Url =
            text.parse().with_context(|| format!("extenders has \"{text}\", which is no URL"))?;
        let host =
            url.host_str().with_context(|| format!("extenders has \"{text}\", which names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        ensure!(
            matches!(url.path(), "" | "/") && url.query().is_none() && url.username().is_empty(),
            "extenders has \"{text}\", and https://HOST[:PORT] is allowed"
        );
        let tls = match url.scheme() {
            "https" => true,
            "http" if host.parse().is_ok_and(|address: IpAddr| address.is_loopback()) => false,
            _ => bail!("extenders has \"{text}\", and https://HOST[:PORT] is allowed"),
        };
        let port = url.port_or_known_default().unwrap_or(443);
        Ok(Self { tls, host, port })
    }

    /// Where its replicas are now.
    pub async fn addresses(&self) -> std::io::Result<Vec<SocketAddr>> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, self.port)]);
        }
        Ok(tokio::net::lookup_host((self.host.as_str(), self.port)).await?.collect())
    }

    /// Whether it is reached over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host as its certificate names it.
    pub fn host(&self) -> &str {
        &self.host
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn urls_are_hosts_with_tls_or_this_machine() {
        for (text, shown) in [
            ("https://extender.svc:9443", "https://extender.svc:9443"),
            ("https://10.0.0.1/", "https://10.0.0.1:443"),
            ("https://[::1]:9443", "https://[::1]:9443"),
            ("http://127.0.0.1:9443", "http://127.0.0.1:9443"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), shown);
        }
        let literal = Endpoint::parse("https://[::1]:9443").unwrap();
        assert_eq!(literal.addresses().await.unwrap(), ["[::1]:9443".parse::<SocketAddr>().unwrap()]);
        for text in ["http://extender.svc:9443", "extender:9443", "https://u@h", "https://h/x", "ftp://h", ""]
        {
            let error = Endpoint::parse(text).unwrap_err().to_string();
            assert!(error.starts_with("extenders has"), "{error}");
        }
    }
}
