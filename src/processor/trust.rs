//! Which certificates to trust for TLS: those of a file, or the system's; and a certificate of our own.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
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
    let key = PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        pem::Error::Io(error) => wrong(path, &error),
        // The text of another error may have some of the key.
        _ => wrong(path, &"the file has no private key in the form of PEM"),
    })?;
    config.with_client_auth_cert(certificates(certificate)?, key).map_err(|error| wrong(path, &error))
}

/// At least one.
fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let told = |error: pem::Error| match error {
        pem::Error::Io(error) => wrong(path, &error),
        // A key may be in the file too.
        _ => wrong(path, &"the file is not in the form of PEM"),
    };
    let all = CertificateDer::pem_file_iter(path).map_err(told)?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(told)?;
    if all.is_empty() { Err(wrong(path, &"the file has no certificate")) } else { Ok(all) }
}

/// Whether a connection failed because the certificate of the server is not trusted, which does not pass by itself.
#[cfg(feature = "s3")]
pub(super) fn is_untrusted(error: &(dyn std::error::Error + 'static)) -> bool {
    let of_tls = |error: &(dyn std::error::Error + 'static)| {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let here = error.downcast_ref::<rustls::Error>();
        let tls = here.or_else(|| inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()));
        matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
    };
    std::iter::successors(Some(error), |error| error.source()).any(of_tls)
}

fn wrong(path: &Path, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_shows_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        for text in [
            "-----BEGIN PRIVATE KEY-----hunter2",
            "hunter2",
            "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END",
        ] {
            std::fs::write(&path, text).unwrap();
            for told in [
                trust(Some(&path), true, None).unwrap_err().to_string(),
                trust(None, false, Some(Identity { certificate: &path, key: &path }))
                    .unwrap_err()
                    .to_string(),
            ] {
                // As text, and as the numbers of its bytes.
                assert!(!told.contains("hunter2") && !told.contains("104, 117"), "{told}");
                assert!(told.contains("key.pem"), "{told}");
            }
        }
    }
}
