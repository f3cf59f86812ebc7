use std::time::Duration;

use serde_json::{Value, json};
use wsgate::config::File;

use crate::support::{Client, Opcode, Raw, Server, frame, until, upgrade_request};

const JOIN: Duration = Duration::from_millis(200);
const LEAVE: Duration = Duration::from_secs(3);

/// A gateway whose rooms `p:…` have presence, of three users by name, and whose rooms `pair:…` hold two.
async fn server() -> Server {
    let rule = |pattern: &str, more: &str| {
        format!(
            "[[rooms]]\npattern = \"{pattern}\"\njoin = \"grant\"\npublish = \"grant\"\nmembers = \"grant\"\n{more}\n"
        )
    };
    let rules = [
        rule("p:*", "presence = true\npresence_limit = 3"),
        rule("pair:*", "max_members = 2"),
        rule("*", "presence_limit = 3"),
    ];
    Server::with_file(&rules.concat()).await
}

fn grants() -> Value {
    json!({"*": ["join", "members", "publish"]})
}

/// A member of a room whose coming has been announced to all who were there.
async fn member(server: &Server, user: &str, room: &str, others: &mut [&mut Client]) -> Client {
    let mut member = server.connect(user, grants()).await;
    member.join(room).await;
    server.pass(JOIN);
    assert_eq!(member.receive().await["type"], "presence");
    for other in others {
        assert_eq!(other.receive().await["joined"], json!([{"user": user}]));
    }
    member
}

/// The users and connections in a room, as a backend is told.
async fn listed(server: &Server, room: &str) -> (Value, Value) {
    let (status, answer) = server.api("GET", &format!("/v1/rooms/{room}"), "").await;
    assert_eq!(status, 200, "{answer}");
    (answer["users"].clone(), answer["total"].clone())
}

#[tokio::test]
async fn members_are_told_who_comes_and_who_goes() {
    let server = server().await;
    let mut alice = server.connect("alice", grants()).await;
    alice.join("p:1").await;
    server.pass(JOIN);
    let first = json!({"type": "presence", "room": "p:1", "joined": [{"user": "alice"}], "users": 1});
    assert_eq!(alice.receive().await, first);
    let mut bob = server.connect("bob", grants()).await;
    bob.join("p:1").await;
    server.pass(JOIN - Duration::from_millis(1));
    alice.hears_nothing().await;
    server.pass(Duration::from_millis(1));
    let joined = json!({"type": "presence", "room": "p:1", "joined": [{"user": "bob"}], "users": 2});
    assert_eq!((alice.receive().await, bob.receive().await), (joined.clone(), joined));
    bob.leave("p:1").await;
    server.pass(LEAVE);
    let left = json!({"type": "presence", "room": "p:1", "left": ["bob"], "users": 1});
    assert_eq!(alice.receive().await, left);
    bob.hears_nothing().await;
}

#[tokio::test]
async fn those_who_come_and_go_together_are_announced_in_one_message() {
    let server = server().await;
    let mut alice = member(&server, "alice", "p:1", &mut []).await;
    let mut bob = member(&server, "bob", "p:1", &mut [&mut alice]).await;
    bob.leave("p:1").await;
    server.pass(LEAVE - JOIN);
    let [_carol, _dave] = server.members(["carol", "dave"], &["p:1"]).await;
    server.pass(JOIN);
    let joined = json!([{"user": "carol"}, {"user": "dave"}]);
    let both = json!({"type": "presence", "room": "p:1", "joined": joined, "left": ["bob"], "users": 3});
    assert_eq!(alice.receive().await, both);
}

#[tokio::test]
async fn a_page_that_is_loaded_anew_is_announced_neither_as_gone_nor_as_come() {
    let server = server().await;
    let mut alice = member(&server, "alice", "p:1", &mut []).await;
    let mut bob = member(&server, "bob", "p:1", &mut [&mut alice]).await;
    for _ in 0..3 {
        bob.close().await;
        server.pass(LEAVE - Duration::from_millis(1));
        bob = server.connect("bob", grants()).await;
        bob.join("p:1").await;
        server.pass(LEAVE);
    }
    // What is announced next is all that has been announced.
    let _carol = member(&server, "carol", "p:1", &mut [&mut alice, &mut bob]).await;
    alice.hears_nothing().await;
}

#[tokio::test]
async fn two_connections_of_a_user_are_one_user() {
    let server = server().await;
    let mut alice = member(&server, "alice", "p:1", &mut []).await;
    let mut bob = member(&server, "bob", "p:1", &mut [&mut alice]).await;
    let [mut bob_too] = server.members(["bob"], &["p:1"]).await;
    let users = json!([{"user": "alice", "connections": 1}, {"user": "bob", "connections": 2}]);
    assert_eq!(listed(&server, "p:1").await, (users, json!(3)));
    server.pass(LEAVE);
    bob.leave("p:1").await;
    server.pass(LEAVE);
    bob_too.leave("p:1").await;
    server.pass(LEAVE);
    // What is announced next is all that has been announced.
    assert_eq!(alice.receive().await["left"], json!(["bob"]));
    let reply = alice.request(json!({"type": "members", "room": "p:1"})).await;
    let alone = json!({"type": "reply", "ok": true, "room": "p:1", "users": 1, "connections": 1,
        "members": [{"user": "alice", "connections": 1}]});
    assert_eq!(without_id(reply), alone);
}

#[tokio::test]
async fn who_was_in_a_list_and_is_gone_before_it_was_announced_is_announced_as_gone() {
    let server = server().await;
    let mut alice = member(&server, "alice", "p:1", &mut []).await;
    let [bob] = server.members(["bob"], &["p:1"]).await;
    let reply = alice.request(json!({"type": "members", "room": "p:1"})).await;
    assert_eq!(reply["members"][1]["user"], "bob");
    bob.close().await;
    server.pass(LEAVE);
    let left = json!({"type": "presence", "room": "p:1", "left": ["bob"], "users": 1});
    assert_eq!(alice.receive().await, left);
}

/// Brings about the end of a connection, and waits until it is out of the tables.
async fn end(server: &Server, how: &str, user: &str, mut client: Client, alice: &mut Client) {
    match how {
        "a Close" => client.close().await,
        "the backend" => {
            server.api("POST", &format!("/v1/users/{user}/disconnect"), "").await;
            assert_eq!(client.closed().await.0, 4403);
        }
        "the end of TCP" => drop(client),
        "a revocation" => {
            server.api("POST", "/v1/revocations", &json!({"user": user}).to_string()).await;
            assert_eq!(client.closed().await.0, 4403);
        }
        "reading too slowly" => {
            let to = json!({"user": user});
            let data = "x".repeat(200_000);
            while server.hub.census().connections > 1 {
                server.publish(json!({"to": to, "event": "e", "data": data})).await;
            }
        }
        _ => {
            // One that answers no ping, as it does not read; alice does.
            server.pass(Duration::from_secs(25));
            alice.is_heard().await;
            server.pass(Duration::from_secs(10));
        }
    }
    until("the connection to have left", || server.hub.census().connections == 1).await;
    alice.is_heard().await;
}

#[tokio::test]
async fn no_ghost_is_left_however_a_connection_ends() {
    let server = server().await;
    let mut alice = member(&server, "alice", "p:1", &mut []).await;
    for how in ["a Close", "the backend", "the end of TCP", "a revocation", "reading too slowly", "no pong"] {
        let user = how.replace(' ', "-");
        let client = member(&server, &user, "p:1", &mut [&mut alice]).await;
        end(&server, how, &user, client, &mut alice).await;
        let only_alice = json!([{"user": "alice", "connections": 1}]);
        assert_eq!(listed(&server, "p:1").await, (only_alice, json!(1)), "{how}");
        server.pass(LEAVE);
        let left = json!({"type": "presence", "room": "p:1", "left": [user], "users": 1});
        assert_eq!(alice.receive().await, left, "{how}");
    }
}

#[tokio::test]
async fn a_reset_of_tcp_leaves_no_ghost_either() {
    let server = server().await;
    let mut alice = member(&server, "alice", "p:1", &mut []).await;
    let mut raw = Raw::open(server.public).await;
    let path = format!("/ws?token={}", server.token("bob", grants()));
    raw.send(&upgrade_request(&path)).await;
    raw.head().await;
    assert!(raw.text().await.contains("welcome"));
    raw.send(&frame(true, Opcode::Text, br#"{"type":"join","room":"p:1","id":1}"#)).await;
    assert!(raw.text().await.contains("reply"));
    server.pass(JOIN);
    assert_eq!(alice.receive().await["joined"], json!([{"user": "bob"}]));
    raw.stream.set_zero_linger().unwrap();
    drop(raw);
    until("bob to have left", || server.hub.census().connections == 1).await;
    server.pass(LEAVE);
    assert_eq!(alice.receive().await["left"], json!(["bob"]));
}

#[tokio::test]
async fn of_many_users_only_the_number_is_announced_and_not_too_often() {
    let server = server().await;
    let mut alice = member(&server, "alice", "p:1", &mut []).await;
    let mut others = server.members(["b", "c", "d"], &["p:1"]).await.map(Some);
    server.pass(JOIN);
    assert_eq!(alice.receive().await, json!({"type": "presence", "room": "p:1", "users": 4}));
    // More of them at once, but once in three seconds.
    let _more = server.members(["e", "f"], &["p:1"]).await;
    server.pass(JOIN);
    alice.hears_nothing().await;
    server.pass(LEAVE);
    assert_eq!(alice.receive().await, json!({"type": "presence", "room": "p:1", "users": 6}));
    let reply = alice.request(json!({"type": "members", "room": "p:1"})).await;
    let counts = json!({"type": "reply", "ok": true, "room": "p:1", "users": 6, "connections": 6});
    assert_eq!(without_id(reply), counts);
    // As soon as there are few enough, clients start afresh.
    server.pass(LEAVE);
    for other in &mut others {
        other.take().unwrap().close().await;
    }
    server.pass(LEAVE);
    let members = json!([
        {"user": "alice", "connections": 1}, {"user": "e", "connections": 1}, {"user": "f", "connections": 1}
    ]);
    let afresh = json!({"type": "presence", "room": "p:1", "members": members, "users": 3});
    assert_eq!(alice.receive().await, afresh);
}

fn without_id(mut answer: Value) -> Value {
    answer.as_object_mut().unwrap().remove("id");
    answer
}

#[tokio::test]
async fn presence_is_one_of_the_rooms_events_and_comes_in_one_order_to_all() {
    let server = server().await;
    let mut alice = member(&server, "alice", "p:1", &mut []).await;
    let mut bob = member(&server, "bob", "p:1", &mut [&mut alice]).await;
    bob.publish(json!({"room": "p:1"}), "before", json!(null)).await;
    assert_eq!((alice.event().await, bob.event().await), ("before".into(), "before".into()));
    let [carol] = server.members(["carol"], &["p:1"]).await;
    server.pass(JOIN);
    for client in [&mut alice, &mut bob] {
        assert_eq!(client.receive().await["joined"], json!([{"user": "carol"}]));
    }
    carol.close().await;
    server.pass(LEAVE);
    for client in [&mut alice, &mut bob] {
        assert_eq!(client.receive().await["left"], json!(["carol"]));
    }
}

#[tokio::test]
async fn a_room_without_presence_announces_nothing_and_lists_all_the_same() {
    let server = server().await;
    let [mut alice, _bob] = server.members(["alice", "bob"], &["chat:1"]).await;
    server.pass(LEAVE);
    alice.hears_nothing().await;
    let users = json!([{"user": "alice", "connections": 1}, {"user": "bob", "connections": 1}]);
    assert_eq!(listed(&server, "chat:1").await, (users, json!(2)));
    assert_eq!(listed(&server, "nobody-is-here").await, (json!([]), json!(0)));
    let mut carol = server.connect("carol", json!({"chat:*": ["members"]})).await;
    let reply = carol.request(json!({"type": "members", "room": "chat:1"})).await;
    assert_eq!((&reply["users"], &reply["members"][1]["user"]), (&json!(2), &json!("bob")));
    // Of more than so many connections not even the number of users is known.
    let mut more = Vec::new();
    for _ in 0..11 {
        more.extend(server.members(["dave"], &["chat:1"]).await);
    }
    let reply = carol.request(json!({"type": "members", "room": "chat:1"})).await;
    assert_eq!(without_id(reply), json!({"type": "reply", "ok": true, "room": "chat:1", "connections": 13}));
}

#[tokio::test]
async fn to_list_members_needs_a_grant() {
    let server = server().await;
    let mut alice = server.connect("alice", json!({"*": ["join", "publish"], "open": ["members"]})).await;
    alice.join("p:1").await;
    let answer = alice.request(json!({"type": "members", "room": "p:1"})).await;
    assert_eq!((&answer["code"], &answer["field"]), (&json!("forbidden"), &json!("room")));
    let answer = alice.request(json!({"type": "members", "room": "open"})).await;
    assert_eq!((&answer["users"], &answer["members"]), (&json!(0), &json!([])));
    // Without an id there is nothing to answer.
    alice.send(r#"{"type":"members","room":"open"}"#).await;
    alice.hears_nothing().await;
}

#[tokio::test]
async fn a_list_that_would_fill_the_outbox_is_left_out() {
    let server = Server::configured(|config| {
        config.limits.max_outbox_bytes = 600 * 1024;
        let rule = "[[rooms]]\npattern = \"*\"\nmembers = \"allow\"\npresence = true\npresence_limit = 10000";
        config.rooms = rule.parse::<File>().unwrap().rooms;
    })
    .await;
    let mut alice = server.connect("alice", grants()).await;
    let mut others = Vec::new();
    // Entered at the hub: a list of these takes more than a quarter of an outbox.
    for number in 0..40 {
        let other = server.connect(&format!("u{number}"), grants()).await;
        let user = format!("u{number}").parse().unwrap();
        let member = server.hub.connections_of(&user).pop().unwrap();
        let data = serde_json::value::RawValue::from_string(format!("\"{}\"", "x".repeat(5000))).unwrap();
        let entry = wsgate::hub::Entry { data: Some(data.into()), ..Default::default() };
        assert!(server.hub.join(&member, &"large".parse().unwrap(), entry).unwrap());
        others.push(other);
    }
    let reply = alice.request(json!({"type": "members", "room": "large"})).await;
    assert_eq!((&reply["users"], &reply["members"]), (&json!(40), &Value::Null));
}

#[tokio::test]
async fn a_full_room_is_temporary_for_clients_and_counts_as_refused_for_backends() {
    let server = server().await;
    let [_alice, mut bob] = server.members(["alice", "bob"], &["pair:1"]).await;
    let mut carol = server.connect("carol", grants()).await;
    let answer = carol.request(json!({"type": "join", "room": "pair:1"})).await;
    assert_eq!((&answer["code"], &answer["field"]), (&json!("room_full"), &json!("room")));
    assert_eq!(answer["temporary"], true);
    let (_, answer) = server.api("POST", "/v1/users/carol/join", r#"{"room":"pair:1"}"#).await;
    assert_eq!(answer, json!({"joined": 0, "refused": 1}));
    // Who is in may join again, and a seat that is left can be taken.
    bob.join("pair:1").await;
    bob.leave("pair:1").await;
    carol.join("pair:1").await;
}
