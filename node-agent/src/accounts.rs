//! ServiceAccounts with whose identity in a cloud origins are read.

use crate::lent::{Lent, Request};
use crate::origin::{Destination, OriginError};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The annotation that says which endpoints an account is for.
const ENDPOINTS: &str = "hearth.dev/endpoints";
/// A token is exchanged at once; the API server makes none for less.
const TOKEN_SECONDS: i64 = 600;

/// Asks the API server for ServiceAccounts of Datasets' namespaces and for their tokens.
#[derive(Debug)]
pub struct Accounts {
    cluster: Option<Cluster>,
    kept: Lent<Account>,
}

struct Cluster {
    client: kube::Client,
    /// The agents' ServiceAccount as `namespace:name`.
    agents: String,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cluster(…)")
    }
}

impl Accounts {
    /// Those of a cluster; `agents` is the agents' own as `namespace:name`, for the sentence
    /// that says how to grant access.
    pub fn of_cluster(client: kube::Client, agents: String) -> Self {
        Self { cluster: Some(Cluster { client, agents }), kept: Lent::default() }
    }

    /// Where there is no cluster there are none.
    pub fn none() -> Self {
        Self { cluster: None, kept: Lent::default() }
    }

    /// What `parse` makes of an account as it is now.
    pub(crate) async fn get<P>(
        &self,
        namespace: &str,
        name: &str,
        parse: impl Fn(&Account) -> Result<P, OriginError>,
    ) -> Result<P, OriginError> {
        let read = async {
            let cluster = self.cluster(namespace, name)?;
            let api: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), namespace);
            let account = cluster.request(namespace, name).answer(api.get_metadata(name)).await?;
            let annotations = Arc::new(account.metadata.annotations.unwrap_or_default());
            Ok(Account { of: format!("{namespace}/{name}"), annotations })
        };
        self.kept.get(namespace, name, read, parse).await
    }

    /// Somebody refused who an account is.
    pub(crate) fn doubt(&self, namespace: &str, name: &str) {
        self.kept.doubt(namespace, name);
    }

    /// A new token of an account that is for `audience`.
    pub(crate) async fn token(
        &self,
        namespace: &str,
        name: &str,
        audience: &str,
    ) -> Result<String, OriginError> {
        let cluster = self.cluster(namespace, name)?;
        let api: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), namespace);
        let spec = TokenRequestSpec {
            audiences: vec![audience.to_owned()],
            expiration_seconds: Some(TOKEN_SECONDS),
            bound_object_ref: None,
        };
        let wanted = TokenRequest { spec, ..TokenRequest::default() };
        let params = PostParams::default();
        let asked = api.create_token_request(name, &params, &wanted);
        let made = cluster.request(namespace, name).answer(asked).await?;
        let none = || {
            OriginError::Malformed(format!("the API server gives ServiceAccount {namespace}/{name} no token"))
        };
        made.status.map(|status| status.token).filter(|token| !token.is_empty()).ok_or_else(none)
    }

    fn cluster(&self, namespace: &str, name: &str) -> Result<&Cluster, OriginError> {
        self.cluster
            .as_ref()
            .ok_or_else(|| OriginError::Denied(format!("ServiceAccount {namespace}/{name} does not exist")))
    }
}

impl Cluster {
    fn request<'a>(&'a self, namespace: &'a str, name: &'a str) -> Request<'a> {
        Request {
            verb: "use",
            kind: "ServiceAccount",
            namespace,
            name,
            role: "hearth-token-requester",
            agents: &self.agents,
        }
    }
}

/// What a ServiceAccount's annotations say.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// As `namespace/name`.
    of: String,
    annotations: Arc<BTreeMap<String, String>>,
}

impl Account {
    /// An annotation's text.
    pub(crate) fn text(&self, annotation: &str) -> Option<String> {
        Some(self.annotations.get(annotation)?.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// The text of an annotation that must be there.
    pub(crate) fn needed(&self, annotation: &str) -> Result<String, OriginError> {
        let lacks =
            || OriginError::Denied(format!("ServiceAccount {} has no annotation {annotation}", self.of));
        self.text(annotation).ok_or_else(lacks)
    }

    /// Refuses endpoints that the account is not for; `as_it_is` when what is sent there is of
    /// use to whoever is sent it.
    pub(crate) fn allow(&self, to: &Destination, as_it_is: bool) -> Result<(), OriginError> {
        let named = || (format!("ServiceAccount {}", self.of), format!("annotation {ENDPOINTS}"));
        to.check(self.text(ENDPOINTS).as_deref(), as_it_is, named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeApi;
    use serde_json::json;

    const ACCOUNT: &str = "/api/v1/namespaces/ns/serviceaccounts/reader";

    #[tokio::test]
    async fn an_account_has_annotations_and_tokens() {
        let api = FakeApi::default();
        let accounts = Accounts::of_cluster(api.client(), "hearth-system:agents".to_owned());
        let role = |account: &Account| account.needed("role");
        let gone = accounts.get("ns", "other", role).await.unwrap_err();
        assert_eq!(gone.to_string(), "ServiceAccount ns/other does not exist");

        let account = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"namespace": "ns", "name": "reader", "annotations": {"role": " r ", "empty": ""}}});
        api.put(ACCOUNT, &account);
        assert_eq!(accounts.get("ns", "reader", role).await, Ok("r".to_owned()));
        let lacking = accounts.get("ns", "reader", |account| account.needed("empty")).await.unwrap_err();
        assert_eq!(lacking.to_string(), "ServiceAccount ns/reader has no annotation empty");

        let made = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {},
            "spec": {"audiences": ["a"]},
            "status": {"token": "hush", "expirationTimestamp": "2030-01-01T00:00:00Z"}});
        api.put(&format!("{ACCOUNT}/token"), &made);
        assert_eq!(accounts.token("ns", "reader", "a").await, Ok("hush".to_owned()));
    }

    #[tokio::test]
    async fn an_owner_who_did_not_agree_is_told_how() {
        let api = FakeApi::default();
        api.forbid(ACCOUNT);
        let accounts = Accounts::of_cluster(api.client(), "hearth-system:agents".to_owned());
        let refused = accounts.get("ns", "reader", |_| Ok(())).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the node agents may not use ServiceAccount ns/reader: grant it with \
             kubectl -n ns create rolebinding hearth-token-requester --clusterrole=hearth-token-requester \
             --serviceaccount=hearth-system:agents"
        );
    }
}
