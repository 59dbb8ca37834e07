//! With whose identity a bucket of Google Cloud Storage is read.

use super::{Place, exchange};
use crate::credentials::SecretValues;
use crate::origin::identity::{Identities, Identity, Made, no_identity};
use crate::origin::token_client;
use crate::origin::{Destination, OriginError};
use object_store::gcp::{GcpCredential, GcpCredentialProvider, GoogleCloudStorageBuilder};
use std::sync::Arc;

/// Google's own hosts.
const CLOUD: [&str; 1] = ["googleapis.com"];
/// The JSON key of a service account.
const KEY: &str = "GOOGLE_APPLICATION_CREDENTIALS_JSON";

/// Where an origin's credentials come from.
#[derive(Debug)]
pub(in crate::origin) struct Credentials {
    identity: Identity<GcpCredentialProvider>,
    made: Made<GcpCredentialProvider>,
    destination: Destination,
}

impl Credentials {
    pub(in crate::origin) fn choose(of: Identities<'_>, place: &Place) -> Result<Self, OriginError> {
        let platform = || {
            of.own_endpoint_only("Google")?;
            // Which of the platform's ways is there, object_store knows.
            let builder = GoogleCloudStorageBuilder::from_env();
            provider(builder).map_err(|error| no_identity("Google Cloud Storage", &error))
        };
        let destination = of.destination(place.endpoint(), &CLOUD);
        Ok(Self { identity: Identity::choose(of, platform)?, made: Made::default(), destination })
    }

    /// Whose token goes with the next request; `None` for nobody's.
    pub(in crate::origin) async fn get(&self) -> Result<Option<Arc<GcpCredential>>, OriginError> {
        let provider = match &self.identity {
            Identity::Secret(secret) => {
                let provider = |values: &SecretValues| {
                    values.allow(&self.destination, true)?;
                    self.made.of(values, of_secret)
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
        given.map(Some).map_err(|error| self.identity.no_token("Google Cloud Storage", &error))
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

fn of_secret(values: &SecretValues) -> Result<GcpCredentialProvider, OriginError> {
    let key = values.document(KEY).ok_or_else(|| values.lacks(KEY))?;
    let builder = GoogleCloudStorageBuilder::new().with_service_account_key(key);
    // The error of a JSON reader may quote what it read.
    provider(builder).map_err(|_| values.wrong(KEY, "is not the JSON key of a service account"))
}

fn provider(builder: GoogleCloudStorageBuilder) -> object_store::Result<GcpCredentialProvider> {
    // The bucket's name is only there to satisfy the builder.
    let builder = builder.with_bucket_name("unused").with_http_connector(token_client::Connector::default());
    let builder = builder.with_client_options(token_client::options()).with_retry(token_client::once());
    Ok(builder.build()?.credentials().clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::secret_values;

    #[test]
    fn a_secret_has_a_service_accounts_key() {
        hearth_runtime::tls::install_provider();
        let of = |pairs: &[(&str, &str)]| of_secret(&secret_values(pairs)).err().map(|e| e.to_string());
        assert_eq!(of(&[]).unwrap(), format!("Secret ns/s has no key {KEY}"));
        for wrong in ["hush", r#"{"private_key": "hush", "private_key_id": "i", "client_email": "e"}"#] {
            let sentence = of(&[(KEY, wrong)]).unwrap();
            assert_eq!(
                sentence,
                format!("key {KEY} of Secret ns/s is not the JSON key of a service account")
            );
        }
    }
}
