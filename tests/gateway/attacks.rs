//! Tokens that must not be accepted, each with the reason that it must meet.

use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use wsgate::auth::{Reason, Verifier};
use wsgate::config::{Issuer, KeySource};
use wsgate::{Clock, Config, ManualClock, Secret};

use crate::support::tokens::{Key, TempFile, part, rsa};
use crate::support::{API_KEY, Server};

/// One algorithm family: an issuer of its own, its key, and a key of the same kind that is not ours.
struct Family {
    name: &'static str,
    key: Key,
    stranger: Key,
}

const AUDIENCE: &str = "chat";

impl Family {
    fn all() -> Vec<Self> {
        let rsa_as = |algorithm| rsa().clone().map(|key| Key { algorithm, ..key });
        let fresh = |algorithm| [Key::new(algorithm), Key::new(algorithm)];
        [
            ("hs256", fresh(Algorithm::HS256)),
            ("hs384", fresh(Algorithm::HS384)),
            ("hs512", fresh(Algorithm::HS512)),
            ("rs256", rsa_as(Algorithm::RS256)),
            ("rs384", rsa_as(Algorithm::RS384)),
            ("rs512", rsa_as(Algorithm::RS512)),
            ("ps256", rsa_as(Algorithm::PS256)),
            ("ps384", rsa_as(Algorithm::PS384)),
            ("ps512", rsa_as(Algorithm::PS512)),
            ("es256", fresh(Algorithm::ES256)),
            ("es384", fresh(Algorithm::ES384)),
            ("eddsa", fresh(Algorithm::EdDSA)),
        ]
        .map(|(name, [key, stranger])| Self { name, key, stranger })
        .into()
    }

    fn kid(&self) -> String {
        format!("key of {}", self.name)
    }

    fn iss(&self) -> String {
        format!("https://{}.example", self.name)
    }

    fn issuer(&self, file: &TempFile) -> Issuer {
        let algorithm = Some(self.key.algorithm);
        let kid = Some(self.kid());
        let key = if self.key.is_secret() {
            KeySource { secret: Some(Secret::new(&self.key.private)), algorithm, kid, ..KeySource::default() }
        } else {
            let mut jwk = self.key.jwk(&self.kid());
            jwk["alg"] = json!(format!("{:?}", self.key.algorithm));
            std::fs::write(&file.0, json!({ "keys": [jwk] }).to_string()).unwrap();
            KeySource { jwks_file: Some(file.0.clone()), algorithm, ..KeySource::default() }
        };
        let (issuer, audience) = (Some(self.iss()), vec![AUDIENCE.to_owned()]);
        Issuer { issuer, audience, keys: vec![key], ..Issuer::default() }
    }

    fn header(&self) -> Value {
        json!({"alg": format!("{:?}", self.key.algorithm), "typ": "JWT", "kid": self.kid()})
    }

    fn claims(&self, now: Duration) -> Value {
        json!({"iss": self.iss(), "aud": AUDIENCE, "sub": "alice", "exp": now.as_secs() + 60, "jti": "1"})
    }
}

struct Table {
    now: Duration,
    cases: Vec<(String, String, Reason)>,
}

impl Table {
    fn add(&mut self, family: &Family, what: &str, token: String, reason: Reason) {
        self.cases.push((format!("{}: {what}", family.name), token, reason));
    }

    /// Rightly signed, with another header.
    fn header(&mut self, family: &Family, what: &str, name: &str, value: Value, reason: Reason) {
        let mut header = family.header();
        header[name] = value;
        let token = family.key.sign_text(&header.to_string(), &family.claims(self.now).to_string());
        self.add(family, &format!("header {what}"), token, reason);
    }

    /// Rightly signed, with another claim; `null` takes it away, and a claim that is to be `null`
    /// is given as text.
    fn claim(&mut self, family: &Family, name: &str, value: Value, reason: Reason) {
        let mut claims = family.claims(self.now);
        let what = format!("claim {name}: {value}");
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value,
        }
        let claims = claims.to_string().replace("\"<null>\"", "null");
        self.add(family, &what, family.key.sign_text(&family.header().to_string(), &claims), reason);
    }

    /// Everything that is the same for all families.
    fn fill(&mut self, family: &Family, other: &Family) {
        self.signatures(family);
        self.algorithms(family, other);
        self.headers(family);
        self.claims(family, other);
        self.spellings(family);
    }

    fn signatures(&mut self, family: &Family) {
        let (header, claims) = (family.header().to_string(), family.claims(self.now).to_string());
        let good = family.key.sign_text(&header, &claims);
        let (message, signature) = good.rsplit_once('.').unwrap();
        let bad = Reason::BadSignature;
        self.add(family, "signed by a stranger", family.stranger.sign_text(&header, &claims), bad);
        self.add(family, "no signature", format!("{message}."), bad);
        let zeros = "A".repeat(signature.len());
        self.add(family, "a signature of zeros", format!("{message}.{zeros}"), bad);
        let half = &signature[..signature.len() / 8 * 4];
        self.add(family, "half a signature", format!("{message}.{half}"), bad);
        self.add(family, "a signature with more behind it", format!("{good}AAAA"), bad);
        let promoted = claims.replace("alice", "admin");
        self.add(family, "claims changed", format!("{}.{}.{signature}", part(&header), part(&promoted)), bad);
        let mut other_header = family.header();
        other_header["x"] = json!(1);
        let swapped = format!("{}.{}.{signature}", part(&other_header.to_string()), part(&claims));
        self.add(family, "header changed", swapped, bad);
    }

    fn algorithms(&mut self, family: &Family, other: &Family) {
        let reason = Reason::AlgorithmNotAllowed;
        let claims = family.claims(self.now).to_string();
        for none in ["none", "None", "NONE", "nOnE", "", "HS1", "ES256K", "RSA-OAEP", "hs256", "HS256 "] {
            let mut header = family.header();
            header["alg"] = json!(none);
            let token = format!("{}.{}.", part(&header.to_string()), part(&claims));
            self.add(family, &format!("alg {none:?}, unsigned"), token, reason);
        }
        // Another family's algorithm and key, under this family's name.
        let mut header = family.header();
        header["alg"] = json!(format!("{:?}", other.key.algorithm));
        self.add(family, "alg of another issuer's key", other.key.sign_text(&header.to_string(), &claims), reason);
        if family.key.is_secret() {
            return;
        }
        // What is public, used as a secret (CVE-2016-10555).
        let jwk = family.key.jwk(&family.kid());
        let n = jwk["n"].as_str().or(jwk["x"].as_str()).unwrap().to_owned();
        for (what, secret) in [("JWK", jwk.to_string()), ("modulus or point", n)] {
            let forger = Key { algorithm: Algorithm::HS256, private: secret };
            let mut header = family.header();
            header["alg"] = json!("HS256");
            let token = forger.sign_text(&header.to_string(), &claims);
            self.add(family, &format!("signed with the public {what} as a secret"), token, reason);
        }
    }

    fn headers(&mut self, family: &Family) {
        for crit in [json!(["exp"]), json!([]), json!(null), json!("exp"), json!(["b64"]), json!(1)] {
            self.header(family, &format!("crit {crit}"), "crit", crit, Reason::Critical);
        }
        self.header(family, "kid of nobody", "kid", json!("nobody"), Reason::UnknownKey);
        for kid in ["../../dev/null", "' OR 1=1 --", "", "key", "https://evil.example/k"] {
            self.header(family, &format!("kid {kid:?}"), "kid", json!(kid), Reason::UnknownKey);
        }
        self.header(family, "kid a number", "kid", json!(1), Reason::WrongType);
        self.header(family, "kid a list", "kid", json!([family.kid()]), Reason::WrongType);
        self.header(family, "alg a list", "alg", json!(["HS256"]), Reason::WrongType);
        self.header(family, "typ of a logout token", "typ", json!("logout+jwt"), Reason::WrongType);
        self.header(family, "typ of a proof", "typ", json!("dpop+jwt"), Reason::WrongType);
        // A key that comes along counts for nothing (CVE-2018-0114).
        if !family.stranger.is_secret() {
            let mut header = family.header();
            header["jwk"] = family.stranger.jwk("nobody");
            let token = family.stranger.sign_text(&header.to_string(), &family.claims(self.now).to_string());
            self.add(family, "a key of its own in jwk", token, Reason::BadSignature);
        }
        for place in ["jku", "x5u"] {
            let mut header = family.header();
            header[place] = json!("http://127.0.0.1:9/keys");
            let token = family.stranger.sign_text(&header.to_string(), &family.claims(self.now).to_string());
            self.add(family, &format!("a place of its own in {place}"), token, Reason::BadSignature);
        }
        let header = json!({"typ": "JWT", "kid": family.kid()}).to_string();
        let token = family.key.sign_text(&header, &family.claims(self.now).to_string());
        self.add(family, "no alg", token, Reason::Malformed);
    }

    fn claims(&mut self, family: &Family, other: &Family) {
        let now = self.now.as_secs();
        let (invalid, missing) = (Reason::InvalidClaim, Reason::MissingClaim);
        for (name, value, reason) in [
            ("exp", json!(null), missing),
            ("exp", json!("<null>"), invalid),
            ("exp", json!((now + 60).to_string()), invalid),
            ("exp", json!([now + 60]), invalid),
            ("exp", json!({}), invalid),
            ("exp", json!(true), invalid),
            ("exp", json!(-1), invalid),
            ("exp", json!((now + 60) * 1000), invalid),
            ("exp", json!(1e300), invalid),
            ("exp", json!(now), Reason::Expired),
            ("exp", json!(now - 1), Reason::Expired),
            ("exp", json!(0), Reason::Expired),
            ("nbf", json!(now + 6), Reason::NotYetValid),
            ("nbf", json!("soon"), invalid),
            ("nbf", json!("<null>"), invalid),
            ("iat", json!("today"), invalid),
            ("iat", json!("<null>"), invalid),
            ("sub", json!(null), missing),
            ("sub", json!("<null>"), invalid),
            ("sub", json!(""), invalid),
            ("sub", json!(1.5), invalid),
            ("sub", json!(true), invalid),
            ("sub", json!(["alice"]), invalid),
            ("sub", json!({"id": "alice"}), invalid),
            ("sub", json!("a\u{0}b"), invalid),
            ("sub", json!("a\nb"), invalid),
            ("sub", json!("a".repeat(129)), invalid),
            ("sub", json!("anonymous:1"), Reason::ReservedUser),
            ("iss", json!(null), Reason::UnknownIssuer),
            ("iss", json!("<null>"), invalid),
            ("iss", json!([family.iss()]), invalid),
            ("iss", json!(format!("{}.evil.com", family.iss())), Reason::UnknownIssuer),
            ("iss", json!(format!("{}/", family.iss())), Reason::UnknownIssuer),
            ("iss", json!(family.iss().to_uppercase()), Reason::UnknownIssuer),
            ("iss", json!(""), Reason::UnknownIssuer),
            ("aud", json!(null), missing),
            ("aud", json!("<null>"), invalid),
            ("aud", json!([]), Reason::WrongAudience),
            ("aud", json!("other"), Reason::WrongAudience),
            ("aud", json!("chat2"), Reason::WrongAudience),
            ("aud", json!("cha"), Reason::WrongAudience),
            ("aud", json!(["other", "Chat"]), Reason::WrongAudience),
            ("aud", json!(["chat", 1]), invalid),
            ("aud", json!({"chat": true}), invalid),
            ("jti", json!(1), invalid),
            ("sid", json!({}), invalid),
            ("grants", json!(["*"]), invalid),
            ("grants", json!({"*": ["jion"]}), invalid),
            ("grants", json!({"*": "join"}), invalid),
            ("events", json!({"http://schemas.openid.net/event/backchannel-logout": {}}), Reason::WrongType),
        ] {
            self.claim(family, name, value, reason);
        }
        // A token of one issuer under the name of another: whose it is decides which keys count.
        let mut claims = family.claims(self.now);
        claims["iss"] = json!(other.iss());
        self.add(family, "in another issuer's name", family.key.sign(Some(&family.kid()), &claims), Reason::UnknownKey);
        let reason = if family.key.algorithm == other.key.algorithm {
            Reason::BadSignature
        } else {
            Reason::AlgorithmNotAllowed
        };
        self.add(family, "in another issuer's and key's name", family.key.sign(Some(&other.kid()), &claims), reason);
    }

    fn spellings(&mut self, family: &Family) {
        let (header, claims) = (family.header().to_string(), family.claims(self.now).to_string());
        let good = family.key.sign_text(&header, &claims);
        let (message, signature) = good.rsplit_once('.').unwrap();
        let malformed = Reason::Malformed;
        for (what, token) in [
            ("padding", format!("{good}=")),
            ("a space before", format!(" {good}")),
            ("a line's end behind", format!("{good}\n")),
            ("a fourth part", format!("{good}.{signature}")),
            ("two parts", message.to_owned()),
            ("nothing", String::new()),
            ("dots", "..".to_owned()),
            (
                "JSON serialisation",
                json!({"payload": part(&claims), "protected": part(&header), "signature": signature}).to_string(),
            ),
            ("the other alphabet", format!("{message}.{}+/", &signature[..signature.len() - 2])),
            ("a letter that is none", format!("{message}.é{signature}")),
        ] {
            self.add(family, what, token, malformed);
        }
        // Rightly signed over what cannot be read, or can be read in two ways.
        for (what, header, claims) in [
            ("a claim twice", header.clone(), claims.replacen('{', r#"{"sub":"bob","#, 1)),
            ("a claim twice, once escaped", header.clone(), claims.replacen('{', r#"{"su\u0062":"bob","#, 1)),
            ("a name twice, deep inside", header.clone(), claims.replacen('{', r#"{"x":[{"a":{"b":1,"b":2}}],"#, 1)),
            ("alg twice", header.replacen('{', r#"{"alg":"none","#, 1), claims.clone()),
            ("claims that are a list", header.clone(), format!("[{claims}]")),
            ("claims with more behind them", header.clone(), format!("{claims}x")),
            ("claims with a byte order mark", header.clone(), format!("\u{feff}{claims}")),
            (
                "claims nested without end",
                header.clone(),
                claims.replacen('{', &format!(r#"{{"x":{}{},"#, "[".repeat(300), "]".repeat(300)), 1),
            ),
            ("a header that is a string", "\"HS256\"".to_owned(), claims.clone()),
            ("an empty header", String::new(), claims.clone()),
        ] {
            self.add(family, what, family.key.sign_text(&header, &claims), malformed);
        }
        let payload = [claims.as_bytes(), &[0xff]].concat();
        let payload = base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, payload);
        self.add(
            family,
            "claims that are not UTF-8",
            family.key.sign_message(&format!("{}.{payload}", part(&header))),
            malformed,
        );
        let long = claims.replacen('{', &format!(r#"{{"x":"{}","#, "y".repeat(8192)), 1);
        self.add(family, "longer than the limit", family.key.sign_text(&header, &long), Reason::TooLong);
    }
}

fn verifier(families: &[Family]) -> (Verifier, Clock, ManualClock) {
    let (clock, time) = Clock::manual();
    let mut config = Config::new(Secret::new("unused"), Secret::new(API_KEY));
    let files: Vec<TempFile> = families.iter().map(|family| TempFile::new(family.name, "{}")).collect();
    config.issuers = families.iter().zip(&files).map(|(family, file)| family.issuer(file)).collect();
    config.clock = clock.clone();
    (Verifier::new(&config).unwrap(), clock, time)
}

#[tokio::test]
#[allow(clippy::print_stdout, reason = "the table is worth seeing")]
async fn every_attack_meets_its_reason_and_nothing_else_is_refused() {
    let families = Family::all();
    let (verifier, clock, _time) = verifier(&families);
    let mut table = Table { now: clock.unix(), cases: Vec::new() };
    for (index, family) in families.iter().enumerate() {
        // What all attacks are made of is good, or else they would prove nothing.
        let good = family.key.sign(Some(&family.kid()), &family.claims(table.now));
        let identity = verifier.verify(&good).await.unwrap_or_else(|error| panic!("{}: {error}", family.name));
        assert_eq!(identity.user.as_str(), "alice");
        table.fill(family, &families[(index + 5) % families.len()]);
    }
    assert!(table.cases.len() > 1000, "{}", table.cases.len());
    let mut wrong = Vec::new();
    for (what, token, reason) in &table.cases {
        match verifier.verify(token).await {
            Err(error) if error.reason == *reason => println!("{what} → {reason}"),
            Err(error) => wrong.push(format!("{what}: {} ({error}), not {reason}", error.reason)),
            Ok(identity) => wrong.push(format!("{what}: ACCEPTED as {}", identity.user)),
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.cases.len(), wrong.join("\n"));
}

#[tokio::test]
async fn what_is_unusual_and_right_is_accepted() {
    let families = Family::all();
    let (verifier, clock, _time) = verifier(&families);
    let now = clock.unix();
    for family in &families {
        let sign = |change: &dyn Fn(&mut Value, &mut Value)| {
            let (mut header, mut claims) = (family.header(), family.claims(now));
            change(&mut header, &mut claims);
            family.key.sign_text(&header.to_string(), &claims.to_string())
        };
        for (what, token, user) in [
            ("a number", sign(&|_, claims| claims["sub"] = json!(42)), "42"),
            ("a large number", sign(&|_, claims| claims["sub"] = json!(u64::MAX)), "18446744073709551615"),
            ("a negative number", sign(&|_, claims| claims["sub"] = json!(-7)), "-7"),
            ("many audiences", sign(&|_, claims| claims["aud"] = json!(["other", "chat"])), "alice"),
            ("a fraction of a second", sign(&|_, claims| claims["exp"] = json!(now.as_secs_f64() + 0.5)), "alice"),
            ("nbf within the leeway", sign(&|_, claims| claims["nbf"] = json!(now.as_secs() + 5)), "alice"),
            ("no typ", sign(&|header, _| drop(header.as_object_mut().unwrap().remove("typ"))), "alice"),
            ("typ of RFC 9068", sign(&|header, _| header["typ"] = json!("at+JWT")), "alice"),
            ("no kid", sign(&|header, _| drop(header.as_object_mut().unwrap().remove("kid"))), "alice"),
            ("headers that are not read", sign(&|header, _| header["x5c"] = json!(7)), "alice"),
        ] {
            let identity =
                verifier.verify(&token).await.unwrap_or_else(|error| panic!("{} {what}: {error}", family.name));
            assert_eq!(identity.user.as_str(), user, "{} {what}", family.name);
        }
    }
}

#[tokio::test]
async fn over_the_wire_an_attack_ends_with_a_close_that_gives_nothing_away() {
    let families = Family::all();
    let files: Vec<TempFile> = families.iter().map(|family| TempFile::new(family.name, "{}")).collect();
    let server = Server::configured(|config| {
        config.issuers = families.iter().zip(&files).map(|(family, file)| family.issuer(file)).collect();
    })
    .await;
    for family in &families {
        let good = family.key.sign(Some(&family.kid()), &family.claims(server.unix()));
        let mut client = server.dial(&format!("?token={good}")).await;
        assert_eq!(client.receive().await["user"], "alice", "{}", family.name);
        let mut claims = family.claims(server.unix());
        claims["aud"] = json!("other");
        let foreign = family.key.sign(Some(&family.kid()), &claims);
        let mut client = server.dial(&format!("?token={foreign}")).await;
        assert_eq!(client.closed().await, (4401, "the token is not meant for this gateway".to_owned()));
        let forged = family.stranger.sign(Some(&family.kid()), &family.claims(server.unix()));
        let mut client = server.dial(&format!("?token={forged}")).await;
        assert_eq!(client.closed().await, (4401, "the token's signature is wrong".to_owned()));
    }
}

/// RFC 7515, A.1 and A.3. Their claims have no user, which is what is found wrong with them: behind
/// the signature.
#[tokio::test]
async fn the_examples_of_the_rfc_are_rightly_signed_and_one_letter_less_is_not() {
    const CLAIMS: &str =
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let secret = json!({"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"});
    let point = json!({
        "kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    });
    let file = TempFile::new("rfc.json", &json!({"keys": [secret, point]}).to_string());
    let mut config = Config::new(Secret::new("unused"), Secret::new(API_KEY));
    let published = KeySource { jwks_file: Some(file.0.clone()), ..KeySource::default() };
    config.issuers = vec![Issuer { keys: vec![published], ..Issuer::default() }];
    let verifier = Verifier::new(&config).unwrap();
    for (header, signature) in [
        ("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
        (
            "eyJhbGciOiJFUzI1NiJ9",
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
    ] {
        let error = verifier.verify(&format!("{header}.{CLAIMS}.{signature}")).await.unwrap_err();
        assert_eq!(error.reason, Reason::MissingClaim, "{error}");
        let error = verifier.verify(&format!("{header}.{CLAIMS}.A{}", &signature[1..])).await.unwrap_err();
        assert_eq!(error.reason, Reason::BadSignature, "{error}");
    }
}
