//! One certificate authority with the certificates, kubeconfigs and signing keys of a test cluster.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Names under which the programs reach each other.
const SERVER_NAMES: &[&str] = &[
    "localhost",
    "127.0.0.1",
    "::1",
    "10.96.0.1",
    // Where real nodes find the API server.
    "172.30.0.1",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// Names of the extender's Service, besides loopback.
const EXTENDER_NAMES: &[&str] = &[
    "localhost",
    "127.0.0.1",
    "::1",
    "hearth-extender",
    "hearth-extender.hearth-system",
    "hearth-extender.hearth-system.svc",
    "hearth-extender.hearth-system.svc.cluster.local",
];

/// A certificate and its key, as PEM files.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// Certificate.
    pub cert: PathBuf,
    /// Private key, PKCS#8.
    pub key: PathBuf,
}

/// The files of one cluster's authority.
#[derive(Debug)]
pub struct Pki {
    dir: PathBuf,
    ca_path: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// Key that signs ServiceAccount tokens (ECDSA P-256, so ES256).
    pub service_account_key: PathBuf,
    /// Its public half.
    pub service_account_public: PathBuf,
    /// Serving certificate of the API server and of what stands beside it.
    pub server: Leaf,
    /// Serving certificate of the extenders.
    pub extender: Leaf,
}

impl Pki {
    /// Makes a new authority in `dir`.
    ///
    /// # Errors
    /// When a key cannot be made or a file cannot be written.
    pub fn create(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "hearth-test-ca");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let ca_path = write(dir, "ca.crt", &params.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(params, key);

        let signing = KeyPair::generate()?;
        let service_account_key = write(dir, "sa.key", &signing.serialize_pem())?;
        let service_account_public = write(dir, "sa.pub", &signing.public_key_pem())?;
        let server = leaf(dir, &issuer, "kube-apiserver", None, SERVER_NAMES)?;
        let extender = leaf(dir, &issuer, "hearth-extender", None, EXTENDER_NAMES)?;
        Ok(Self {
            dir: dir.to_owned(),
            ca_path,
            issuer,
            service_account_key,
            service_account_public,
            server,
            extender,
        })
    }

    /// The authority's certificate.
    #[must_use]
    pub fn ca(&self) -> &Path {
        &self.ca_path
    }

    /// A kubeconfig that identifies by a client certificate for `user` of `group`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn kubeconfig(&self, server: &str, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let leaf = leaf(&self.dir, &self.issuer, user, group, &[])?;
        let credentials = serde_json::json!({ "client-certificate": leaf.cert, "client-key": leaf.key });
        self.write_kubeconfig(server, user, &credentials)
    }

    /// A kubeconfig that identifies by the token in a file, read again when it changes.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn kubeconfig_with_token(&self, server: &str, name: &str, token: &Path) -> Result<PathBuf> {
        self.write_kubeconfig(server, name, &serde_json::json!({ "tokenFile": token }))
    }

    fn write_kubeconfig(&self, server: &str, name: &str, user: &serde_json::Value) -> Result<PathBuf> {
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": self.ca_path}}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
        });
        let name = format!("{}.kubeconfig", file_name(name));
        write(&self.dir, &name, &serde_yaml_ng::to_string(&config)?)
    }
}

fn leaf(
    dir: &Path,
    issuer: &Issuer<'_, KeyPair>,
    name: &str,
    group: Option<&str>,
    hosts: &[&str],
) -> Result<Leaf> {
    let mut params = CertificateParams::new(hosts.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = if hosts.is_empty() {
        vec![ExtendedKeyUsagePurpose::ClientAuth]
    } else {
        vec![ExtendedKeyUsagePurpose::ServerAuth]
    };
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let cert = params.signed_by(&key, issuer)?;
    Ok(Leaf {
        cert: write(dir, &format!("{}.crt", file_name(name)), &cert.pem())?,
        key: write(dir, &format!("{}.key", file_name(name)), &key.serialize_pem())?,
    })
}

/// User names hold colons, which kubeconfig readers and shells take badly in paths.
fn file_name(name: &str) -> String {
    name.replace([':', '/'], "-")
}

fn write(dir: &Path, name: &str, content: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
