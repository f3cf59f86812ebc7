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
use x509_parser::parse_x509_certificate;

use crate::clock::Clock;
use crate::config::{ConfigError, Tls};
use crate::metrics::Metrics;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long before its end a certificate is spoken of. Those who renew them do so earlier.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// A certificate with its key, as new connections are shown it.
#[derive(Clone)]
pub(super) struct Certificate(Arc<Inner>);

struct Inner {
    files: Tls,
    metrics: Arc<Metrics>,
    clock: Clock,
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
    pub(super) fn read(files: &Tls, metrics: &Arc<Metrics>, clock: &Clock) -> Result<Self, ConfigError> {
        // Looked at first: what changes meanwhile is seen then.
        let seen = stamps(files);
        let (config, end) = server_config(files)?;
        let current = Arc::new(ArcSwap::from_pointee(config));
        let (metrics, clock, seen) = (Arc::clone(metrics), clock.clone(), Mutex::new(seen));
        let this = Self(Arc::new(Inner { files: files.clone(), metrics, clock, current, seen }));
        this.note(end);
        Ok(this)
    }

    /// What new connections are shown, now and later.
    pub(super) fn current(&self) -> Arc<ArcSwap<ServerConfig>> {
        Arc::clone(&self.0.current)
    }

    /// Reads it again, and gives what puts it in place. Connections that are there keep the one that they
    /// began with.
    ///
    /// # Errors
    /// As at first.
    pub(super) fn reload(&self) -> Result<impl FnOnce() + use<'_>, ConfigError> {
        let Inner { files, current, seen, .. } = &*self.0;
        // Looked at first: what changes meanwhile is seen then.
        let now = stamps(files);
        // What cannot be read is told once. What can, and is not put in place after all, is to be read again.
        let (config, end) = server_config(files).inspect_err(|_| *seen.lock() = now)?;
        Ok(move || {
            *seen.lock() = now;
            current.store(Arc::new(config));
            self.note(end);
        })
    }

    /// Tells operators when it ends.
    fn note(&self, end: Duration) {
        let Inner { metrics, clock, .. } = &*self.0;
        metrics.certificate_ends(end);
        if let Some(remark) = remark(end, clock) {
            tracing::warn!("{remark}");
        }
    }

    /// Reads it again whenever its files have changed, for ever.
    pub(super) async fn keep(self) {
        loop {
            let clock = &self.0.clock;
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
            Ok(put) => {
                put();
                tracing::info!("the certificate has been read again");
            }
            Err(error) => tracing::error!(%error, "the certificate could not be read again, and is as it was"),
        }
    }
}

/// What is to be said of a certificate that ends then, since the Unix epoch: that it has, or will soon.
pub(super) fn remark(end: Duration, clock: &Clock) -> Option<String> {
    let date = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + end);
    match end.checked_sub(clock.unix()) {
        None => Some(format!("the certificate has ended at {date}: clients will not connect")),
        Some(left) if left < SOON => Some(format!("the certificate ends soon, at {date}")),
        Some(_) => None,
    }
}

/// What TLS is spoken with: HTTP/1.1 only, since WebSockets over HTTP/2 are another protocol. And when the
/// certificate ends, since the Unix epoch.
///
/// # Errors
/// As [`Certificate::read`].
pub(super) fn server_config(files: &Tls) -> Result<(ServerConfig, Duration), ConfigError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let certified = certified_key(files, &provider)?;
    let end = end_of(&certified).map_err(|problem| {
        ConfigError::new("tls.certificate", format!("{}: {problem}", files.certificate.display()))
    })?;
    let failed = |error: Error| ConfigError::new("tls", error.to_string());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config =
        builder.map_err(failed)?.with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Whoever comes back is let in without signatures: thousands may at once. Nothing is kept for them.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(failed)?;
    Ok((config, end))
}

/// When the first certificate ends, which is that of this host (RFC 5280, 4.1.2.5).
fn end_of(certified: &CertifiedKey) -> Result<Duration, String> {
    let first = certified.cert.first().ok_or("there is no certificate")?;
    let (_, certificate) = parse_x509_certificate(first).map_err(|error| error.to_string())?;
    let end = certificate.validity().not_after.timestamp();
    // What ended before 1970 has ended.
    Ok(Duration::from_secs(u64::try_from(end).unwrap_or(0)))
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
    let text = String::from_utf8_lossy(&pem);
    if text.contains("ENCRYPTED") {
        return Err(in_key(format!("{key} is encrypted, and there is nobody to ask for its password: decrypt it")));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes another certificate and its key.
    fn write(files: &Tls) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn what_was_read_and_not_put_in_place_is_read_again() {
        let folder = std::env::temp_dir().join(format!("wsgate-certificate-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let files = Tls { certificate: folder.join("certificate.pem"), key: folder.join("key.pem") };
        write(&files);
        let certificate = Certificate::read(&files, &Arc::default(), &Clock::system()).unwrap();
        let first = certificate.current().load_full();
        write(&files);
        // Something else of the configuration was wrong.
        drop(certificate.reload().unwrap());
        assert!(Arc::ptr_eq(&first, &certificate.current().load_full()));
        certificate.look();
        let second = certificate.current().load_full();
        assert!(!Arc::ptr_eq(&first, &second));
        certificate.look();
        assert!(Arc::ptr_eq(&second, &certificate.current().load_full()), "nothing has changed since");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
