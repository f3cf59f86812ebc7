//! The certificate of the public door: read at the start, and again when its files change.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys, ServerConfig};

use crate::clock::Clock;
use crate::config::{ConfigError, Tls};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A certificate with its key, as new connections are shown it.
#[derive(Clone)]
pub(super) struct Certificate(Arc<Inner>);

struct Inner {
    files: Tls,
    current: Arc<ArcSwap<ServerConfig>>,
    /// What the files were like when they were last read.
    seen: Mutex<[Option<Stamp>; 2]>,
}

/// What tells that a file is not what it was.
type Stamp = (SystemTime, u64, u64);

impl Certificate {
    /// Reads it.
    ///
    /// # Errors
    /// The setting whose file cannot be read, or does not fit the other.
    pub(super) fn read(files: &Tls) -> Result<Self, ConfigError> {
        // Looked at first: what changes meanwhile is seen then.
        let seen = stamps(files);
        let current = Arc::new(ArcSwap::from_pointee(server_config(files)?));
        Ok(Self(Arc::new(Inner { files: files.clone(), current, seen: Mutex::new(seen) })))
    }

    /// What new connections are shown, now and later.
    pub(super) fn current(&self) -> Arc<ArcSwap<ServerConfig>> {
        Arc::clone(&self.0.current)
    }

    /// Reads it again. Connections that are there keep the one that they began with.
    ///
    /// # Errors
    /// As at first; then all is as it was.
    pub(super) fn reload(&self) -> Result<(), ConfigError> {
        let Inner { files, current, seen } = &*self.0;
        *seen.lock() = stamps(files);
        current.store(Arc::new(server_config(files)?));
        Ok(())
    }

    /// Reads it again whenever its files have changed, for ever.
    pub(super) async fn keep(self, clock: Clock) {
        loop {
            clock.sleep_until(clock.now() + LOOK_EVERY).await;
            let this = self.clone();
            // Files may be on a disk that takes its time.
            if let Err(error) = tokio::task::spawn_blocking(move || this.look()).await {
                tracing::error!(%error, "the files of the certificate could not be looked at");
            }
        }
    }

    fn look(&self) {
        if *self.0.seen.lock() == stamps(&self.0.files) {
            return;
        }
        match self.reload() {
            Ok(()) => tracing::info!("the certificate has been read again"),
            Err(error) => tracing::error!(%error, "the certificate could not be read again, and is as it was"),
        }
    }
}

/// What TLS is spoken with: HTTP/1.1 only, since WebSockets over HTTP/2 are another protocol.
///
/// # Errors
/// As [`Certificate::read`].
pub(super) fn server_config(files: &Tls) -> Result<ServerConfig, ConfigError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let certified = certified_key(files, &provider)?;
    let failed = |error: Error| ConfigError::new("tls", error.to_string());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config =
        builder.map_err(failed)?.with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Whoever comes back is let in without signatures: thousands may at once. Nothing is kept for them.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(failed)?;
    Ok(config)
}

fn certified_key(files: &Tls, provider: &CryptoProvider) -> Result<CertifiedKey, ConfigError> {
    let in_certificate = |problem: String| ConfigError::new("tls.certificate", problem);
    let in_key = |problem: String| ConfigError::new("tls.key", problem);
    let (certificate, key) = (files.certificate.display(), files.key.display());

    let pem = std::fs::read(&files.certificate)
        .map_err(|error| in_certificate(format!("{certificate} cannot be read: {error}")))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| in_certificate(format!("{certificate} is not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(in_certificate(format!("{certificate} holds no certificate in PEM")));
    }
    let pem = std::fs::read(&files.key).map_err(|error| in_key(format!("{key} cannot be read: {error}")))?;
    let private = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| in_key(format!("{key} holds no private key in PEM: {error}")))?;
    let private = provider
        .key_provider
        .load_private_key(private)
        .map_err(|error| in_key(format!("{key} holds a key that cannot be used: {error}")))?;
    let certified = CertifiedKey::new(chain, private);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(Error::InconsistentKeys(_)) => {
            Err(in_key(format!("{key} does not belong to the first certificate of {certificate}")))
        }
        Err(error) => Err(in_certificate(format!("{certificate} is no certificate: {error}"))),
    }
}

fn stamps(files: &Tls) -> [Option<Stamp>; 2] {
    [stamp(&files.certificate), stamp(&files.key)]
}

/// None where the file cannot be found: it may come back.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}
