//! How long it takes to verify a token, by algorithm: `cargo run --release --example verify`.

#![allow(clippy::print_stdout, reason = "it is what this is for")]

use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;
use serde_json::json;
use wsgate::auth::{SigningKey, Verifier, generate};
use wsgate::config::{Issuer, KeySource};
use wsgate::{Clock, Config, Secret};

const ROUNDS: usize = 9;
const TOKENS: u32 = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("median of {ROUNDS} rounds of {TOKENS}: from the text to the identity, threads in between included");
    for algorithm in [HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA] {
        let (verifier, token) = prepare(algorithm)?;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let began = Instant::now();
            for _ in 0..TOKENS {
                runtime.block_on(verifier.verify(&token))?;
            }
            rounds.push(began.elapsed() / TOKENS);
        }
        rounds.sort_unstable();
        println!("{algorithm:?}: {:.1} µs", rounds.get(ROUNDS / 2).map_or(0.0, |time| time.as_nanos() as f64 / 1000.0));
    }
    Ok(())
}

/// A verifier with a key that has just been made, and a token that it has signed.
fn prepare(algorithm: Algorithm) -> Result<(Verifier, String), Box<dyn std::error::Error>> {
    let private = generate(algorithm)?;
    let (signer, key) = if matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) {
        let secret = Secret::new(&private);
        (SigningKey::secret(&secret, algorithm)?, KeySource { secret: Some(secret), ..KeySource::default() })
    } else {
        let signer = SigningKey::pem(private.as_bytes(), Some(algorithm))?;
        let file = std::env::temp_dir().join(format!("wsgate-verify-{}-{algorithm:?}.json", std::process::id()));
        std::fs::write(&file, json!({"keys": [signer.jwk()?]}).to_string())?;
        (signer, KeySource { jwks_file: Some(file), ..KeySource::default() })
    };
    let file = key.jwks_file.clone();
    let exp = (Clock::system().unix() + Duration::from_secs(3600)).as_secs();
    let token = signer.sign(&json!({
        "iss": "https://login.example.com", "sub": "alice", "aud": "chat", "exp": exp, "iat": exp - 3600,
        "jti": "0b1c5a3f-6b0a-4f0e-9f0a-6f1f6f1f6f1f", "grants": {"chat:*": ["join", "publish"]},
    }))?;
    let mut config = Config::new(Secret::new("unused"), Secret::new("unused as well"));
    let keys = vec![KeySource { algorithm: Some(algorithm), ..key }];
    let issuer = Some("https://login.example.com".to_owned());
    config.issuers = vec![Issuer { issuer, audience: vec!["chat".to_owned()], keys, ..Issuer::default() }];
    let verifier = Verifier::new(&config)?;
    if let Some(file) = file {
        std::fs::remove_file(file)?;
    }
    Ok((verifier, token))
}
