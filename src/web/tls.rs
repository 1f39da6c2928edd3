//! TLS towards our own people: a certificate that their browsers know, read from files, and read again when it was renewed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

use crate::replica::ids::TimeMs;

/// Why the files cannot be used.
#[derive(Debug, Error)]
#[error("cannot use {} for TLS of the console: {why}", path.display())]
pub struct WebTlsError {
    path: PathBuf,
    why: String,
}

/// Certificate and key, as the files had them when they were last read. Cheap to clone.
#[derive(Clone)]
pub struct WebTls {
    certificate: PathBuf,
    key: PathBuf,
    shown: Arc<ArcSwap<ServerConfig>>,
    not_after: Arc<AtomicU64>,
}

impl WebTls {
    /// Reads both files: TLS 1.3, and ALPN for HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// [`WebTlsError`] names the file.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, WebTlsError> {
        let (config, not_after) = config(certificate, key)?;
        let shown = Arc::new(ArcSwap::from_pointee(config));
        let not_after = Arc::new(AtomicU64::new(not_after.0));
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), shown, not_after })
    }

    /// Reads them again: connections that begin from now on see them.
    ///
    /// # Errors
    /// What was shown before is shown on.
    pub fn reload(&self) -> Result<(), WebTlsError> {
        let (config, not_after) = config(&self.certificate, &self.key)?;
        self.shown.store(Arc::new(config));
        self.not_after.store(not_after.0, Ordering::Relaxed);
        Ok(())
    }

    /// When the certificate that is shown ends; 0 if it does not say.
    pub fn not_after(&self) -> TimeMs {
        TimeMs(self.not_after.load(Ordering::Relaxed))
    }

    pub(super) fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        self.shown.load_full().into()
    }
}

/// What is shown, and until when it is valid.
fn config(certificate: &Path, key: &Path) -> Result<(ServerConfig, TimeMs), WebTlsError> {
    let fail = |path: &Path, why: String| WebTlsError { path: path.to_owned(), why };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| fail(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(fail(certificate, "there is no certificate in it, expected PEM".into()));
    }
    let not_after = chain.first().map_or(TimeMs(0), end_of);
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| fail(key, error.to_string()))?;
    // Not the process-wide default provider: what is negotiated must not depend on who ran first.
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| fail(key, error.to_string()))?;
    let config = builder.with_no_client_auth().with_single_cert(chain, private);
    let mut config = config.map_err(|error| fail(key, error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((config, not_after))
}

fn end_of(certificate: &CertificateDer<'_>) -> TimeMs {
    let parsed = x509_parser::parse_x509_certificate(certificate).ok();
    let seconds = parsed.and_then(|(_, parsed)| u64::try_from(parsed.validity().not_after.timestamp()).ok());
    TimeMs(seconds.unwrap_or_default().saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_used_is_named_and_what_is_shown_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
        let pair = rcgen::generate_simple_self_signed(vec!["node.acme.example".to_owned()]).unwrap();
        std::fs::write(&certificate, pair.cert.pem()).unwrap();
        std::fs::write(&key, "no key").unwrap();
        let why = WebTls::read(&certificate, &key).err().unwrap().to_string();
        assert!(why.contains("k.pem"), "{why}");
        std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        let tls = WebTls::read(&certificate, &key).unwrap();
        assert!(tls.not_after() > crate::clock::now());
        let before = tls.shown.load_full();
        std::fs::write(&certificate, "").unwrap();
        assert!(tls.reload().err().unwrap().to_string().contains("no certificate"));
        assert!(Arc::ptr_eq(&before, &tls.shown.load_full()));
    }
}
