use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::{Server, within_reason};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_members_see_the_events_of_many_publishers_in_one_order() {
    const EVENTS: usize = 200;
    let server = Server::start().await;
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
    let server = Arc::new(Server::start().await);
    let stop = Arc::new(AtomicBool::new(false));
    let publishing = std::thread::spawn({
        let (hub, stop, runtime) = (Arc::clone(&server.hub), Arc::clone(&stop), tokio::runtime::Handle::current());
        move || {
            let to = wsgate::protocol::Target::room("busy".parse().unwrap());
            let (nobody, name) = (wsgate::protocol::Target::default(), "e".parse().unwrap());
            let data = serde_json::value::RawValue::NULL;
            while !stop.load(Ordering::Relaxed) {
                let event = wsgate::hub::Event { to: &to, except: &nobody, name: &name, from: None, data };
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
    let server = Arc::new(Server::start().await);
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
