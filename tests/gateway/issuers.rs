//! Keys that issuers publish: fetched, refreshed, rotated, and kept while the issuer is ill.

use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use wsgate::config::Issuer;

use crate::support::issuer::{Answer, PublishedKeys};
use crate::support::tokens::Key;
use crate::support::{Server, within_reason};

/// A gateway that trusts the issuer at a place.
async fn trusting(keys: &PublishedKeys) -> Server {
    let issuer = Issuer { issuer: Some(keys.url()), jwks_url: Some(keys.jwks_url()), ..Issuer::default() };
    let server = Server::configured(|config| {
        config.issuers = vec![issuer];
        // Hours pass here, and nobody answers pings in between.
        config.limits.ping_interval = Duration::from_secs(7 * 24 * 3600);
    })
    .await;
    keys.asked_at_least(1).await;
    server
}

fn token(server: &Server, keys: &PublishedKeys, key: &Key, kid: &str) -> String {
    key.sign(Some(kid), &json!({"iss": keys.url(), "sub": "alice", "exp": server.unix().as_secs() + 86400 * 3}))
}

/// What comes of connecting: the welcome, or the close code.
async fn outcome(server: &Server, token: &str) -> Result<(), u16> {
    let mut client = server.dial(&format!("?token={token}")).await;
    match client.receive().await["type"].as_str().unwrap() {
        "welcome" => Ok(()),
        "closing" => Err(client.next().await.unwrap_err().0),
        other => panic!("{other}"),
    }
}

/// Moves the clock by steps until the issuer's keys are so.
async fn pass_until(server: &Server, step: Duration, keys_are: impl Fn(&Value) -> bool) {
    within_reason("the keys to be otherwise", async {
        while !keys_are(&ready(server).await.1) {
            server.pass(step);
        }
    })
    .await;
}

fn has_failed(keys: &Value) -> bool {
    keys["problem"].is_string()
}

async fn ready(server: &Server) -> (u16, Value) {
    let (status, mut answer) = server.api("GET", "/health/ready", "").await;
    (status, answer["issuers"][0].take())
}

#[tokio::test]
async fn a_token_that_a_published_key_has_signed_is_welcome_as_soon_as_the_keys_are_there() {
    let key = Key::new(Algorithm::ES256);
    let keys = PublishedKeys::start(vec![key.jwk("1")]).await;
    let server = trusting(&keys).await;
    assert_eq!(outcome(&server, &token(&server, &keys, &key, "1")).await, Ok(()));
    assert_eq!(keys.asked(), 1);
    assert_eq!(ready(&server).await, (200, json!({"issuer": keys.url(), "keys": 1, "age_seconds": 0})));
}

#[tokio::test]
async fn a_new_key_is_found_by_the_first_token_that_names_it_and_nobody_is_disconnected() {
    let (old, new) = (Key::new(Algorithm::ES256), Key::new(Algorithm::EdDSA));
    let keys = PublishedKeys::start(vec![old.jwk("old")]).await;
    let server = trusting(&keys).await;
    let mut alice = server.dial(&format!("?token={}", token(&server, &keys, &old, "old"))).await;
    assert_eq!(alice.receive().await["type"], "welcome");

    // Side by side, then the new one alone.
    keys.publishes(vec![old.jwk("old"), new.jwk("new")]);
    server.pass(Duration::from_secs(5));
    assert_eq!(outcome(&server, &token(&server, &keys, &new, "new")).await, Ok(()));
    assert_eq!(outcome(&server, &token(&server, &keys, &old, "old")).await, Ok(()));
    assert_eq!(keys.asked(), 2);
    keys.publishes(vec![new.jwk("new")]);
    pass_until(&server, Duration::from_secs(60), |_| keys.asked() == 3).await;
    pass_until(&server, Duration::ZERO, |keys| keys["keys"] == 1).await;
    server.pass(Duration::from_secs(5));
    assert_eq!(outcome(&server, &token(&server, &keys, &old, "old")).await, Err(4401));
    alice.is_heard().await;
}

#[tokio::test]
async fn unknown_keys_cannot_make_us_hammer_the_issuer() {
    let key = Key::new(Algorithm::ES256);
    let keys = PublishedKeys::start(vec![key.jwk("1")]).await;
    let server = trusting(&keys).await;
    assert_eq!(outcome(&server, &token(&server, &keys, &key, "1")).await, Ok(()));
    let mut waiting = Vec::new();
    for number in 0..20 {
        let token = token(&server, &keys, &key, &format!("unknown {number}"));
        let mut client = server.dial(&format!("?token={token}")).await;
        waiting.push(tokio::spawn(async move { client.closed().await.0 }));
    }
    // They wait for the next fetch that may be, all for the same.
    assert_eq!(outcome(&server, &token(&server, &keys, &key, "1")).await, Ok(()));
    assert_eq!(keys.asked(), 1);
    for client in waiting {
        pass_until(&server, Duration::from_secs(1), |_| client.is_finished()).await;
        assert_eq!(client.await.unwrap(), 4401);
    }
    assert!(keys.asked() <= 3, "{}", keys.asked());
}

#[tokio::test]
async fn the_last_good_keys_serve_through_an_outage_up_to_a_limit_that_readiness_shows() {
    let key = Key::new(Algorithm::ES256);
    let keys = PublishedKeys::start(vec![key.jwk("1")]).await;
    let server = trusting(&keys).await;
    assert_eq!(outcome(&server, &token(&server, &keys, &key, "1")).await, Ok(()));
    keys.dies();
    pass_until(&server, Duration::from_secs(60), has_failed).await;
    for _ in 0..22 {
        server.pass(Duration::from_secs(3600));
        assert_eq!(outcome(&server, &token(&server, &keys, &key, "1")).await, Ok(()));
    }
    let (status, issuer) = ready(&server).await;
    assert_eq!((status, &issuer["keys"]), (200, &json!(1)));
    assert!(issuer["problem"].as_str().unwrap().contains(&keys.address.to_string()), "{issuer}");
    // A key that may be new cannot be looked for: come back later.
    let token_of_tomorrow = token(&server, &keys, &key, "2");
    let mut client = server.dial(&format!("?token={token_of_tomorrow}")).await;
    let closed = tokio::spawn(async move { client.closed().await.0 });
    pass_until(&server, Duration::from_secs(1), |_| closed.is_finished()).await;
    assert_eq!(closed.await.unwrap(), 4503);
    server.pass(Duration::from_secs(2 * 3600));
    let (status, issuer) = ready(&server).await;
    assert_eq!((status, &issuer["keys"]), (503, &json!(0)));
}

#[tokio::test]
async fn lies_replace_no_good_keys() {
    let (key, other) = (Key::new(Algorithm::ES256), Key::new(Algorithm::ES256));
    let keys = PublishedKeys::start(vec![key.jwk("1")]).await;
    let server = trusting(&keys).await;
    let mut bad = other.jwk("1");
    bad["kty"] = json!("RSA");
    let mut for_encryption = other.jwk("1");
    for_encryption["use"] = json!("enc");
    let secret = json!({"kty": "oct", "kid": "1", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"});
    let lies = [
        Answer::Text("<html>Sign in to the network</html>".to_owned()),
        Answer::Text("{}".to_owned()),
        Answer::Text(format!("{{\"keys\":[{}]}}", "[".repeat(100_000))),
        Answer::Text(" ".repeat(300_000)),
        Answer::Keys(vec![], ""),
        Answer::Keys(vec![bad], ""),
        Answer::Keys(vec![for_encryption], ""),
        Answer::Keys(vec![secret], ""),
        Answer::Redirect("http://example.com/keys".to_owned()),
        Answer::Redirect("/jwks".to_owned()),
    ];
    for (index, lie) in lies.into_iter().enumerate() {
        keys.answers(lie);
        pass_until(&server, Duration::from_secs(60), has_failed).await;
        assert_eq!(outcome(&server, &token(&server, &keys, &key, "1")).await, Ok(()), "lie {index}");
        keys.publishes(vec![key.jwk("1")]);
        pass_until(&server, Duration::from_secs(60), |keys| !has_failed(keys)).await;
    }
}

#[tokio::test]
async fn an_issuer_that_stalls_is_given_up_and_asked_again() {
    let key = Key::new(Algorithm::ES256);
    let keys = PublishedKeys::start(vec![]).await;
    keys.answers(Answer::Silence);
    let server = trusting(&keys).await;
    let mut client = server.dial(&format!("?token={}", token(&server, &keys, &key, "1"))).await;
    let first = tokio::spawn(async move { client.closed().await.0 });
    server.pass(Duration::from_secs(5));
    pass_until(&server, Duration::from_secs(1), |_| first.is_finished()).await;
    assert_eq!(first.await.unwrap(), 4503);
    assert_eq!(ready(&server).await.0, 503);
    keys.publishes(vec![key.jwk("1")]);
    pass_until(&server, Duration::from_secs(5), |keys| keys["keys"] == 1).await;
    assert_eq!(outcome(&server, &token(&server, &keys, &key, "1")).await, Ok(()));
}

#[tokio::test]
async fn the_issuer_says_for_how_long_its_keys_are_good() {
    let key = Key::new(Algorithm::ES256);
    let keys = PublishedKeys::start(vec![]).await;
    keys.answers(Answer::Keys(vec![key.jwk("1")], "cache-control: max-age=3600\r\nage: 600\r\n"));
    let server = trusting(&keys).await;
    assert_eq!(outcome(&server, &token(&server, &keys, &key, "1")).await, Ok(()));
    server.pass(Duration::from_secs(2990));
    assert_eq!(outcome(&server, &token(&server, &keys, &key, "1")).await, Ok(()));
    assert_eq!(keys.asked(), 1);
    server.pass(Duration::from_secs(20));
    keys.asked_at_least(2).await;
}

#[tokio::test]
async fn keys_are_not_stale_as_long_as_the_issuer_says_that_they_are_good() {
    let key = Key::new(Algorithm::ES256);
    let keys = PublishedKeys::start(vec![]).await;
    keys.answers(Answer::Keys(vec![key.jwk("1")], "cache-control: max-age=7200\r\n"));
    let issuer = Issuer { issuer: Some(keys.url()), jwks_url: Some(keys.jwks_url()), ..Issuer::default() };
    let server = Server::configured(|config| {
        config.issuers = vec![issuer];
        config.limits.keys_max_stale = Duration::from_secs(60);
    })
    .await;
    keys.asked_at_least(1).await;
    assert_eq!(outcome(&server, &token(&server, &keys, &key, "1")).await, Ok(()));
    server.pass(Duration::from_secs(7100));
    assert_eq!(outcome(&server, &token(&server, &keys, &key, "1")).await, Ok(()));
    keys.dies();
    server.pass(Duration::from_secs(161));
    assert_eq!(ready(&server).await.0, 503);
}

#[tokio::test]
async fn an_issuer_is_discovered_by_its_own_document_and_by_no_others() {
    let key = Key::new(Algorithm::ES256);
    let keys = PublishedKeys::start(vec![key.jwk("1")]).await;
    let issuer = || Issuer { issuer: Some(keys.url()), discover: true, ..Issuer::default() };
    let server = Server::configured(|config| config.issuers = vec![issuer()]).await;
    keys.asked_at_least(1).await;
    assert_eq!(outcome(&server, &token(&server, &keys, &key, "1")).await, Ok(()));

    keys.calls_itself("https://somebody.else.example");
    let server = Server::configured(|config| config.issuers = vec![issuer()]).await;
    while ready(&server).await.1["problem"] == "they have not been fetched yet"
        || ready(&server).await.1["problem"].is_null()
    {
        tokio::task::yield_now().await;
    }
    let problem = ready(&server).await.1["problem"].as_str().unwrap().to_owned();
    assert!(problem.contains("https://somebody.else.example"), "{problem}");
    assert_eq!(keys.asked(), 1, "the keys of a document that is another's are not fetched");
}

#[tokio::test]
async fn two_issuers_with_keys_of_one_id_are_not_mistaken_for_each_other() {
    let (one, other) = (Key::new(Algorithm::ES256), Key::new(Algorithm::ES256));
    let (first, second) =
        (PublishedKeys::start(vec![one.jwk("1")]).await, PublishedKeys::start(vec![other.jwk("1")]).await);
    let issuer = |keys: &PublishedKeys, prefix: &str| Issuer {
        issuer: Some(keys.url()),
        jwks_url: Some(keys.jwks_url()),
        user_prefix: prefix.to_owned(),
        ..Issuer::default()
    };
    let server = Server::configured(|config| config.issuers = vec![issuer(&first, "a:"), issuer(&second, "b:")]).await;
    first.asked_at_least(1).await;
    second.asked_at_least(1).await;
    assert_eq!(outcome(&server, &token(&server, &first, &one, "1")).await, Ok(()));
    assert_eq!(outcome(&server, &token(&server, &second, &other, "1")).await, Ok(()));
    assert_eq!(outcome(&server, &token(&server, &first, &other, "1")).await, Err(4401));
    assert_eq!(outcome(&server, &token(&server, &second, &one, "1")).await, Err(4401));
    let mut alice = server.dial(&format!("?token={}", token(&server, &second, &other, "1"))).await;
    assert_eq!(alice.receive().await["user"], "b:alice");
}
