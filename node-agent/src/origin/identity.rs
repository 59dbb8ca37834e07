//! With whose identity an origin is read.

use super::federation::{Federation, NamedAccount};
use super::{Destination, OriginError, token_client};
use crate::config::OriginConfig;
use crate::credentials::{SecretValues, Secrets};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;

/// Who reads an origin; `P` is the agents' own identity in the terms of the store.
pub(super) enum Identity<P> {
    /// Whom a Secret is of that the Dataset names.
    Secret(NamedSecret),
    /// Who a ServiceAccount is in the cloud.
    Account(NamedAccount),
    /// The agents themselves: environment, web identity, pod identity or instance metadata.
    Platform(P),
    /// Nobody: requests are not signed.
    Anonymous,
}

/// A Secret by its name.
#[derive(Debug)]
pub(super) struct NamedSecret {
    secrets: Secrets,
    namespace: String,
    name: String,
}

/// Who may have origins read with the agents' own identity.
#[derive(Clone, Debug, Default)]
pub(super) struct PlatformIdentity {
    namespaces: Vec<String>,
}

impl PlatformIdentity {
    pub(super) fn of(config: &OriginConfig) -> Self {
        Self { namespaces: config.platform_identity_namespaces.clone() }
    }

    fn is_for(&self, namespace: &str) -> bool {
        self.namespaces.iter().any(|allowed| allowed == "*" || allowed == namespace)
    }
}

/// What a choice of identities is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identities<'a> {
    pub(super) secrets: &'a Secrets,
    pub(super) federation: &'a Arc<Federation>,
    pub(super) platform: &'a PlatformIdentity,
    /// The Dataset's.
    pub(super) namespace: &'a str,
    /// The Dataset's origin.
    pub(super) spec: &'a hearth_api::Origin,
}

impl<P> Identity<P> {
    /// The identity that a Dataset's origin asks for, and may have. `platform` makes the
    /// agents' own.
    pub(super) fn choose(
        of: Identities<'_>,
        platform: impl FnOnce() -> Result<P, OriginError>,
    ) -> Result<Self, OriginError> {
        let anonymous = of.spec.options.as_ref().is_some_and(|options| options.anonymous);
        let chosen = match (of.named_secret(), of.named_account(), anonymous) {
            (Some(secret), None, false) => Some(Self::Secret(secret)),
            (None, Some(account), false) => Some(Self::Account(account)),
            (None, None, true) => Some(Self::Anonymous),
            (None, None, false) => None,
            _ => {
                return Err(OriginError::Refused(
                    "spec.origins[] has more than one of secretRef, serviceAccountRef and options.anonymous, and one is allowed"
                        .to_owned(),
                ));
            }
        };
        if let Some(chosen) = chosen {
            return Ok(chosen);
        }
        if !of.platform.is_for(of.namespace) {
            return Err(OriginError::Denied(format!(
                "spec.origins[].secretRef is missing: name a Secret or a ServiceAccount (serviceAccountRef), set options.anonymous for public data, or let the agents read with their own identity for namespace {} by origin.platformIdentityNamespaces in their configuration",
                of.namespace
            )));
        }
        platform().map(Self::Platform)
    }

    /// The store refused it: it may be another soon.
    pub(super) fn doubt(&self) {
        match self {
            Self::Secret(secret) => secret.doubt(),
            Self::Account(account) => account.doubt(),
            Self::Platform(_) | Self::Anonymous => {}
        }
    }

    /// For sentences: whose requests they are.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Secret(secret) => secret.credentials(),
            Self::Account(account) => account.shown(),
            Self::Platform(_) => "the node agents' own identity".to_owned(),
            Self::Anonymous => "requests without credentials".to_owned(),
        }
    }
}

impl<P> fmt::Debug for Identity<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Identities<'_> {
    /// Refuses an endpoint of the Dataset's choice where the agents' own identity is a token:
    /// whoever is sent it can use it elsewhere.
    pub(super) fn own_endpoint_only(&self, store: &str) -> Result<(), OriginError> {
        let Some(options) = &self.spec.options else { return Ok(()) };
        let elsewhere = [
            ("endpoint", options.endpoint.is_some()),
            ("proxy", options.proxy.is_some()),
            ("caBundle", options.ca_bundle.is_some()),
        ];
        match elsewhere.iter().find(|(_, is_set)| *is_set) {
            None => Ok(()),
            Some((field, _)) => Err(OriginError::Refused(format!(
                "spec.origins[].options.{field} is set, and the node agents send a token of their own to {store} itself only: name a Secret, or set options.anonymous"
            ))),
        }
    }

    /// The ServiceAccount that the origin names.
    fn named_account(&self) -> Option<NamedAccount> {
        let named = self.spec.service_account_ref.as_ref()?;
        Some(NamedAccount {
            federation: self.federation.clone(),
            namespace: self.namespace.to_owned(),
            name: named.name.clone(),
        })
    }

    /// Where requests go, of which `clouds` are the cloud's own domains.
    pub(super) fn destination(&self, url: &str, clouds: &[&str]) -> Destination {
        Destination::new(url, clouds, self.spec.options.as_ref())
    }

    /// The Secret that the origin names.
    pub(super) fn named_secret(&self) -> Option<NamedSecret> {
        let named = self.spec.secret_ref.as_ref()?;
        Some(NamedSecret {
            secrets: self.secrets.clone(),
            namespace: self.namespace.to_owned(),
            name: named.name.clone(),
        })
    }
}

impl NamedSecret {
    /// What `parse` makes of the Secret as it is now.
    pub(super) async fn get<T>(
        &self,
        parse: impl Fn(&SecretValues) -> Result<T, OriginError>,
    ) -> Result<T, OriginError> {
        self.secrets.get(&self.namespace, &self.name, parse).await
    }

    /// The store refused what the Secret has.
    pub(super) fn doubt(&self) {
        self.secrets.doubt(&self.namespace, &self.name);
    }

    /// For sentences.
    pub(super) fn credentials(&self) -> String {
        format!("the credentials in Secret {}/{}", self.namespace, self.name)
    }
}

/// What was made of a Secret, for as long as that is the same: tokens are asked for once,
/// and not for each request.
pub(super) struct Made<P>(Mutex<Option<(SecretValues, P)>>);

impl<P> Default for Made<P> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<P> fmt::Debug for Made<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What was made may show what it was made of.
        f.write_str("Made(…)")
    }
}

impl<P: Clone> Made<P> {
    pub(super) fn of(
        &self,
        values: &SecretValues,
        make: impl FnOnce(&SecretValues) -> Result<P, OriginError>,
    ) -> Result<P, OriginError> {
        let mut made = self.0.lock();
        if let Some((from, provider)) = &*made
            && from == values
        {
            return Ok(provider.clone());
        }
        let provider = make(values)?;
        *made = Some((values.clone(), provider.clone()));
        Ok(provider)
    }
}

impl<P> Identity<P> {
    /// No token was given for requests to `store`.
    pub(super) fn no_token(&self, store: &str, error: &object_store::Error) -> OriginError {
        match self {
            Self::Secret(_) => {
                let who = self.shown();
                let failed = format!("a token for {who} is not to be had now");
                token_client::no_token(error, &format!("no token is given for {who}"), &failed)
            }
            Self::Account(_) | Self::Platform(_) | Self::Anonymous => no_identity(store, error),
        }
    }
}

/// The agents have no identity for a kind of store.
pub(super) fn no_identity(store: &str, error: &object_store::Error) -> OriginError {
    let refused = format!(
        "the node agents have no identity of their own for {store}, and the Dataset names no secretRef"
    );
    let failed = format!(
        "the node agents' own identity for {store} is not to be had now, and the Dataset names no secretRef"
    );
    token_client::no_token(error, &refused, &failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::Accounts;
    use crate::config::WebIdentityConfig;
    use crate::credentials::secret_values;

    #[test]
    fn the_agents_identity_is_for_named_namespaces_only() {
        let of = |namespaces: &[&str]| PlatformIdentity {
            namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert!(!of(&[]).is_for("a") && !of(&["b"]).is_for("a"));
        assert!(of(&["b", "a"]).is_for("a") && of(&["*"]).is_for("a"));
    }

    #[test]
    fn nothing_that_was_made_of_a_secret_is_shown_and_it_is_made_once() {
        let (made, values) = (Made::default(), secret_values(&[("KEY", "hush")]));
        let make = |values: &SecretValues| values.needed("KEY");
        assert_eq!(made.of(&values, make).unwrap(), "hush");
        let same = secret_values(&[("KEY", "hush")]);
        assert_eq!(made.of(&same, |_| Err(OriginError::Denied("made again".to_owned()))).unwrap(), "hush");
        let shown = format!("{made:?} {:?}", Identity::Platform("hush"));
        assert!(!shown.contains("hush"), "{shown}");
        assert_eq!(made.of(&secret_values(&[("KEY", "new")]), make).unwrap(), "new");
    }

    #[test]
    fn an_origin_is_read_with_the_identity_that_it_asks_for() {
        let secrets = Secrets::new(|_, _| Box::pin(std::future::ready(Ok(Default::default()))));
        let nobody = PlatformIdentity::default();
        let everybody = PlatformIdentity { namespaces: vec!["*".into()] };
        hearth_runtime::tls::install_provider();
        let federation =
            Federation::new(Accounts::none(), reqwest::Client::default(), WebIdentityConfig::default());
        let federation = &Arc::new(federation);
        let chosen = |platform, spec: serde_json::Value| {
            let spec = serde_json::from_value(spec).unwrap();
            let of = Identities { secrets: &secrets, federation, platform, namespace: "ns", spec: &spec };
            Identity::choose(of, || Ok(())).map(|identity| identity.shown()).map_err(|error| error.reason())
        };
        use serde_json::json;
        let (uri, anonymous) = ("gs://bucket", json!({"anonymous": true}));
        assert_eq!(
            chosen(&nobody, json!({"uri": uri, "secretRef": {"name": "s"}})).unwrap(),
            "the credentials in Secret ns/s"
        );
        assert_eq!(chosen(&nobody, json!({"uri": uri})), Err("Denied"));
        assert_eq!(chosen(&everybody, json!({"uri": uri})).unwrap(), "the node agents' own identity");
        let public = chosen(&everybody, json!({"uri": uri, "options": anonymous})).unwrap();
        assert_eq!(public, "requests without credentials");
        let elsewhere = json!({"uri": uri, "options": {"endpoint": "https://evil.example"}});
        let elsewhere: hearth_api::Origin = serde_json::from_value(elsewhere).unwrap();
        let platform = &everybody;
        let of = Identities { secrets: &secrets, federation, platform, namespace: "ns", spec: &elsewhere };
        let token = Identity::choose(of, || of.own_endpoint_only("Google")).map(|_: Identity<()>| ());
        assert_eq!(token.unwrap_err().reason(), "Refused");
        let through = json!({"uri": uri, "options": {"proxy": "http://evil.example"}});
        let through: hearth_api::Origin = serde_json::from_value(through).unwrap();
        let of = Identities { spec: &through, ..of };
        assert_eq!(of.own_endpoint_only("Google").unwrap_err().reason(), "Refused");
        let account = json!({"name": "reader"});
        let named = json!({"uri": uri, "serviceAccountRef": account});
        assert_eq!(chosen(&nobody, named).unwrap(), "ServiceAccount ns/reader");
        for both in [
            json!({"uri": uri, "secretRef": {"name": "s"}, "options": anonymous}),
            json!({"uri": uri, "serviceAccountRef": account, "options": anonymous}),
            json!({"uri": uri, "serviceAccountRef": account, "secretRef": {"name": "s"}}),
        ] {
            assert_eq!(chosen(&nobody, both), Err("Refused"));
        }
    }
}
