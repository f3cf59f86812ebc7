use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use wsgate::Stopped;

use crate::support::{Opcode, Raw, Server, frame, until, upgrade_request, within_reason};

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
        assert!(delay <= 10_000, "as long as the drain may take");
        delays.push(delay);
        assert_eq!(client.next().await.unwrap_err().0, 4503);
    }
    delays.sort_unstable();
    delays.dedup();
    assert!(delays.len() > 10, "spread out: {delays:?}");
    drop((clients, unproven));
    assert_eq!(server.stopped().await, Stopped::Empty);
    assert!(TcpStream::connect(server.public).await.is_err(), "nobody listens any more");
    assert_eq!(server.hub.census(), Default::default());
}

#[tokio::test]
async fn who_waits_to_be_accepted_when_it_stops_is_answered_and_not_reset() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1024).unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = Server::listening(listener.into(), |_| {}).await;
    assert_eq!(server.api("GET", "/v1/explain", "").await.0, 400, "it runs");
    // Without waiting for anything: the gateway, which is on this thread, does not hear of them.
    let waiting: Vec<_> = (0..300)
        .map(|_| {
            let mut client = std::net::TcpStream::connect(address).unwrap();
            client.write_all(b"GET /client.js HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            client.set_nonblocking(true).unwrap();
            client
        })
        .collect();
    server.ask_to_stop();
    for client in waiting {
        let mut raw = Raw { stream: TcpStream::from_std(client).unwrap() };
        assert!(raw.head().await.starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(server.stopped().await, Stopped::Empty);
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
    assert_eq!(server.stopped().await, Stopped::Empty, "its time to close has passed before");
    assert!(TcpStream::connect(server.public).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_drain_ends_at_its_limit_and_says_how_many_were_left() {
    let mut server = Server::with(|limits| limits.drain_timeout = Duration::from_secs(2)).await;
    let token = server.token("alice", json!({}));
    let mut deaf = Raw::upgrade(server.public, &format!("/ws?token={token}")).await;
    deaf.text().await;
    server.ask_to_stop();
    until("the drain", || server.hub.census().connections == 0).await;
    assert!(deaf.text().await.contains("closing"));
    server.pass(Duration::from_secs(2));
    assert_eq!(server.stopped().await, Stopped::TimedOut { connections: 1 });
}

/// What `/health` says on the public door.
async fn public_health(server: &Server) -> (u16, String) {
    let answer = within_reason("an answer", reqwest::get(format!("http://{}/health", server.public))).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// What `/health/ready` says, on a connection of its own.
async fn readiness(server: &Server) -> (u16, Value) {
    let response = within_reason("an answer", reqwest::get(format!("http://{}/health/ready", server.backend))).await;
    let response = response.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn a_drain_is_seen_first_and_then_it_takes_no_more_clients_but_serves_backends_to_the_end() {
    let mut server = Server::with(|limits| limits.drain_delay = Duration::from_secs(20)).await;
    let mut alice = server.connect("alice", json!({})).await;
    let (status, ready) = readiness(&server).await;
    assert_eq!((status, &ready["ready"], &ready["connections"]), (200, &json!(true), &json!(1)), "{ready}");
    assert_eq!(public_health(&server).await, (200, "ok\n".to_owned()));
    let (status, answer) = server.api("POST", "/v1/drain", "").await;
    assert_eq!((status, answer), (200, json!({"connections": 1})));
    assert_eq!(public_health(&server).await, (503, "draining\n".to_owned()), "what stands before it sees it, too");
    let (status, ready) = readiness(&server).await;
    let reasons = json!(["it is draining, and takes no more clients"]);
    assert_eq!((status, &ready["ready"], &ready["reasons"]), (503, &json!(false), &reasons));
    let mut bob = server.connect("bob", json!({})).await;
    assert_eq!(server.api("POST", "/v1/drain", "").await.0, 200, "once is as good as twice");

    server.pass(Duration::from_secs(20));
    for client in [&mut alice, &mut bob] {
        assert_eq!(client.closed().await.0, 4503);
    }
    until("nobody to listen", || std::net::TcpStream::connect(server.public).is_err()).await;
    let (status, ready) = readiness(&server).await;
    assert_eq!((status, &ready["connections"]), (503, &json!(2)), "they have not ended TCP yet");
    assert_eq!(server.publish(json!({"to": {"all": true}, "event": "e"})).await, 0);
    drop((alice, bob));
    assert_eq!(server.stopped().await, Stopped::Empty);
    assert!(TcpStream::connect(server.backend).await.is_err(), "nor do they listen to backends");
}

#[tokio::test]
async fn who_never_ends_a_request_holds_up_a_drain_for_a_moment_only() {
    let mut server = Server::start().await;
    let mut half = Raw::open(server.public).await;
    half.send(b"POST /backchannel-logout HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nlogout_token=").await;
    // It has been read when another's answer has been.
    let _alice = server.connect("alice", json!({})).await;
    server.ask_to_stop();
    until("it to stop before drain_timeout", || {
        server.pass(Duration::from_millis(100));
        server.is_stopped()
    })
    .await;
    assert_eq!(server.stopped().await, Stopped::Empty);
}

#[tokio::test]
async fn who_has_connected_before_a_drain_and_asks_now_is_answered_too() {
    let mut server = Server::start().await;
    let mut late = Raw::open(server.public).await;
    let _alice = server.connect("alice", json!({})).await;
    server.ask_to_stop();
    until("the drain", || server.hub.census().connections == 0).await;
    let path = format!("/ws?token={}", server.token("bob", json!({})));
    late.send(&upgrade_request(&path)).await;
    assert!(late.head().await.starts_with("HTTP/1.1 101 "));
    assert!(late.text().await.contains("retry_after_ms"));
    assert_eq!(late.close_code().await, 4503);
}

#[tokio::test]
async fn a_backend_that_keeps_its_connection_is_told_to_take_another_one() {
    let mut server = Server::start().await;
    let alice = server.connect("alice", json!({})).await;
    let mut kept = Raw::open(server.backend).await;
    let request = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n";
    kept.send(request).await;
    assert!(!kept.head().await.contains("connection: close"));
    server.ask_to_stop();
    until("the drain", || server.hub.census().connections == 0).await;
    let body = format!(r#"{{"live":true,"version":"{}","pid":{}}}"#, env!("CARGO_PKG_VERSION"), std::process::id());
    assert_eq!(kept.bytes(body.len()).await, body.as_bytes());
    kept.send(request).await;
    assert!(kept.head().await.contains("connection: close"));
    assert_eq!(kept.end().await, body.as_bytes());
    drop(alice);
    server.stopped().await;
}
