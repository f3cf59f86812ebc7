//! Who may do what in which rooms: configured rules, their limits, what renewals change, and how it is
//! explained.

use std::time::Duration;

use serde_json::{Value, json};
use wsgate::config::File;
use wsgate::{Config, Secret};

use crate::support::{Client, Server};

const RULES: &str = r#"
[[rooms]]
pattern = "user:{sub}"
publish = "allow"

[[rooms]]
pattern = "org:{claims.org}:*"
join = "allow"
publish = "allow"
members = "allow"

[[rooms]]
pattern = "news:*"
join = "allow"

[[rooms]]
pattern = "secret:*"
join = "grant"
publish = "grant"

[[rooms]]
pattern = "box:*"
publish = "allow"
publish_from_outside = true
"#;

/// Joins, and says with which code that was refused; with none if it was not.
async fn join(client: &mut Client, room: &str) -> Value {
    client.request(json!({"type": "join", "room": room})).await["code"].clone()
}

async fn publish(client: &mut Client, room: &str) -> Value {
    let publish = json!({"type": "publish", "to": {"room": room}, "event": "e", "echo": false});
    client.request(publish).await["code"].clone()
}

async fn renew(client: &mut Client, token: &str) {
    assert_eq!(client.request(json!({"type": "auth", "token": token})).await["ok"], true);
}

#[tokio::test]
async fn the_first_rule_that_a_room_matches_decides_and_where_none_does_it_is_denied() {
    let server = Server::with_file(RULES).await;
    let mut alice = server.connect_with("alice", json!({"org": "acme", "grants": {"secret:1": ["join"]}})).await;
    for (room, code) in [
        ("org:acme:general", json!(null)),
        ("org:other:general", json!("forbidden")),
        ("org:acme2:general", json!("forbidden")),
        ("news:today", json!(null)),
        ("secret:1", json!(null)),
        ("secret:2", json!("forbidden")),
        ("nowhere", json!("forbidden")),
        ("user:bob", json!("forbidden")),
    ] {
        assert_eq!(join(&mut alice, room).await, code, "{room}");
    }
    assert_eq!(publish(&mut alice, "org:acme:general").await, json!(null));
    assert_eq!(publish(&mut alice, "news:today").await, "forbidden", "those who read it need not write it");
    assert_eq!(publish(&mut alice, "secret:1").await, "forbidden", "the token grants to join, and no more");
}

#[tokio::test]
async fn what_a_rule_denies_no_grant_allows() {
    let server = Server::with_file(RULES).await;
    let mut alice = server.connect("alice", json!({"*": ["join", "publish"]})).await;
    assert_eq!(join(&mut alice, "org:acme:general").await, "forbidden");
    assert_eq!(join(&mut alice, "nowhere").await, "forbidden");
    assert_eq!(join(&mut alice, "secret:2").await, json!(null));
}

#[tokio::test]
async fn rules_decide_to_which_users_one_may_publish() {
    let server = Server::with_file(RULES).await;
    let mut alice = server.connect("alice", json!({"*": ["publish"]})).await;
    let to = |user: &str| json!({"type": "publish", "to": {"user": user}, "event": "e", "echo": false});
    assert_eq!(alice.request(to("alice")).await["ok"], true);
    assert_eq!(alice.request(to("bob")).await["code"], "forbidden");
}

#[tokio::test]
async fn a_claim_that_is_a_list_stands_for_each_of_its_entries_and_a_missing_one_for_nothing() {
    let server = Server::with_file(RULES).await;
    let mut alice = server.connect_with("alice", json!({"org": ["acme", 7, {"x": 1}]})).await;
    assert_eq!(join(&mut alice, "org:acme:a").await, json!(null));
    assert_eq!(join(&mut alice, "org:7:a").await, json!(null));
    assert_eq!(join(&mut alice, "org:other:a").await, "forbidden");
    for org in [json!(null), json!(""), json!(true), json!([]), json!("acme:x")] {
        let mut bob = server.connect_with("bob", json!({"org": org})).await;
        for room in ["org::a", "org:acme:a", "org:acme:x:a", "org:true:a"] {
            assert_eq!(join(&mut bob, room).await, "forbidden", "{org} {room}");
        }
    }
}

#[tokio::test]
async fn a_ticket_may_bring_claims() {
    let server = Server::with_file(RULES).await;
    let body = json!({"user": "alice", "claims": {"org": "acme"}}).to_string();
    let (_, answer) = server.api("POST", "/v1/tickets", &body).await;
    let mut alice = server.connect_by(&format!("?ticket={}", answer["ticket"].as_str().unwrap())).await;
    assert_eq!(join(&mut alice, "org:acme:a").await, json!(null));
    assert_eq!(join(&mut alice, "org:other:a").await, "forbidden");
}

#[tokio::test]
async fn one_may_publish_from_outside_only_where_the_rule_says_so() {
    let server = Server::with_file(RULES).await;
    let mut alice = server.connect_with("alice", json!({"org": "acme"})).await;
    assert_eq!(publish(&mut alice, "org:acme:general").await, "not_joined");
    assert_eq!(publish(&mut alice, "box:suggestions").await, json!(null));
    assert_eq!(join(&mut alice, "box:suggestions").await, "forbidden");
}

#[tokio::test]
async fn connections_without_a_token_have_rules_of_their_own() {
    let guests = r#"
[anonymous]
[[anonymous.rooms]]
pattern = "lobby"
join = "allow"
"#;
    let server = Server::with_file(&format!("{RULES}{guests}")).await;
    let mut guest = server.connect_by("?anonymous=true").await;
    assert_eq!(join(&mut guest, "lobby").await, json!(null));
    assert_eq!(join(&mut guest, "news:today").await, "forbidden");
    let mut alice = server.connect("alice", json!({})).await;
    assert_eq!(join(&mut alice, "lobby").await, "forbidden");
}

#[tokio::test]
async fn a_rule_bounds_the_data_of_an_event() {
    let server =
        Server::with_file("[[rooms]]\npattern = \"a\"\njoin = \"allow\"\npublish = \"allow\"\nmax_data_bytes = 10")
            .await;
    let mut alice = server.connect("alice", json!({})).await;
    alice.join("a").await;
    let publish =
        |data: &str| json!({"type": "publish", "to": {"room": "a"}, "event": "e", "data": data, "echo": false});
    assert_eq!(alice.request(publish("12345678")).await["ok"], true);
    let refused = alice.request(publish("123456789")).await;
    assert_eq!((&refused["code"], &refused["field"]), (&json!("data_too_large"), &json!("data")));
}

#[tokio::test]
async fn a_rule_bounds_how_fast_a_connection_publishes() {
    let server = Server::with_file(
        "[[rooms]]\npattern = \"*\"\njoin = \"allow\"\npublish = \"allow\"\nmax_publishes_per_second = 3",
    )
    .await;
    let mut alice = server.connect("alice", json!({})).await;
    let mut bob = server.connect("bob", json!({})).await;
    alice.join("a").await;
    bob.join("b").await;
    for _ in 0..3 {
        assert_eq!(publish(&mut alice, "a").await, json!(null));
    }
    bob.join("c").await;
    let to_both = json!({"type": "publish", "to": {"rooms": ["b", "c"]}, "event": "e", "echo": false});
    for expected in [json!(null), json!(null), json!(null), json!("too_fast")] {
        let code = bob.request(to_both.clone()).await["code"].clone();
        assert_eq!(code, expected, "each connection has its own measure, and an event is one in however many rooms");
    }
    let refused = alice.request(json!({"type": "publish", "to": {"room": "a"}, "event": "e"})).await;
    assert_eq!((&refused["code"], &refused["temporary"]), (&json!("too_fast"), &json!(true)));
    server.pass(Duration::from_millis(334));
    assert_eq!(publish(&mut alice, "a").await, json!(null));
}

#[tokio::test]
async fn a_renewal_with_less_leaves_the_rooms_that_are_no_longer_allowed_and_no_others() {
    let server = Server::with_file(RULES).await;
    let mut alice = server.connect_with("alice", json!({"org": ["acme", "b"]})).await;
    for room in ["org:acme:a", "org:b:a", "news:today"] {
        alice.join(room).await;
    }
    let answer = server.api("POST", "/v1/users/alice/join", r#"{"room":"backend's"}"#).await;
    assert_eq!(answer, (200, json!({"joined": 1, "refused": 0})));
    assert_eq!(alice.receive().await["type"], "joined");
    renew(&mut alice, &server.token_with("alice", json!({"org": "acme"}))).await;
    let left = alice.receive().await;
    let reason = "no rule lets alice join org:b:a";
    assert_eq!(left, json!({"type": "left", "room": "org:b:a", "reason": reason, "temporary": false}));
    let (_, user) = server.api("GET", "/v1/users/alice", "").await;
    assert_eq!(user["connections"][0]["rooms"], json!(["user:alice", "org:acme:a", "news:today", "backend's"]));
    alice.hears_nothing().await;
}

#[tokio::test]
async fn a_renewal_with_other_grants_decides_anew_where_there_are_no_rules_too() {
    let server = Server::start().await;
    let mut alice = server.connect("alice", json!({"a": ["join"], "b": ["join"]})).await;
    alice.join("a").await;
    alice.join("b").await;
    renew(&mut alice, &server.token("alice", json!({"b": ["join"]}))).await;
    let left = alice.receive().await;
    assert_eq!((&left["type"], &left["room"]), (&json!("left"), &json!("a")));
    assert_eq!(server.publish(json!({"to": {"rooms": ["a", "b"]}, "event": "e"})).await, 1);
    assert_eq!(alice.receive().await["room"], "b");
}

async fn explain(server: &Server, query: &str) -> Value {
    let (status, answer) = server.api("GET", &format!("/v1/explain?{query}"), "").await;
    assert_eq!(status, 200, "{answer}");
    answer["explanations"].clone()
}

#[tokio::test]
async fn a_decision_is_explained_by_what_each_connection_was_let_in_with() {
    let server = Server::with_file(RULES).await;
    let _acme = server.connect_with("alice", json!({"org": "acme"})).await;
    let _other = server.connect_with("alice", json!({"org": "other"})).await;
    let explanations = explain(&server, "user=alice&room=org:acme:a&action=join").await;
    let mut allowed: Vec<bool> = Vec::new();
    for explanation in explanations.as_array().unwrap() {
        assert_eq!(explanation["by"], "connection");
        allowed.push(explanation["allowed"].as_bool().unwrap());
        if explanation["allowed"] == true {
            let rule = json!({"number": 1, "line": 6, "pattern": "org:{claims.org}:*", "access": "allow"});
            assert_eq!(explanation["rule"], rule);
            assert_eq!(explanation["needed"], json!([]));
        } else {
            let near = "claims for which the rule `org:{claims.org}:*` holds; now `sub` is alice, `org` is other";
            assert_eq!(explanation["needed"], json!([near, "a rule whose pattern org:acme:a matches"]));
        }
    }
    allowed.sort_unstable();
    assert_eq!(allowed, [false, true]);
}

#[tokio::test]
async fn a_decision_is_explained_for_a_token_and_for_a_name_alone() {
    let server = Server::with_file(RULES).await;
    let token = server.token_with("alice", json!({"grants": {"secret:*": ["join"]}}));
    let explanations = explain(&server, &format!("token={token}&room=secret:1&action=join")).await;
    assert_eq!((&explanations[0]["by"], &explanations[0]["allowed"]), (&json!("token"), &json!(true)));
    assert_eq!(explanations[0]["grant"], "secret:*");
    let explanations = explain(&server, "user=nobody&room=secret:1&action=publish").await;
    assert_eq!((&explanations[0]["by"], &explanations[0]["allowed"]), (&json!("user"), &json!(false)));
    assert_eq!(explanations[0]["needed"][0], r#"a grant in the token, as {"secret:1":["publish"]}"#);
}

#[tokio::test]
async fn a_question_that_makes_no_sense_is_refused_by_its_field() {
    let server = Server::start().await;
    for (query, field) in [
        ("user=alice&room=a&action=fly", "action"),
        ("user=alice&room=&action=join", "room"),
        ("user=&room=a&action=join", "user"),
        ("room=a&action=join", "user"),
        ("user=a&token=b&room=a&action=join", "user"),
        ("token=b&room=a&action=join", "token"),
    ] {
        let (status, answer) = server.api("GET", &format!("/v1/explain?{query}"), "").await;
        assert_eq!((status, &answer["field"]), (400, &json!(field)), "{query} {answer}");
    }
    for query in
        ["user=a&room=a", "user=a&action=join", "user=a&room=a&action=join&x=1", "user=a&user=b&room=a&action=join"]
    {
        let (status, answer) = server.api("GET", &format!("/v1/explain?{query}"), "").await;
        assert_eq!(status, 400, "{query} {answer}");
    }
}

#[test]
fn a_rule_that_cannot_be_stops_the_start_with_its_line_and_the_reason() {
    let rule = |more: &str| format!("# rooms\n\n[[rooms]]\n{more}\n");
    for (text, parts) in [
        (rule("pattern = \"a:{name}\""), &["line 4", "`{name}` is not known"][..]),
        (rule("pattern = \"a:{sub\""), &["line 4", "has no `}`"]),
        (rule("pattern = \"a:{sub}*\""), &["line 4", "must be followed by text"]),
        (rule("pattern = \"\""), &["line 4", "1 to 255 bytes"]),
        (rule("join = \"allow\""), &["line 3", "missing field `pattern`"]),
        (rule("pattern = \"a\"\njoin = \"maybe\""), &["line 5", "unknown variant `maybe`"]),
        (rule("pattern = \"a\"\njion = \"allow\""), &["line 5", "unknown field `jion`"]),
        (rule("pattern = \"a\"\nmax_members = -1"), &["line 5"]),
        (rule("pattern = \"a\"\nmax_members = 0"), &["rooms[0].max_members (line 3)", "at least 1"]),
        (rule("pattern = \"a\"\nmax_publishes_per_second = 0"), &["rooms[0].max_publishes_per_second (line 3)"]),
        (rule("pattern = \"a\"\njoin = \"ask\""), &["rooms[0].pattern (line 3)", "there is none"]),
        (rule("pattern = \"user:*\"\njoin = \"allow\""), &["rooms[0].join (line 3)", "own personal room"]),
        (
            rule("pattern = \"a:*\"\n\n[[rooms]]\npattern = \"a:b\""),
            &["rooms[1].pattern (line 6)", "`a:b` is never reached", "rooms[0] `a:*`"],
        ),
    ] {
        let outcome = text.parse::<File>().and_then(|file| {
            let mut config = Config::new(Secret::new("x"), Secret::new("0123456789abcdef"));
            config.rooms = file.rooms;
            config.check().map_err(|error| error.to_string())
        });
        let why = outcome.expect_err(&text);
        assert!(parts.iter().all(|part| why.contains(part)), "{text}\n{why}");
    }
}

#[tokio::test]
async fn what_a_token_or_a_ticket_shows_of_a_user_is_seen_by_those_who_may_see_the_members() {
    let server = Server::configured(|config| config.issuers[0].profile_claim = Some("show".to_owned())).await;
    let grants = json!({"a": ["join", "members"]});
    let mut alice = server.connect_with("alice", json!({"show": {"name": "Alice"}, "grants": grants})).await;
    alice.join("a").await;
    let ticket = json!({"user": "bob", "grants": grants, "profile": "Bob"}).to_string();
    let (_, answer) = server.api("POST", "/v1/tickets", &ticket).await;
    let mut bob = server.connect_by(&format!("?ticket={}", answer["ticket"].as_str().unwrap())).await;
    bob.join("a").await;
    let mut carol = server.connect_with("carol", json!({"grants": grants})).await;
    carol.join("a").await;
    let members = alice.request(json!({"type": "members", "room": "a"})).await["members"].clone();
    let expected = json!([
        {"user": "alice", "connections": 1, "data": {"name": "Alice"}},
        {"user": "bob", "connections": 1, "data": "Bob"},
        {"user": "carol", "connections": 1},
    ]);
    assert_eq!(members, expected);
    let long = "x".repeat(2047);
    let mut mallory = server.dial(&format!("?token={}", server.token_with("mallory", json!({"show": long})))).await;
    assert_eq!(mallory.closed().await.0, 4401);
    for (field, value) in [("profile", json!(long)), ("claims", json!([])), ("claims", json!("a"))] {
        let body = json!({"user": "bob", field: value}).to_string();
        let (status, answer) = server.api("POST", "/v1/tickets", &body).await;
        assert_eq!((status, &answer["code"], &answer["field"]), (400, &json!("invalid_field"), &json!(field)));
    }
}

#[tokio::test]
async fn neither_a_claim_nor_a_star_opens_a_personal_room() {
    let all = "publish = \"allow\"\nmembers = \"allow\"\n";
    let file = format!("[[rooms]]\npattern = \"{{claims.org}}:*\"\n{all}\n[[rooms]]\npattern = \"*\"\n{all}");
    let server = Server::with_file(&file).await;
    let mut bob = server.connect("bob", json!({})).await;
    let mut mallory = server.connect_with("mallory", json!({"org": "user"})).await;
    for request in [
        json!({"type": "publish", "to": {"user": "bob"}, "event": "e"}),
        json!({"type": "members", "room": "user:bob"}),
    ] {
        assert_eq!(mallory.request(request).await["code"], "forbidden");
    }
    bob.hears_nothing().await;
}
