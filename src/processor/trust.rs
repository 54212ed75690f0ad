//! Which certificates to trust for TLS: those of a file, or the system's; and a certificate of our own.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Files of a certificate of our own, which servers may ask for.
pub(super) struct Identity<'a> {
    /// PEM, with the certificates that lead to its authority.
    pub(super) certificate: &'a Path,
    /// Its key, PEM.
    pub(super) key: &'a Path,
}

/// The TLS configuration. `ca_file` replaces the system's certificates, which are read only if `is_tls`.
///
/// # Errors
/// If a file cannot be read or has not what it should have, or neither it nor the system has a certificate.
pub(super) fn trust(
    ca_file: Option<&Path>,
    is_tls: bool,
    identity: Option<Identity<'_>>,
) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| wrong(path, &error))?;
        }
    } else if is_tls {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!("a certificate of the system was left out: {error}");
        }
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(io::Error::other(
                "the system has no certificates to trust; install ca-certificates, or name a ca_file",
            ));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let config = config.with_root_certificates(roots);
    let Some(Identity { certificate, key: path }) = identity else { return Ok(config.with_no_client_auth()) };
    let key = PrivateKeyDer::from_pem_file(path).map_err(|error| wrong(path, &error))?;
    config.with_client_auth_cert(certificates(certificate)?, key).map_err(|error| wrong(path, &error))
}

/// At least one.
fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(path).map_err(|error| wrong(path, &error))?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(|error| wrong(path, &error))?;
    if all.is_empty() { Err(wrong(path, &"the file has no certificate")) } else { Ok(all) }
}

fn wrong(path: &Path, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}
