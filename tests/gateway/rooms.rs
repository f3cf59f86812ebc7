use serde_json::json;

use crate::support::{Server, until};

#[tokio::test]
async fn an_event_to_a_room_reaches_its_members_and_nobody_else() {
    let server = Server::start().await;
    let [mut alice, mut bob] = server.members(["alice", "bob"], &["chat:1"]).await;
    let [mut carol] = server.members(["carol"], &["chat:2"]).await;
    alice.publish(json!({"room": "chat:1"}), "hi", json!({"n": 1})).await;
    let event = bob.receive().await;
    assert_eq!(event, json!({"type": "event", "room": "chat:1", "event": "hi", "from": "alice", "data": {"n": 1}}));
    assert_eq!(alice.receive().await, event);
    carol.hears_nothing().await;
}

#[tokio::test]
async fn echo_false_leaves_out_the_publishing_connection_and_not_the_users_others() {
    let server = Server::start().await;
    let [mut alice, mut alice_too, mut bob] = server.members(["alice", "alice", "bob"], &["chat:1"]).await;
    alice.send(r#"{"type":"publish","to":{"room":"chat:1"},"event":"hi","echo":false}"#).await;
    assert_eq!((alice_too.event().await, bob.event().await), ("hi".into(), "hi".into()));
    alice.hears_nothing().await;
    alice.send(r#"{"type":"publish","to":{"all":true},"event":"all","echo":false}"#).await;
    assert_eq!((alice_too.event().await, bob.event().await), ("all".into(), "all".into()));
    alice.hears_nothing().await;
}

#[tokio::test]
async fn a_union_reaches_each_connection_once() {
    let server = Server::start().await;
    let [mut alice, mut bob] = server.members(["alice", "bob"], &["b", "a", "c"]).await;
    let [mut carol] = server.members(["carol"], &[]).await;
    let to = json!({"rooms": ["c", "b", "a", "a"], "room": "c", "users": ["bob", "carol", "nobody"], "self": true});
    alice.publish(to.clone(), "once", json!(null)).await;
    for member in [&mut alice, &mut bob] {
        assert_eq!(member.receive().await["room"], "a", "the first of its rooms by name");
        member.hears_nothing().await;
    }
    assert_eq!(carol.receive().await["room"], "user:carol");
    carol.hears_nothing().await;
    alice.publish(json!({"all": true, "room": "a", "user": "carol", "self": true}), "all", json!(null)).await;
    for member in [&mut alice, &mut bob, &mut carol] {
        assert_eq!(member.event().await, "all");
        member.hears_nothing().await;
    }
}

#[tokio::test]
async fn all_reaches_those_in_no_room_and_self_the_sender_alone() {
    let server = Server::start().await;
    let [mut alice, mut bob] = server.members(["alice", "bob"], &[]).await;
    alice.publish(json!({"all": true}), "all", json!(1)).await;
    let event = json!({"type": "event", "event": "all", "from": "alice", "data": 1});
    assert_eq!((alice.receive().await, bob.receive().await), (event.clone(), event));
    alice.publish(json!({"self": true}), "self", json!(1)).await;
    assert_eq!(alice.event().await, "self");
    bob.hears_nothing().await;
}

#[tokio::test]
async fn an_event_to_a_user_reaches_all_connections_of_that_user() {
    let server = Server::start().await;
    let [mut alice, mut bob, mut bob_too] = server.members(["alice", "bob", "bob"], &[]).await;
    alice.publish(json!({"user": "bob"}), "psst", json!(null)).await;
    assert_eq!((bob.event().await, bob_too.event().await), ("psst".into(), "psst".into()));
    alice.publish(json!({"room": "user:bob"}), "the same", json!(null)).await;
    assert_eq!((bob.event().await, bob_too.event().await), ("the same".into(), "the same".into()));
    alice.publish(json!({"user": "nobody"}), "lost", json!(null)).await;
    alice.hears_nothing().await;
}

#[tokio::test]
async fn who_has_left_a_room_hears_no_more_of_it() {
    let server = Server::start().await;
    let [mut alice, mut bob] = server.members(["alice", "bob"], &["chat:1"]).await;
    alice.publish(json!({"room": "chat:1"}), "before", json!(null)).await;
    assert_eq!((alice.event().await, bob.event().await), ("before".into(), "before".into()));
    bob.leave("chat:1").await;
    alice.publish(json!({"room": "chat:1"}), "hi", json!(null)).await;
    assert_eq!(alice.event().await, "hi");
    bob.hears_nothing().await;
    bob.join("chat:1").await;
    alice.publish(json!({"room": "chat:1"}), "again", json!(null)).await;
    assert_eq!(bob.event().await, "again");
}

#[tokio::test]
async fn joining_twice_is_one_membership() {
    let server = Server::start().await;
    let [mut alice] = server.members(["alice"], &["chat:1", "chat:1"]).await;
    assert_eq!(server.publish(json!({"to": {"room": "chat:1"}, "event": "e"})).await, 1);
    assert_eq!(alice.event().await, "e");
    alice.leave("chat:1").await;
    assert_eq!(server.publish(json!({"to": {"room": "chat:1"}, "event": "e"})).await, 0);
}

#[tokio::test]
async fn what_no_grant_allows_is_forbidden() {
    let server = Server::start().await;
    let grants = json!({"read:*": ["join"], "chat:*": ["join", "publish"], "user:bob": ["publish"]});
    let mut alice = server.connect("alice", grants).await;
    alice.join("read:1").await;
    for (request, code, field) in [
        (json!({"type": "join", "room": "other"}), "forbidden", "room"),
        (json!({"type": "join", "room": "user:bob"}), "forbidden", "room"),
        (json!({"type": "leave", "room": "user:alice"}), "forbidden", "room"),
        (json!({"type": "leave", "room": "chat:1"}), "not_joined", "room"),
        (json!({"type": "publish", "to": {"room": "read:1"}, "event": "e"}), "forbidden", "to"),
        (json!({"type": "publish", "to": {"room": "other"}, "event": "e"}), "forbidden", "to"),
        (json!({"type": "publish", "to": {"room": "chat:1"}, "event": "e"}), "not_joined", "to"),
        (json!({"type": "publish", "to": {"user": "alice"}, "event": "e"}), "forbidden", "to"),
        (json!({"type": "publish", "to": {"users": ["bob", "carol"]}, "event": "e"}), "forbidden", "to"),
        (json!({"type": "publish", "to": {"all": true}, "event": "e"}), "forbidden", "to.all"),
    ] {
        let answer = alice.request(request.clone()).await;
        assert_eq!(answer["type"], "error", "{request}");
        assert_eq!((&answer["code"], &answer["field"]), (&json!(code), &json!(field)), "{request}");
    }
}

#[tokio::test]
async fn nothing_is_sent_where_part_of_it_is_forbidden() {
    let server = Server::start().await;
    let [mut bob] = server.members(["bob"], &["chat:1"]).await;
    let mut alice = server.connect("alice", json!({"chat:*": ["join", "publish"]})).await;
    alice.join("chat:1").await;
    let answer =
        alice.request(json!({"type": "publish", "to": {"room": "chat:1", "user": "carol"}, "event": "e"})).await;
    assert_eq!(answer["code"], "forbidden");
    bob.hears_nothing().await;
}

#[tokio::test]
async fn a_personal_room_cannot_be_joined_whatever_is_granted() {
    let server = Server::start().await;
    let [mut eve] = server.members(["eve"], &[]).await;
    let answer = eve.request(json!({"type": "join", "room": "user:alice"})).await;
    assert_eq!(answer["code"], "forbidden");
    // One's own is joined already.
    eve.join("user:eve").await;
    let [mut alice] = server.members(["alice"], &[]).await;
    assert_eq!(server.publish(json!({"to": {"user": "alice"}, "event": "secret"})).await, 1);
    assert_eq!(alice.event().await, "secret");
    eve.hears_nothing().await;
}

#[tokio::test]
async fn a_connection_may_be_in_so_many_rooms_beside_its_own() {
    let server = Server::with(|limits| limits.max_rooms = 2).await;
    let [mut alice] = server.members(["alice"], &["a", "b"]).await;
    let answer = alice.request(json!({"type": "join", "room": "c"})).await;
    assert_eq!((&answer["code"], &answer["field"]), (&json!("too_many_rooms"), &json!("room")));
    alice.leave("a").await;
    alice.join("c").await;
}

#[tokio::test]
async fn data_of_every_type_arrives_byte_for_byte() {
    let server = Server::start().await;
    let [mut alice] = server.members(["alice"], &[]).await;
    for data in [
        "null",
        "true",
        "0",
        "-1.10",
        "1e400",
        "123456789012345678901234567890",
        r#""\u0000\ud83d\ude00é""#,
        "[]",
        "[1, [2,  3]]",
        r#"{"b":1,"a":2}"#,
        r#"{"same":1,"same":2}"#,
        r#"{ "spaced" : [ ] }"#,
    ] {
        alice.send(&format!(r#"{{"type":"publish","to":{{"self":true}},"event":"e","data":{data}}}"#)).await;
        let expected = format!(r#"{{"type":"event","event":"e","from":"alice","data":{data}}}"#);
        assert_eq!(alice.next().await.unwrap(), expected);
    }
}

#[tokio::test]
async fn an_id_of_either_type_comes_back_as_it_was_even_if_used_twice() {
    let server = Server::start().await;
    let mut alice = server.connect("alice", json!({})).await;
    for id in ["1", "1", "-7", "9007199254740993", r#""a""#, r#""\u0041 long one""#, r#""""#] {
        alice.send(&format!(r#"{{"id":{id},"type":"ping"}}"#)).await;
        assert_eq!(alice.next().await.unwrap(), format!(r#"{{"type":"reply","id":{id},"ok":true}}"#));
    }
}

#[tokio::test]
async fn rooms_that_nobody_is_in_are_forgotten() {
    let server = Server::start().await;
    let [mut alice] = server.members(["alice"], &["a", "b"]).await;
    assert_eq!(server.hub.census().rooms, 3);
    alice.leave("a").await;
    assert_eq!(server.hub.census().rooms, 2);
    alice.close().await;
    until("the rooms to be forgotten", || server.hub.census() == Default::default()).await;
}
