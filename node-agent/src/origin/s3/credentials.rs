//! With whose identity an S3 origin is read.

use crate::config::OriginConfig;
use crate::credentials::Secrets;
use crate::origin::{OriginError, shown};
use hearth_api::OriginOptions;
use object_store::ClientOptions;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, AwsCredentialProvider};
use std::sync::Arc;
use std::time::Duration;

/// The platform's identity is asked for at an address of the node or the cloud.
const PLATFORM_TIMEOUT: Duration = Duration::from_secs(5);

/// Where an origin's credentials come from.
#[derive(Debug)]
pub(in crate::origin) enum Credentials {
    /// A Secret that the Dataset names.
    Secret {
        /// Reads and keeps Secrets.
        secrets: Secrets,
        /// The Dataset's namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The agent's own: environment, web identity, pod identity or instance metadata.
    Platform(AwsCredentialProvider),
    /// Requests are not signed.
    Anonymous,
}

/// Who may have origins read with the agents' own identity.
#[derive(Clone, Debug, Default)]
pub(in crate::origin) struct PlatformIdentity {
    namespaces: Vec<String>,
}

impl PlatformIdentity {
    pub(in crate::origin) fn of(config: &OriginConfig) -> Self {
        Self { namespaces: config.platform_identity_namespaces.clone() }
    }

    fn is_for(&self, namespace: &str) -> bool {
        self.namespaces.iter().any(|allowed| allowed == "*" || allowed == namespace)
    }
}

impl Credentials {
    pub(in crate::origin) fn choose(
        secrets: &Secrets,
        platform: &PlatformIdentity,
        namespace: &str,
        secret: Option<&str>,
        options: Option<&OriginOptions>,
    ) -> Result<Self, OriginError> {
        if let Some(name) = secret {
            return Ok(Self::Secret {
                secrets: secrets.clone(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            });
        }
        let refused = |error: object_store::Error| {
            OriginError::Denied(format!(
                "the node agents have no identity of their own for S3: {}",
                shown(&error.to_string())
            ))
        };
        // Which of the platform's ways is there, object_store knows; the bucket's
        // name is only there to satisfy its builder.
        let mut builder = AmazonS3Builder::from_env().with_bucket_name("unused").with_client_options(
            ClientOptions::new().with_connect_timeout(PLATFORM_TIMEOUT).with_timeout(PLATFORM_TIMEOUT),
        );
        if builder.get_config_value(&AmazonS3ConfigKey::SkipSignature).as_deref() == Some("true") {
            return Ok(Self::Anonymous);
        }
        if !platform.is_for(namespace) {
            return Err(OriginError::Denied(format!(
                "spec.origins[0].secretRef is missing: name a Secret, or let the agents read with their own identity for namespace {namespace} by origin.platformIdentityNamespaces in their configuration"
            )));
        }
        if let Some(region) = options.and_then(|options| options.region.as_deref()) {
            builder = builder.with_region(region);
        }
        let store = builder.build().map_err(refused)?;
        Ok(Self::Platform(store.credentials().clone()))
    }

    /// What to sign the next request with; `None` to leave it unsigned.
    pub(in crate::origin) async fn get(&self) -> Result<Option<Arc<AwsCredential>>, OriginError> {
        match self {
            Self::Secret { secrets, namespace, name } => secrets.get(namespace, name).await.map(Some),
            Self::Platform(provider) => provider.get_credential().await.map(Some).map_err(|error| {
                OriginError::Denied(format!(
                    "the node agents have no identity of their own for S3, and the Dataset names no secretRef: {}",
                    shown(&error.to_string())
                ))
            }),
            Self::Anonymous => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_identity_is_for_named_namespaces_only() {
        let of = |namespaces: &[&str]| PlatformIdentity {
            namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert!(!of(&[]).is_for("a") && !of(&["b"]).is_for("a"));
        assert!(of(&["b", "a"]).is_for("a") && of(&["*"]).is_for("a"));
    }
}
