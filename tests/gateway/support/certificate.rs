//! Certificates that a test makes for itself, and clients that trust one of them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedKey, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wsgate::config::Tls;

use super::tokens::TempFile;
use super::{Client, Server, within_reason};

/// A certificate for `localhost`, signed by itself, and its key, in files.
pub struct Certificate {
    pub certificate: TempFile,
    pub key: TempFile,
    made: CertifiedKey<KeyPair>,
}

impl Certificate {
    pub fn new() -> Self {
        Self::of(&CertificateParams::new(["localhost".to_owned()]).unwrap())
    }

    /// One that counts no more, since 2021 began.
    pub fn ended() -> Self {
        let mut of = CertificateParams::new(["localhost".to_owned()]).unwrap();
        of.not_after = rcgen::date_time_ymd(2021, 1, 1);
        Self::of(&of)
    }

    fn of(params: &CertificateParams) -> Self {
        let signing_key = KeyPair::generate().unwrap();
        let made = CertifiedKey { cert: params.self_signed(&signing_key).unwrap(), signing_key };
        let certificate = TempFile::new("certificate.pem", &made.cert.pem());
        let key = TempFile::new("key.pem", &made.signing_key.serialize_pem());
        Self { certificate, key, made }
    }

    pub fn files(&self) -> Tls {
        Tls { certificate: self.certificate.0.clone(), key: self.key.0.clone() }
    }

    /// Puts this one in the place of another.
    pub fn replace(&self, files: &Tls) {
        let copy = |from: &Path, to: &Path| std::fs::copy(from, to).map(drop).unwrap();
        copy(&self.certificate.0, &files.certificate);
        copy(&self.key.0, &files.key);
    }

    /// What a client speaks with that trusts this one alone.
    pub fn trusted(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        builder.with_root_certificates(roots).with_no_client_auth()
    }

    /// TLS on a stream, if the other end has this certificate.
    pub async fn try_on(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(Arc::new(self.trusted()));
        within_reason("TLS", connector.connect(ServerName::try_from("localhost").unwrap(), stream)).await
    }

    /// Connects to whoever has this certificate.
    pub async fn connect(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        self.try_on(within_reason("a TCP connection", TcpStream::connect(address)).await.unwrap()).await
    }

    /// Connects a user who is granted all there is, and reads the welcome.
    pub async fn user(&self, server: &Server, name: &str) -> Client {
        let stream = self.connect(server.public).await.unwrap();
        self.user_on(stream, server, name).await
    }

    /// The same on a stream that has been opened.
    pub async fn user_on(&self, stream: TlsStream<TcpStream>, server: &Server, name: &str) -> Client {
        let token = server.token(name, serde_json::json!({"*": ["join", "publish"]}));
        let mut client = Client::dial_on(stream, server.public, &format!("/ws?token={token}")).await;
        assert_eq!(client.receive().await["type"], "welcome");
        client
    }
}
