//! Reads origins with the identity that a Kubernetes ServiceAccount has in a cloud: a token of the
//! account is exchanged for credentials, which are kept and renewed.
//!
//! A scheme has the exchange itself; what all of them share is here.

mod exchange;
mod renewed;
#[cfg(test)]
pub(super) mod testing;

pub(super) use exchange::{Exchange, Said, plain};
pub(super) use renewed::{Lease, Sessions};

use super::{Destination, OriginError};
use crate::accounts::{Account, Accounts};
use crate::config::WebIdentityConfig;
use object_store::aws::AwsCredential;
use object_store::azure::AzureCredential;
use object_store::gcp::GcpCredential;
use std::sync::Arc;

/// What the origins of all Datasets share.
#[derive(Debug)]
pub(super) struct Federation {
    accounts: Accounts,
    /// With the operators' authorities, and no proxy or authority of a Dataset's.
    pub(super) http: reqwest::Client,
    pub(super) config: WebIdentityConfig,
    pub(super) s3: Sessions<AwsCredential>,
    pub(super) gs: Sessions<GcpCredential>,
    pub(super) az: Sessions<AzureCredential>,
}

impl Federation {
    pub(super) fn new(accounts: Accounts, http: reqwest::Client, config: WebIdentityConfig) -> Self {
        Self {
            accounts,
            http,
            config,
            s3: Sessions::default(),
            gs: Sessions::default(),
            az: Sessions::default(),
        }
    }
}

/// A ServiceAccount by its name.
#[derive(Debug)]
pub(super) struct NamedAccount {
    pub(super) federation: Arc<Federation>,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl NamedAccount {
    /// What `parse` makes of the account as it is now.
    pub(super) async fn get<T>(
        &self,
        parse: impl Fn(&Account) -> Result<T, OriginError>,
    ) -> Result<T, OriginError> {
        self.federation.accounts.get(&self.namespace, &self.name, parse).await
    }

    /// Credentials of the account, kept in `sessions` by all that they depend on; `ask` asks for them.
    pub(super) async fn session<T>(
        &self,
        sessions: &Sessions<T>,
        identity: String,
        ask: impl Future<Output = Result<Lease<T>, OriginError>>,
    ) -> Result<Arc<T>, OriginError> {
        sessions.get(identity, ask).await.inspect_err(|_| self.doubt())
    }

    /// Somebody refused who the account is.
    pub(super) fn doubt(&self) {
        self.federation.accounts.doubt(&self.namespace, &self.name);
    }

    /// Refuses a destination that the account is not for.
    pub(super) async fn allow(&self, to: &Destination, as_it_is: bool) -> Result<(), OriginError> {
        self.get(|account| account.allow(to, as_it_is)).await
    }

    /// A new token of the account.
    pub(super) async fn token(&self, audience: &str) -> Result<String, OriginError> {
        self.federation.accounts.token(&self.namespace, &self.name, audience).await
    }

    /// For sentences.
    pub(super) fn shown(&self) -> String {
        format!("ServiceAccount {}/{}", self.namespace, self.name)
    }
}
