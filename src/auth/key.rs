//! Keys, each with the algorithms that it is for. A token never chooses (RFC 8725, 3.1).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use smallvec::SmallVec;

use super::reason::{Reason, TokenError, shown};

/// Keys that one set may have; the rest is not read.
const MAX_KEYS: usize = 64;
/// Keys that one token is tried with: those of its id, or all if it names none.
const MAX_TRIALS: usize = 8;
/// The size of RSA keys, in bytes (RFC 7518, 3.3: 2048 bits or more).
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// One key that tokens may be signed with.
pub(super) struct Key {
    kid: Option<Box<str>>,
    algorithms: SmallVec<[Algorithm; 1]>,
    key: DecodingKey,
    /// Where it comes from, for people.
    source: String,
    /// Until when it is accepted, as the time since the Unix epoch.
    until: Option<Duration>,
}

/// The keys of one issuer.
#[derive(Clone, Default)]
pub(super) struct KeySet(pub(super) Vec<Arc<Key>>);

/// The keys that a token may be signed with.
pub(super) type Candidates = SmallVec<[Arc<Key>; 2]>;

/// What a key is told beside itself.
#[derive(Default)]
pub(super) struct Setting<'a> {
    /// The algorithms that the issuer's keys may be for; any, if it is empty.
    pub(super) allowed: &'a [Algorithm],
    /// The key's id.
    pub(super) kid: Option<&'a str>,
    /// Until when it is accepted.
    pub(super) until: Option<Duration>,
    /// Whether a secret may be short or well known.
    pub(super) weak: bool,
}

impl Key {
    /// A secret for HMAC, which is as long as the hash at least (RFC 7518, 3.2).
    pub(super) fn secret(secret: &[u8], source: String, setting: &Setting<'_>) -> Result<Self, String> {
        let algorithms = bind(AlgorithmFamily::Hmac, Algorithm::HS256, None, setting.allowed)?;
        if !setting.weak {
            let least = algorithms.iter().copied().map(hash_bytes).max().unwrap_or_default();
            if secret.len() < least {
                let names = names(&algorithms);
                return Err(format!("must have at least {least} bytes for {names}, and has {}", secret.len()));
            }
            if is_well_known(secret) {
                return Err("is a well-known example: anybody could sign with it".to_owned());
            }
        }
        Ok(Self::of(DecodingKey::from_secret(secret), algorithms, source, setting))
    }

    /// A public key in PEM.
    pub(super) fn pem(pem: &[u8], source: String, setting: &Setting<'_>) -> Result<Self, String> {
        let text = std::str::from_utf8(pem).map_err(|_| "is not PEM".to_owned())?;
        if text.contains("PRIVATE KEY") {
            return Err("holds a private key: give the public one, as `openssl pkey -pubout` prints it".to_owned());
        }
        if text.contains("CERTIFICATE") {
            return Err("holds a certificate: give its key, as `openssl x509 -pubkey -noout` prints it".to_owned());
        }
        let key = DecodingKey::from_rsa_pem(pem)
            .or_else(|_| DecodingKey::from_ec_pem(pem))
            .or_else(|_| DecodingKey::from_ed_pem(pem))
            .map_err(|_| "is not a public key in PEM (RSA, EC or Ed25519)".to_owned())?;
        let usual = usual(&key)?;
        let algorithms = bind(usual.family(), usual, None, setting.allowed)?;
        Ok(Self::of(key, algorithms, source, setting))
    }

    /// One key of a set (RFC 7517). What it is not made for, it is not used for.
    pub(super) fn jwk(jwk: &Value, source: &str, setting: &Setting<'_>) -> Result<Self, String> {
        let written =
            Jwk::deserialize(jwk).map_err(|error| format!("cannot be read: {}", shown(&error.to_string())))?;
        let common = &written.common;
        if common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
            return Err("is not for signatures".to_owned());
        }
        if common.key_operations.as_ref().is_some_and(|ops| !ops.contains(&KeyOperations::Verify)) {
            return Err("is not for verifying".to_owned());
        }
        // The algorithm as it is written: one that the library does not know is one that is not ours.
        let said = match jwk.get("alg").map(|alg| alg.as_str().unwrap_or_default()) {
            Some(alg) => Some(algorithm(alg).ok_or_else(|| format!("is for {}, which is not supported", shown(alg)))?),
            None => None,
        };
        let kid = setting.kid.or(common.key_id.as_deref());
        let setting = Setting { kid, ..*setting };
        let source =
            format!("key {} of {source}", kid.map_or("without id".to_owned(), |kid| format!("\"{}\"", shown(kid))));
        if let AlgorithmParameters::OctetKey(octets) = &written.algorithm {
            let secret = BASE64_URL_SAFE_NO_PAD.decode(&octets.value).map_err(|_| "is not base64url".to_owned())?;
            let usual = said.unwrap_or(Algorithm::HS256);
            let allowed = bind(AlgorithmFamily::Hmac, usual, said, setting.allowed)?;
            return Self::secret(&secret, source, &Setting { allowed: &allowed, ..setting });
        }
        let key = DecodingKey::from_jwk(&written).map_err(|error| format!("cannot be used: {error}"))?;
        let usual = usual(&key)?;
        if let AlgorithmParameters::EllipticCurve(curve) = &written.algorithm {
            let stated = if curve.curve == EllipticCurve::P384 { Algorithm::ES384 } else { Algorithm::ES256 };
            if stated != usual {
                return Err("is not of the curve that it names".to_owned());
            }
        }
        if let AlgorithmParameters::OctetKeyPair(pair) = &written.algorithm
            && pair.curve != EllipticCurve::Ed25519
        {
            return Err("is not of the curve Ed25519".to_owned());
        }
        let algorithms = bind(usual.family(), usual, said, setting.allowed)?;
        Ok(Self::of(key, algorithms, source, &setting))
    }

    fn of(key: DecodingKey, algorithms: SmallVec<[Algorithm; 1]>, source: String, setting: &Setting<'_>) -> Self {
        Self { kid: setting.kid.map(Into::into), algorithms, key, source, until: setting.until }
    }

    /// Whether it is a secret that both sides have: whoever can verify can sign too.
    pub(super) fn is_secret(&self) -> bool {
        self.key.family() == AlgorithmFamily::Hmac
    }

    /// Whether this key has signed a message.
    pub(super) fn has_signed(&self, algorithm: Algorithm, message: &str, signature: &str) -> Result<bool, TokenError> {
        if !self.algorithms.contains(&algorithm) {
            return Ok(false);
        }
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.key, algorithm)
            .map_err(|error| Reason::Unverifiable.because(format!("the {} failed: {error}", self.source)))
    }

    /// What it is and where it comes from, for people.
    pub(super) fn describe(&self) -> String {
        format!("the {}, for {}", self.source, names(&self.algorithms))
    }
}

impl KeySet {
    /// Reads a set (RFC 7517, 5), and says which keys of it are of no use here, and why.
    ///
    /// # Errors
    /// When it is none, or has nothing of use.
    pub(super) fn parse(json: &[u8], source: &str, setting: &Setting<'_>) -> Result<(Self, Vec<String>), String> {
        #[derive(Deserialize)]
        struct Written {
            keys: Vec<Value>,
        }
        let written: Written = serde_json::from_slice(json)
            .map_err(|error| format!("is not a set of keys: {}", shown(&error.to_string())))?;
        let mut unused = Vec::new();
        let keys: Vec<_> = (written.keys.iter().take(MAX_KEYS))
            .filter_map(|jwk| {
                let key = Key::jwk(jwk, source, setting);
                let kid = jwk.get("kid").and_then(Value::as_str).unwrap_or("without id");
                key.map_err(|why| unused.push(format!("key {}: {why}", shown(kid)))).ok().map(Arc::new)
            })
            .collect();
        if keys.is_empty() {
            let why = unused.first().map_or(String::new(), |why| format!(" ({why})"));
            return Err(format!("has no key that can be used{why}"));
        }
        Ok((Self(keys), unused))
    }

    /// Those keys that may have signed a token that names this key and this algorithm.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn candidates(
        &self,
        kid: Option<&str>,
        alg: &str,
        now: Duration,
    ) -> Result<(Algorithm, Candidates), TokenError> {
        let named = |key: &&Arc<Key>| match (kid, &key.kid) {
            (Some(kid), Some(own)) => **own == *kid,
            _ => true,
        };
        let unknown = || {
            let kid = kid.map_or("without `kid`".to_owned(), |kid| format!("`{}`", shown(kid)));
            Reason::UnknownKey
                .because(format!("the token is signed with the key {kid}, and the issuer has none of that id"))
        };
        let fitting: SmallVec<[&Arc<Key>; 4]> = self.0.iter().filter(named).collect();
        let other = |kind: &str| {
            let theirs = fitting.iter().map(|key| names(&key.algorithms)).collect::<Vec<_>>().join(", ");
            let detail = format!("the token is signed with {kind}, and the issuer's keys are for {theirs}");
            Reason::AlgorithmNotAllowed.because(detail)
        };
        let Some(algorithm) = algorithm(alg) else { return Err(other(&format!("`{}`", shown(alg)))) };
        if fitting.is_empty() {
            return Err(unknown());
        }
        let able: SmallVec<[&Arc<Key>; 4]> =
            fitting.iter().copied().filter(|key| key.algorithms.contains(&algorithm)).collect();
        if able.is_empty() {
            return Err(other(alg));
        }
        let valid = able.into_iter().filter(|key| key.until.is_none_or(|until| now < until));
        let candidates: Candidates = valid.take(MAX_TRIALS).cloned().collect();
        if candidates.is_empty() {
            return Err(Reason::RetiredKey.because("the token is signed with a key that has been replaced"));
        }
        Ok((algorithm, candidates))
    }
}

/// The algorithms that a key is for: what it says itself; else those of its kind that the issuer
/// allows; else the usual one.
fn bind(
    family: AlgorithmFamily,
    usual: Algorithm,
    said: Option<Algorithm>,
    allowed: &[Algorithm],
) -> Result<SmallVec<[Algorithm; 1]>, String> {
    let fits = |algorithm: &Algorithm| match (family, usual) {
        // Of the curves, a key has one.
        (AlgorithmFamily::Ec, usual) => *algorithm == usual,
        (family, _) => algorithm.family() == family,
    };
    let bound: SmallVec<[Algorithm; 1]> = match (said, allowed) {
        (Some(said), allowed) => {
            Some(said).filter(|said| fits(said) && (allowed.is_empty() || allowed.contains(said))).into_iter().collect()
        }
        (None, []) => SmallVec::from_elem(usual, 1),
        (None, allowed) => allowed.iter().copied().filter(fits).collect(),
    };
    if bound.is_empty() {
        let said = said.map_or(String::new(), |said| format!("is for {said:?} and "));
        let allowed = if allowed.is_empty() { format!("{usual:?}") } else { names(allowed) };
        return Err(format!("{said}cannot be used for {allowed}"));
    }
    Ok(bound)
}

/// An algorithm by its name; EdDSA has a second one, which names the curve (RFC 9864, 2.2).
fn algorithm(name: &str) -> Option<Algorithm> {
    if name == "Ed25519" { Some(Algorithm::EdDSA) } else { name.parse().ok() }
}

/// What a public key is for as a rule, by its kind and size.
fn usual(key: &DecodingKey) -> Result<Algorithm, String> {
    match key.family() {
        AlgorithmFamily::Hmac => Ok(Algorithm::HS256),
        AlgorithmFamily::Ed => match key.try_get_as_bytes().map(<[u8]>::len) {
            Ok(32) => Ok(Algorithm::EdDSA),
            _ => Err("is not an Ed25519 key".to_owned()),
        },
        // Uncompressed points: a byte, and two coordinates.
        AlgorithmFamily::Ec => match key.try_get_as_bytes().map(<[u8]>::len) {
            Ok(65) => Ok(Algorithm::ES256),
            Ok(97) => Ok(Algorithm::ES384),
            _ => Err("is not of the curve P-256 or P-384".to_owned()),
        },
        AlgorithmFamily::Rsa => {
            let jwk = Jwk::from_decoding_key(key, None).map_err(|error| format!("cannot be used: {error}"))?;
            let AlgorithmParameters::RSA(rsa) = &jwk.algorithm else { return Err("is not an RSA key".to_owned()) };
            let modulus = BASE64_URL_SAFE_NO_PAD.decode(&rsa.n).unwrap_or_default();
            let bytes = modulus.iter().skip_while(|byte| **byte == 0).count();
            if RSA_BYTES.contains(&bytes) {
                return Ok(Algorithm::RS256);
            }
            Err(format!("has {} bits, and RSA keys have 2048 to 8192", bytes * 8))
        }
    }
}

fn hash_bytes(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::HS384 => 48,
        Algorithm::HS512 => 64,
        _ => 32,
    }
}

/// Secrets of tutorials and default configurations that are long enough to pass otherwise.
fn is_well_known(secret: &[u8]) -> bool {
    const KNOWN: [&str; 6] = [
        "a-string-secret-at-least-256-bits-long",
        "a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
        "super-secret-jwt-token-with-at-least-32-characters-long",
        "your-super-secret-jwt-token-with-at-least-32-characters-long",
        "your-256-bit-secret-your-256-bit-secret",
        "ThisIsASecretKeyThatIsLongEnoughForHS256",
    ];
    let (first, rest) = secret.split_first().unwrap_or((&0, &[]));
    rest.iter().all(|byte| byte == first) || KNOWN.iter().any(|known| known.as_bytes() == secret)
}

/// Algorithms by name.
fn names(algorithms: &[Algorithm]) -> String {
    algorithms.iter().map(|algorithm| format!("{algorithm:?}")).collect::<Vec<_>>().join(" or ")
}

/// A secret that is written in base64, with or without padding, in either alphabet.
pub(super) fn from_base64(text: &str) -> Result<Vec<u8>, String> {
    let text = text.trim().trim_end_matches('=').replace('-', "+").replace('_', "/");
    let padded = format!("{text}{}", "=".repeat((4 - text.len() % 4) % 4));
    BASE64_STANDARD.decode(padded).map_err(|error| format!("is not base64: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{SigningKey, generate};
    use serde_json::json;

    fn jwk(algorithm: Algorithm) -> Value {
        SigningKey::pem(generate(algorithm).unwrap().as_bytes(), None).unwrap().jwk().unwrap()
    }

    fn with(mut jwk: Value, name: &str, value: Value) -> Value {
        jwk[name] = value;
        jwk
    }

    fn algorithms(jwk: &Value, allowed: &[Algorithm]) -> Result<Vec<Algorithm>, String> {
        Key::jwk(jwk, "test", &Setting { allowed, ..Setting::default() }).map(|key| key.algorithms.to_vec())
    }

    fn bare(jwk: &Value) -> Value {
        let mut jwk = jwk.clone();
        jwk.as_object_mut().unwrap().remove("alg");
        jwk
    }

    #[test]
    fn a_key_is_for_what_it_says_or_for_what_is_usual_and_never_for_more_than_is_allowed() {
        use Algorithm::{ES256, ES384, EdDSA, HS256, PS256, PS512, RS256};
        let rsa = jwk(RS256);
        assert_eq!(algorithms(&rsa, &[]), Ok(vec![RS256]));
        assert_eq!(algorithms(&bare(&rsa), &[]), Ok(vec![RS256]));
        assert_eq!(algorithms(&bare(&rsa), &[PS256, ES256, RS256]), Ok(vec![PS256, RS256]));
        assert_eq!(algorithms(&with(rsa.clone(), "alg", json!("PS512")), &[]), Ok(vec![PS512]));
        assert!(algorithms(&with(rsa.clone(), "alg", json!("PS512")), &[RS256]).is_err());
        assert!(algorithms(&bare(&rsa), &[ES256, HS256]).is_err());
        assert_eq!(algorithms(&bare(&jwk(ES256)), &[]), Ok(vec![ES256]));
        assert_eq!(algorithms(&bare(&jwk(ES384)), &[ES384, ES256]), Ok(vec![ES384]));
        let edwards = jwk(EdDSA);
        assert_eq!(algorithms(&edwards, &[]), Ok(vec![EdDSA]));
        assert_eq!(algorithms(&with(edwards, "alg", json!("Ed25519")), &[]), Ok(vec![EdDSA]), "RFC 9864");
    }

    #[test]
    fn what_a_key_is_not_made_for_it_is_not_used_for() {
        let good = jwk(Algorithm::ES256);
        for (name, value) in [
            ("use", json!("enc")),
            ("use", json!("tls")),
            ("key_ops", json!(["sign"])),
            ("key_ops", json!([])),
            ("alg", json!("RS256")),
            ("alg", json!("HS256")),
            ("alg", json!("ES384")),
            ("alg", json!("ECDH-ES")),
            ("alg", json!("none")),
            ("alg", json!(1)),
            ("crv", json!("P-384")),
            ("crv", json!("secp256k1")),
            ("kty", json!("OKP")),
            ("kty", json!("oct")),
            ("x", json!("AAAA")),
            ("x", json!("not base64")),
            ("y", json!(null)),
        ] {
            assert!(algorithms(&with(good.clone(), name, value.clone()), &[]).is_err(), "{name}: {value}");
        }
        let edwards = jwk(Algorithm::EdDSA);
        for curve in ["X25519", "Ed448", "P-256"] {
            assert!(algorithms(&with(edwards.clone(), "crv", json!(curve)), &[]).is_err(), "{curve}");
        }
        // 1024 bits, which anybody with some machines can factor.
        let small = json!({"kty": "RSA", "n": BASE64_URL_SAFE_NO_PAD.encode([0xC5; 128]), "e": "AQAB"});
        assert!(algorithms(&small, &[]).unwrap_err().contains("1024 bits"));
        let short = json!({"kty": "oct", "k": BASE64_URL_SAFE_NO_PAD.encode("short")});
        assert!(algorithms(&short, &[]).unwrap_err().contains("at least 32 bytes"));
    }

    #[test]
    fn a_secret_may_be_written_in_any_base64() {
        let bytes = [0xFB, 0xEF, 0xFF, 0x01];
        for text in ["++//AQ==", "--__AQ", "++//AQ", " --__AQ==\n"] {
            assert_eq!(from_base64(text).unwrap(), bytes, "{text}");
        }
        assert!(from_base64("*").is_err());
    }
}
