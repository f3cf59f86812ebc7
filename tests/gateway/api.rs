use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::support::{API_KEY, Raw, Server, within_reason};

#[tokio::test]
async fn without_the_key_nothing_is_answered() {
    let server = Server::start().await;
    let http = reqwest::Client::new();
    for path in ["/v1/publish", "/v1/users/alice/disconnect", "/v1/users/alice/join"] {
        for key in [None, Some(""), Some("wrong"), Some("an-api-key-for-testsx"), Some("an-api-key-for-test")] {
            let request = http.post(format!("http://{}{path}", server.backend)).body("{}");
            let request = if let Some(key) = key { request.bearer_auth(key) } else { request };
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 401, "{path} {key:?}");
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            assert_eq!(response.json::<Value>().await.unwrap()["code"], "unauthorized");
        }
    }
    let scheme = http.get(format!("http://{}/v1/users/alice", server.backend));
    let response = scheme.header("authorization", format!("bearer {API_KEY}")).send().await.unwrap();
    assert_eq!(response.status(), 200, "the scheme is compared in any case (RFC 9110, 11.1)");
    let in_query = http.get(format!("http://{}/v1/users/alice?api_key={API_KEY}", server.backend));
    assert_eq!(in_query.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn publish_reaches_rooms_users_connections_and_all() {
    let server = Server::start().await;
    let [mut alice, mut bob] = server.members(["alice", "bob"], &["chat:1"]).await;
    let [mut carol] = server.members(["carol"], &[]).await;
    for (to, reached) in [
        (json!({"room": "chat:1"}), [1, 1, 0]),
        (json!({"rooms": ["chat:1", "none"]}), [1, 1, 0]),
        (json!({"user": "bob"}), [0, 1, 0]),
        (json!({"users": ["alice", "carol", "nobody"]}), [1, 0, 1]),
        (json!({"connection": carol.id}), [0, 0, 1]),
        (json!({"connections": [alice.id, carol.id, carol.id, "0123456789abcdef"]}), [1, 0, 1]),
        (json!({"all": true}), [1, 1, 1]),
        (json!({"room": "chat:1", "user": "carol", "connection": bob.id}), [1, 1, 1]),
        (json!({"room": "none"}), [0, 0, 0]),
        (json!({"user": "nobody"}), [0, 0, 0]),
        (json!({"users": []}), [0, 0, 0]),
        (json!({"all": false}), [0, 0, 0]),
    ] {
        let sum = server.publish(json!({"to": to, "event": "e"})).await;
        assert_eq!(sum, reached.iter().sum::<u64>(), "{to}");
        for (client, times) in [&mut alice, &mut bob, &mut carol].into_iter().zip(reached) {
            for _ in 0..times {
                assert_eq!(client.event().await, "e", "{to}");
            }
            client.hears_nothing().await;
        }
    }
}

#[tokio::test]
async fn exceptions_are_left_out_by_whatever_name() {
    let server = Server::start().await;
    let [alice, alice_too, bob] = server.members(["alice", "alice", "bob"], &["chat:1"]).await;
    let [_carol] = server.members(["carol"], &["chat:2"]).await;
    for (to, except, reached) in [
        (json!({"room": "chat:1"}), json!({"user": "alice"}), 1),
        (json!({"room": "chat:1"}), json!({"connection": alice_too.id}), 2),
        (json!({"all": true}), json!({"room": "chat:1"}), 1),
        (json!({"all": true}), json!({"rooms": ["chat:1", "chat:2"]}), 0),
        (json!({"connections": [alice.id, bob.id]}), json!({"room": "chat:1"}), 0),
        (json!({"users": ["alice", "bob"]}), json!({"user": "bob", "connection": alice.id}), 1),
        (json!({"room": "chat:1"}), json!({"all": true}), 0),
        (json!({"room": "chat:1"}), json!({"user": "nobody"}), 3),
    ] {
        let sum = server.publish(json!({"to": to, "except": except, "event": "e"})).await;
        assert_eq!(sum, reached, "{to} except {except}");
    }
}

#[tokio::test]
async fn look_ups_say_who_is_where() {
    let server = Server::with(|limits| limits.max_listed_members = 2).await;
    let [alice] = server.members(["alice"], &["chat:1"]).await;
    let (status, answer) = server.api("GET", "/v1/users/alice", "").await;
    assert_eq!(status, 200);
    let connections = json!([{"connection": alice.id, "rooms": ["user:alice", "chat:1"]}]);
    assert_eq!(answer, json!({"user": "alice", "connections": connections}));
    let (_, answer) = server.api("GET", "/v1/rooms/chat:1", "").await;
    assert_eq!(answer["members"], json!([{"user": "alice", "connection": alice.id}]));
    let (status, answer) = server.api("GET", "/v1/users/nobody", "").await;
    assert_eq!((status, answer), (200, json!({"user": "nobody", "connections": []})));

    let _more = server.members(["bob", "carol", "alice"], &["chat:1"]).await;
    let (_, answer) = server.api("GET", "/v1/rooms/chat%3A1", "").await;
    assert_eq!((&answer["total"], answer["members"].as_array().unwrap().len()), (&json!(4), 2));
}

#[tokio::test]
async fn a_backend_joins_and_takes_out_all_connections_of_a_user() {
    let server = Server::with(|limits| limits.max_rooms = 1).await;
    let (mut one, mut two) = (server.connect("alice", json!({})).await, server.connect("alice", json!({})).await);
    let join = |room: &str| json!({"room": room}).to_string();
    let (_, answer) = server.api("POST", "/v1/users/alice/join", &join("chat:1")).await;
    assert_eq!(answer, json!({"joined": 2, "refused": 0}));
    for client in [&mut one, &mut two] {
        assert_eq!(client.receive().await, json!({"type": "joined", "room": "chat:1"}));
    }
    // Again changes nothing, and says nothing to them; one room too many is said to be.
    let (_, answer) = server.api("POST", "/v1/users/alice/join", &join("chat:1")).await;
    assert_eq!(answer, json!({"joined": 2, "refused": 0}));
    one.leave("chat:1").await;
    let (_, answer) = server.api("POST", "/v1/users/alice/join", &join("chat:2")).await;
    assert_eq!(answer, json!({"joined": 1, "refused": 1}));
    assert_eq!(one.receive().await, json!({"type": "joined", "room": "chat:2"}));
    let (_, answer) = server.api("POST", "/v1/users/alice/leave", &join("chat:1")).await;
    assert_eq!(answer, json!({"left": 1}));
    assert_eq!(two.receive().await, json!({"type": "left", "room": "chat:1"}));
    let (_, answer) = server.api("POST", "/v1/users/nobody/join", &join("chat:1")).await;
    assert_eq!(answer, json!({"joined": 0, "refused": 0}));
    let (status, answer) = server.api("POST", "/v1/users/alice/join", &join("user:bob")).await;
    assert_eq!((status, &answer["code"], &answer["field"]), (400, &json!("invalid_field"), &json!("room")));
    one.hears_nothing().await;
    two.hears_nothing().await;
}

#[tokio::test]
async fn a_user_is_disconnected_with_4403_on_every_connection() {
    let server = Server::start().await;
    let [mut alice, mut alice_too, mut bob] = server.members(["alice", "alice", "bob"], &["chat:1"]).await;
    let (status, answer) = server.api("POST", "/v1/users/alice/disconnect", "").await;
    assert_eq!((status, answer), (200, json!({"disconnected": 2})));
    for client in [&mut alice, &mut alice_too] {
        assert_eq!(client.closed().await, (4403, "disconnected by the backend".to_owned()));
    }
    bob.hears_nothing().await;
    let (_, answer) = server.api("POST", "/v1/users/nobody/disconnect", "").await;
    assert_eq!(answer, json!({"disconnected": 0}));
}

#[tokio::test]
async fn a_bad_body_is_a_problem_that_names_the_field() {
    let server = Server::start().await;
    for (body, code, field) in [
        ("", "not_json", None),
        ("\u{FEFF}{}", "not_json", None),
        ("[]", "not_an_object", None),
        ("{}", "missing_field", Some("to")),
        (r#"{"to":{"room":"a"}}"#, "missing_field", Some("event")),
        (r#"{"to":"a","event":"e"}"#, "invalid_field", Some("to")),
        (r#"{"to":{},"event":"e"}"#, "invalid_field", Some("to")),
        (r#"{"to":{"rooms":["a",7]},"event":"e"}"#, "invalid_field", Some("to.rooms")),
        (r#"{"to":{"rooms":["a","\u0007"]},"event":"e"}"#, "invalid_field", Some("to.rooms[1]")),
        (r#"{"to":{"connection":"xyz"},"event":"e"}"#, "invalid_field", Some("to.connection")),
        (r#"{"to":{"self":true},"event":"e"}"#, "unknown_field", Some("to.self")),
        (r#"{"to":{"all":true},"except":{"al":true},"event":"e"}"#, "unknown_field", Some("except.al")),
        (r#"{"to":{"all":true},"event":"e","event":"f"}"#, "duplicate_field", Some("event")),
        (r#"{"to":{"all":true},"event":"e","echo":false}"#, "unknown_field", Some("echo")),
    ] {
        let (status, problem) = server.api("POST", "/v1/publish", body).await;
        assert_eq!((status, &problem["status"]), (400, &json!(400)), "{body}");
        assert_eq!((problem["code"].as_str(), problem["field"].as_str()), (Some(code), field), "{body}: {problem}");
        assert_eq!(problem["title"], "Bad Request");
    }
    let deep = format!(r#"{{"to":{{"all":true}},"event":"e","data":{}}}"#, "[".repeat(100_000) + &"]".repeat(100_000));
    assert_eq!(server.api("POST", "/v1/publish", &deep).await.1["code"], "too_deep");
    let (status, problem) = server.api("GET", "/v1/users/a%00b", "").await;
    assert_eq!((status, &problem["field"]), (400, &json!("user")));
    let (status, problem) = server.api("GET", "/v1/users/%FF", "").await;
    assert_eq!((status, &problem["field"]), (400, &json!("user")));
    let long = format!("/v1/rooms/{}", "r".repeat(256));
    assert_eq!(server.api("GET", &long, "").await.1["field"], "room");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_413_declared_or_not() {
    let server = Server::start().await;
    let body = "x".repeat(256 * 1024 + 1);
    let (status, problem) = server.api("POST", "/v1/publish", &body).await;
    assert_eq!((status, &problem["code"]), (413, &json!("body_too_large")));
    let mut chunked = Raw::open(server.backend).await;
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    chunked.send(head.as_bytes()).await;
    for _ in 0..5 {
        chunked.send(format!("10000\r\n{}\r\n", "x".repeat(0x10000)).as_bytes()).await;
    }
    assert!(chunked.head().await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408() {
    let server = Server::start().await;
    let mut raw = Raw::open(server.backend).await;
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\nContent-Length: 10\r\n\r\n{{\"to\""
    );
    raw.send(head.as_bytes()).await;
    // The clock is moved until the request has begun to wait for it.
    let mut first = [0];
    within_reason("an answer", async {
        loop {
            server.pass(Duration::from_secs(10));
            tokio::select! {
                read = raw.stream.read_exact(&mut first) => return read.unwrap(),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
    })
    .await;
    assert!(raw.head().await.starts_with("TTP/1.1 408 "));
}

#[tokio::test]
async fn paths_and_methods_that_do_not_exist_say_so() {
    let server = Server::start().await;
    assert_eq!(server.api("POST", "/v2/publish", "").await.0, 404);
    assert_eq!(server.api("GET", "/v1/users/alice/nope", "").await.1["code"], "not_found");
    let url = format!("http://{}/v1/publish", server.backend);
    let response = reqwest::Client::new().get(url).bearer_auth(API_KEY).send().await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["allow"]), (405, &"POST".parse().unwrap()));
    assert_eq!(response.json::<Value>().await.unwrap()["code"], "method_not_allowed");
    let health = reqwest::get(format!("http://{}/health/live", server.backend)).await.unwrap();
    assert_eq!(health.json::<Value>().await.unwrap()["live"], true);
}
