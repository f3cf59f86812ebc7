use std::time::Duration;

use serde_json::json;
use tokio_websockets::Message;

use crate::support::{Client, Opcode, Raw, Server, frame, upgrade_request, within_reason};

#[tokio::test]
async fn a_token_in_the_query_is_welcome() {
    let server = Server::start().await;
    let mut alice = server.dial(&format!("?token={}", server.token("alice", json!({})))).await;
    let welcome = alice.receive().await;
    assert_eq!(welcome["type"], "welcome");
    assert_eq!(welcome["user"], "alice");
    assert_eq!(welcome["connection"].as_str().unwrap().len(), 16);
    assert_eq!(welcome["expires_in"], 3600);
    assert_eq!(welcome["rooms"], json!(["user:alice"]));
}

#[tokio::test]
async fn a_token_in_the_first_frame_is_welcome_and_its_id_is_answered() {
    let server = Server::start().await;
    let mut alice = server.dial("").await;
    let token = server.token("alice", json!({}));
    alice.send(&json!({"type": "auth", "token": token, "id": "a"}).to_string()).await;
    assert_eq!(alice.receive().await["type"], "welcome");
    let reply = alice.receive().await;
    assert_eq!((&reply["type"], &reply["id"], &reply["ok"]), (&json!("reply"), &json!("a"), &json!(true)));
}

#[tokio::test]
async fn a_percent_encoded_token_beside_other_parameters_is_welcome() {
    let server = Server::start().await;
    let token = server.token("alice", json!({})).replace('.', "%2E");
    let mut alice = server.dial(&format!("?v=1&token={token}&x=%20")).await;
    assert_eq!(alice.receive().await["user"], "alice");
}

#[tokio::test]
async fn frames_that_come_together_with_the_upgrade_are_heard_in_order() {
    let server = Server::start().await;
    let token = server.token("alice", json!({"chat:*": ["join"]}));
    let mut raw = Raw::open(server.public).await;
    let mut bytes = upgrade_request("/ws");
    for text in [json!({"type": "auth", "token": token}), json!({"type": "join", "room": "chat:1", "id": 1})] {
        bytes.extend(frame(true, Opcode::Text, text.to_string().as_bytes()));
    }
    raw.send(&bytes).await;
    assert!(raw.head().await.starts_with("HTTP/1.1 101 "));
    assert!(raw.text().await.contains("welcome"));
    assert!(raw.text().await.contains(r#""room":"chat:1""#));
}

#[tokio::test]
async fn no_token_in_time_is_4408_and_nothing_but_a_token_extends_it() {
    let server = Server::start().await;
    let mut alice = server.dial("").await;
    alice.is_heard().await;
    server.pass(Duration::from_secs(9));
    alice.is_heard().await;
    // Part of a first frame, too, is no token.
    let mut slow = Raw::upgrade(server.public, "/ws").await;
    slow.send(&frame(false, Opcode::Text, b"{\"type\":")).await;
    slow.send(&frame(true, Opcode::Ping, b"")).await;
    assert_eq!(slow.frame().await.0, 0x8A, "the pong says that all was read");
    server.pass(Duration::from_secs(1));
    assert_eq!(alice.closed().await.0, 4408);
    server.pass(Duration::from_secs(9));
    assert!(slow.text().await.contains("4408"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_does_not_hold_up_the_clock() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Server::start().await;
    let start = frame(false, Opcode::Text, b"{");
    for (name, flood) in [
        ("pongs", frame(true, Opcode::Pong, b"").repeat(10_000)),
        ("empty fragments", frame(false, Opcode::Continuation, b"").repeat(10_000)),
    ] {
        let mut raw = Raw::upgrade(server.public, "/ws").await;
        if name == "empty fragments" {
            raw.send(&start).await;
        }
        let (mut reader, mut writer) = raw.stream.into_split();
        let flooding = tokio::spawn(async move { while writer.write_all(&flood).await.is_ok() {} });
        let mut answer = Vec::new();
        within_reason(name, async {
            while !String::from_utf8_lossy(&answer).contains("4408") {
                server.pass(Duration::from_secs(1));
                tokio::select! {
                    read = reader.read_buf(&mut answer) => assert_ne!(read.unwrap(), 0, "{name}"),
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
            }
        })
        .await;
        flooding.abort();
    }
}

#[tokio::test]
async fn a_refused_token_is_4401_with_the_reason_in_words() {
    let server = Server::start().await;
    let good = server.token("alice", json!({}));
    server.pass(Duration::from_secs(1));
    let expired = server.token_for("alice", json!({}), Duration::ZERO);
    server.pass(Duration::from_secs(2));
    let forged = format!("{}{}", good.rsplit_once('.').unwrap().0, ".AAAA");
    for (token, reason) in [
        ("", "this is not a JWT"),
        ("nonsense", "this is not a JWT"),
        (expired.as_str(), "the token has expired"),
        (forged.as_str(), "the token's signature is wrong"),
    ] {
        let mut client = server.dial(&format!("?token={token}")).await;
        assert_eq!(client.closed().await, (4401, reason.to_owned()));
        let mut client = server.dial("").await;
        client.send(&json!({"type": "auth", "token": token}).to_string()).await;
        assert_eq!(client.closed().await, (4401, reason.to_owned()));
    }
    assert_eq!(server.hub.census().connections, 0);
}

#[tokio::test]
async fn a_first_frame_that_is_not_auth_is_not_acted_on() {
    let server = Server::start().await;
    let mut listener = server.connect("bob", json!({"*": ["join"]})).await;
    listener.join("chat:1").await;
    for first in [
        json!({"type": "join", "room": "chat:1", "id": 1}),
        json!({"type": "publish", "to": {"room": "chat:1"}, "event": "e"}),
        json!({"type": "ping", "id": 1}),
    ] {
        let mut client = server.dial("").await;
        client.send(&first.to_string()).await;
        assert_eq!(client.closed().await.0, 4401);
    }
    listener.hears_nothing().await;
    assert_eq!(server.hub.census().connections, 1);
}

#[tokio::test]
async fn a_malformed_first_frame_is_4400_and_a_binary_one_1003() {
    let server = Server::start().await;
    for first in ["", "nonsense", "[]", "{}", r#"{"type":"auth"}"#, r#"{"type":"auth","token":7}"#] {
        let mut client = server.dial("").await;
        client.send(first).await;
        assert_eq!(client.closed().await.0, 4400, "{first}");
    }
    let mut client = server.dial("").await;
    client.send_message(Message::binary("token")).await;
    assert_eq!(client.closed().await.0, 1003);
}

#[tokio::test]
async fn before_the_token_a_message_may_only_be_as_large_as_a_token() {
    let server = Server::start().await;
    let mut raw = Raw::upgrade(server.public, "/ws").await;
    // The declared length is enough: its 60 KB are never sent, nor waited for.
    raw.send(&[0x81, 0xFE, 0xEA, 0x60, 0, 0, 0, 0]).await;
    assert!(raw.text().await.contains("1009"));
    assert_eq!(raw.close_code().await, 1009);
    // After it, the same message is read.
    let mut alice = server.connect("alice", json!({})).await;
    let long = "x".repeat(60_000);
    alice.publish(json!({"self": true}), "long", json!(long)).await;
    assert_eq!(alice.event().await, "long");
}

#[tokio::test]
async fn a_subprotocol_is_answered_only_if_it_is_ours() {
    let server = Server::start().await;
    for (offered, answered) in [("wsgate.v1", true), ("chat, wsgate.v1", true), ("chat", false)] {
        let mut raw = Raw::open(server.public).await;
        let request = String::from_utf8(upgrade_request("/ws")).unwrap();
        let request = request.replace("\r\n\r\n", &format!("\r\nSec-WebSocket-Protocol: {offered}\r\n\r\n"));
        raw.send(request.as_bytes()).await;
        let head = raw.head().await.to_lowercase();
        assert_eq!(head.contains("sec-websocket-protocol: wsgate.v1\r\n"), answered, "{head}");
    }
}

#[tokio::test]
async fn a_user_may_have_many_connections() {
    let server = Server::start().await;
    let (mut one, mut two) = (server.connect("alice", json!({})).await, server.connect("alice", json!({})).await);
    assert_ne!(one.id, two.id);
    assert_eq!(server.publish(json!({"to": {"user": "alice"}, "event": "e"})).await, 2);
    assert_eq!((one.event().await, two.event().await), ("e".into(), "e".into()));
}

#[tokio::test]
async fn a_client_that_closes_is_answered_with_its_own_code() {
    let server = Server::start().await;
    let mut raw = Raw::upgrade(server.public, &format!("/ws?token={}", server.token("alice", json!({})))).await;
    raw.text().await;
    raw.send(&frame(true, Opcode::Close, &[0x0F, 0xA0, b'b', b'y', b'e'])).await;
    assert_eq!(raw.frame().await, (0x88, vec![0x0F, 0xA0, b'b', b'y', b'e']));
    raw.end().await;
    let client: Client = server.connect("bob", json!({})).await;
    client.close().await;
    crate::support::until("both to have left", || server.hub.census() == Default::default()).await;
}
