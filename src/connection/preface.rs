//! What comes before HTTP on a connection of the public door.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;

use super::Admission;
use super::credential::Peer;
use super::handshake::Stream;
use super::proxy;
use super::tls::Tls;
use super::wire::Bare;

/// What every connection begins with: for whom it is, then TLS.
pub(crate) struct Preface {
    /// Whether a proxy says first for whom it has connected.
    pub(crate) proxy_protocol: bool,
    /// Whom to believe.
    pub(crate) admission: Arc<ArcSwap<Admission>>,
    /// The certificate and its key, which may change.
    pub(crate) tls: Option<Arc<ArcSwap<ServerConfig>>>,
}

impl Preface {
    /// Hears it, as far as there is to be one. Gives the stream that HTTP is spoken on, what has been
    /// read of it, and whoever is at its other end.
    ///
    /// # Errors
    /// When the connection is broken, or begins otherwise.
    pub(crate) async fn hear(&self, stream: Bare, peer: Peer) -> io::Result<(Stream, Vec<u8>, Peer)> {
        let (peer, read) = if self.proxy_protocol {
            if !peer.is_trusted(&self.admission.load().trusted_proxies) {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not from a trusted proxy"));
            }
            proxy::read(&stream, peer).await?
        } else {
            (peer, Vec::new())
        };
        Ok(match &self.tls {
            Some(tls) => (Stream::Tls(Tls::accept(stream, read, tls.load_full()).await?), Vec::new(), peer),
            None => (Stream::Bare(stream), read, peer),
        })
    }
}
