//! What comes before HTTP on a connection of the public door.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;

use super::handshake::Stream;
use super::tls::Tls;
use super::wire::Bare;

/// What every connection begins with.
#[derive(Clone)]
pub(crate) struct Preface {
    /// The certificate and its key, which may change.
    pub(crate) tls: Option<Arc<ArcSwap<ServerConfig>>>,
}

impl Preface {
    /// Hears it, as far as there is one, and gives the stream that HTTP is spoken on.
    ///
    /// # Errors
    /// When the connection is broken, or begins otherwise.
    pub(crate) async fn hear(self: Arc<Self>, stream: Bare) -> io::Result<(Stream, Vec<u8>)> {
        let read = Vec::new();
        Ok(match &self.tls {
            Some(tls) => (Stream::Tls(Tls::accept(stream, read, tls.load_full()).await?), Vec::new()),
            None => (Stream::Bare(stream), read),
        })
    }
}
