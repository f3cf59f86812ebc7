//! Makes tokens and keys, for development and tests: in production the application's own login does.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jsonwebtoken::jwk::{Jwk, KeyOperations, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::config::Secret;

use super::grants::Grants;
use super::reason::{Reason, TokenError};

/// The claims that the gateway reads by default; a token may have others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claims {
    /// The user.
    pub sub: String,
    /// When the token ends, in Unix seconds.
    #[serde(serialize_with = "whole_seconds")]
    pub exp: f64,
    /// Since when it is valid, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<f64>,
    /// What it allows.
    #[serde(default)]
    pub grants: Grants,
}

/// A key that signs tokens.
pub struct SigningKey {
    key: EncodingKey,
    algorithm: Algorithm,
    kid: Option<String>,
}

impl SigningKey {
    /// A secret.
    ///
    /// # Errors
    /// When the algorithm is none for secrets.
    pub fn secret(secret: &Secret, algorithm: Algorithm) -> Result<Self, String> {
        if algorithm.family() != AlgorithmFamily::Hmac {
            return Err(format!("{algorithm:?} needs a private key, not a secret"));
        }
        super::install_provider();
        Ok(Self { key: EncodingKey::from_secret(secret.reveal().as_bytes()), algorithm, kid: None })
    }

    /// A private key in PEM. Without an algorithm, it is the usual one for its kind.
    ///
    /// # Errors
    /// When it is no private key, or not for this algorithm.
    pub fn pem(pem: &[u8], algorithm: Option<Algorithm>) -> Result<Self, String> {
        super::install_provider();
        let key = EncodingKey::from_rsa_pem(pem)
            .or_else(|_| EncodingKey::from_ec_pem(pem))
            .or_else(|_| EncodingKey::from_ed_pem(pem));
        let key = key.map_err(|_| {
            "is not a private key in PEM (RSA, EC or Ed25519, in PKCS #8: see `openssl pkcs8 -topk8 -nocrypt`)"
                .to_owned()
        })?;
        let possible: &[Algorithm] = match key.family() {
            AlgorithmFamily::Rsa => &[Algorithm::RS256],
            AlgorithmFamily::Ec => &[Algorithm::ES256, Algorithm::ES384],
            _ => &[Algorithm::EdDSA],
        };
        let usual = possible.iter().copied().find(|algorithm| Jwk::from_encoding_key(&key, *algorithm).is_ok());
        let usual = usual.ok_or("is of a curve that is not supported: P-256 and P-384 are")?;
        let algorithm = algorithm.unwrap_or(usual);
        let fits = algorithm.family() == key.family() && (key.family() != AlgorithmFamily::Ec || algorithm == usual);
        if !fits {
            return Err(format!("cannot sign with {algorithm:?}"));
        }
        Ok(Self { key, algorithm, kid: None })
    }

    /// Gives it an id, which its tokens name.
    #[must_use]
    pub fn with_kid(self, kid: Option<String>) -> Self {
        Self { kid, ..self }
    }

    /// Its id: the one that it was given, else a hash of its public part (RFC 7638).
    ///
    /// # Errors
    /// When the cryptography fails.
    pub fn kid(&self) -> Result<String, TokenError> {
        match &self.kid {
            Some(kid) => Ok(kid.clone()),
            None => self.bare_jwk()?.thumbprint(ThumbprintHash::SHA256).map_err(|error| failed(&error)),
        }
    }

    /// Signs any claims.
    ///
    /// # Errors
    /// When the cryptography fails.
    pub fn sign<T: Serialize>(&self, claims: &T) -> Result<String, TokenError> {
        let mut header = Header::new(self.algorithm);
        header.kid.clone_from(&self.kid);
        jsonwebtoken::encode(&header, claims, &self.key).map_err(|error| failed(&error))
    }

    /// Its public part, for a set of keys (RFC 7517). A secret has none.
    ///
    /// # Errors
    /// When it is a secret, or the cryptography fails.
    pub fn jwk(&self) -> Result<Value, TokenError> {
        let mut jwk = self.bare_jwk()?;
        jwk.common.key_id = Some(self.kid()?);
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        jwk.common.key_operations = Some(vec![KeyOperations::Verify]);
        serde_json::to_value(jwk).map_err(|error| Reason::Unverifiable.because(error.to_string()))
    }

    fn bare_jwk(&self) -> Result<Jwk, TokenError> {
        if self.algorithm.family() == AlgorithmFamily::Hmac {
            return Err(Reason::Unverifiable.because("a secret has no public part"));
        }
        Jwk::from_encoding_key(&self.key, self.algorithm).map_err(|error| failed(&error))
    }
}

/// A new private key in PEM (PKCS #8), or a secret, for an algorithm.
///
/// # Errors
/// When the operating system or the cryptography fails.
pub fn generate(algorithm: Algorithm) -> Result<String, String> {
    let failed = |_| "the key could not be made".to_owned();
    let der = match algorithm {
        Algorithm::ES256 => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .and_then(|pair| pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()))
            .map_err(failed)?,
        Algorithm::ES384 => EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING)
            .and_then(|pair| pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()))
            .map_err(failed)?,
        Algorithm::EdDSA => Ed25519KeyPair::generate()
            .and_then(|pair| pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()))
            .map_err(failed)?,
        algorithm if algorithm.family() == AlgorithmFamily::Rsa => {
            let pair = KeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
            AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).map_err(failed)?.as_ref().to_vec()
        }
        _ => {
            let mut bytes = [0; 64];
            getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
            return Ok(BASE64_STANDARD.encode(bytes));
        }
    };
    let lines = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = lines.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    Ok(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----", lines.join("\n")))
}

/// Signs a token with a secret (HS256).
///
/// # Errors
/// When the cryptography fails.
pub fn mint(secret: &Secret, claims: &Claims) -> Result<String, TokenError> {
    SigningKey::secret(secret, Algorithm::HS256).map_err(|why| Reason::Unverifiable.because(why))?.sign(claims)
}

fn failed(error: &jsonwebtoken::errors::Error) -> TokenError {
    Reason::Unverifiable.because(format!("the token could not be signed: {error}"))
}

/// A time as most issuers write it, without a fraction where there is none.
pub(super) fn whole_seconds<S: Serializer>(seconds: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if seconds.fract() == 0.0 && (0.0..=9e15).contains(seconds) {
        serializer.serialize_u64(*seconds as u64)
    } else {
        serializer.serialize_f64(*seconds)
    }
}
