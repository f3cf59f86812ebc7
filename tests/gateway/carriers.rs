use std::time::Duration;

use serde_json::{Value, json};
use wsgate::config::{Anonymous, Origins};

use crate::support::{Client, Raw, Server};

#[tokio::test]
async fn a_token_is_welcome_in_each_of_its_places() {
    let server = Server::configured(|config| {
        config.origins = Origins::list(vec!["https://app.example".parse().unwrap()]);
        config.cookie = Some("session".to_owned());
    })
    .await;
    let token = server.token("alice", json!({}));
    let bearer = format!("Bearer {token}");
    let protocols = format!("wsgate.v1, bearer.{token}");
    let cookie = format!("theme=dark; session={token}");
    for headers in [
        ("Authorization", bearer.as_str()),
        ("authorization", &bearer.replace("Bearer", "bearer")),
        ("Sec-WebSocket-Protocol", &protocols),
        ("Cookie", &cookie),
    ] {
        let first = Raw::first_message(server.public, "/ws", &[headers]).await;
        assert!(first.contains(r#""user":"alice""#), "{headers:?}: {first}");
    }
}

#[tokio::test]
async fn the_first_place_that_holds_something_decides_whatever_the_others_hold() {
    let server = Server::start().await;
    let (alices, bobs) = (server.token("alice", json!({})), server.token("bob", json!({})));
    let path = format!("/ws?token={bobs}");
    let alice = format!("Bearer {alices}");
    let first = Raw::first_message(server.public, &path, &[("Authorization", &alice)]).await;
    assert!(first.contains(r#""user":"alice""#), "{first}");
    let first = Raw::first_message(server.public, &path, &[("Authorization", "Bearer nonsense")]).await;
    assert!(first.contains("4401"), "{first}");
    // Twice the same place is no place.
    let path = format!("/ws?token={alices}&token={bobs}");
    let first = Raw::first_message(server.public, &path, &[]).await;
    assert!(first.contains("there is more than one token"), "{first}");
}

#[tokio::test]
async fn the_subprotocol_is_answered_without_the_token() {
    let server = Server::start().await;
    let token = server.token("alice", json!({}));
    let protocols = format!("wsgate.v1, bearer.{token}");
    let (_, head) = Raw::ask(server.public, "/ws", &[("Sec-WebSocket-Protocol", &protocols)]).await;
    assert!(head.to_lowercase().contains("sec-websocket-protocol: wsgate.v1\r\n"), "{head}");
    assert!(!head.contains("bearer"), "{head}");
}

#[tokio::test]
async fn a_cookie_counts_for_nothing_unless_it_is_configured() {
    let server = Server::start().await;
    let cookie = format!("session={}; token={0}", server.token("alice", json!({})));
    let (mut raw, head) = Raw::ask(server.public, "/ws", &[("Cookie", &cookie)]).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    server.pass(Duration::from_secs(10));
    assert!(raw.text().await.contains("4408"));
}

async fn ticket(server: &Server, body: Value) -> String {
    let (status, answer) = server.api("POST", "/v1/tickets", &body.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    answer["ticket"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_ticket_connects_once_as_the_backend_says() {
    let server = Server::start().await;
    let ticket = ticket(&server, json!({"user": "alice", "grants": {"chat:*": ["join"]}, "expires_in": 60})).await;
    let mut alice = server.dial(&format!("?ticket={ticket}")).await;
    let welcome = alice.receive().await;
    assert_eq!((&welcome["user"], &welcome["expires_in"]), (&json!("alice"), &json!(60)));
    alice.join("chat:1").await;
    assert_eq!(alice.request(json!({"type": "join", "room": "news"})).await["code"], "forbidden");
    let mut thief = server.dial(&format!("?ticket={ticket}")).await;
    assert_eq!(thief.closed().await.0, 4401);
    // The connection it made goes on, until it ends.
    alice.is_heard().await;
    server.pass(Duration::from_secs(30));
    assert_eq!(alice.receive().await["type"], "expiring");
    alice.is_heard().await;
    server.pass(Duration::from_secs(30));
    assert_eq!(alice.closed().await.0, 4401);
}

#[tokio::test]
async fn a_ticket_may_come_in_the_first_frame_and_renews_as_a_token_does() {
    let server = Server::start().await;
    let mut alice = server.dial("").await;
    let first = ticket(&server, json!({"user": "alice"})).await;
    alice.send(&json!({"type": "auth", "ticket": first}).to_string()).await;
    assert_eq!(alice.receive().await["expires_in"], 3600);
    let second = ticket(&server, json!({"user": "alice", "expires_in": 7200})).await;
    assert_eq!(alice.request(json!({"type": "auth", "ticket": second})).await["expires_in"], 7200);
    // A token of the same user may follow a ticket, and the other way round.
    assert_eq!(alice.request(json!({"type": "auth", "token": server.token("alice", json!({}))})).await["ok"], true);
    let third = ticket(&server, json!({"user": "alice"})).await;
    assert_eq!(alice.request(json!({"type": "auth", "ticket": third})).await["ok"], true);
    let bobs = ticket(&server, json!({"user": "bob"})).await;
    assert_eq!(alice.request(json!({"type": "auth", "ticket": bobs})).await["code"], "wrong_user");
}

#[tokio::test]
async fn a_ticket_lapses_within_seconds() {
    let server = Server::start().await;
    let (usual, short) = (
        ticket(&server, json!({"user": "alice"})).await,
        ticket(&server, json!({"user": "alice", "valid_for": 2})).await,
    );
    server.pass(Duration::from_secs(2));
    assert_eq!(server.dial(&format!("?ticket={short}")).await.closed().await.0, 4401);
    server.pass(Duration::from_secs(28));
    assert_eq!(server.dial(&format!("?ticket={usual}")).await.closed().await.0, 4401);
}

#[tokio::test]
async fn a_ticket_for_a_page_is_of_no_use_to_another() {
    let server = Server::configured(|config| config.origins = Origins::list(vec!["*".parse().unwrap()])).await;
    for (origin, may) in [("https://app.example", true), ("https://evil.example", false)] {
        let ticket = ticket(&server, json!({"user": "alice", "origin": "https://app.example"})).await;
        let first = Raw::first_message(server.public, &format!("/ws?ticket={ticket}"), &[("Origin", origin)]).await;
        assert_eq!(first.contains("welcome"), may, "{first}");
    }
}

#[tokio::test]
async fn what_a_ticket_cannot_be_is_refused_by_its_field() {
    let server = Server::with(|limits| limits.max_tickets = 1).await;
    for (body, field) in [
        (json!({}), "user"),
        (json!({"user": ""}), "user"),
        (json!({"user": "anonymous:1"}), "user"),
        (json!({"user": "a", "grants": []}), "grants"),
        (json!({"user": "a", "grants": {"*": ["jion"]}}), "grants"),
        (json!({"user": "a", "valid_for": 0}), "valid_for"),
        (json!({"user": "a", "valid_for": 301}), "valid_for"),
        (json!({"user": "a", "valid_for": "30s"}), "valid_for"),
        (json!({"user": "a", "expires_in": 0}), "expires_in"),
        (json!({"user": "a", "expires_in": 1_795_415_606_000_u64}), "expires_in"),
        (json!({"user": "a", "session": ""}), "session"),
        (json!({"user": "a", "room": "b"}), "room"),
    ] {
        let (status, answer) = server.api("POST", "/v1/tickets", &body.to_string()).await;
        assert_eq!((status, &answer["field"]), (400, &json!(field)), "{body}: {answer}");
    }
    ticket(&server, json!({"user": "alice"})).await;
    let (status, answer) = server.api("POST", "/v1/tickets", r#"{"user":"alice"}"#).await;
    assert_eq!((status, &answer["code"]), (503, &json!("full")));
    server.pass(Duration::from_secs(30));
    ticket(&server, json!({"user": "alice"})).await;
}

async fn with_guests(max_connections: usize) -> Server {
    Server::configured(|config| {
        config.anonymous = Some(Anonymous {
            rooms: Vec::new(),
            calls: false,
            grants: [("news:*".to_owned(), vec!["join".to_owned()])].into(),
            max_connections,
            max_rooms: 2,
            lifetime: Duration::from_secs(600),
        });
    })
    .await
}

#[tokio::test]
async fn who_wishes_to_stay_unknown_gets_a_name_of_their_own_and_what_is_allowed_to_such() {
    let server = with_guests(10).await;
    let mut one = server.dial("?anonymous=true").await;
    let welcome = one.receive().await;
    assert_eq!(welcome["expires_in"], 600);
    let mut other = server.dial("").await;
    other.send(r#"{"type":"auth","anonymous":true}"#).await;
    let name = other.receive().await["user"].clone();
    assert!(name.as_str().unwrap().starts_with("anonymous:") && name != welcome["user"], "{name}");
    one.join("news:1").await;
    one.join("news:2").await;
    assert_eq!(one.request(json!({"type": "join", "room": "news:3"})).await["code"], "too_many_rooms");
    assert_eq!(one.request(json!({"type": "join", "room": "chat"})).await["code"], "forbidden");
    let token = server.token("alice", json!({}));
    assert_eq!(one.request(json!({"type": "auth", "token": token})).await["code"], "wrong_user");
}

#[tokio::test]
async fn there_may_be_only_so_many_unknown() {
    let server = with_guests(1).await;
    let mut one = server.dial("?anonymous=true").await;
    assert_eq!(one.receive().await["type"], "welcome");
    assert_eq!(server.dial("?anonymous=true").await.closed().await.0, 4503);
    one.close().await;
    crate::support::until("the place to be free", || server.hub.census() == Default::default()).await;
    assert_eq!(server.dial("?anonymous=true").await.receive().await["type"], "welcome");
}

#[tokio::test]
async fn nobody_stays_unknown_where_that_is_not_allowed() {
    let server = Server::start().await;
    let mut client: Client = server.dial("?anonymous=true").await;
    assert_eq!(client.closed().await, (4401, "nobody may connect without a token".to_owned()));
}
