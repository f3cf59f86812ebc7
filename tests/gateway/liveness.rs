use std::time::Duration;

use serde_json::json;
use tokio_websockets::Message;

use crate::support::{Opcode, Raw, Server, frame, until};

/// A connection that answers nothing by itself.
async fn silent(server: &Server, user: &str) -> Raw {
    let mut raw = Raw::upgrade(server.public, &format!("/ws?token={}", server.token(user, json!({})))).await;
    assert!(raw.text().await.contains("welcome"));
    raw
}

#[tokio::test]
async fn a_silent_client_is_pinged_and_stays_when_it_answers() {
    let server = Server::start().await;
    let mut alice = silent(&server, "alice").await;
    for _ in 0..5 {
        server.pass(Duration::from_secs(25));
        assert_eq!(alice.frame().await, (0x89, vec![]));
        alice.send(&frame(true, Opcode::Pong, b"")).await;
        // A ping of its own shows when the pong has been read.
        alice.send(&frame(true, Opcode::Ping, b"read?")).await;
        assert_eq!(alice.frame().await, (0x8A, b"read?".to_vec()));
        server.pass(Duration::from_secs(11));
        alice.send(&frame(true, Opcode::Ping, b"alive")).await;
        assert_eq!(alice.frame().await, (0x8A, b"alive".to_vec()));
    }
    assert_eq!(server.hub.census().connections, 1);
}

#[tokio::test]
async fn a_client_that_speaks_is_not_pinged() {
    let server = Server::start().await;
    let mut alice = silent(&server, "alice").await;
    for _ in 0..5 {
        server.pass(Duration::from_secs(24));
        alice.send(&frame(true, Opcode::Text, br#"{"type":"ping","id":1}"#)).await;
        assert_eq!(alice.text().await, r#"{"type":"reply","id":1,"ok":true}"#);
    }
}

#[tokio::test]
async fn a_client_that_stops_answering_is_closed_with_4504_and_leaves() {
    let server = Server::start().await;
    let mut alice = silent(&server, "alice").await;
    server.pass(Duration::from_secs(25));
    assert_eq!(alice.frame().await.0, 0x89);
    server.pass(Duration::from_secs(9));
    assert_eq!(server.hub.census().connections, 1);
    server.pass(Duration::from_secs(1));
    assert!(alice.text().await.contains("4504"));
    assert_eq!(server.hub.census().connections, 0, "it leaves before it is told");
    assert_eq!(alice.close_code().await, 4504);
}

#[tokio::test]
async fn part_of_a_frame_is_no_sign_of_life() {
    let server = Server::start().await;
    let mut alice = silent(&server, "alice").await;
    let whole = frame(true, Opcode::Text, br#"{"type":"ping"}"#);
    alice.send(&whole[..5]).await;
    server.pass(Duration::from_secs(25));
    assert_eq!(alice.frame().await.0, 0x89);
    alice.send(&whole[5..6]).await;
    server.pass(Duration::from_secs(10));
    assert!(alice.text().await.contains("4504"));
}

#[tokio::test]
async fn who_goes_without_a_word_leaves_at_once() {
    let server = Server::start().await;
    let gone = silent(&server, "alice").await;
    drop(gone);
    let reset = silent(&server, "bob").await;
    reset.stream.set_zero_linger().unwrap();
    drop(reset);
    until("both to have left", || server.hub.census() == Default::default()).await;
}

#[tokio::test]
async fn who_has_ended_only_its_own_half_is_told_and_leaves() {
    let server = Server::start().await;
    let mut half = silent(&server, "alice").await;
    tokio::io::AsyncWriteExt::shutdown(&mut half.stream).await.unwrap();
    assert!(half.text().await.contains("1002"));
    assert_eq!(half.close_code().await, 1002);
    assert_eq!(server.hub.census().connections, 0);
}

#[tokio::test]
async fn a_ping_is_answered_with_its_payload_also_amid_requests() {
    let server = Server::start().await;
    let mut alice = silent(&server, "alice").await;
    let mut bytes = Vec::new();
    for number in 0..100 {
        bytes.extend(frame(true, Opcode::Ping, format!("{number}").as_bytes()));
        bytes.extend(frame(true, Opcode::Text, format!(r#"{{"type":"ping","id":{number}}}"#).as_bytes()));
    }
    alice.send(&bytes).await;
    for number in 0..100 {
        assert_eq!(alice.frame().await, (0x8A, format!("{number}").into_bytes()));
        assert_eq!(alice.text().await, format!(r#"{{"type":"reply","id":{number},"ok":true}}"#));
    }
}

#[tokio::test]
async fn a_client_that_never_closes_tcp_is_dropped_after_a_time() {
    let server = Server::start().await;
    let mut stubborn = server.connect("alice", json!({})).await;
    stubborn.send_message(Message::binary("x")).await;
    let mut raw = silent(&server, "bob").await;
    raw.send(&frame(true, Opcode::Binary, b"x")).await;
    assert!(raw.text().await.contains("1003"));
    assert_eq!(raw.frame().await.0, 0x88);
    // The gateway has ended its half of TCP; this client keeps its own open and goes on sending.
    until("the gateway to have had enough", || {
        server.pass(Duration::from_secs(1));
        raw.stream.try_write(b"x").is_err()
    })
    .await;
}
