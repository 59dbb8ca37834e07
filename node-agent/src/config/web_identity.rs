//! Where tokens of ServiceAccounts are exchanged for credentials of a cloud.

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

/// The `origin.webIdentity` section: how the identity of a ServiceAccount becomes one of a cloud.
/// Tokens go to these services only; a Dataset cannot name others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WebIdentityConfig {
    /// For `s3://`.
    pub s3: S3Identity,
    /// For `gs://`.
    pub gs: GsIdentity,
    /// For `az://`.
    pub az: AzIdentity,
}

/// The `s3` section of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct S3Identity {
    /// URL of the security token service, such as MinIO's; that of AWS in the origin's region
    /// when absent.
    pub sts_endpoint: Option<String>,
    /// For whom tokens are.
    pub audience: String,
}

/// The `gs` section of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GsIdentity {
    /// The workload identity provider of the cluster,
    /// `//iam.googleapis.com/projects/…/locations/global/workloadIdentityPools/…/providers/…`, or on GKE
    /// `identitynamespace:PROJECT.svc.id.goog:https://container.googleapis.com/v1/projects/…/locations/…/clusters/…`.
    /// Needed for serviceAccountRef.
    pub audience: Option<String>,
    /// URL of the security token service.
    pub sts_endpoint: String,
    /// URL of the service that gives tokens of Google's service accounts.
    pub iam_endpoint: String,
}

/// The `az` section of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AzIdentity {
    /// URL of Microsoft Entra.
    pub authority: String,
    /// The tenant of ServiceAccounts without an annotation that names one.
    pub tenant_id: Option<String>,
    /// For whom tokens are.
    pub audience: String,
}

impl Default for S3Identity {
    fn default() -> Self {
        Self { sts_endpoint: None, audience: "sts.amazonaws.com".to_owned() }
    }
}

impl Default for GsIdentity {
    fn default() -> Self {
        Self {
            audience: None,
            sts_endpoint: "https://sts.googleapis.com".to_owned(),
            iam_endpoint: "https://iamcredentials.googleapis.com".to_owned(),
        }
    }
}

impl Default for AzIdentity {
    fn default() -> Self {
        Self {
            authority: "https://login.microsoftonline.com".to_owned(),
            tenant_id: None,
            audience: "api://AzureADTokenExchange".to_owned(),
        }
    }
}

impl WebIdentityConfig {
    /// Checks what types cannot say.
    pub fn check(&self) -> anyhow::Result<()> {
        for (name, url) in [
            ("s3.stsEndpoint", self.s3.sts_endpoint.as_ref()),
            ("gs.stsEndpoint", Some(&self.gs.sts_endpoint)),
            ("gs.iamEndpoint", Some(&self.gs.iam_endpoint)),
            ("az.authority", Some(&self.az.authority)),
        ] {
            let Some(url) = url else { continue };
            let what = || format!("origin.webIdentity.{name} is {url}, and http(s)://HOST[:PORT] is allowed");
            let parsed = reqwest::Url::parse(url).with_context(what)?;
            ensure!(matches!(parsed.scheme(), "http" | "https") && parsed.query().is_none(), what());
        }
        if let Some(audience) = &self.gs.audience {
            ensure!(
                audience.starts_with("//") || audience.starts_with("identitynamespace:"),
                "origin.webIdentity.gs.audience is {audience}, and //iam.googleapis.com/… or identitynamespace:… is allowed"
            );
        }
        Ok(())
    }
}
