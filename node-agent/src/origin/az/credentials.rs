//! With whose identity a container of Azure Blob Storage is read.

use super::{Place, exchange};
use crate::credentials::SecretValues;
use crate::origin::identity::{Identities, Identity, Made, no_identity};
use crate::origin::token_client;
use crate::origin::{Destination, OriginError};
use object_store::azure::{AzureConfigKey, AzureCredential, AzureCredentialProvider, MicrosoftAzureBuilder};
use std::sync::Arc;

/// Azure's own hosts, of which some are for single countries.
const CLOUD: [&str; 4] = [
    "blob.core.windows.net",
    "blob.storage.azure.net",
    "blob.core.chinacloudapi.cn",
    "blob.core.usgovcloudapi.net",
];
/// May stand beside the others, and must then be the Dataset's.
const ACCOUNT: &str = "AZURE_STORAGE_ACCOUNT_NAME";
const ACCOUNT_KEY: &str = "AZURE_STORAGE_ACCOUNT_KEY";
const SAS_TOKEN: &str = "AZURE_STORAGE_SAS_TOKEN";
const TENANT: &str = "AZURE_TENANT_ID";
const CLIENT: &str = "AZURE_CLIENT_ID";
const CLIENT_SECRET: &str = "AZURE_CLIENT_SECRET";

/// Where an origin's credentials come from.
#[derive(Debug)]
pub(in crate::origin) struct Credentials {
    identity: Identity<AzureCredentialProvider>,
    made: Made<AzureCredentialProvider>,
    account: String,
    destination: Destination,
}

impl Credentials {
    pub(in crate::origin) fn choose(of: Identities<'_>, place: &Place) -> Result<Self, OriginError> {
        let account = place.account();
        let platform = || {
            of.own_endpoint_only("Azure")?;
            // Which of the platform's ways is there, object_store knows.
            let builder = MicrosoftAzureBuilder::from_env();
            provider(builder, account).map_err(|error| no_identity("Azure", &error))
        };
        let identity = Identity::choose(of, platform)?;
        let destination = of.destination(place.endpoint(), &CLOUD);
        Ok(Self { identity, made: Made::default(), account: account.to_owned(), destination })
    }

    /// What to sign the next request with; `None` to leave it unsigned.
    pub(in crate::origin) async fn get(&self) -> Result<Option<Arc<AzureCredential>>, OriginError> {
        let provider = match &self.identity {
            Identity::Secret(secret) => {
                let provider = |values: &SecretValues| {
                    // An account's key signs requests; all else is sent as it is.
                    values.allow(&self.destination, values.text(ACCOUNT_KEY)?.is_none())?;
                    self.made.of(values, |values| of_secret(values, &self.account))
                };
                secret.get(provider).await?
            }
            Identity::Account(account) => {
                account.allow(&self.destination, true).await?;
                return exchange::credential(account).await.map(Some);
            }
            Identity::Platform(provider) => provider.clone(),
            Identity::Anonymous => return Ok(None),
        };
        let given = provider.get_credential().await;
        given.map(Some).map_err(|error| self.identity.no_token("Azure", &error))
    }

    /// The store refused them.
    pub(super) fn doubt(&self) {
        self.identity.doubt();
    }

    /// For sentences.
    pub(super) fn shown(&self) -> String {
        self.identity.shown()
    }
}

fn of_secret(values: &SecretValues, account: &str) -> Result<AzureCredentialProvider, OriginError> {
    if let Some(other) = values.text(ACCOUNT)?
        && other != account
    {
        return Err(values.wrong(ACCOUNT, &format!("is not options.account, which is {account}")));
    }
    let builder = MicrosoftAzureBuilder::new();
    let (key, builder) = if let Some(key) = values.text(ACCOUNT_KEY)? {
        (ACCOUNT_KEY, builder.with_access_key(key))
    } else if let Some(token) = values.text(SAS_TOKEN)? {
        (SAS_TOKEN, builder.with_config(AzureConfigKey::SasKey, token))
    } else if let Some(secret) = values.text(CLIENT_SECRET)? {
        let (client, tenant) = (values.needed(CLIENT)?, values.needed(TENANT)?);
        (CLIENT_SECRET, builder.with_client_secret_authorization(client, secret, tenant))
    } else {
        return Err(values.lacks(&format!("{ACCOUNT_KEY}, {SAS_TOKEN} or {CLIENT_SECRET}")));
    };
    // The error may quote what was read.
    provider(builder, account).map_err(|_| values.wrong(key, "is not what Azure gives"))
}

fn provider(builder: MicrosoftAzureBuilder, account: &str) -> object_store::Result<AzureCredentialProvider> {
    // The container's name is only there to satisfy the builder.
    let builder =
        builder.with_account(account).with_container_name("unused").with_retry(token_client::once());
    let builder = builder.with_client_options(token_client::options());
    Ok(builder.with_http_connector(token_client::Connector::default()).build()?.credentials().clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::secret_values;

    async fn read(pairs: &[(&str, &str)]) -> Result<Arc<AzureCredential>, OriginError> {
        hearth_runtime::tls::install_provider();
        Ok(of_secret(&secret_values(pairs), "acct")?.get_credential().await.unwrap())
    }

    #[tokio::test]
    async fn a_secret_has_one_of_several_ways() {
        let key = read(&[(ACCOUNT, "acct"), (ACCOUNT_KEY, "aHVzaA==")]).await.unwrap();
        assert!(matches!(*key, AzureCredential::AccessKey(_)));
        let token = read(&[(SAS_TOKEN, "?sv=2023-11-03&sig=hush%3D")]).await.unwrap();
        let pairs = [("sv", "2023-11-03"), ("sig", "hush=")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(*token, AzureCredential::SASToken(pairs.to_vec()));
    }

    #[tokio::test]
    async fn what_is_wrong_is_named_and_not_shown() {
        for (pairs, sentence) in [
            (
                vec![],
                "Secret ns/s has no key AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_CLIENT_SECRET",
            ),
            (
                vec![(ACCOUNT_KEY, "no-base64!")],
                "key AZURE_STORAGE_ACCOUNT_KEY of Secret ns/s is not what Azure gives",
            ),
            (vec![(CLIENT_SECRET, "hush")], "Secret ns/s has no key AZURE_CLIENT_ID"),
            (
                vec![(ACCOUNT, "other"), (ACCOUNT_KEY, "aHVzaA==")],
                "key AZURE_STORAGE_ACCOUNT_NAME of Secret ns/s is not options.account, which is acct",
            ),
        ] {
            assert_eq!(read(&pairs).await.unwrap_err().to_string(), sentence);
        }
    }
}
