//! With whose identity an S3 origin is read.

use super::{Place, sts};
use crate::credentials::SecretValues;
use crate::origin::identity::{Identities, Identity, no_identity};
use crate::origin::token_client;
use crate::origin::{Destination, OriginError};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, AwsCredentialProvider};
use std::sync::Arc;

const KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET_KEY: &str = "AWS_SECRET_ACCESS_KEY";
const SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";

/// Where an origin's credentials come from.
#[derive(Debug)]
pub(in crate::origin) struct Credentials {
    identity: Identity<AwsCredentialProvider>,
    destination: Destination,
    /// URL of the security token service.
    token_service: String,
}

impl Credentials {
    pub(in crate::origin) fn choose(of: Identities<'_>, place: &Place) -> Result<Self, OriginError> {
        // Which of the platform's ways is there, object_store knows; the bucket's
        // name is only there to satisfy its builder.
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name("unused")
            .with_client_options(token_client::options())
            .with_retry(token_client::once())
            .with_http_connector(token_client::Connector::default());
        let unsigned = builder.get_config_value(&AmazonS3ConfigKey::SkipSignature);
        let nobody_named = of.spec.secret_ref.is_none() && of.spec.service_account_ref.is_none();
        let destination = of.destination(place.endpoint(), &[]);
        let token_service = sts::endpoint(&of.federation.config.s3, place.region());
        if nobody_named && unsigned.as_deref() == Some("true") {
            return Ok(Self { identity: Identity::Anonymous, destination, token_service });
        }
        let region = of.spec.options.as_ref().and_then(|options| options.region.as_deref());
        if let Some(region) = region {
            builder = builder.with_region(region);
        }
        let platform = || {
            let store = builder.build().map_err(|error| no_identity("S3", &error))?;
            Ok(store.credentials().clone())
        };
        Ok(Self { identity: Identity::choose(of, platform)?, destination, token_service })
    }

    /// What to sign the next request with; `None` to leave it unsigned.
    pub(in crate::origin) async fn get(&self) -> Result<Option<Arc<AwsCredential>>, OriginError> {
        match &self.identity {
            Identity::Secret(secret) => {
                let signed_with = |values: &SecretValues| {
                    // Requests are signed: what is sent is of no use elsewhere.
                    values.allow(&self.destination, false)?;
                    credential(values)
                };
                secret.get(signed_with).await.map(Arc::new).map(Some)
            }
            Identity::Account(account) => {
                account.allow(&self.destination, false).await?;
                sts::credential(account, &self.token_service).await.map(Some)
            }
            Identity::Platform(provider) => {
                provider.get_credential().await.map(Some).map_err(|error| no_identity("S3", &error))
            }
            Identity::Anonymous => Ok(None),
        }
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

fn credential(values: &SecretValues) -> Result<AwsCredential, OriginError> {
    Ok(AwsCredential {
        key_id: values.needed(KEY_ID)?,
        secret_key: values.needed(SECRET_KEY)?,
        token: values.text(SESSION_TOKEN)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::secret_values;

    #[test]
    fn a_secret_has_both_keys() {
        let whole = [(KEY_ID, "id"), (SECRET_KEY, "hush"), (SESSION_TOKEN, "quiet")];
        let read = credential(&secret_values(&whole)).unwrap();
        assert_eq!((read.key_id.as_str(), read.token.as_deref()), ("id", Some("quiet")));
        assert!(!format!("{read:?}").contains("hush"));
        let lacking = credential(&secret_values(&whole[..1])).unwrap_err().to_string();
        assert_eq!(lacking, "Secret ns/s has no key AWS_SECRET_ACCESS_KEY");
    }
}
