//! The HTTP client that all origins share.

use crate::config::OriginConfig;
use anyhow::Context;

/// The client of all origins that speak HTTP.
pub(in crate::origin) fn client(config: &OriginConfig) -> anyhow::Result<reqwest::Client> {
    let mut client = reqwest::Client::builder()
        // Parallel streams want connections of their own, not one to share.
        .http1_only()
        .connect_timeout(config.connect_timeout)
        .read_timeout(config.read_timeout)
        .pool_max_idle_per_host(config.concurrency)
        // A redirect would carry a signature to wherever it points.
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .user_agent(concat!("hearth-node-agent/", env!("CARGO_PKG_VERSION")));
    if let Some(file) = &config.ca_file {
        let pem = std::fs::read(file)
            .with_context(|| format!("origin.caFile {} cannot be read", file.display()))?;
        let authorities = reqwest::Certificate::from_pem_bundle(&pem)
            .with_context(|| format!("origin.caFile {} is no PEM file of certificates", file.display()))?;
        client = client.tls_certs_merge(authorities);
    }
    client.build().context("the client of origins cannot be made")
}
