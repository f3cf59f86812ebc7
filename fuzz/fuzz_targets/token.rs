//! The way of a token from text to an identity.
//!
//! What an input is, its first byte says:
//!
//! - `=`, a letter, two texts with a line's end between them: a header and claims, both any JSON, or
//!   none. They are put into base64url and signed with the letter's key, so that what lies behind the
//!   signature is reached.
//! - `.`, a letter, a text: what is signed as it is, in whatever base64 it may be.
//! - `~`, a byte, and four for each change: a good token, changed.
//! - Anything else: the text of a token.
//!
//! The letters are in [`Fixture::new`]. Nothing may panic. A token is accepted only if it is, byte by
//! byte, one that a known key has signed, and its identity is what is written in it, by a second
//! reading that shares no code with the first.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use wsgate::auth::{Authority, Identity, SigningKey, TokenError, Verifier, generate};
use wsgate::config::{Issuer, KeySource};
use wsgate::{Clock, Config, Secret};

const SECRET: &str = "a secret of the fuzzer, known to it alone";
/// The issuer that has a name, and demands more than the other does.
const NAMED: &str = "https://login.example.com/";
const PREFIX: &str = "login|";
/// The last second that `exp` may be.
const FOR_EVER: u64 = 253_402_300_799;

static FIXTURE: LazyLock<Fixture> = LazyLock::new(Fixture::new);

fuzz_target!(init: { LazyLock::force(&FIXTURE); }, |input: &[u8]| {
    match input {
        [b'=', letter, texts @ ..] => {
            let line = texts.iter().position(|byte| *byte == b'\n').unwrap_or(texts.len());
            let (header, claims) = (&texts[..line], texts.get(line + 1..).unwrap_or_default());
            let part = |text: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(text);
            FIXTURE.try_signed(*letter, &format!("{}.{}", part(header), part(claims)));
        }
        [b'.', letter, message @ ..] => FIXTURE.try_signed(*letter, &String::from_utf8_lossy(message)),
        [b'~', which, changes @ ..] => FIXTURE.try_changed(usize::from(*which), changes),
        text => FIXTURE.try_text(&String::from_utf8_lossy(text)),
    }
});

/// A verifier, and what signs for it.
struct Fixture {
    runtime: Runtime,
    verifier: Verifier,
    clock: Clock,
    signers: Vec<Signer>,
    /// Good tokens, of every key.
    tokens: Vec<String>,
}

/// A key that signs.
struct Signer {
    letter: u8,
    key: EncodingKey,
    algorithm: Algorithm,
    /// Its id, where it has one.
    kid: Option<&'static str>,
    /// What `alg` may be; nothing, for a key that the verifier does not know.
    names: &'static [&'static str],
}

impl Fixture {
    fn new() -> Self {
        let mut signers = vec![Signer {
            letter: b'h',
            key: EncodingKey::from_secret(SECRET.as_bytes()),
            algorithm: Algorithm::HS256,
            kid: None,
            names: &["HS256"],
        }];
        let secret = SigningKey::secret(&Secret::new(SECRET), Algorithm::HS256).expect("a secret signs with HS256");
        let (mut honest, mut published) = (vec![secret], Vec::new());
        let kinds: [(_, _, _, &[&str]); 3] = [
            (b'e', Algorithm::ES256, "es", &["ES256"]),
            (b'r', Algorithm::RS256, "rs", &["RS256"]),
            (b'd', Algorithm::EdDSA, "ed", &["EdDSA", "Ed25519"]),
        ];
        for (letter, algorithm, kid, names) in kinds {
            let pem = generate(algorithm).expect("a key can be made");
            let key = SigningKey::pem(pem.as_bytes(), Some(algorithm)).expect("the key can be read");
            let key = key.with_kid(Some(kid.to_owned()));
            published.push(key.jwk().expect("the key has a public part"));
            honest.push(key);
            signers.push(Signer { letter, key: private(&pem), algorithm, kid: Some(kid), names });
        }
        // Two that nobody trusts: a key of the same kind, and one that everybody knows.
        let stranger = private(&generate(Algorithm::ES256).expect("a key can be made"));
        let public = EncodingKey::from_secret(published[1].to_string().as_bytes());
        for (letter, key, algorithm) in [(b'o', stranger, Algorithm::ES256), (b'x', public, Algorithm::HS256)] {
            signers.push(Signer { letter, key, algorithm, kid: None, names: &[] });
        }

        let (clock, _) = Clock::manual();
        let verifier = verifier(&json!({ "keys": published }), &clock);
        let simple = json!({"sub": "alice", "exp": FOR_EVER, "grants": {"chat:*": ["join"]}});
        let demanded = json!({
            "iss": NAMED, "aud": ["chat", "mail"], "use": "access", "profile": {"id": 42},
            "exp": FOR_EVER, "iat": 1, "nbf": 1.5, "jti": "1", "sid": "2",
        });
        let sign = |claims| honest.iter().map(move |key| key.sign(claims).expect("the key signs"));
        let tokens = sign(&simple).chain(sign(&demanded)).collect();
        let runtime = Builder::new_current_thread().build().expect("a runtime can be made");
        let fixture = Self { runtime, verifier, clock, signers, tokens };
        for token in &fixture.tokens {
            fixture.verify(token).expect("a good token is accepted");
        }
        fixture
    }

    fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        self.runtime.block_on(self.verifier.verify(token))
    }

    /// No text is accepted that was not signed here.
    fn try_text(&self, text: &str) {
        assert!(self.verify(text).is_err(), "accepted, and not signed: {text}");
        let explained = self.runtime.block_on(self.verifier.explain(text));
        assert!(explained.outcome.is_err() && explained.key.is_none(), "explained as good: {text}");
    }

    /// Of all that can be made of good tokens, only good tokens are accepted.
    fn try_changed(&self, which: usize, changes: &[u8]) {
        let token = &self.tokens[which % self.tokens.len()];
        let mut bytes = token.clone().into_bytes();
        for change in changes.chunks_exact(4) {
            let [kind, high, low, byte] = [change[0], change[1], change[2], change[3]];
            let other = self.tokens[usize::from(byte) % self.tokens.len()].as_bytes();
            change_one(&mut bytes, kind, usize::from(u16::from_be_bytes([high, low])), byte, other);
        }
        let changed = String::from_utf8_lossy(&bytes);
        let accepted = self.verify(&changed).is_ok();
        assert_eq!(accepted, self.tokens.iter().any(|good| *good == changed), "{token}\nbecame\n{changed}");
    }

    /// What is signed is accepted only if it is all that it must be.
    fn try_signed(&self, letter: u8, message: &str) {
        let signer = self.signers.iter().find(|signer| signer.letter == letter).unwrap_or(&self.signers[0]);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &signer.key, signer.algorithm);
        let token = format!("{message}.{}", signature.expect("the key signs"));
        let verified = self.verify(&token);
        let explained = self.runtime.block_on(self.verifier.explain(&token));
        assert_eq!(verified.is_ok(), explained.outcome.is_ok(), "verified and explained differently: {token}");
        let Ok(identity) = verified else { return };

        let parts: Vec<&str> = message.split('.').collect();
        let [header, claims] = parts[..] else { panic!("accepted, and not in three parts: {token}") };
        let (header, claims) = (decode(header), decode(claims));
        let seen = format!("{header}\n{claims}\nbecame\n{identity:?}");

        let written: Header = serde_json::from_str(&header).unwrap_or_else(|error| panic!("{error}: {seen}"));
        assert!(signer.names.contains(&written.alg.as_str()), "of another algorithm: {seen}");
        assert!(signer.kid.is_none() || written.kid.is_none() || written.kid.as_deref() == signer.kid, "{seen}");
        let typ = written.typ.unwrap_or("JWT".to_owned()).to_ascii_lowercase();
        assert!(["jwt", "at+jwt", "application/jwt", "application/at+jwt"].contains(&&*typ), "{seen}");
        assert!(!written.crit, "with something critical: {seen}");

        let written: Claims = serde_json::from_str(&claims).unwrap_or_else(|error| panic!("{error}: {seen}"));
        let (user, authority) = if written.iss.as_deref() == Some(NAMED) {
            assert!(written.aud.is_some_and(|aud| aud.has("chat")), "for somebody else: {seen}");
            assert_eq!(written.usage.and_then(Id::text).as_deref(), Some("access"), "{seen}");
            let nested = match written.profile {
                Some(Profile::With { id }) => Some(id),
                _ => None,
            };
            (written.profile_id.or(nested).and_then(Id::text).map(|id| format!("{PREFIX}{id}")), 1)
        } else {
            (written.sub.and_then(Id::text), 0)
        };
        assert_eq!(user.as_deref(), Some(identity.user.as_str()), "another user: {seen}");
        assert!(!user.is_some_and(|user| user.starts_with("anonymous:")), "a reserved user: {seen}");
        assert_eq!(identity.authority, Authority::Issuer(authority), "another issuer: {seen}");
        assert_eq!(identity.expires_at, Duration::from_secs_f64(written.exp), "another time: {seen}");
        assert!(identity.expires_at > self.clock.unix(), "expired: {seen}");
        let latest = self.clock.unix() + Config::new(Secret::new(""), Secret::new("")).limits.leeway;
        assert!(written.nbf.is_none_or(|nbf| nbf <= latest.as_secs_f64()), "not valid yet: {seen}");
        assert!(!written.events, "a logout token: {seen}");
        let handles = identity.handles.unwrap_or_default();
        assert_eq!(
            (written.jti.as_deref(), written.sid.as_deref()),
            (handles.token.as_deref(), handles.session.as_deref())
        );
        // No name twice, at no depth: else there would be fewer left than there are colons.
        assert_eq!(members(&explained.claims.unwrap_or_default()), colons(&claims), "a name twice: {seen}");
    }
}

/// A verifier of two issuers with the same keys: one takes all it can, one demands all it can.
fn verifier(published: &Value, clock: &Clock) -> Verifier {
    let path = std::env::temp_dir().join(format!("wsgate-fuzz-{}.json", std::process::id()));
    std::fs::write(&path, published.to_string()).expect("the keys can be written");
    let mut config = Config::new(Secret::new(SECRET), Secret::new("an API key, not used"));
    let open = &mut config.issuers[0];
    open.keys.push(KeySource { jwks_file: Some(path.clone()), ..KeySource::default() });
    let named = Issuer {
        issuer: Some(NAMED.to_owned()),
        audience: vec!["chat".to_owned()],
        require: [("use".to_owned(), json!("access"))].into(),
        user_claim: "profile.id".to_owned(),
        user_prefix: PREFIX.to_owned(),
        grants: [("news:*".to_owned(), vec!["join".to_owned()])].into(),
        ..open.clone()
    };
    config.issuers.push(named);
    config.clock = clock.clone();
    config.check().expect("the configuration can be");
    let verifier = Verifier::new(&config).expect("the keys can be");
    std::fs::remove_file(path).expect("the file is ours");
    verifier
}

fn private(pem: &str) -> EncodingKey {
    let pem = pem.as_bytes();
    let key = EncodingKey::from_rsa_pem(pem).or_else(|_| EncodingKey::from_ec_pem(pem));
    key.or_else(|_| EncodingKey::from_ed_pem(pem)).expect("the key can be read")
}

/// Changes a token in one way, somewhere.
fn change_one(token: &mut Vec<u8>, kind: u8, place: usize, byte: u8, other: &[u8]) {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = place % (token.len() + 1);
    let kind = kind % 8;
    match kind {
        0 => token.insert(place, byte),
        1 => token.truncate(place),
        2 => {
            token.truncate(place);
            token.extend(other.iter().skip(place));
        }
        3 => {
            // A part of another token in the place of this one's.
            let mut parts: Vec<&[u8]> = token.split(|byte| *byte == b'.').collect();
            let part = place % parts.len();
            parts[part] = other.split(|byte| *byte == b'.').nth(part).unwrap_or_default();
            *token = parts.join(&b'.');
        }
        _ => {
            let Some(found) = token.get_mut(place) else { return };
            match kind {
                4 => *found = byte,
                5 => *found ^= 1 << (byte % 8),
                // What may spell the same bytes where base64url is not read strictly.
                6 => {
                    let at = ALPHABET.iter().position(|letter| letter == found).unwrap_or_default();
                    *found = ALPHABET[at ^ (1 << (byte % 6))];
                }
                _ => drop(token.remove(place)),
            }
        }
    }
}

/// What is in base64url, which has one spelling.
fn decode(part: &str) -> String {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).expect("what is accepted is base64url");
    assert_eq!(BASE64_URL_SAFE_NO_PAD.encode(&bytes), part, "accepted in another spelling");
    String::from_utf8(bytes).expect("what is accepted is JSON, and that is UTF-8")
}

/// The header as it is read the second time.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

/// The claims as they are read the second time.
#[derive(Deserialize)]
struct Claims {
    iss: Option<String>,
    aud: Option<Audience>,
    sub: Option<Id>,
    exp: f64,
    nbf: Option<f64>,
    jti: Option<String>,
    sid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<Id>,
    #[serde(rename = "profile.id")]
    profile_id: Option<Id>,
    profile: Option<Profile>,
    #[serde(default, deserialize_with = "is_there")]
    events: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Signed(i64),
    Unsigned(u64),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Profile {
    With { id: Id },
    Other(IgnoredAny),
}

impl Id {
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Signed(number) => Some(number.to_string()),
            Self::Unsigned(number) => Some(number.to_string()),
            Self::Other(_) => None,
        }
    }
}

impl Audience {
    fn has(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Many(many) => many.iter().any(|one| one == name),
            Self::Other(_) => false,
        }
    }
}

/// That a field is there, whatever it is.
fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// How many members all objects in it have.
fn members(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(members).sum(),
        Value::Object(object) => object.len() + object.values().map(members).sum::<usize>(),
        _ => 0,
    }
}

/// How many colons there are outside of strings.
fn colons(json: &str) -> usize {
    let (mut count, mut in_string, mut bytes) = (0, false, json.bytes());
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            // What is escaped, a quote perhaps.
            b'\\' => drop(bytes.next()),
            b':' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}
