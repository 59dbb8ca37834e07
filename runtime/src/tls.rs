//! TLS: one provider, and certificates from files.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::Path;

/// Chooses ring for all of the process. Call it first in `main`: with two
/// providers compiled in and none chosen, the first handshake would panic.
pub fn install_provider() {
    // An error says that one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The certificates of a PEM file.
pub fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || -> Result<Vec<_>, rustls::pki_types::pem::Error> {
        CertificateDer::pem_file_iter(file)?.collect()
    };
    let certificates = read()
        .map_err(|error| anyhow::anyhow!("{} is not a PEM file of certificates: {error}", file.display()))?;
    anyhow::ensure!(!certificates.is_empty(), "{} has no certificate in it", file.display());
    Ok(certificates)
}

/// The authorities of a PEM file.
pub fn authorities(file: &Path) -> anyhow::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(file)? {
        store.add(certificate)?;
    }
    Ok(store)
}
