use serde_json::{Value, json};
use tokio_websockets::Message;

use crate::support::Server;

/// Sends a text as it is, and gives what comes back.
async fn answer(server: &Server, text: &str) -> Value {
    let mut client = server.connect("mallory", json!({"*": ["join", "publish"]})).await;
    client.send(text).await;
    let answer = client.receive().await;
    client.hears_nothing().await;
    answer
}

async fn assert_refused(server: &Server, text: &str, code: &str, field: Option<&str>) {
    let answer = answer(server, text).await;
    let shown: String = text.chars().take(200).collect();
    assert_eq!(answer["type"], "error", "{shown}: {answer}");
    assert_eq!((answer["code"].as_str(), answer["field"].as_str()), (Some(code), field), "{shown}: {answer}");
    assert_eq!(answer["temporary"], false);
    let message = answer["message"].as_str().unwrap();
    assert!(!message.is_empty() && message.len() < 300, "{message}");
    if let Some(field) = field {
        assert!(message.contains(&format!("`{field}`")) || code == "forbidden", "{message} names {field}");
    }
}

#[tokio::test]
async fn what_is_no_json_object_is_said_to_be_none() {
    let server = Server::start().await;
    for text in
        ["", " ", "hello", "{", r#"{"type":"ping""#, r#"{"type":"ping"}x"#, r#"{'type':'ping'}"#, "{\"a\":\u{1}}"]
    {
        assert_refused(&server, text, "not_json", None).await;
    }
    for text in ["null", "true", "7", r#""ping""#, "[]", r#"[{"type":"ping"}]"#] {
        assert_refused(&server, text, "not_an_object", None).await;
    }
}

#[tokio::test]
async fn a_type_that_does_not_exist_is_refused() {
    let server = Server::start().await;
    for kind in ["", "Ping", "ping ", "welcome", "event", "auth\\u0000"] {
        assert_refused(&server, &format!(r#"{{"type":"{kind}"}}"#), "unknown_type", Some("type")).await;
    }
}

#[tokio::test]
async fn a_field_that_is_missing_is_named() {
    let server = Server::start().await;
    for (text, field) in [
        ("{}", "type"),
        (r#"{"type":"auth"}"#, "token"),
        (r#"{"type":"join"}"#, "room"),
        (r#"{"type":"leave"}"#, "room"),
        (r#"{"type":"members"}"#, "room"),
        (r#"{"type":"answer","data":1}"#, "reply_to"),
        (r#"{"type":"publish","event":"e"}"#, "to"),
        (r#"{"type":"publish","to":{"self":true}}"#, "event"),
    ] {
        assert_refused(&server, text, "missing_field", Some(field)).await;
    }
}

#[tokio::test]
async fn every_field_of_every_wrong_type_is_named() {
    let server = Server::start().await;
    let values = ["null", "true", "7", r#""text""#, "[]", "[1]", "{}", r#"{"a":1}"#];
    let string = r#""text""#;
    for (request, field, right) in [
        (r#"{"type":@}"#, "type", vec![string]),
        (r#"{"type":"auth","token":@}"#, "token", vec![string]),
        (r#"{"type":"join","room":@}"#, "room", vec![string]),
        (r#"{"type":"leave","room":@}"#, "room", vec![string]),
        (r#"{"type":"members","room":@}"#, "room", vec![string]),
        // A string, but no id.
        (r#"{"type":"answer","reply_to":@}"#, "reply_to", vec![]),
        (r#"{"type":"publish","to":@,"event":"e"}"#, "to", vec![r#"{"a":1}"#]),
        (r#"{"type":"publish","to":{"self":true},"event":@}"#, "event", vec![string]),
        (r#"{"type":"publish","to":{"self":true},"event":"e","echo":@}"#, "echo", vec!["true"]),
        (r#"{"type":"publish","to":{"room":@},"event":"e"}"#, "to.room", vec![string]),
        (r#"{"type":"publish","to":{"rooms":@},"event":"e"}"#, "to.rooms", vec!["[]"]),
        (r#"{"type":"publish","to":{"user":@},"event":"e"}"#, "to.user", vec![string]),
        (r#"{"type":"publish","to":{"users":@},"event":"e"}"#, "to.users", vec!["[]"]),
        (r#"{"type":"publish","to":{"all":@},"event":"e"}"#, "to.all", vec!["true"]),
        (r#"{"type":"publish","to":{"self":@},"event":"e"}"#, "to.self", vec!["true"]),
        (r#"{"type":"ping","id":@}"#, "id", vec![string, "7"]),
    ] {
        for value in values {
            if !right.contains(&value) {
                assert_refused(&server, &request.replace('@', value), "invalid_field", Some(field)).await;
            }
        }
    }
}

#[tokio::test]
async fn a_name_that_cannot_be_is_named_with_its_place() {
    let server = Server::start().await;
    let too_long = |bytes: usize| format!("\"{}\"", "n".repeat(bytes));
    let bad = |max: usize| [r#""""#.to_owned(), r#""a\nb""#.to_owned(), r#""\u0000""#.to_owned(), too_long(max + 1)];
    for name in bad(255) {
        assert_refused(&server, &format!(r#"{{"type":"join","room":{name}}}"#), "invalid_field", Some("room")).await;
        let text = format!(r#"{{"type":"publish","to":{{"rooms":["a",{name}]}},"event":"e"}}"#);
        assert_refused(&server, &text, "invalid_field", Some("to.rooms[1]")).await;
    }
    for name in bad(128) {
        let text = format!(r#"{{"type":"publish","to":{{"users":[{name}]}},"event":"e"}}"#);
        assert_refused(&server, &text, "invalid_field", Some("to.users[0]")).await;
        let text = format!(r#"{{"type":"publish","to":{{"self":true}},"event":{name}}}"#);
        assert_refused(&server, &text, "invalid_field", Some("event")).await;
    }
    for id in ["1.5", "1e3", &too_long(63)] {
        assert_refused(&server, &format!(r#"{{"type":"ping","id":{id}}}"#), "invalid_field", Some("id")).await;
    }
    let mut alice = server.connect("alice", json!({"*": ["join"]})).await;
    alice.join(&"n".repeat(255)).await;
}

#[tokio::test]
async fn a_field_that_does_not_exist_or_stands_twice_is_named() {
    let server = Server::start().await;
    for (text, field) in [
        (r#"{"type":"ping","data":1}"#, "data"),
        (r#"{"type":"members","room":"a","max":1}"#, "max"),
        (r#"{"type":"answer","reply_to":"0123456789abcdef","event":"e"}"#, "event"),
        (r#"{"type":"join","room":"a","Room":"b"}"#, "Room"),
        (r#"{"type":"publish","to":{"self":true},"event":"e","echoo":true}"#, "echoo"),
        (r#"{"type":"publish","to":{"rooom":"a"},"event":"e"}"#, "to.rooom"),
        (r#"{"type":"publish","to":{"connection":"0123456789abcdef"},"event":"e"}"#, "to.connection"),
    ] {
        assert_refused(&server, text, "unknown_field", Some(field)).await;
    }
    for (text, field) in [
        (r#"{"type":"ping","type":"ping"}"#, "type"),
        (r#"{"id":1,"type":"ping","id":2}"#, "id"),
        (r#"{"type":"answer","reply_to":"0123456789abcdef","data":1,"data":2}"#, "data"),
        (r#"{"type":"join","room":"a","r\u006fom":"b"}"#, "room"),
        (r#"{"type":"publish","to":{"all":true,"all":false},"event":"e"}"#, "to.all"),
    ] {
        assert_refused(&server, text, "duplicate_field", Some(field)).await;
    }
    let fields: Vec<String> = (0..3000).map(|i| format!("\"f{i}\":0")).collect();
    assert_refused(&server, &format!("{{{}}}", fields.join(",")), "unknown_field", None).await;
}

#[tokio::test]
async fn a_target_that_names_nobody_or_too_many_is_refused() {
    let server = Server::with(|limits| limits.max_targets = 3).await;
    assert_refused(&server, r#"{"type":"publish","to":{},"event":"e"}"#, "invalid_field", Some("to")).await;
    let four = r#"{"type":"publish","to":{"rooms":["a","b","c","d"]},"event":"e"}"#;
    assert_refused(&server, four, "invalid_field", Some("to.rooms")).await;
    // A list that a program has computed may be empty.
    let mut alice = server.connect("alice", json!({})).await;
    let reply = alice.request(json!({"type": "publish", "to": {"users": []}, "event": "e"})).await;
    assert_eq!(reply["ok"], true);
}

#[tokio::test]
async fn deep_nesting_is_refused_wherever_it_is() {
    let server = Server::start().await;
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for depth in [64, 1000, 30_000] {
        let data = nested(depth);
        let text = format!(r#"{{"type":"publish","to":{{"self":true}},"event":"e","data":{data}}}"#);
        assert_refused(&server, &text, "too_deep", None).await;
    }
    // What never ends is no JSON, however deep.
    assert_refused(&server, &"{\"a\":".repeat(10_000), "not_json", None).await;
    let mut alice = server.connect("alice", json!({})).await;
    let text = format!(r#"{{"type":"publish","to":{{"self":true}},"event":"e","data":{}}}"#, nested(63));
    alice.send(&text).await;
    assert_eq!(alice.event().await, "e");
}

#[tokio::test]
async fn the_id_of_a_request_that_is_refused_comes_back() {
    let server = Server::start().await;
    let deep = format!(r#"{{"type":"publish","data":{},"id":"x"}}"#, "[".repeat(100) + &"]".repeat(100));
    for text in [
        r#"{"id":"x","type":"nope"}"#,
        r#"{"type":"join","id":"x"}"#,
        r#"{"type":"ping","id":"x","a":1}"#,
        r#"{"type":"ping","type":"ping","id":"x"}"#,
        r#"{"type":"ping","id":"x","id":"y"}"#,
        &deep,
    ] {
        assert_eq!(answer(&server, text).await["id"], "x", "{text}");
    }
    assert_eq!(answer(&server, r#"{"id":"x","type":"#).await["id"], Value::Null);
}

#[tokio::test]
async fn a_connection_may_send_so_many_malformed_frames_and_the_next_closes_it() {
    let server = Server::start().await;
    let mut alice = server.connect("alice", json!({"*": ["join"]})).await;
    for _ in 0..10 {
        alice.send("nonsense").await;
        assert_eq!(alice.receive().await["code"], "not_json");
    }
    // What is merely denied does not count.
    for _ in 0..20 {
        assert_eq!(alice.request(json!({"type": "leave", "room": "a"})).await["code"], "not_joined");
    }
    alice.send("nonsense").await;
    assert_eq!(alice.receive().await["code"], "not_json");
    assert_eq!(alice.closed().await.0, 4400);
}

#[tokio::test]
async fn binary_messages_and_messages_that_are_too_large_close_with_their_codes() {
    let server = Server::start().await;
    let mut alice = server.connect("alice", json!({})).await;
    alice.send_message(Message::binary(r#"{"type":"ping"}"#)).await;
    assert_eq!(alice.closed().await.0, 1003);
    let mut alice = server.connect("alice", json!({})).await;
    alice.send_message(Message::text("x".repeat(1024 * 1024))).await;
    assert_eq!(alice.closed().await, (1009, "a message may have 65536 bytes at most".to_owned()));
}

#[tokio::test]
async fn nobody_else_notices() {
    let server = Server::start().await;
    let [mut alice, mut bob] = server.members(["alice", "bob"], &["chat:1"]).await;
    for bad in ["nonsense", "[]", r#"{"type":"join"}"#, r#"{"type":"publish","to":{"room":7},"event":"e"}"#] {
        let mut mallory = server.connect("mallory", json!({"*": ["join", "publish"]})).await;
        mallory.join("chat:1").await;
        mallory.send(bad).await;
        mallory.send_message(Message::binary(vec![0xFF; 1000])).await;
        mallory.ended().await;
    }
    alice.publish(json!({"room": "chat:1"}), "hi", json!(null)).await;
    assert_eq!((alice.event().await, bob.event().await), ("hi".into(), "hi".into()));
}
