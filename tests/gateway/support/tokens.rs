//! Tokens of every family, made with keys that each run of the tests makes anew, and tokens that no
//! decent library would make.

use std::path::PathBuf;
use std::sync::OnceLock;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use wsgate::auth::{SigningKey, generate};

/// A private key, or a secret, and what is public of it.
#[derive(Clone)]
pub struct Key {
    pub algorithm: Algorithm,
    /// PKCS #8 in PEM, or the secret itself.
    pub private: String,
}

impl Key {
    pub fn new(algorithm: Algorithm) -> Self {
        Self { algorithm, private: generate(algorithm).unwrap() }
    }

    pub fn is_secret(&self) -> bool {
        matches!(self.algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
    }

    pub fn signer(&self) -> SigningKey {
        if self.is_secret() {
            return SigningKey::secret(&wsgate::Secret::new(&self.private), self.algorithm).unwrap();
        }
        SigningKey::pem(self.private.as_bytes(), Some(self.algorithm)).unwrap()
    }

    /// Its public part, as a key of a set.
    pub fn jwk(&self, kid: &str) -> Value {
        self.signer().with_kid(Some(kid.to_owned())).jwk().unwrap()
    }

    fn encoding(&self) -> EncodingKey {
        match self.algorithm {
            _ if self.is_secret() => EncodingKey::from_secret(self.private.as_bytes()),
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(self.private.as_bytes()).unwrap(),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(self.private.as_bytes()).unwrap(),
            _ => EncodingKey::from_rsa_pem(self.private.as_bytes()).unwrap(),
        }
    }

    /// A token with just this header and these claims, whatever they say.
    pub fn sign_text(&self, header: &str, claims: &str) -> String {
        self.sign_message(&format!("{}.{}", part(header), part(claims)))
    }

    pub fn sign_message(&self, message: &str) -> String {
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.encoding(), self.algorithm).unwrap();
        format!("{message}.{signature}")
    }

    /// A token with these claims and an honest header.
    pub fn sign(&self, kid: Option<&str>, claims: &Value) -> String {
        let mut header = json!({"alg": format!("{:?}", self.algorithm), "typ": "JWT"});
        if let Some(kid) = kid {
            header["kid"] = json!(kid);
        }
        self.sign_text(&header.to_string(), &claims.to_string())
    }
}

pub fn part(text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

/// RSA keys take long to make: all tests share one pair of them.
pub fn rsa() -> &'static [Key; 2] {
    static KEYS: OnceLock<[Key; 2]> = OnceLock::new();
    KEYS.get_or_init(|| [Key::new(Algorithm::RS256), Key::new(Algorithm::RS256)])
}

/// A file that is gone when this is dropped.
pub struct TempFile(pub PathBuf);

impl TempFile {
    pub fn new(name: &str, text: &str) -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let path = std::env::temp_dir().join(format!("wsgate-{}-{number}-{name}", std::process::id()));
        if !text.is_empty() {
            std::fs::write(&path, text).unwrap();
        }
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // Some are never made.
        let _gone = std::fs::remove_file(&self.0);
    }
}
