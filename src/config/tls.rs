//! TLS on the public door.

use std::path::PathBuf;

/// The files that TLS needs, in PEM. They are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate of this host, and those between it and one that clients know.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}
