//! The extender's replicas: every address behind the configured URLs, looked up
//! again and again, each with its own connection.

mod client;
mod endpoint;

pub use client::{CallError, Replica};
pub use endpoint::Endpoint;

use crate::config::Config;
use anyhow::Context;
use futures::future::join_all;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often host names are looked up and the authorities' file is looked at.
const PERIOD: Duration = Duration::from_secs(30);
/// The same while there is no replica at all.
const ANXIOUS_PERIOD: Duration = Duration::from_secs(2);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// The replicas known now, for whoever wants to follow.
pub type Known = watch::Receiver<Vec<Arc<Replica>>>;

/// Keeps the list of replicas.
#[derive(Debug)]
pub struct Replicas {
    endpoints: Vec<Endpoint>,
    ca_file: PathBuf,
    token_file: PathBuf,
    authorities: Option<Vec<u8>>,
    known: watch::Sender<Vec<Arc<Replica>>>,
}

impl Replicas {
    /// From the configuration; nothing is looked up yet.
    pub fn new(config: &Config) -> anyhow::Result<(Self, Known)> {
        let endpoints = config.extenders.iter().map(|url| Endpoint::parse(url)).collect::<Result<_, _>>()?;
        let (known, receiver) = watch::channel(Vec::new());
        let replicas = Self {
            endpoints,
            ca_file: config.tls.ca_file.clone(),
            token_file: config.token_file.clone(),
            authorities: None,
            known,
        };
        Ok((replicas, receiver))
    }

    /// Looks replicas up until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        loop {
            if let Err(error) = self.refresh().await {
                tracing::warn!("extender replicas: {error:#}");
            }
            let period = if self.known.borrow().is_empty() { ANXIOUS_PERIOD } else { PERIOD };
            tokio::select! {
                () = tokio::time::sleep(period) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
        }
    }

    async fn refresh(&mut self) -> anyhow::Result<()> {
        let renewed = self.read_authorities().await?;
        let lookups = join_all(self.endpoints.iter().map(|endpoint| async move {
            (endpoint, tokio::time::timeout(LOOKUP_TIMEOUT, endpoint.addresses()).await)
        }));
        let mut found: BTreeMap<SocketAddr, Arc<Replica>> = BTreeMap::new();
        let before = self.known.borrow().clone();
        for (endpoint, outcome) in lookups.await {
            let addresses = match outcome {
                Ok(Ok(addresses)) => addresses,
                failed => {
                    let why = failed.map_or_else(
                        |_| "no answer in time".to_owned(),
                        |f| f.map_or_else(|e| e.to_string(), |_| String::new()),
                    );
                    tracing::warn!(url = %endpoint, "the extender's address cannot be looked up: {why}");
                    // What worked so far may well go on working.
                    before
                        .iter()
                        .filter(|replica| replica.endpoint() == endpoint)
                        .map(|r| r.address())
                        .collect()
                }
            };
            for address in addresses {
                let kept = before.iter().find(|replica| replica.address() == address && !renewed);
                let replica = match kept {
                    Some(replica) => replica.clone(),
                    None => Arc::new(Replica::new(
                        endpoint.clone(),
                        address,
                        self.authorities.as_deref(),
                        self.token_file.clone(),
                    )?),
                };
                found.insert(address, replica);
            }
        }
        let found: Vec<_> = found.into_values().collect();
        let same = found.len() == before.len() && found.iter().zip(&before).all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            let addresses: Vec<String> = found.iter().map(|replica| replica.address().to_string()).collect();
            tracing::info!("extender replicas: {}", addresses.join(", "));
            self.known.send_replace(found);
        }
        Ok(())
    }

    /// Reads the authorities' file; whether it is another than before.
    async fn read_authorities(&mut self) -> anyhow::Result<bool> {
        if self.endpoints.iter().all(|endpoint| !endpoint.is_tls()) {
            return Ok(false);
        }
        let read = tokio::fs::read(&self.ca_file).await;
        let pem = match (read, &self.authorities) {
            (Ok(pem), _) => pem,
            (Err(error), Some(_)) => {
                tracing::warn!(
                    "tls.caFile {} cannot be read, the authorities from before stay: {error}",
                    self.ca_file.display()
                );
                return Ok(false);
            }
            (Err(error), None) => {
                return Err(error)
                    .with_context(|| format!("tls.caFile {} cannot be read", self.ca_file.display()));
            }
        };
        let changed = self.authorities.as_ref() != Some(&pem);
        self.authorities = Some(pem);
        Ok(changed)
    }
}
