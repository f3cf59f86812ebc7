//! Tokens in the shape that well-known issuers give them, under the configuration that
//! `docs/identity.md` has for each.

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use wsgate::auth::Reason;
use wsgate::config::{File, Issuer};

use crate::support::Server;
use crate::support::issuer::PublishedKeys;
use crate::support::tokens::{Key, rsa};

const IDENTITY: &str = include_str!("../../docs/identity.md");

/// The configuration that the document has under a heading.
fn documented(heading: &str) -> Issuer {
    let section = IDENTITY.split_once(&format!("### {heading}\n")).unwrap().1;
    let snippet = section.split_once("```toml\n").unwrap().1.split_once("```").unwrap().0;
    let mut file: File = snippet.parse().unwrap_or_else(|error| panic!("{heading}: {error}"));
    assert_eq!(file.issuers.len(), 1);
    file.issuers.remove(0)
}

/// Connects with a token of these claims, and then without one of them or with another value: each
/// of these must be refused.
async fn works(heading: &str, key: &Key, claims: &Value, user: &str, wrong: &[(&str, Value)]) {
    let mut issuer = documented(heading);
    let keys = PublishedKeys::start(vec![key.jwk("key-1")]).await;
    // The same, but for the place.
    assert!(issuer.discover || issuer.jwks_url.as_deref().is_some_and(|url| url.starts_with("https://")));
    (issuer.discover, issuer.jwks_url) = (false, Some(keys.jwks_url()));
    issuer.keys.clear();
    let iss = issuer.issuer.clone().unwrap();
    let server = Server::configured(|config| config.issuers = vec![issuer]).await;
    let now = server.unix().as_secs();
    let token = |change: Option<&(&str, Value)>| {
        let mut claims = claims.clone();
        (claims["iss"], claims["iat"], claims["exp"]) = (json!(iss), json!(now), json!(now + 60));
        if let Some((name, value)) = change {
            claims[*name] = value.clone();
        }
        key.sign(Some("key-1"), &claims)
    };
    let mut client = server.dial(&format!("?token={}", token(None))).await;
    let welcome = client.receive().await;
    assert_eq!(welcome["user"], user, "{heading}: {welcome}");
    client.join("lobby").await;
    for change in wrong {
        let mut client = server.dial(&format!("?token={}", token(Some(change)))).await;
        assert_eq!(client.closed().await.0, 4401, "{heading}: {change:?}");
    }
}

#[tokio::test]
async fn auth0() {
    let claims = json!({
        "https://example.com/roles": ["admin"],
        "sub": "auth0|65f0c1d2e3a4b5c6d7e8f901",
        "aud": ["https://chat.example.com", "https://YOUR-TENANT.eu.auth0.com/userinfo"],
        "azp": "Yn2Qc0xkTq8Jv1sK", "scope": "openid profile email", "permissions": ["read:chat"],
    });
    let wrong = [("aud", json!("https://other.example.com")), ("iss", json!("https://YOUR-TENANT.eu.auth0.com"))];
    works("Auth0", &rsa()[0], &claims, "auth0|65f0c1d2e3a4b5c6d7e8f901", &wrong).await;
}

#[tokio::test]
async fn keycloak() {
    let claims = json!({
        "auth_time": 1_790_000_000, "jti": "onrtac:0b1c5a3f-6b0a-4f0e-9f0a-6f1f6f1f6f1f", "aud": "account",
        "sub": "f3c9a1de-52a1-4c52-8d58-0c7a4d0e3b11", "typ": "Bearer", "azp": "YOUR-CLIENT",
        "sid": "8f4c6c0e-3b7e-4d5e-9a52-1f7a3a0d9b10", "acr": "1", "allowed-origins": ["https://app.example.com"],
        "realm_access": {"roles": ["offline_access", "uma_authorization"]},
        "resource_access": {"account": {"roles": ["manage-account", "view-profile"]}},
        "scope": "openid email profile", "email_verified": true, "preferred_username": "alice",
    });
    let wrong = [("typ", json!("ID")), ("azp", json!("other")), ("typ", json!("Refresh"))];
    works("Keycloak", &rsa()[0], &claims, "f3c9a1de-52a1-4c52-8d58-0c7a4d0e3b11", &wrong).await;
}

#[tokio::test]
async fn supabase() {
    let claims = json!({
        "aud": "authenticated", "sub": "4d0e3b11-52a1-4c52-8d58-0c7a4d0e3b11", "email": "alice@example.com", "phone": "",
        "app_metadata": {"provider": "email", "providers": ["email"]}, "user_metadata": {}, "role": "authenticated",
        "aal": "aal1", "amr": [{"method": "password", "timestamp": 1_790_000_000}],
        "session_id": "0c7a4d0e-52a1-4c52-8d58-3b114d0e3b11", "is_anonymous": false,
    });
    let key = Key::new(Algorithm::ES256);
    works("Supabase", &key, &claims, "4d0e3b11-52a1-4c52-8d58-0c7a4d0e3b11", &[("aud", json!("anon"))]).await;
    assert_eq!(documented("Supabase").keys[0].secret_env.as_deref(), Some("SUPABASE_JWT_SECRET"));
}

#[tokio::test]
async fn firebase() {
    let claims = json!({
        "name": "Alice", "aud": "YOUR-PROJECT", "auth_time": 1_790_000_000, "user_id": "q1w2e3r4t5y6u7i8o9p0a1s2d3f4",
        "sub": "q1w2e3r4t5y6u7i8o9p0a1s2d3f4", "email": "alice@example.com", "email_verified": false,
        "firebase": {"identities": {"email": ["alice@example.com"]}, "sign_in_provider": "password"},
    });
    works("Firebase", &rsa()[0], &claims, "q1w2e3r4t5y6u7i8o9p0a1s2d3f4", &[("aud", json!("another-project"))]).await;
}

#[tokio::test]
async fn clerk() {
    let claims = json!({
        "azp": "https://app.example.com", "fva": [0, -1], "nbf": 1_790_000_000, "sid": "sess_2aBcDeFgHiJkLmNoPqRsTuVwXyZ",
        "sts": "active", "sub": "user_2aBcDeFgHiJkLmNoPqRsTuVwXyZ", "v": 2,
    });
    works("Clerk", &rsa()[0], &claims, "user_2aBcDeFgHiJkLmNoPqRsTuVwXyZ", &[("azp", json!("https://evil.example"))])
        .await;
}

#[tokio::test]
async fn cognito() {
    let claims = json!({
        "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "device_key": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "cognito:groups": ["admin"], "token_use": "access", "scope": "aws.cognito.signin.user.admin",
        "auth_time": 1_790_000_000, "version": 2, "jti": "bbbbbbbb-bbbb-cccc-dddd-eeeeeeeeeeee",
        "origin_jti": "cccccccc-bbbb-cccc-dddd-eeeeeeeeeeee", "client_id": "YOUR-APP-CLIENT", "username": "alice",
    });
    let wrong = [("token_use", json!("id")), ("client_id", json!("other"))];
    works("Cognito", &rsa()[0], &claims, "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", &wrong).await;
}

#[tokio::test]
async fn a_users_id_and_grants_may_be_in_claims_of_ones_own() {
    let file: File = r#"
        [[issuers]]
        user_claim = "https://example.com/claims.uid"
        user_prefix = "acme:"
        grants_claim = "https://example.com/claims.rooms"
        grants = { "lobby" = ["join"] }
        keys = [{ secret = "a-secret-for-tests-that-is-long-enough" }]
    "#
    .parse()
    .unwrap();
    let server = Server::configured(|config| config.issuers = file.issuers).await;
    let key = Key { algorithm: Algorithm::HS256, private: crate::support::JWT_SECRET.to_owned() };
    let claims = json!({"uid": 42, "rooms": {"chat:*": ["join"]}});
    let exp = server.unix().as_secs() + 60;
    let token = key.sign(None, &json!({"sub": "ignored", "exp": exp, "https://example.com/claims": claims}));
    let mut client = server.dial(&format!("?token={token}")).await;
    assert_eq!(client.receive().await["user"], "acme:42");
    client.join("chat:1").await;
    client.join("lobby").await;
    assert_eq!(client.request(json!({"type": "join", "room": "news"})).await["code"], "forbidden");
}

#[test]
fn every_snippet_can_be_read_and_every_reason_and_setting_is_listed() {
    let snippets: Vec<&str> =
        IDENTITY.split("```toml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert!(snippets.len() >= 8, "{}", snippets.len());
    for snippet in snippets {
        snippet.parse::<File>().unwrap_or_else(|error| panic!("{error}\n{snippet}"));
    }
    for reason in Reason::ALL {
        assert!(IDENTITY.contains(&format!("| `{reason}` |")), "{reason}");
    }
    let source = include_str!("../../src/config/issuer.rs");
    for (structure, heading) in [("pub struct Issuer {", "in `[[issuers]]`"), ("pub struct KeySource {", "in `keys`")] {
        let body = source.split_once(structure).unwrap().1.split_once("\n}").unwrap().0;
        let fields =
            body.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':')).map(|(name, _)| name);
        let table = IDENTITY.split_once(heading).unwrap().1.split_once("\n\n").unwrap().0;
        for field in fields {
            assert!(table.contains(&format!("`{field}`")), "{field}");
        }
    }
}
