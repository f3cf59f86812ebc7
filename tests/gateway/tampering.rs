//! No change of a valid token is accepted, whatever it is and whoever has signed it.

use std::sync::OnceLock;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use proptest::prelude::*;
use serde_json::json;
use tokio::runtime::Runtime;
use wsgate::auth::Verifier;
use wsgate::config::{Issuer, KeySource};
use wsgate::{Clock, Config, Secret};

use crate::support::API_KEY;
use crate::support::tokens::{Key, TempFile, rsa};

/// A verifier, and two valid tokens of each family.
struct Valid {
    verifier: Verifier,
    tokens: Vec<[String; 2]>,
    runtime: Runtime,
}

fn valid() -> &'static Valid {
    static VALID: OnceLock<Valid> = OnceLock::new();
    VALID.get_or_init(|| {
        let (hs256, es256) = (Key::new(Algorithm::HS256), Key::new(Algorithm::ES256));
        let keys = [hs256.clone(), rsa()[0].clone(), es256, Key::new(Algorithm::EdDSA)];
        let (clock, _stands_still) = Clock::manual();
        let exp = (clock.unix() + Duration::from_secs(60)).as_secs();
        let tokens = keys.iter().map(|key| {
            ["alice", "bob"].map(|user| key.sign(None, &json!({"sub": user, "exp": exp, "grants": {"*": ["join"]}})))
        });
        let jwks: Vec<_> = keys.iter().skip(1).map(|key| key.jwk("1")).collect();
        let file = TempFile::new("jwks.json", &json!({ "keys": jwks }).to_string());
        let secret = KeySource { secret: Some(Secret::new(&hs256.private)), ..KeySource::default() };
        let published = KeySource { jwks_file: Some(file.0.clone()), ..KeySource::default() };
        let mut config = Config::new(Secret::new("unused"), Secret::new(API_KEY));
        config.issuers = vec![Issuer { keys: vec![secret, published], ..Issuer::default() }];
        config.clock = clock;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Valid { verifier: Verifier::new(&config).unwrap(), tokens: tokens.collect(), runtime }
    })
}

/// One change of a text: at a place, so many characters are replaced by others.
#[derive(Debug, Clone)]
struct Change {
    place: prop::sample::Index,
    taken: usize,
    put: String,
}

fn change() -> impl Strategy<Value = Change> {
    let letters = prop_oneof!["[A-Za-z0-9_-]{0,3}", "[A-Za-z0-9_.=+/ -]{0,3}", ".{0,2}"];
    (any::<prop::sample::Index>(), 0..4_usize, letters).prop_map(|(place, taken, put)| Change { place, taken, put })
}

fn changed(token: &str, changes: &[Change]) -> String {
    let mut token: Vec<char> = token.chars().collect();
    for Change { place, taken, put } in changes {
        let place = place.index(token.len() + 1);
        let end = (place + taken).min(token.len());
        token.splice(place..end, put.chars());
    }
    token.into_iter().collect()
}

fn is_accepted(token: &str) -> bool {
    let valid = valid();
    valid.runtime.block_on(valid.verifier.verify(token)).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_change_of_a_valid_token_is_accepted(
        family in 0..4_usize, which in 0..2_usize, changes in prop::collection::vec(change(), 1..4)
    ) {
        let token = &valid().tokens[family][which];
        let tampered = changed(token, &changes);
        prop_assert_eq!(is_accepted(&tampered), tampered == *token, "{}", tampered);
    }

    #[test]
    fn no_parts_of_two_valid_tokens_make_a_third(
        families in prop::array::uniform3(0..4_usize), which in prop::array::uniform3(0..2_usize)
    ) {
        let part = |index: usize| valid().tokens[families[index]][which[index]].split('.').nth(index).unwrap();
        let made = format!("{}.{}.{}", part(0), part(1), part(2));
        let is_one = valid().tokens.iter().flatten().any(|token| *token == made);
        prop_assert_eq!(is_accepted(&made), is_one, "{}", made);
    }

    #[test]
    fn nothing_that_a_stranger_can_think_of_is_a_token(text in prop_oneof![".*", r"[A-Za-z0-9_-]{0,60}\.[A-Za-z0-9_-]{0,60}\.[A-Za-z0-9_-]{0,60}"]) {
        prop_assert!(!is_accepted(&text));
    }
}
