use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;

use crate::support::{Opcode, Raw, Server, frame, until};

#[tokio::test]
async fn all_clients_are_told_to_come_back_each_at_a_time_of_its_own() {
    let mut server = Server::on_workers(3).await;
    let mut clients = Vec::new();
    for number in 0..20 {
        clients.push(server.connect(&format!("user-{number}"), json!({})).await);
    }
    let mut unproven = server.dial("").await;
    server.ask_to_stop();
    let mut delays = Vec::new();
    for client in clients.iter_mut().chain([&mut unproven]) {
        let closing = client.receive().await;
        assert_eq!((&closing["code"], &closing["retry"]), (&json!(4503), &json!("yes")));
        let delay = closing["retry_after_ms"].as_u64().unwrap();
        assert!(delay <= 5000);
        delays.push(delay);
        assert_eq!(client.next().await.unwrap_err().0, 4503);
    }
    delays.sort_unstable();
    delays.dedup();
    assert!(delays.len() > 10, "spread out: {delays:?}");
    drop((clients, unproven));
    server.stopped().await;
    assert!(TcpStream::connect(server.public).await.is_err(), "nobody listens any more");
    assert_eq!(server.hub.census(), Default::default());
}

#[tokio::test]
async fn what_was_published_before_is_sent_before_the_end() {
    let mut server = Server::start().await;
    let [mut alice] = server.members(["alice"], &["chat:1"]).await;
    for _ in 0..100 {
        server.publish(json!({"to": {"room": "chat:1"}, "event": "e", "data": "x".repeat(1000)})).await;
    }
    server.ask_to_stop();
    for _ in 0..100 {
        assert_eq!(alice.event().await, "e");
    }
    assert_eq!(alice.closed().await.0, 4503);
}

#[tokio::test]
async fn clients_that_do_not_go_do_not_hold_it_up_for_ever() {
    let mut server = Server::start().await;
    let token = server.token("alice", json!({}));
    let mut deaf = Raw::upgrade(server.public, &format!("/ws?token={token}")).await;
    deaf.send(&frame(true, Opcode::Text, br#"{"type":"ping"}"#)).await;
    let _idle = Raw::open(server.public).await;
    let _kept = Raw::open(server.backend).await;
    until("the connection", || server.hub.census().connections == 1).await;
    server.ask_to_stop();
    until("the connection to leave", || server.hub.census().connections == 0).await;
    until("it to stop all the same", || {
        server.pass(Duration::from_secs(1));
        server.is_stopped()
    })
    .await;
    server.stopped().await;
    assert!(TcpStream::connect(server.public).await.is_err(), "nobody listens any more");
}
