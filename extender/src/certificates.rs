//! Makes the certificates that agents trust, for installs without cert-manager: an
//! authority of its own, and a leaf for the Service's names.

use crate::config::{CertificatesArguments, Config};
use anyhow::Context;
use hearth_runtime::kube_client;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use std::collections::BTreeMap;

/// What was made.
pub struct Certificates {
    /// PEM of the authority.
    pub authority: String,
    /// PEM of the leaf.
    pub certificate: String,
    /// PEM of the leaf's key.
    pub key: String,
}

/// Makes an authority and a leaf for the Service `service` in `namespace`. The
/// authority's key is thrown away: nobody can ever sign a second leaf with it.
pub fn make(namespace: &str, service: &str) -> Result<Certificates, rcgen::Error> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.distinguished_name.push(DnType::CommonName, "hearth");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    authority.not_after = rcgen::date_time_ymd(2126, 1, 1);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let names = vec![
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
        format!("{service}.{namespace}"),
        service.to_owned(),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
    ];
    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name.push(DnType::CommonName, service);
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.not_after = rcgen::date_time_ymd(2126, 1, 1);
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &authority)?;
    Ok(Certificates { authority: authority.pem(), certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Sees to it that the Secret and the ConfigMap are there. A Secret that exists is
/// never changed: agents hold its authority.
pub async fn ensure(config: &Config, arguments: &CertificatesArguments) -> anyhow::Result<()> {
    let client = kube_client::connect(config.kubeconfig.as_deref()).await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &config.namespace);
    let authority = match secrets.get_opt(&arguments.secret).await.context("the Secret cannot be read")? {
        Some(secret) => {
            tracing::info!(secret = arguments.secret, "the certificate is there already");
            let data = secret.data.unwrap_or_default();
            let authority = data.get("ca.crt").with_context(|| {
                format!("Secret {} has no ca.crt: delete it to have it made anew", arguments.secret)
            })?;
            String::from_utf8(authority.0.clone()).context("ca.crt is no text")?
        }
        None => {
            let made = make(&config.namespace, &arguments.service).context("certificates cannot be made")?;
            let data = [("ca.crt", &made.authority), ("tls.crt", &made.certificate), ("tls.key", &made.key)];
            let secret = Secret {
                metadata: ObjectMeta { name: Some(arguments.secret.clone()), ..ObjectMeta::default() },
                type_: Some("kubernetes.io/tls".to_owned()),
                data: Some(
                    data.map(|(key, text)| (key.to_owned(), ByteString(text.clone().into_bytes()))).into(),
                ),
                ..Secret::default()
            };
            secrets.create(&PostParams::default(), &secret).await.context("the Secret cannot be made")?;
            tracing::info!(secret = arguments.secret, "made a certificate");
            made.authority
        }
    };
    let config_maps: Api<ConfigMap> = Api::namespaced(client, &config.namespace);
    let config_map = ConfigMap {
        metadata: ObjectMeta { name: Some(arguments.config_map.clone()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([("ca.crt".to_owned(), authority)])),
        ..ConfigMap::default()
    };
    let params = PatchParams::apply("hearth-certificates").force();
    config_maps
        .patch(&arguments.config_map, &params, &Patch::Apply(&config_map))
        .await
        .context("the ConfigMap cannot be written")?;
    tracing::info!(config_map = arguments.config_map, "agents find the authority there");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use std::sync::Arc;

    #[test]
    fn clients_that_trust_the_authority_accept_the_leaf() {
        hearth_runtime::tls::install_provider();
        let made = make("hearth-system", "hearth-extender").unwrap();
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(made.certificate.as_bytes()).collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap();
        let server =
            rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(made.authority.as_bytes()).unwrap()).unwrap();
        let client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        for name in ["hearth-extender.hearth-system.svc", "localhost", "127.0.0.1"] {
            let mut server = rustls::ServerConnection::new(Arc::new(server.clone())).unwrap();
            let name = rustls::pki_types::ServerName::try_from(name).unwrap();
            let mut client = rustls::ClientConnection::new(Arc::new(client.clone()), name).unwrap();
            while client.is_handshaking() || server.is_handshaking() {
                let mut wire = Vec::new();
                client.write_tls(&mut wire).unwrap();
                server.read_tls(&mut wire.as_slice()).unwrap();
                server.process_new_packets().unwrap();
                let mut wire = Vec::new();
                server.write_tls(&mut wire).unwrap();
                client.read_tls(&mut wire.as_slice()).unwrap();
                client.process_new_packets().unwrap();
            }
        }
    }
}
