use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use wsgate::config::{Issuer, KeySource};
use wsgate::{Clock, Secret};

use crate::support::tokens::{Key, TempFile};
use crate::support::{Client, JWT_SECRET, Server};

fn secret() -> Key {
    Key { algorithm: Algorithm::HS256, private: JWT_SECRET.to_owned() }
}

/// A token of an hour with more claims.
#[allow(clippy::needless_pass_by_value, reason = "`json!` makes values")]
fn token(server: &Server, user: &str, more: Value) -> String {
    let now = server.unix().as_secs();
    let mut claims = json!({"sub": user, "iat": now, "exp": now + 3600});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    secret().sign(None, &claims)
}

async fn connect(server: &Server, token: &str) -> Client {
    let mut client = server.dial(&format!("?token={token}")).await;
    assert_eq!(client.receive().await["type"], "welcome");
    client
}

async fn refused(server: &Server, token: &str) -> u16 {
    server.dial(&format!("?token={token}")).await.closed().await.0
}

async fn revoke(server: &Server, what: Value) -> Value {
    let (status, answer) = server.api("POST", "/v1/revocations", &what.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

#[tokio::test]
async fn a_revoked_token_ends_its_connections_at_once_and_connects_no_more() {
    let server = Server::start().await;
    let (one, other) = (token(&server, "alice", json!({"jti": "1"})), token(&server, "alice", json!({"jti": "2"})));
    let (mut first, mut twice) = (connect(&server, &one).await, connect(&server, &one).await);
    let mut alice = connect(&server, &other).await;
    let answer = revoke(&server, json!({"jti": "1"})).await;
    assert_eq!((&answer["id"], &answer["jti"], &answer["kept"]), (&json!(1), &json!("1"), &json!(false)));
    assert_eq!(first.closed().await, (4403, "the token has been revoked".to_owned()));
    assert_eq!(twice.closed().await.0, 4403);
    alice.hears_nothing().await;
    assert_eq!(refused(&server, &one).await, 4401);
    // Renewing with it does not help either.
    assert_eq!(alice.request(json!({"type": "auth", "token": one})).await["code"], "token_refused");
    alice.hears_nothing().await;
}

#[tokio::test]
async fn a_revoked_session_ends_with_all_its_tokens_also_after_a_renewal() {
    let server = Server::start().await;
    let mut alice = connect(&server, &token(&server, "alice", json!({"jti": "1", "sid": "s1"}))).await;
    let renewal = token(&server, "alice", json!({"jti": "2", "sid": "s2"}));
    assert_eq!(alice.request(json!({"type": "auth", "token": renewal})).await["ok"], true);
    revoke(&server, json!({"sid": "s1"})).await;
    revoke(&server, json!({"jti": "1"})).await;
    alice.hears_nothing().await;
    revoke(&server, json!({"sid": "s2"})).await;
    assert_eq!(alice.closed().await.0, 4403);
    assert_eq!(refused(&server, &renewal).await, 4401);
}

#[tokio::test]
async fn all_tokens_of_a_user_that_were_issued_before_a_time_are_revoked_and_later_ones_are_not() {
    let server = Server::start().await;
    let old = token(&server, "alice", json!({}));
    let undated = server.token("alice", json!({}));
    let bobs = token(&server, "bob", json!({}));
    let (mut first, mut second, mut bob) =
        (connect(&server, &old).await, connect(&server, &undated).await, connect(&server, &bobs).await);
    server.pass(Duration::from_secs(2));
    let time = server.unix().as_secs();
    let new = token(&server, "alice", json!({}));
    let mut third = connect(&server, &new).await;
    let answer = revoke(&server, json!({"user": "alice", "issued_before": time})).await;
    assert_eq!(answer["issued_before"], json!(time));
    assert_eq!((first.closed().await.0, second.closed().await.0), (4403, 4403));
    assert_eq!((refused(&server, &old).await, refused(&server, &undated).await), (4401, 4401));
    third.hears_nothing().await;
    bob.hears_nothing().await;
    // Without a time, all that have been issued up to now.
    revoke(&server, json!({"user": "alice"})).await;
    assert_eq!(third.closed().await.0, 4403);
    server.pass(Duration::from_secs(1));
    connect(&server, &token(&server, "alice", json!({}))).await;
}

#[tokio::test]
async fn a_blocked_user_is_out_until_unblocked() {
    let server = Server::start().await;
    let token = token(&server, "alice", json!({}));
    let mut alice = connect(&server, &token).await;
    let (status, answer) = server.api("POST", "/v1/users/alice/block", "").await;
    assert_eq!((status, &answer["blocked"]), (200, &json!("alice")), "{answer}");
    assert_eq!(alice.closed().await, (4403, "this user is blocked".to_owned()));
    assert_eq!(refused(&server, &token).await, 4403);
    let (_, ticket) = server.api("POST", "/v1/tickets", r#"{"user":"alice"}"#).await;
    let mut client = server.dial(&format!("?ticket={}", ticket["ticket"].as_str().unwrap())).await;
    assert_eq!(client.closed().await.0, 4403);
    assert_eq!(server.api("POST", "/v1/users/alice/unblock", "").await, (200, json!({"unblocked": true})));
    assert_eq!(server.api("POST", "/v1/users/alice/unblock", "").await, (200, json!({"unblocked": false})));
    connect(&server, &token).await;
}

#[tokio::test]
async fn a_ticket_that_was_made_before_a_revocation_is_revoked_with_its_users_tokens() {
    let server = Server::start().await;
    let ticket = |answer: Value| format!("?ticket={}", answer["ticket"].as_str().unwrap());
    let body = r#"{"user":"alice","session":"s1"}"#;
    let [first, second] = [(); 2].map(|()| server.api("POST", "/v1/tickets", body));
    let (first, second) = (ticket(first.await.1), ticket(second.await.1));
    server.pass(Duration::from_secs(1));
    revoke(&server, json!({"user": "alice"})).await;
    assert_eq!(server.dial(&first).await.closed().await.0, 4401);
    revoke(&server, json!({"sid": "s1"})).await;
    assert_eq!(server.dial(&second).await.closed().await.0, 4401);
    server.pass(Duration::from_secs(1));
    let later = ticket(server.api("POST", "/v1/tickets", r#"{"user":"alice"}"#).await.1);
    assert_eq!(server.dial(&later).await.receive().await["type"], "welcome");
}

#[tokio::test]
async fn revocations_lapse_and_can_be_listed_and_removed() {
    let server = Server::start().await;
    let token = token(&server, "alice", json!({"jti": "1"}));
    let until = server.unix().as_secs() + 10;
    let first = revoke(&server, json!({"jti": "1", "until": until})).await;
    revoke(&server, json!({"sid": "2", "issuer": "https://a"})).await;
    let (_, list) = server.api("GET", "/v1/revocations", "").await;
    assert_eq!((&list["total"], &list["kept"]), (&json!(2), &json!(false)));
    assert_eq!(list["revocations"][0]["sid"], "2", "the newest first");
    assert_eq!(list["revocations"][1]["until"], json!(until));
    let (status, one) = server.api("GET", "/v1/revocations/1", "").await;
    assert_eq!((status, &one["jti"]), (200, &first["jti"]));
    assert_eq!(refused(&server, &token).await, 4401);
    server.pass(Duration::from_secs(10));
    connect(&server, &token).await;
    assert_eq!(server.api("GET", "/v1/revocations/1", "").await.0, 404);

    assert_eq!(server.api("DELETE", "/v1/revocations/2", "").await, (200, json!({"removed": 2})));
    assert_eq!(server.api("DELETE", "/v1/revocations/2", "").await.1["code"], "not_found");
    assert_eq!(server.api("DELETE", "/v1/revocations/x", "").await.0, 404);
    assert_eq!(server.api("GET", "/v1/revocations", "").await.1["total"], 0);
}

#[tokio::test]
async fn what_is_said_twice_takes_one_place_and_what_does_not_fit_is_refused_and_not_lost() {
    let server = Server::with(|limits| limits.max_revocations = 2).await;
    for _ in 0..5 {
        revoke(&server, json!({"user": "alice"})).await;
        revoke(&server, json!({"jti": "1"})).await;
        server.pass(Duration::from_secs(1));
    }
    let (status, answer) = server.api("POST", "/v1/revocations", r#"{"jti":"2"}"#).await;
    assert_eq!((status, &answer["code"]), (503, &json!("full")));
    assert_eq!(server.api("GET", "/v1/revocations", "").await.1["total"], 2);
    // A shorter one does not take the place of a longer one.
    let soon = server.unix().as_secs() + 1;
    let (status, _) = server.api("POST", "/v1/revocations", &json!({"jti": "1", "until": soon}).to_string()).await;
    assert_eq!(status, 503);
    server.pass(Duration::from_secs(2));
    assert_eq!(refused(&server, &token(&server, "bob", json!({"jti": "1"}))).await, 4401);
}

#[tokio::test]
async fn a_revocation_that_cannot_be_is_refused_by_its_field() {
    let server = Server::start().await;
    for (body, field) in [
        (json!({}), "jti"),
        (json!({"jti": "1", "sid": "2"}), "jti"),
        (json!({"jti": ""}), "jti"),
        (json!({"jti": "x".repeat(513)}), "jti"),
        (json!({"jti": 1}), "jti"),
        (json!({"user": ""}), "user"),
        (json!({"user": "a", "issuer": "b"}), "issuer"),
        (json!({"sid": "a", "issued_before": 1}), "issued_before"),
        (json!({"user": "a", "issued_before": "now"}), "issued_before"),
        (json!({"jti": "1", "until": 1}), "until"),
        (json!({"jti": "1", "until": 1_795_415_606_000_u64}), "until"),
        (json!({"jti": "1", "forever": true}), "forever"),
    ] {
        let (status, answer) = server.api("POST", "/v1/revocations", &body.to_string()).await;
        assert_eq!((status, &answer["field"]), (400, &json!(field)), "{body}: {answer}");
    }
    let (status, answer) = server.api("POST", "/v1/users/alice/block", r#"{"until":1}"#).await;
    assert_eq!((status, &answer["field"]), (400, &json!("until")));
}

#[tokio::test]
async fn revocations_outlive_the_gateway() {
    let file = TempFile::new("state", "");
    let start = |clock: Option<Clock>| {
        let path = file.0.clone();
        Server::configured(move |config| {
            config.state_file = Some(path);
            config.clock = clock.unwrap_or(config.clock.clone());
        })
    };
    let mut server = start(None).await;
    let (one, other) = (token(&server, "alice", json!({"jti": "1"})), token(&server, "alice", json!({"jti": "2"})));
    assert_eq!(revoke(&server, json!({"jti": "1"})).await["kept"], true);
    revoke(&server, json!({"jti": "2"})).await;
    server.api("DELETE", "/v1/revocations/2", "").await;
    server.api("POST", "/v1/users/bob/block", "").await;
    server.ask_to_stop();
    server.stopped().await;
    drop(server);

    let server = start(None).await;
    assert_eq!(refused(&server, &one).await, 4401);
    connect(&server, &other).await;
    assert_eq!(refused(&server, &token(&server, "bob", json!({}))).await, 4403);
    assert_eq!(revoke(&server, json!({"jti": "3"})).await["id"], 4, "numbers are not given twice");
}

/// An issuer whose logout tokens are signed with the same secret.
async fn with_issuer() -> Server {
    Server::configured(|config| {
        config.issuers = vec![Issuer {
            issuer: Some("https://login.example".to_owned()),
            audience: vec!["chat".to_owned()],
            keys: vec![KeySource { secret: Some(Secret::new(JWT_SECRET)), ..KeySource::default() }],
            ..Issuer::default()
        }];
    })
    .await
}

const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";

async fn log_out(server: &Server, form: String) -> (u16, String) {
    let url = format!("http://{}/backchannel-logout", server.public);
    let request =
        reqwest::Client::new().post(url).header("content-type", "application/x-www-form-urlencoded").body(form);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["cache-control"], "no-store");
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn logout_token(server: &Server, change: impl FnOnce(&mut Value)) -> String {
    let now = server.unix().as_secs();
    let mut claims = json!({
        "iss": "https://login.example", "aud": "chat", "iat": now, "exp": now + 120, "jti": "l1",
        "events": {LOGOUT: {}}, "sub": "alice", "sid": "s1",
    });
    change(&mut claims);
    let claims = claims.to_string();
    secret().sign_text(r#"{"alg":"HS256","typ":"logout+jwt"}"#, &claims)
}

#[allow(clippy::needless_pass_by_value, reason = "`json!` makes values")]
fn of_issuer(more: Value) -> Value {
    let mut claims = json!({"iss": "https://login.example", "aud": "chat"});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims
}

#[tokio::test]
async fn an_issuer_ends_a_session_by_a_logout_token_or_all_of_a_users() {
    let server = with_issuer().await;
    let first = token(&server, "alice", of_issuer(json!({"sid": "s1"})));
    let second = token(&server, "alice", of_issuer(json!({"sid": "s2"})));
    let (mut one, mut other) = (connect(&server, &first).await, connect(&server, &second).await);
    let form = format!("logout_token={}", logout_token(&server, |_| {}));
    assert_eq!(log_out(&server, form.clone()).await.0, 200);
    assert_eq!(one.closed().await.0, 4403);
    other.hears_nothing().await;
    assert_eq!(log_out(&server, form).await.0, 200, "to say it again changes nothing");
    let all = logout_token(&server, |claims| drop(claims.as_object_mut().unwrap().remove("sid")));
    assert_eq!(log_out(&server, format!("logout_token={all}")).await.0, 200);
    assert_eq!(other.closed().await.0, 4403);
    assert_eq!(refused(&server, &second).await, 4401);
}

#[tokio::test]
async fn a_logout_token_that_is_none_is_refused_and_logs_nobody_out() {
    let server = with_issuer().await;
    let good = token(&server, "alice", of_issuer(json!({"sid": "s1"})));
    let mut alice = connect(&server, &good).await;
    let remove =
        |name: &'static str| logout_token(&server, move |claims| drop(claims.as_object_mut().unwrap().remove(name)));
    let set = |name: &'static str, value: Value| logout_token(&server, move |claims| claims[name] = value);
    for (what, token) in [
        ("an access token", good.clone()),
        ("no events", remove("events")),
        ("another event", set("events", json!({"http://schemas.openid.net/event/other": {}}))),
        ("an event that is no object", set("events", json!({LOGOUT: true}))),
        ("a nonce", set("nonce", json!("n"))),
        ("no iat", remove("iat")),
        ("no exp", remove("exp")),
        ("an end in the past", set("exp", json!(1))),
        ("no audience", remove("aud")),
        ("another audience", set("aud", json!("other"))),
        ("another issuer", set("iss", json!("https://other.example"))),
        ("a forged signature", format!("{}AAAA", logout_token(&server, |_| {}))),
        ("nonsense", "nonsense".to_owned()),
    ] {
        let (status, body) = log_out(&server, format!("logout_token={token}")).await;
        assert_eq!(status, 400, "{what}: {body}");
        assert!(body.contains("invalid_request"), "{what}: {body}");
    }
    for form in [String::new(), "token=x".to_owned(), "logout_token=a&logout_token=b".to_owned(), "x".repeat(20_000)] {
        assert_eq!(log_out(&server, form).await.0, 400);
    }
    alice.hears_nothing().await;
    // Nor does a logout token connect.
    assert_eq!(refused(&server, &logout_token(&server, |_| {})).await, 4401);
}
