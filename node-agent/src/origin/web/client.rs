//! The HTTP clients of origins.

use crate::config::OriginConfig;
use crate::origin::connection::Connection;
use crate::origin::{OriginError, shown};
use anyhow::Context;
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;

/// Clients of origins that want one of their own; each has its connections.
const KEPT: usize = 64;

/// Makes clients, and keeps those that were used last.
#[derive(Debug)]
pub(in crate::origin) struct Clients {
    config: OriginConfig,
    /// PEM of the authorities in the configuration.
    authorities: Option<Vec<u8>>,
    usual: reqwest::Client,
    kept: Mutex<LruCache<Connection, reqwest::Client>>,
}

impl Clients {
    pub(in crate::origin) fn new(config: &OriginConfig) -> anyhow::Result<Self> {
        let authorities = config.ca_file.as_ref().map(|file| {
            std::fs::read(file).with_context(|| format!("origin.caFile {} cannot be read", file.display()))
        });
        let authorities = authorities.transpose()?;
        let usual = build(config, authorities.as_deref(), &Connection::default())
            .context("the client of origins cannot be made: is origin.caFile a PEM file of certificates?")?;
        let kept = Mutex::new(LruCache::new(NonZeroUsize::new(KEPT).unwrap_or(NonZeroUsize::MIN)));
        Ok(Self { config: config.clone(), authorities, usual, kept })
    }

    /// The client of what no Dataset says how to reach.
    pub(in crate::origin) fn usual(&self) -> &reqwest::Client {
        &self.usual
    }

    /// The client of origins that are reached like this.
    pub(in crate::origin) fn of(&self, connection: Connection) -> Result<reqwest::Client, OriginError> {
        if connection == Connection::default() {
            return Ok(self.usual.clone());
        }
        let mut kept = self.kept.lock();
        if let Some(client) = kept.get(&connection) {
            return Ok(client.clone());
        }
        let client = build(&self.config, self.authorities.as_deref(), &connection).map_err(|error| {
            OriginError::Refused(format!(
                "options.proxy is no URL of a proxy, or options.caBundle no PEM of certificates: {}",
                shown(&error.to_string())
            ))
        })?;
        kept.put(connection, client.clone());
        Ok(client)
    }
}

fn build(
    config: &OriginConfig,
    authorities: Option<&[u8]>,
    connection: &Connection,
) -> reqwest::Result<reqwest::Client> {
    let mut client = reqwest::Client::builder()
        // Parallel streams want connections of their own, not one to share.
        .http1_only()
        .connect_timeout(config.connect_timeout)
        .read_timeout(connection.timeout.unwrap_or(config.read_timeout))
        .pool_max_idle_per_host(config.concurrency)
        // A redirect would carry a signature to wherever it points.
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .user_agent(concat!("hearth-node-agent/", env!("CARGO_PKG_VERSION")));
    if let Some(proxy) = &connection.proxy {
        client = client.proxy(reqwest::Proxy::all(proxy)?);
    }
    for pem in authorities.into_iter().chain(connection.authorities.as_deref().map(str::as_bytes)) {
        client = client.tls_certs_merge(reqwest::Certificate::from_pem_bundle(pem)?);
    }
    client.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_connection_cannot_be_made_of_is_refused() {
        hearth_runtime::tls::install_provider();
        let clients = Clients::new(&OriginConfig::default()).unwrap();
        let of = |proxy: Option<&str>, authorities: Option<&str>| {
            clients.of(Connection {
                proxy: proxy.map(str::to_owned),
                authorities: authorities.map(str::to_owned),
                ..Connection::default()
            })
        };
        assert!(of(Some("http://proxy:3128"), None).is_ok());
        for wrong in [
            of(Some("http://"), None),
            of(None, Some("-----BEGIN CERTIFICATE-----\nnot base64\n-----END CERTIFICATE-----\n")),
        ] {
            let error = wrong.unwrap_err();
            assert!(matches!(&error, OriginError::Refused(message) if message.starts_with("options.proxy")));
        }
    }
}
