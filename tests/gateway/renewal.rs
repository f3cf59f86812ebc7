use std::time::Duration;

use serde_json::json;
use wsgate::Secret;
use wsgate::config::Issuer;

use crate::support::issuer::{Answer, PublishedKeys};
use crate::support::tokens::Key;
use crate::support::{Client, Server};

async fn renew(client: &mut Client, token: &str) -> serde_json::Value {
    client.request(json!({"type": "auth", "token": token})).await
}

#[tokio::test]
async fn a_renewal_keeps_the_connection_and_its_rooms_past_the_first_tokens_end() {
    let server = Server::start().await;
    let [mut alice] = server.members(["alice"], &["chat:1"]).await;
    server.pass(Duration::from_secs(3000));
    let fresh = server.token("alice", json!({"*": ["join", "publish"]}));
    assert_eq!(renew(&mut alice, &fresh).await["expires_in"], 3600);
    server.pass(Duration::from_secs(3000));
    assert_eq!(server.publish(json!({"to": {"room": "chat:1"}, "event": "still here"})).await, 1);
    assert_eq!(alice.event().await, "still here");
}

#[tokio::test]
async fn the_new_tokens_grants_hold_at_once() {
    let server = Server::start().await;
    let mut alice = server.connect("alice", json!({"a": ["join"]})).await;
    renew(&mut alice, &server.token("alice", json!({"b": ["join"]}))).await;
    assert_eq!(alice.request(json!({"type": "join", "room": "a"})).await["code"], "forbidden");
    alice.join("b").await;
}

#[tokio::test]
async fn a_renewal_may_also_shorten() {
    let server = Server::start().await;
    let mut alice = server.connect("alice", json!({})).await;
    let short = server.token_for("alice", json!({}), Duration::from_secs(10));
    assert_eq!(renew(&mut alice, &short).await["expires_in"], 10);
    server.pass(Duration::from_secs(11));
    assert_eq!(alice.closed().await.0, 4401);
}

#[tokio::test]
async fn another_users_token_or_a_bad_one_changes_nothing() {
    let server = Server::start().await;
    let mut alice = server.connect("alice", json!({"a": ["join"]})).await;
    let bobs = server.token("bob", json!({"b": ["join"]}));
    let old = server.token_for("alice", json!({}), Duration::ZERO);
    server.pass(Duration::from_secs(2));
    for (token, code) in [(bobs.as_str(), "wrong_user"), ("nonsense", "token_refused"), (&old, "token_refused")] {
        let answer = renew(&mut alice, token).await;
        assert_eq!((&answer["code"], &answer["field"]), (&json!(code), &json!("token")));
    }
    alice.join("a").await;
    assert_eq!(alice.request(json!({"type": "join", "room": "b"})).await["code"], "forbidden");
}

#[tokio::test]
async fn only_so_many_bad_tokens_are_tried() {
    let server = Server::start().await;
    let mut alice = server.connect("alice", json!({})).await;
    let bobs = server.token("bob", json!({}));
    for _ in 0..5 {
        assert_eq!(renew(&mut alice, "nonsense").await["code"], "token_refused");
        assert_eq!(renew(&mut alice, &bobs).await["code"], "wrong_user");
    }
    assert_eq!(renew(&mut alice, &server.token("alice", json!({}))).await["ok"], true);
    assert_eq!(renew(&mut alice, "nonsense").await["code"], "token_refused");
    assert_eq!(alice.closed().await.0, 4400);
}

#[tokio::test]
async fn the_end_is_announced_once_and_again_after_a_renewal() {
    let server = Server::start().await;
    let mut alice = server.connect("alice", json!({})).await;
    server.pass(Duration::from_secs(3540));
    alice.hears_nothing().await;
    server.pass(Duration::from_secs(1));
    assert_eq!(alice.receive().await, json!({"type": "expiring", "in": 59}));
    server.pass(Duration::from_secs(30));
    alice.hears_nothing().await;
    renew(&mut alice, &server.token("alice", json!({}))).await;
    server.pass(Duration::from_secs(3541));
    assert_eq!(alice.receive().await["type"], "expiring");
}

#[tokio::test]
async fn a_short_lived_token_is_announced_when_half_of_it_is_over() {
    let server = Server::start().await;
    let token = server.token_for("alice", json!({}), Duration::from_secs(20));
    let mut alice = server.dial(&format!("?token={token}")).await;
    assert_eq!(alice.receive().await["type"], "welcome");
    server.pass(Duration::from_secs(9));
    alice.hears_nothing().await;
    server.pass(Duration::from_secs(2));
    assert_eq!(alice.receive().await["type"], "expiring");
}

#[tokio::test]
async fn renewing_with_the_same_token_is_no_reason_to_announce_its_end_again() {
    let server = Server::start().await;
    let token = server.token_for("alice", json!({}), Duration::from_secs(20));
    let mut alice = server.dial(&format!("?token={token}")).await;
    assert_eq!(alice.receive().await["type"], "welcome");
    server.pass(Duration::from_secs(11));
    assert_eq!(alice.receive().await["type"], "expiring");
    renew(&mut alice, &token).await;
    server.pass(Duration::from_secs(9));
    alice.hears_nothing().await;
    // A longer one is announced, however little longer.
    renew(&mut alice, &server.token_for("alice", json!({}), Duration::from_secs(20))).await;
    server.pass(Duration::from_secs(11));
    assert_eq!(alice.receive().await["type"], "expiring");
}

#[tokio::test]
async fn an_expired_connection_is_closed_without_a_word_from_it() {
    let server = Server::start().await;
    let mut alice = server.connect("alice", json!({})).await;
    server.pass(Duration::from_secs(3600));
    assert_eq!(alice.receive().await, json!({"type": "expiring", "in": 0}));
    server.pass(Duration::from_secs(1));
    assert_eq!(alice.closed().await, (4401, "the token has expired".to_owned()));
}

#[tokio::test]
async fn a_request_after_the_end_is_not_acted_on_even_if_no_timer_has_fired() {
    let server = Server::start().await;
    let mut bob = server.connect("bob", json!({})).await;
    let fresh = server.token_for("alice", json!({}), Duration::from_secs(7200));
    for request in [
        json!({"type": "publish", "to": {"user": "bob"}, "event": "late"}),
        json!({"type": "auth", "token": fresh, "id": 1}),
    ] {
        let token = server.token_for("alice", json!({"*": ["publish"]}), Duration::from_secs(10));
        let mut alice = server.dial(&format!("?token={token}")).await;
        assert_eq!(alice.receive().await["type"], "welcome");
        server.set_clock_forward(Duration::from_secs(11));
        alice.send(&request.to_string()).await;
        assert_eq!(alice.closed().await.0, 4401);
    }
    bob.hears_nothing().await;
}

#[tokio::test]
async fn nothing_is_acted_on_after_the_end() {
    let server = Server::start().await;
    let mut bob = server.connect("bob", json!({"*": ["join"]})).await;
    bob.join("chat:1").await;
    let token = server.token_for("alice", json!({"*": ["join", "publish"]}), Duration::from_secs(10));
    let fresh = server.token("alice", json!({}));
    let mut alice = server.dial(&format!("?token={token}")).await;
    alice.receive().await;
    alice.join("chat:1").await;
    server.pass(Duration::from_secs(11));
    // Whether these arrive before or after the timer has fired: neither counts.
    for request in [
        json!({"type": "publish", "to": {"room": "chat:1"}, "event": "late", "id": 1}),
        json!({"type": "auth", "token": fresh, "id": 2}),
    ] {
        alice.send(&request.to_string()).await;
    }
    loop {
        match alice.next().await {
            Ok(text) => assert!(text.contains("expiring") || text.contains("closing"), "{text}"),
            Err((code, _)) => {
                assert_eq!(code, 4401);
                break;
            }
        }
    }
    bob.hears_nothing().await;
}

#[tokio::test]
async fn within_the_grace_period_a_connection_goes_on_and_can_be_renewed_and_after_it_ends() {
    let server = Server::with(|limits| limits.expiry_grace = Duration::from_secs(5)).await;
    let token = server.token_for("alice", json!({}), Duration::from_secs(10));
    let (mut alice, mut late) =
        (server.dial(&format!("?token={token}")).await, server.dial(&format!("?token={token}")).await);
    assert_eq!((&alice.receive().await["type"], &late.receive().await["type"]), (&json!("welcome"), &json!("welcome")));
    server.pass(Duration::from_secs(6));
    for client in [&mut alice, &mut late] {
        assert_eq!(client.receive().await["type"], "expiring");
    }
    server.pass(Duration::from_secs(6));
    assert_eq!(server.dial(&format!("?token={token}")).await.closed().await.0, 4401, "no grace for who comes late");
    assert_eq!(renew(&mut alice, &server.token("alice", json!({}))).await["ok"], true);
    late.hears_nothing().await;
    server.pass(Duration::from_secs(4));
    assert_eq!(late.closed().await.0, 4401);
    alice.hears_nothing().await;
}

#[tokio::test]
async fn a_connection_lives_no_longer_than_one_may_whatever_its_tokens_say() {
    let server = Server::with(|limits| limits.max_lifetime = Duration::from_secs(20)).await;
    let mut alice = server.connect("alice", json!({})).await;
    server.pass(Duration::from_secs(19));
    assert_eq!(renew(&mut alice, &server.token("alice", json!({}))).await["expires_in"], 3600);
    server.pass(Duration::from_secs(1));
    assert_eq!(alice.closed().await.0, 4505);
}

#[tokio::test]
async fn a_token_of_another_issuer_is_no_renewal_even_for_the_same_user() {
    let issuer =
        |name: &str, secret: &str| Issuer { issuer: Some(name.to_owned()), ..Issuer::with_secret(Secret::new(secret)) };
    let (one, other) = ("a-secret-of-the-first-issuer-for-tests", "a-secret-of-the-other-issuer-for-tests");
    let server = Server::configured(|config| config.issuers = vec![issuer("one", one), issuer("other", other)]).await;
    let token = |name: &str, secret: &str| {
        let key = Key { algorithm: jsonwebtoken::Algorithm::HS256, private: secret.to_owned() };
        key.sign(None, &json!({"iss": name, "sub": "alice", "exp": server.unix().as_secs() + 60}))
    };
    let mut alice = server.dial(&format!("?token={}", token("one", one))).await;
    assert_eq!(alice.receive().await["type"], "welcome");
    assert_eq!(renew(&mut alice, &token("other", other)).await["code"], "wrong_user");
    assert_eq!(renew(&mut alice, &token("other", one)).await["code"], "token_refused");
    assert_eq!(renew(&mut alice, &token("one", one)).await["ok"], true);
}

#[tokio::test]
async fn what_is_asked_after_a_renewal_is_answered_after_it_however_long_that_takes() {
    // A public key's signature is checked elsewhere: meanwhile nothing else is heard.
    let key = Key::new(jsonwebtoken::Algorithm::ES256);
    let keys = PublishedKeys::start(vec![key.jwk("1")]).await;
    let issuer = Issuer { issuer: Some(keys.url()), jwks_url: Some(keys.jwks_url()), ..Issuer::default() };
    let server = Server::configured(|config| config.issuers = vec![issuer]).await;
    keys.asked_at_least(1).await;
    let token = |grants: serde_json::Value| {
        let exp = server.unix().as_secs() + 60;
        key.sign(Some("1"), &json!({"iss": keys.url(), "sub": "alice", "exp": exp, "grants": grants}))
    };
    let mut alice = server.dial(&format!("?token={}", token(json!({})))).await;
    assert_eq!(alice.receive().await["type"], "welcome");
    for round in 0..20_i32 {
        let room = format!("room {round}");
        let grants = json!({&room: ["join"], format!("room {}", round - 1): ["join"]});
        let renewal = json!({"type": "auth", "token": token(grants), "id": "renewal"});
        alice.send(&renewal.to_string()).await;
        alice.send(&json!({"type": "join", "room": room, "id": "join"}).to_string()).await;
        assert_eq!(alice.receive().await["id"], "renewal");
        if round > 1 {
            assert_eq!(alice.receive().await["type"], "left", "the room before the last is granted no more");
        }
        assert_eq!(alice.receive().await["room"], json!(room));
    }
}

#[tokio::test]
async fn a_token_that_ends_while_its_renewal_is_looked_into_has_ended() {
    let key = Key::new(jsonwebtoken::Algorithm::ES256);
    let keys = PublishedKeys::start(vec![key.jwk("1")]).await;
    let named = Issuer { issuer: Some(keys.url()), jwks_url: Some(keys.jwks_url()), ..Issuer::default() };
    let server = Server::configured(|config| config.issuers.push(named)).await;
    keys.asked_at_least(1).await;
    let token = server.token_for("alice", json!({}), Duration::from_secs(2));
    let mut alice = server.dial(&format!("?token={token}")).await;
    assert_eq!(alice.receive().await["type"], "welcome");
    // Its key is unknown, and is looked for at an issuer that does not answer.
    keys.answers(Answer::Silence);
    let unknown = key.sign(Some("2"), &json!({"iss": keys.url(), "sub": "alice", "exp": server.unix().as_secs() + 60}));
    alice.send(&json!({"type": "auth", "token": unknown, "id": 1}).to_string()).await;
    alice.send(&json!({"type": "ping", "id": 2}).to_string()).await;
    // An event comes all the same.
    server.publish(json!({"to": {"user": "alice"}, "event": "meanwhile"})).await;
    assert_eq!(alice.event().await, "meanwhile");
    server.pass(Duration::from_secs(3));
    let mut last = alice.receive().await;
    if last["type"] == "expiring" {
        last = alice.receive().await;
    }
    assert_eq!(last["code"], 4401, "{last}");
    assert_eq!(alice.next().await.unwrap_err().0, 4401);
}
