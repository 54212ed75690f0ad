//! Which certificates to trust for TLS: those of a file, or the system's.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// The TLS configuration. `ca_file` replaces the system's certificates, which are read only if `is_tls`.
///
/// # Errors
/// If the file cannot be read, or neither it nor the system has a certificate.
pub(super) fn trust(ca_file: Option<&Path>, is_tls: bool) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        let fail = |error: &dyn std::fmt::Display| io::Error::other(format!("{}: {error}", path.display()));
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| fail(&error))? {
            roots.add(certificate.map_err(|error| fail(&error))?).map_err(|error| fail(&error))?;
        }
        if roots.is_empty() {
            return Err(fail(&"the file has no certificate"));
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
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
