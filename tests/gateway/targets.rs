//! Publishing in full: unions minus unions, patterns, events that expire, keys against doing it twice,
//! many at once, and whether whoever publishes gets a copy.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;

use crate::support::{Client, Server, upgrade_request};

async fn publish(server: &Server, body: Value) -> (u16, Value) {
    server.api("POST", "/v1/publish", &body.to_string()).await
}

#[tokio::test]
async fn an_event_goes_to_a_union_minus_a_union_once_to_each_connection() {
    let server = Server::start().await;
    let [mut alice, mut bob, mut carol] = server.members(["alice", "bob", "carol"], &["a:1", "a:2", "b"]).await;
    let [mut dave, mut other_tab] = server.members(["dave", "dave"], &["b"]).await;
    let to =
        json!({"patterns": ["a:*"], "rooms": ["b"], "users": ["alice", "dave"], "connections": [bob.id], "all": true});
    let except = json!({"user": "carol", "connection": dave.id});
    assert_eq!(server.publish(json!({"to": to, "except": except, "event": "once"})).await, 3);
    for client in [&mut alice, &mut bob, &mut other_tab] {
        assert_eq!(client.event().await, "once");
        client.hears_nothing().await;
    }
    carol.hears_nothing().await;
    dave.hears_nothing().await;
}

#[tokio::test]
async fn a_pattern_reaches_the_rooms_of_its_kind_and_personal_ones_only_if_it_says_so() {
    let server = Server::start().await;
    let [mut alice, mut bob] = server.members(["alice", "bob"], &["chat:1"]).await;
    alice.join("chat:2").await;
    let reached =
        async |to: Value, except: Value| server.publish(json!({"to": to, "except": except, "event": "e"})).await;
    let nobody = json!({"rooms": []});
    assert_eq!(reached(json!({"pattern": "chat:*"}), nobody.clone()).await, 2);
    assert_eq!(reached(json!({"pattern": "*:2"}), nobody.clone()).await, 1);
    assert_eq!(reached(json!({"pattern": "*alice"}), nobody.clone()).await, 0);
    assert_eq!(reached(json!({"pattern": "user:al*"}), nobody).await, 1);
    assert_eq!(reached(json!({"all": true}), json!({"pattern": "chat:2"})).await, 1);
    for _ in 0..3 {
        assert_eq!(alice.event().await, "e");
    }
    bob.event().await;
    bob.event().await;
    bob.hears_nothing().await;
}

#[tokio::test]
async fn echo_leaves_out_this_connection_or_all_of_the_user_by_choice() {
    let server = Server::start().await;
    let [mut here, mut tab, mut bob] = server.members(["alice", "alice", "bob"], &["a"]).await;
    let publish = |event: &str, more: Value| {
        let mut publish = json!({"type": "publish", "to": {"room": "a"}, "event": event});
        publish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        publish
    };
    for (event, more) in [
        ("not here", json!({"echo": false})),
        ("not here", json!({"echo": false, "echo_scope": "connection"})),
        ("not mine", json!({"echo": false, "echo_scope": "user"})),
    ] {
        assert_eq!(here.request(publish(event, more)).await["ok"], true);
    }
    for event in ["not here", "not here", "not mine"] {
        assert_eq!(bob.event().await, event);
    }
    assert_eq!((tab.event().await, tab.event().await), ("not here".to_owned(), "not here".to_owned()));
    tab.hears_nothing().await;
    for more in [
        json!({"echo_scope": "user"}),
        json!({"echo": true, "echo_scope": "connection"}),
        json!({"echo": false, "echo_scope": "tab"}),
        json!({"echo": false, "echo_scope": 1}),
    ] {
        let answer = here.request(publish("e", more)).await;
        assert_eq!((&answer["code"], &answer["field"]), (&json!("invalid_field"), &json!("echo_scope")));
    }
}

#[tokio::test]
async fn what_was_published_under_a_key_is_not_published_again_for_five_minutes() {
    let server = Server::start().await;
    let [mut alice] = server.members(["alice"], &["a"]).await;
    let body = json!({"to": {"room": "a"}, "event": "order", "data": {"n": 1}, "idempotency_key": "order-1"});
    assert_eq!(publish(&server, body.clone()).await, (200, json!({"reached": 1})));
    server.connect("alice", json!({"a": ["join"]})).await.join("a").await;
    for _ in 0..2 {
        assert_eq!(publish(&server, body.clone()).await, (200, json!({"reached": 1, "duplicate": true})));
    }
    let mut other = body.clone();
    other["data"] = json!({"n": 2});
    let (status, answer) = publish(&server, other).await;
    assert_eq!((status, &answer["code"], &answer["field"]), (409, &json!("key_reused"), &json!("idempotency_key")));
    assert_eq!(alice.event().await, "order");
    alice.hears_nothing().await;
    server.pass(Duration::from_secs(5 * 60));
    assert_eq!(publish(&server, body).await.1.get("duplicate"), None);
    assert_eq!(alice.event().await, "order");
}

#[tokio::test]
async fn a_request_that_was_refused_leaves_its_key_free_and_there_are_so_many_keys() {
    let server = Server::with(|limits| limits.max_idempotency_keys = 1).await;
    let refused = publish(&server, json!({"to": {"room": ""}, "event": "e", "idempotency_key": "k"})).await;
    assert_eq!(refused.0, 400);
    let body = |key: &str| json!({"to": {"room": "a"}, "event": "e", "idempotency_key": key});
    assert_eq!(publish(&server, body("k")).await.0, 200);
    let (status, answer) = publish(&server, body("another")).await;
    assert_eq!((status, &answer["code"]), (503, &json!("full")));
    assert_eq!(publish(&server, body("k")).await.1["duplicate"], true);
}

#[tokio::test]
async fn of_those_who_publish_at_once_under_one_key_one_does() {
    let server = Server::start().await;
    let [mut alice] = server.members(["alice"], &["a"]).await;
    let body = json!({"to": {"room": "a"}, "event": "once", "idempotency_key": "k"});
    let answers = futures_util::future::join_all((0..20).map(|_| publish(&server, body.clone()))).await;
    assert_eq!(answers.iter().filter(|(_, answer)| answer.get("duplicate").is_none()).count(), 1);
    assert!(answers.iter().all(|(status, answer)| *status == 200 && answer["reached"] == 1));
    assert_eq!(alice.event().await, "once");
    alice.hears_nothing().await;
}

#[tokio::test]
async fn a_batch_is_done_in_order_and_each_event_on_its_own() {
    let server = Server::start().await;
    let [mut alice] = server.members(["alice"], &["a"]).await;
    let publish = |event: &str| json!({"to": {"room": "a"}, "event": event, "idempotency_key": event});
    let reused = json!({"to": {"room": "a"}, "event": "another", "idempotency_key": "one"});
    let batch = |publishes: Value| json!({"publishes": publishes}).to_string();
    let publishes = json!([publish("one"), reused, publish("two"), publish("one")]);
    let (status, answer) = server.api("POST", "/v1/batch", &batch(publishes)).await;
    let message = "`idempotency_key` was used for something else within the last 5 minutes";
    let error = json!({"code": "key_reused", "field": "idempotency_key", "message": message});
    let expected = json!([{"reached": 1}, {"error": error}, {"reached": 1}, {"reached": 1, "duplicate": true}]);
    assert_eq!((status, &answer["results"]), (200, &expected));
    assert_eq!((alice.event().await, alice.event().await), ("one".to_owned(), "two".to_owned()));
    // What is malformed in one is the fault of the whole.
    for (wrong, code, field) in [
        (json!({"to": {"rooms": ["a", ""]}, "event": "e"}), "invalid_field", "publishes[1].to.rooms[1]"),
        (json!({"to": {"room": "a"}}), "missing_field", "publishes[1].event"),
        (json!({"to": {"room": "a"}, "event": "e", "ttl": 0}), "invalid_field", "publishes[1].ttl"),
        (json!(7), "invalid_field", "publishes[1]"),
    ] {
        let (status, answer) = server.api("POST", "/v1/batch", &batch(json!([publish("three"), wrong]))).await;
        assert_eq!((status, &answer["code"], &answer["field"]), (400, &json!(code), &json!(field)));
    }
    alice.hears_nothing().await;
}

#[tokio::test]
async fn every_new_field_has_its_refusal() {
    let server = Server::start().await;
    let body = |field: &str, value: &Value| {
        let mut body = json!({"to": {"room": "a"}, "event": "e"});
        match field.split_once('.') {
            Some((outer, inner)) => {
                if body.get(outer).is_none() {
                    body[outer] = json!({});
                }
                body[outer][inner] = value.clone();
            }
            None => body[field] = value.clone(),
        }
        body.to_string()
    };
    let long = "x".repeat(129);
    for (field, value) in [
        ("ttl", json!(0)),
        ("ttl", json!(-1)),
        ("ttl", json!(300.1)),
        ("ttl", json!("5")),
        ("ttl", json!(null)),
        ("idempotency_key", json!("")),
        ("idempotency_key", json!(long)),
        ("idempotency_key", json!(7)),
        ("to.pattern", json!("")),
        ("to.pattern", json!("x".repeat(256))),
        ("to.pattern", json!(["a"])),
        ("to.patterns", json!("a")),
        ("to.patterns", json!([1])),
        ("except.patterns", json!(vec!["a"; 1001])),
    ] {
        let (status, answer) = server.api("POST", "/v1/publish", &body(field, &value)).await;
        let expected = (400, &json!("invalid_field"), &json!(field));
        assert_eq!((status, &answer["code"], &answer["field"]), expected, "{field} {value}");
    }
    for (body, code, field) in [
        ("{}", "missing_field", json!("publishes")),
        (r#"{"publishes":{}}"#, "invalid_field", json!("publishes")),
        (r#"{"publishes":[]}"#, "invalid_field", json!("publishes")),
        (&format!(r#"{{"publishes":[{}1]}}"#, "1,".repeat(100)), "invalid_field", json!("publishes")),
        (r#"{"publishes":[1],"x":1}"#, "unknown_field", json!("x")),
        ("[]", "not_an_object", json!(null)),
    ] {
        let (status, answer) = server.api("POST", "/v1/batch", body).await;
        assert_eq!((status, &answer["code"], &answer["field"]), (400, &json!(code), &field), "{body}");
    }
    let mut alice = server.connect("alice", json!({"*": ["publish"]})).await;
    for (request, field) in [
        (r#"{"type":"publish","to":{"pattern":"a"},"event":"e","id":1}"#, "to.pattern"),
        (r#"{"type":"publish","to":{"self":true},"event":"e","ttl":1,"id":1}"#, "ttl"),
        (r#"{"type":"publish","to":{"self":true},"event":"e","idempotency_key":"k","id":1}"#, "idempotency_key"),
    ] {
        alice.send(request).await;
        let answer = alice.receive().await;
        assert_eq!((&answer["code"], &answer["field"]), (&json!("unknown_field"), &json!(field)));
    }
}

/// A client that reads nothing, and whose system takes little for it.
async fn slow_reader(server: &Server) -> tokio::net::TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.public).await.unwrap();
    let token = server.token("slow", json!({}));
    let request = upgrade_request(&format!("/ws?token={token}"));
    tokio::io::AsyncWriteExt::write_all(&mut stream, &request).await.unwrap();
    let mut head = Vec::new();
    while !head.windows(9).any(|part| part == b"\"welcome\"") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream
}

#[tokio::test]
async fn a_slow_reader_of_events_that_expire_is_told_how_many_it_has_lost_and_stays() {
    let server = Server::with(|limits| limits.max_outbox_bytes = 1024 * 1024).await;
    let mut stream = slow_reader(&server).await;
    let data = "x".repeat(60_000);
    // Far more than an outbox and the system's buffers take: without a time each would count.
    let mut sent = 0;
    for _ in 0..20 {
        for _ in 0..10 {
            let body = json!({"to": {"user": "slow"}, "event": "tick", "data": data, "ttl": 1});
            assert_eq!(server.publish(body).await, 1);
            sent += 1;
        }
        server.pass(Duration::from_secs(1));
    }
    assert_eq!(server.publish(json!({"to": {"user": "slow"}, "event": "the last"})).await, 1);
    let (mut text, mut space) = (String::new(), vec![0; 65536]);
    while !text.contains("the last") {
        let count = stream.read(&mut space).await.unwrap();
        assert!(count > 0, "it was closed");
        text.push_str(&String::from_utf8_lossy(&space[..count]));
    }
    let heard = text.matches(r#""event":"tick""#).count();
    let lost: usize = text
        .split(r#"{"type":"lost","count":"#)
        .skip(1)
        .map(|rest| rest.split('}').next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert!(lost > 0 && heard > 0, "{heard} {lost}");
    assert_eq!(heard + lost, sent);
}

#[tokio::test]
async fn a_client_that_reads_gets_events_that_expire_as_any_others() {
    let server = Server::start().await;
    let [mut alice] = server.members(["alice"], &["a"]).await;
    let client: &mut Client = &mut alice;
    for to in [json!({"room": "a"}), json!({"connection": client.id}), json!({"all": true})] {
        assert_eq!(server.publish(json!({"to": to, "event": "soon", "ttl": 0.5})).await, 1);
        assert_eq!(client.event().await, "soon");
    }
}
