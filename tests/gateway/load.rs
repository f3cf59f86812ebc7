use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::{Opcode, Raw, Server, frame, within_reason};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_members_see_the_events_of_many_publishers_in_one_order() {
    const EVENTS: usize = 200;
    let server = Server::on_workers(3).await;
    let readers = server.members(["r1", "r2", "r3", "r4"], &["a", "b"]).await;
    let mut publishing = Vec::new();
    let publishers = server.members(["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7"], &["a", "b"]).await;
    let count = publishers.len();
    for (publisher, mut client) in publishers.into_iter().enumerate() {
        publishing.push(tokio::spawn(async move {
            // Every other one goes to both rooms at once, in either order of naming them.
            let to = [json!({"room": "a"}), json!({"rooms": ["a", "b"]}), json!({"rooms": ["b", "a"]}), json!({"room": "a"})];
            for number in 0..EVENTS {
                let frame = json!({"type": "publish", "to": to[number % 4], "event": format!("{publisher}-{number}"), "echo": false});
                client.send(&frame.to_string()).await;
                if number % 50 == 49 {
                    // Reads what the others have sent, so as to be no slow reader.
                    client.send(r#"{"type":"ping","id":"caught up"}"#).await;
                    while client.receive().await["id"] != "caught up" {}
                }
            }
        }));
    }
    let mut orders = Vec::new();
    let mut reading = Vec::new();
    for mut reader in readers {
        reading.push(tokio::spawn(async move {
            let mut order = Vec::new();
            while order.len() < count * EVENTS {
                order.push(reader.event().await);
            }
            order
        }));
    }
    for task in publishing {
        within_reason("a publisher", task).await.unwrap();
    }
    for task in reading {
        orders.push(within_reason("a reader", task).await.unwrap());
    }
    assert!(orders.iter().all(|order| *order == orders[0]), "one order for all");
    let mut next: HashMap<&str, usize> = HashMap::new();
    for event in &orders[0] {
        let (publisher, number) = event.split_once('-').unwrap();
        let expected = next.entry(publisher).or_default();
        assert_eq!(number, expected.to_string(), "each publisher is heard in its order");
        *expected += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_rooms_events_come_after_the_reply_to_a_join_and_before_the_reply_to_a_leave() {
    let server = Arc::new(Server::on_workers(3).await);
    let stop = Arc::new(AtomicBool::new(false));
    let publishing = std::thread::spawn({
        let (hub, stop, runtime) = (Arc::clone(&server.hub), Arc::clone(&stop), tokio::runtime::Handle::current());
        move || {
            let to = wsgate::protocol::Target::room("busy".parse().unwrap());
            let (nobody, name) = (wsgate::protocol::Target::default(), "e".parse().unwrap());
            let data = serde_json::value::RawValue::NULL;
            while !stop.load(Ordering::Relaxed) {
                let event =
                    wsgate::hub::Event { to: &to, except: &nobody, name: &name, from: None, data, expires: None };
                runtime.block_on(hub.publish(&event, None));
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    });
    let mut alice = server.connect("alice", json!({"busy": ["join"]})).await;
    for id in 0..200 {
        alice.send(&json!({"type": "join", "room": "busy", "id": id}).to_string()).await;
        let first = alice.receive().await;
        assert_eq!((&first["type"], &first["id"]), (&json!("reply"), &json!(id)), "{first}");
        assert_eq!(alice.receive().await["type"], "event");
        alice.send(&json!({"type": "leave", "room": "busy", "id": "left"}).to_string()).await;
        while alice.receive().await["id"] != "left" {}
        alice.send(r#"{"type":"ping","id":"next"}"#).await;
        assert_eq!(alice.receive().await["id"], "next", "no event comes after the reply to a leave");
    }
    stop.store(true, Ordering::Relaxed);
    publishing.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn joins_leaves_publishes_and_ends_at_once_neither_hang_nor_lose_the_count() {
    const WORKERS: usize = 64;
    const ROUNDS: usize = 60;
    let server = Arc::new(Server::on_workers(3).await);
    let mut workers = Vec::new();
    for worker in 0..WORKERS {
        let server = Arc::clone(&server);
        workers.push(tokio::spawn(async move {
            for round in 0..ROUNDS {
                let user = format!("u{}", worker % 16);
                let mut client = server.connect(&user, json!({"*": ["join", "publish"]})).await;
                let room = format!("r{}", (worker + round) % 4);
                for request in [
                    json!({"type": "join", "room": room}),
                    json!({"type": "publish", "to": {"rooms": ["r0", "r1", "r2", "r3"], "users": ["u1"]}, "event": "e"}),
                    json!({"type": "publish", "to": {"all": true}, "event": "e", "echo": false}),
                    json!({"type": "leave", "room": room}),
                    json!({"type": "join", "room": "r0"}),
                ] {
                    client.send(&request.to_string()).await;
                }
                if round % 2 == 0 {
                    client.send(r#"{"type":"ping","id":"done"}"#).await;
                    while let Ok(text) = client.next().await {
                        if text.contains(r#""id":"done""#) {
                            break;
                        }
                    }
                }
            }
        }));
    }
    for worker in workers {
        within_reason("a worker", worker).await.unwrap();
    }
    crate::support::until("all to have left", || server.hub.census() == Default::default()).await;
}

#[tokio::test]
async fn a_flood_is_held_back_and_nothing_of_it_is_lost() {
    // Together more than a room takes at once, and less than an outbox does.
    const PUBLISHERS: usize = 8;
    let server = Server::start().await;
    let [mut reader] = server.members(["reader"], &["flood"]).await;
    let mut publishers = Vec::new();
    for number in 0..PUBLISHERS {
        let token = server.token(&format!("p{number}"), json!({"flood": ["join", "publish"]}));
        let mut raw = Raw::upgrade(server.public, &format!("/ws?token={token}")).await;
        raw.text().await;
        raw.send(&frame(true, Opcode::Text, br#"{"type":"join","room":"flood","id":1}"#)).await;
        raw.text().await;
        publishers.push(raw);
    }
    let data = "x".repeat(60_000);
    let mut expected = Vec::new();
    for (number, publisher) in publishers.iter_mut().enumerate() {
        let mut frames = Vec::new();
        for event in [format!("{number}-a"), format!("{number}-b")] {
            let text = json!({"type": "publish", "to": {"room": "flood"}, "event": event, "data": data}).to_string();
            frames.extend(frame(true, Opcode::Text, text.as_bytes()));
            expected.push(event);
        }
        publisher.send(&frames).await;
    }
    let mut heard = Vec::new();
    while heard.len() < expected.len() {
        heard.push(reader.event().await);
    }
    heard.sort_unstable();
    assert_eq!(heard, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_backend_publishes_before_it_disconnects_a_user_arrives() {
    let server = Server::on_workers(3).await;
    let _audience = server.members(["a", "b", "c", "d", "e", "f"], &["news"]).await;
    for number in 0..50 {
        let [mut alice] = server.members(["alice"], &["news"]).await;
        server.publish(json!({"to": {"room": "news"}, "event": format!("news-{number}")})).await;
        server.publish(json!({"to": {"user": "alice"}, "event": "goodbye"})).await;
        server.api("POST", "/v1/users/alice/disconnect", "").await;
        let mut heard = vec![alice.event().await, alice.event().await];
        heard.sort_unstable();
        assert_eq!(heard, ["goodbye", &format!("news-{number}")]);
        assert_eq!(alice.receive().await["type"], "closing");
    }
}
