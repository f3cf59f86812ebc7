//! What the backend decides and answers: joining, publishing, staying, calls; and what happens when it
//! is slow, wrong or away.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::backend::Backend;
use crate::support::{Client, Server};

const RULES: &str = r#"
[[rooms]]
pattern = "ask:*"
join = "ask"
publish = "ask"
members = "ask"

[[rooms]]
pattern = "free:*"
join = "allow"
publish = "allow"
"#;

fn yes(_: &Value) -> (u16, Value) {
    (200, json!({"allow": true}))
}

fn no(_: &Value) -> (u16, Value) {
    (200, json!({"allow": false, "reason": "not today"}))
}

async fn asking(backend: &Backend) -> Server {
    Server::with_file(&format!("{RULES}{}", backend.file())).await
}

async fn send_join(client: &mut Client, room: &str, id: &str) {
    client.send(&json!({"type": "join", "room": room, "id": id}).to_string()).await;
}

fn join(room: &str) -> Value {
    json!({"type": "join", "room": room})
}

fn call(event: &str, data: &Value) -> Value {
    json!({"type": "call", "event": event, "data": data})
}

#[tokio::test]
async fn the_backend_is_asked_with_all_that_it_needs_to_decide() {
    let backend = Backend::start(yes).await;
    let server = asking(&backend).await;
    let mut alice = server.connect_with("alice", json!({"org": "acme", "n": 12345678901234567890_u64})).await;
    alice.join("ask:1").await;
    let asked = backend.asked();
    let question = &asked[0];
    assert_eq!(asked.len(), 1);
    assert_eq!((&question["type"], &question["action"]), (&json!("access"), &json!("join")));
    assert_eq!((&question["user"], &question["room"]), (&json!("alice"), &json!("ask:1")));
    assert_eq!(question["connection"], json!(alice.id));
    assert_eq!(question["claims"]["org"], "acme");
    assert_eq!(question["claims"]["n"].to_string(), "12345678901234567890");
    assert_eq!(server.publish(json!({"to": {"room": "ask:1"}, "event": "e"})).await, 1);
}

#[tokio::test]
async fn a_no_of_the_backend_is_told_with_its_reason() {
    let backend = Backend::start(no).await;
    let server = asking(&backend).await;
    let mut alice = server.connect("alice", json!({"*": ["join"]})).await;
    let answer = alice.request(join("ask:1")).await;
    let expected = json!({"type": "error", "id": answer["id"], "code": "forbidden", "field": "room",
        "message": "not today", "temporary": false});
    assert_eq!(answer, expected);
    assert_eq!(server.publish(json!({"to": {"room": "ask:1"}, "event": "e"})).await, 0);
}

#[tokio::test]
async fn joining_blocks_nothing_else_on_the_connection_nor_on_others() {
    let backend = Backend::start(yes).await;
    let server = asking(&backend).await;
    let turns = backend.waits(yes);
    let mut alice = server.connect("alice", json!({})).await;
    let mut bob = server.connect("bob", json!({})).await;
    send_join(&mut alice, "ask:1", "slow").await;
    backend.asked_at_least(1).await;
    alice.hears_nothing().await;
    alice.join("free:1").await;
    bob.join("free:1").await;
    bob.publish(json!({"room": "free:1"}), "meanwhile", json!(null)).await;
    assert_eq!(alice.event().await, "meanwhile");
    assert_eq!(bob.event().await, "meanwhile");
    turns.add_permits(1);
    let answer = alice.receive().await;
    assert_eq!((&answer["id"], &answer["ok"]), (&json!("slow"), &json!(true)));
}

#[tokio::test]
async fn a_backend_that_is_away_is_temporary_and_lets_nobody_in_unless_the_configuration_says_so() {
    let backend = Backend::start(yes).await;
    let file = format!("{RULES}{}", backend.file());
    drop(backend);
    let server = Server::with_file(&file).await;
    let mut alice = server.connect("alice", json!({})).await;
    let answer = alice.request(join("ask:1")).await;
    assert_eq!((&answer["code"], &answer["temporary"]), (&json!("backend_unavailable"), &json!(true)));
    assert_eq!(answer["field"], "room");
    alice.join("free:1").await;
    let server = Server::with_file(&format!("{file}when_down = \"allow\"\n")).await;
    server.connect("alice", json!({})).await.join("ask:1").await;
}

#[tokio::test]
async fn a_backend_that_never_answers_is_given_up() {
    let backend = Backend::start(yes).await;
    let server = asking(&backend).await;
    backend.falls_silent();
    let mut alice = server.connect("alice", json!({})).await;
    send_join(&mut alice, "ask:1", "slow").await;
    backend.asked_at_least(1).await;
    alice.is_heard().await;
    server.pass(Duration::from_secs(2));
    let answer = alice.receive().await;
    assert_eq!((&answer["id"], &answer["code"]), (&json!("slow"), &json!("backend_unavailable")));
}

#[tokio::test]
async fn who_leaves_while_it_is_being_decided_is_not_put_in_later() {
    let backend = Backend::start(yes).await;
    let server = asking(&backend).await;
    let turns = backend.waits(yes);
    let mut alice = server.connect("alice", json!({})).await;
    send_join(&mut alice, "ask:1", "slow").await;
    backend.asked_at_least(1).await;
    alice.send(r#"{"type":"leave","room":"ask:1","id":"leave"}"#).await;
    let given_up = alice.receive().await;
    assert_eq!((&given_up["id"], &given_up["code"]), (&json!("slow"), &json!("not_joined")));
    let left = alice.receive().await;
    assert_eq!((&left["id"], &left["ok"]), (&json!("leave"), &json!(true)));
    turns.add_permits(1);
    // A question that is answered after the first is: its answer comes after it, too.
    turns.add_permits(1);
    alice.join("ask:2").await;
    assert_eq!(server.publish(json!({"to": {"room": "ask:1"}, "event": "e"})).await, 0);
}

#[tokio::test]
async fn only_so_many_questions_of_one_connection_wait() {
    let backend = Backend::start(yes).await;
    let server = asking(&backend).await;
    let turns = backend.waits(yes);
    let mut alice = server.connect("alice", json!({})).await;
    for n in 0..8 {
        send_join(&mut alice, &format!("ask:{n}"), "waits").await;
    }
    for request in [join("ask:8"), call("e", &json!(1))] {
        let answer = alice.request(request).await;
        assert_eq!((&answer["code"], &answer["temporary"]), (&json!("too_many_pending"), &json!(true)));
    }
    let mut bob = server.connect("bob", json!({})).await;
    send_join(&mut bob, "ask:1", "of bob").await;
    backend.asked_at_least(9).await;
    turns.add_permits(9);
    assert_eq!(bob.receive().await["id"], "of bob");
    for _ in 0..8 {
        assert_eq!(alice.receive().await["ok"], true);
    }
    turns.add_permits(1);
    alice.join("ask:8").await;
}

#[tokio::test]
async fn who_renews_while_it_is_being_decided_is_judged_by_the_new_token() {
    let backend = Backend::start(yes).await;
    let server = asking(&backend).await;
    let judge = |asked: &Value| (200, json!({"allow": asked["claims"]["role"] == "guest"}));
    let turns = backend.waits(judge);
    let mut alice = server.connect_with("alice", json!({"role": "guest"})).await;
    send_join(&mut alice, "ask:1", "slow").await;
    backend.asked_at_least(1).await;
    let banned = server.token_with("alice", json!({"role": "banned"}));
    assert_eq!(alice.request(json!({"type": "auth", "token": banned})).await["ok"], true);
    turns.add_permits(2);
    let answer = alice.receive().await;
    assert_eq!((&answer["id"], &answer["code"]), (&json!("slow"), &json!("forbidden")));
    assert_eq!(backend.asked().len(), 2);
}

#[tokio::test]
async fn who_is_let_in_after_the_token_has_ended_is_not_let_in() {
    let backend = Backend::start(yes).await;
    let server = asking(&backend).await;
    let turns = backend.waits(yes);
    let short = server.token_for("alice", json!({}), Duration::from_millis(500));
    let mut alice = server.connect_by(&format!("?token={short}")).await;
    send_join(&mut alice, "ask:1", "slow").await;
    backend.asked_at_least(1).await;
    // No timer fires; whoever acts looks at the clock.
    server.set_clock_forward(Duration::from_secs(2));
    turns.add_permits(1);
    assert_eq!(alice.closed().await.0, 4401);
}

#[tokio::test]
async fn the_backend_is_not_asked_for_every_event_and_the_order_of_events_is_kept() {
    let backend = Backend::start(yes).await;
    let server = asking(&backend).await;
    let mut alice = server.connect("alice", json!({})).await;
    alice.join("ask:1").await;
    let turns = backend.waits(yes);
    for n in 0..100 {
        alice.publish(json!({"room": "ask:1"}), &n.to_string(), json!(n)).await;
    }
    turns.add_permits(1);
    for n in 0..100 {
        assert_eq!(alice.event().await, n.to_string());
    }
    let actions: Vec<Value> = backend.asked().iter().map(|asked| asked["action"].clone()).collect();
    assert_eq!(actions, ["join", "publish"]);
}

#[tokio::test]
async fn an_event_that_the_backend_does_not_let_pass_is_not_published() {
    let backend = Backend::start(|asked| if asked["action"] == "join" { yes(asked) } else { no(asked) }).await;
    let server = asking(&backend).await;
    let mut alice = server.connect("alice", json!({})).await;
    alice.join("ask:1").await;
    alice.join("free:1").await;
    let publish = json!({"type": "publish", "to": {"rooms": ["free:1", "ask:1"]}, "event": "e"});
    let answer = alice.request(publish).await;
    assert_eq!((&answer["code"], &answer["field"]), (&json!("forbidden"), &json!("to")));
    assert_eq!(answer["message"], "not today");
    alice.hears_nothing().await;
}

async fn recheck(server: &Server, user: &str) {
    let (status, answer) = server.api("POST", &format!("/v1/users/{user}/recheck"), "").await;
    assert_eq!((status, answer), (200, json!({"connections": 1})));
}

#[tokio::test]
async fn a_recheck_leaves_the_rooms_that_the_backend_allows_no_more_and_no_others() {
    let remember = |_: &Value| (200, json!({"allow": true, "remember": 3600}));
    let backend = Backend::start(remember).await;
    let server = asking(&backend).await;
    let mut alice = server.connect("alice", json!({})).await;
    for room in ["ask:1", "ask:2", "free:1"] {
        alice.join(room).await;
    }
    backend.answers(|asked| if asked["room"] == "ask:1" { no(asked) } else { yes(asked) });
    recheck(&server, "alice").await;
    let left = alice.receive().await;
    assert_eq!(left, json!({"type": "left", "room": "ask:1", "reason": "not today", "temporary": false}));
    backend.asked_at_least(4).await;
    assert_eq!(server.publish(json!({"to": {"rooms": ["ask:1", "ask:2", "free:1"]}, "event": "e"})).await, 1);
    assert_eq!(alice.receive().await["room"], "ask:2");
}

#[tokio::test]
async fn a_renewal_asks_the_backend_again_only_if_the_token_says_something_else() {
    let backend = Backend::start(yes).await;
    let server = asking(&backend).await;
    let mut alice = server.connect_with("alice", json!({"role": "guest", "iat": 1, "jti": "1"})).await;
    alice.join("ask:1").await;
    backend.answers(no);
    for claims in [json!({"role": "guest", "iat": 2, "jti": "2"}), json!({"role": "member"})] {
        let token = server.token_with("alice", claims);
        assert_eq!(alice.request(json!({"type": "auth", "token": token})).await["ok"], true);
    }
    let left = alice.receive().await;
    assert_eq!((&left["type"], &left["room"]), (&json!("left"), &json!("ask:1")));
    assert_eq!(backend.asked().len(), 2);
}

#[tokio::test]
async fn a_recheck_while_the_backend_is_away_leaves_its_rooms_for_now() {
    let backend = Backend::start(yes).await;
    let server = asking(&backend).await;
    let mut alice = server.connect("alice", json!({})).await;
    alice.join("ask:1").await;
    backend.answers(|_| (503, json!("down")));
    recheck(&server, "alice").await;
    let left = alice.receive().await;
    assert_eq!((&left["room"], &left["temporary"]), (&json!("ask:1"), &json!(true)));
}

#[tokio::test]
async fn a_call_is_answered_with_what_the_backend_says() {
    let backend = Backend::start(|asked| (200, json!({"echo": asked["data"], "of": asked["user"]}))).await;
    let server = asking(&backend).await;
    let mut alice = server.connect_with("alice", json!({"org": "acme"})).await;
    let answer = alice.request(call("greet", &json!({"n": 1}))).await;
    assert_eq!(answer["data"], json!({"echo": {"n": 1}, "of": "alice"}));
    let asked = backend.asked();
    assert_eq!((&asked[0]["type"], &asked[0]["event"]), (&json!("call"), &json!("greet")));
    assert_eq!((&asked[0]["connection"], &asked[0]["claims"]["org"]), (&json!(alice.id), &json!("acme")));
    // Without an id nobody waits for the answer, and none comes.
    alice.send(r#"{"type":"call","event":"log"}"#).await;
    backend.asked_at_least(2).await;
    assert_eq!(backend.asked()[1]["data"], json!(null));
    alice.hears_nothing().await;
}

#[tokio::test]
async fn each_way_in_which_a_call_can_fail_has_its_code() {
    let backend = Backend::start(yes).await;
    let server = asking(&backend).await;
    let mut alice = server.connect("alice", json!({})).await;
    for (status, code, temporary, data) in [
        (422, "call_refused", false, json!({"error": "numbers only"})),
        (404, "call_refused", false, json!({"error": "numbers only"})),
        (429, "backend_unavailable", true, json!(null)),
        (503, "backend_unavailable", true, json!(null)),
        (500, "backend_failed", false, json!(null)),
        (302, "backend_failed", false, json!(null)),
    ] {
        backend.answers(move |_| (status, json!({"error": "numbers only"})));
        let answer = alice.request(call("e", &json!(1))).await;
        assert_eq!((&answer["code"], &answer["temporary"]), (&json!(code), &json!(temporary)), "{status} {answer}");
        assert_eq!(answer["data"], data, "{status}");
    }
    backend.falls_silent();
    alice.send(r#"{"type":"call","event":"e","id":"slow"}"#).await;
    backend.asked_at_least(7).await;
    alice.is_heard().await;
    server.pass(Duration::from_secs(10));
    let answer = alice.receive().await;
    assert_eq!((&answer["id"], &answer["code"]), (&json!("slow"), &json!("backend_timeout")));
    let server = Server::start().await;
    let mut alice = server.connect("alice", json!({})).await;
    assert_eq!(alice.request(call("e", &json!(1))).await["code"], "not_configured");
}

#[tokio::test]
async fn calls_are_answered_as_the_answers_come_and_hold_up_nothing() {
    let backend = Backend::start(yes).await;
    let server = asking(&backend).await;
    let turns = backend.waits(yes);
    let mut alice = server.connect("alice", json!({})).await;
    alice.send(r#"{"type":"call","event":"slow","id":"slow"}"#).await;
    backend.asked_at_least(1).await;
    alice.join("free:1").await;
    backend.answers(yes);
    assert_eq!(alice.request(call("fast", &json!(1))).await["ok"], true);
    turns.add_permits(1);
    assert_eq!(alice.receive().await["id"], "slow");
}

#[tokio::test]
async fn connections_without_a_token_may_call_only_if_the_configuration_says_so() {
    let backend = Backend::start(yes).await;
    for (calls, code) in [("false", json!("forbidden")), ("true", json!(null))] {
        let file = format!("{RULES}{}\n[anonymous]\ncalls = {calls}\n", backend.file());
        let server = Server::with_file(&file).await;
        let mut guest = server.connect_by("?anonymous=true").await;
        assert_eq!(guest.request(call("e", &json!(1))).await["code"], code);
    }
}

#[tokio::test]
async fn a_call_that_makes_no_sense_is_refused_by_its_field() {
    let backend = Backend::start(yes).await;
    let server = asking(&backend).await;
    let mut alice = server.connect("alice", json!({})).await;
    for (request, code, field) in [
        (r#"{"type":"call","id":1}"#, "missing_field", "event"),
        (r#"{"type":"call","event":1,"id":1}"#, "invalid_field", "event"),
        (r#"{"type":"call","event":"","id":1}"#, "invalid_field", "event"),
        (r#"{"type":"call","event":"e","to":{},"id":1}"#, "unknown_field", "to"),
        (r#"{"type":"call","event":"e","data":1,"data":2,"id":1}"#, "duplicate_field", "data"),
    ] {
        alice.send(request).await;
        let answer = alice.receive().await;
        assert_eq!((&answer["code"], &answer["field"]), (&json!(code), &json!(field)), "{request}");
    }
    assert!(backend.asked().is_empty());
}

#[tokio::test]
async fn the_backend_is_told_of_connections_that_come_and_go_in_order_until_it_listens() {
    let backend = Backend::start(|_| (500, json!("not now"))).await;
    let events = backend.file().replace("access_url", "events_url").replace("call_url", "# ");
    let server = Server::with_file(&events).await;
    let alice = server.connect("alice", json!({})).await;
    let mut other = server.connect("alice", json!({})).await;
    backend.asked_at_least(1).await;
    alice.close().await;
    assert_eq!(server.api("POST", "/v1/users/alice/disconnect", "").await.0, 200);
    assert_eq!(other.closed().await.0, 4403);
    backend.answers(|_| (200, json!({})));
    let told = backend.asked().len();
    server.pass(Duration::from_secs(60));
    backend.asked_at_least(told + 1).await;
    let mut seen = Vec::new();
    for batch in &backend.asked()[told..] {
        assert_eq!(batch["type"], "events");
        for event in batch["events"].as_array().unwrap() {
            assert_eq!(event["user"], "alice");
            seen.push((event["type"].clone(), event["connections"].clone(), event["code"].clone()));
        }
    }
    let expected =
        [("connected", 1, None), ("connected", 2, None), ("disconnected", 1, None), ("disconnected", 0, Some(4403))];
    assert_eq!(seen, expected.map(|(kind, left, code)| (json!(kind), json!(left), json!(code))));
}

#[tokio::test]
async fn those_who_go_when_the_gateway_stops_are_told_of_too() {
    let backend = Backend::start(|_| (200, json!({}))).await;
    let events = backend.file().replace("access_url", "events_url").replace("call_url", "# ");
    let mut server = Server::with_file(&events).await;
    let mut alice = server.connect("alice", json!({})).await;
    server.ask_to_stop();
    assert_eq!(alice.closed().await.0, 4503);
    drop(alice);
    server.stopped().await;
    let events: Vec<Value> =
        backend.asked().iter().flat_map(|batch| batch["events"].as_array().unwrap().clone()).collect();
    assert_eq!((&events[1]["type"], &events[1]["code"]), (&json!("disconnected"), &json!(4503)));
    assert_eq!(events.len(), 2);
}

#[test]
fn the_examples_of_the_documents_are_right() {
    let documents = [include_str!("../../docs/backend.md"), include_str!("../../docs/rules.md")];
    let fences = documents.iter().flat_map(|text| text.split("```").skip(1).step_by(2));
    let mut seen = 0;
    for fence in fences {
        if let Some(text) = fence.strip_prefix("toml\n") {
            let file: wsgate::config::File = text.parse().unwrap_or_else(|why| panic!("{text}\n{why}"));
            let mut config = wsgate::Config::new(wsgate::Secret::new("x"), wsgate::Secret::new("0123456789abcdef"));
            (config.rooms, config.anonymous) = (file.rooms, file.anonymous);
            // The secret is in no environment here.
            config.backend = file.backend.map(|backend| wsgate::config::Backend { secret_env: None, ..backend });
            config.check().unwrap_or_else(|why| panic!("{text}\n{why}"));
        } else {
            let _is_json: Value = serde_json::from_str(fence.strip_prefix("json\n").expect(fence)).expect(fence);
        }
        seen += 1;
    }
    assert_eq!(seen, 8);
}

#[test]
fn every_setting_of_the_backend_and_of_rules_is_in_its_table() {
    for (source, document) in [
        (include_str!("../../src/config/backend.rs"), include_str!("../../docs/backend.md")),
        (include_str!("../../src/config/room.rs"), include_str!("../../docs/rules.md")),
    ] {
        let fields = source.lines().take_while(|line| *line != "}").filter_map(|line| line.strip_prefix("    pub "));
        let names: Vec<&str> = fields.map(|field| field.split(':').next().unwrap()).collect();
        assert!(names.len() > 8, "{names:?}");
        for name in names.into_iter().filter(|name| *name != "line") {
            assert!(document.contains(&format!("`{name}`")), "{name}");
        }
    }
}

#[tokio::test]
async fn those_who_want_to_know_the_same_at_the_same_time_share_one_question() {
    let backend = Backend::start(yes).await;
    let server = asking(&backend).await;
    let turns = backend.waits(yes);
    let mut clients = Vec::new();
    for n in 0..20 {
        // Two tokens of the same user, that differ in what every token has its own of.
        let token = server.token_with("alice", json!({"org": "acme", "jti": n.to_string(), "iat": n}));
        let mut client = server.connect_by(&format!("?token={token}")).await;
        send_join(&mut client, "ask:1", "join").await;
        client.is_heard().await;
        clients.push(client);
    }
    // Whoever asked first goes away, and takes no answer from the others.
    clients.remove(0).close().await;
    let mut other = server.connect_with("alice", json!({"org": "other"})).await;
    send_join(&mut other, "ask:1", "join").await;
    backend.asked_at_least(2).await;
    turns.add_permits(2);
    for client in clients.iter_mut().chain([&mut other]) {
        assert_eq!(client.receive().await["ok"], true);
    }
    assert_eq!(backend.asked().len(), 2, "one for each set of claims");
}

#[tokio::test]
async fn an_answer_is_remembered_for_as_long_as_it_says() {
    let backend = Backend::start(|_| (200, json!({"allow": true, "remember": 60}))).await;
    let server = asking(&backend).await;
    for (passes, questions) in [(0, 1), (59, 1), (1, 2), (3600, 3)] {
        server.pass(Duration::from_secs(passes));
        let mut alice = server.connect_with("alice", json!({})).await;
        alice.join("ask:1").await;
        assert_eq!(backend.asked().len(), questions, "after {passes} s");
    }
    // A no is remembered as well, for what is asked often.
    backend.answers(no);
    let mut alice = server.connect("alice", json!({})).await;
    for _ in 0..3 {
        let answer = alice.request(json!({"type": "members", "room": "ask:1"})).await;
        assert_eq!((&answer["code"], &answer["message"]), (&json!("forbidden"), &json!("not today")));
    }
    assert_eq!(backend.asked().len(), 4);
    server.pass(Duration::from_secs(30));
    backend.answers(yes);
    assert_eq!(alice.request(json!({"type": "members", "room": "ask:1"})).await["connections"], 0);
}

#[tokio::test]
async fn an_answer_from_before_a_recheck_is_not_remembered_after_it() {
    let backend = Backend::start(yes).await;
    let server = asking(&backend).await;
    let turns = backend.waits(|_| (200, json!({"allow": true, "remember": 3600})));
    let mut alice = server.connect("alice", json!({})).await;
    send_join(&mut alice, "ask:1", "before").await;
    backend.asked_at_least(1).await;
    recheck(&server, "alice").await;
    // Who asks now is not answered with what was asked before.
    let mut other = server.connect("alice", json!({})).await;
    send_join(&mut other, "ask:1", "after").await;
    backend.asked_at_least(2).await;
    turns.add_permits(2);
    assert_eq!(alice.receive().await["id"], "before");
    assert_eq!(other.receive().await["id"], "after");
    let mut third = server.connect("alice", json!({})).await;
    third.join("ask:1").await;
    assert_eq!(backend.asked().len(), 2, "what was asked after it is remembered");
}

#[tokio::test]
async fn what_the_backend_says_of_a_member_is_seen_by_the_others() {
    let backend = Backend::start(|_| (200, json!({"allow": true, "data": {"colour": "red"}}))).await;
    let server = asking(&backend).await;
    let mut alice = server.connect("alice", json!({})).await;
    alice.join("ask:1").await;
    let answer = alice.request(json!({"type": "members", "room": "ask:1"})).await;
    assert_eq!(answer["members"], json!([{"user": "alice", "connections": 1, "data": {"colour": "red"}}]));
}

#[tokio::test]
async fn what_was_answered_before_a_recheck_allows_nothing_after_it() {
    for request in [
        join("ask:2"),
        json!({"type": "members", "room": "ask:1"}),
        json!({"type": "publish", "to": {"room": "ask:1"}, "event": "e"}),
    ] {
        let backend = Backend::start(yes).await;
        let server = asking(&backend).await;
        let mut alice = server.connect("alice", json!({})).await;
        // A backend has put her there, so that she is not asked about herself.
        server.api("POST", "/v1/users/alice/join", r#"{"room":"ask:1"}"#).await;
        assert_eq!(alice.receive().await["type"], "joined");
        let turns = backend.waits(yes);
        let mut asking = request.clone();
        asking["id"] = json!("slow");
        alice.send(&asking.to_string()).await;
        backend.asked_at_least(1).await;
        backend.answers(no);
        recheck(&server, "alice").await;
        turns.add_permits(1);
        let answer = alice.receive().await;
        assert_eq!((&answer["id"], &answer["code"]), (&json!("slow"), &json!("forbidden")), "{request}: {answer}");
        assert_eq!(server.publish(json!({"to": {"room": "ask:2"}, "event": "e"})).await, 0, "{request}");
    }
}

#[tokio::test]
async fn renewing_again_and_again_does_not_put_off_a_no() {
    let backend = Backend::start(yes).await;
    let server = asking(&backend).await;
    let mut alice = server.connect_with("alice", json!({"role": 0})).await;
    alice.join("ask:1").await;
    let turns = backend.waits(no);
    for role in 1..10 {
        let auth = json!({"type": "auth", "token": server.token_with("alice", json!({"role": role})), "id": role});
        alice.send(&auth.to_string()).await;
    }
    backend.asked_at_least(2).await;
    turns.add_permits(1);
    let mut told = alice.receive().await;
    while told["type"] == "reply" {
        told = alice.receive().await;
    }
    assert_eq!((&told["type"], &told["room"]), (&json!("left"), &json!("ask:1")));
    assert_eq!(backend.asked().len(), 2, "whoever is being looked at is looked at to the end");
}

#[tokio::test]
async fn a_no_does_not_take_a_connection_out_of_where_a_backend_has_put_it_meanwhile() {
    let backend = Backend::start(yes).await;
    let server = asking(&backend).await;
    let mut alice = server.connect("alice", json!({})).await;
    alice.join("ask:1").await;
    let turns = backend.waits(no);
    recheck(&server, "alice").await;
    backend.asked_at_least(2).await;
    alice.leave("ask:1").await;
    server.api("POST", "/v1/users/alice/join", r#"{"room":"ask:1"}"#).await;
    assert_eq!(alice.receive().await["type"], "joined");
    turns.add_permits(1);
    // Asked after it, and answered after it.
    backend.answers(yes);
    assert_eq!(alice.request(call("e", &json!(1))).await["data"], json!({"allow": true}));
    alice.hears_nothing().await;
    assert_eq!(server.publish(json!({"to": {"room": "ask:1"}, "event": "e"})).await, 1);
}

#[tokio::test]
async fn whoever_asks_too_much_gets_in_nowhere_even_if_a_backend_that_is_away_allows_it() {
    let backend = Backend::start(yes).await;
    let limits = "when_down = \"allow\"\nmax_concurrent = 1\nmax_waiting = 1\n";
    let server = Server::with_file(&format!("{RULES}{}{limits}", backend.file())).await;
    backend.falls_silent();
    let mut alice = server.connect("alice", json!({})).await;
    send_join(&mut alice, "ask:1", "asked").await;
    backend.asked_at_least(1).await;
    send_join(&mut alice, "ask:2", "waits").await;
    alice.is_heard().await;
    let answer = alice.request(join("ask:3")).await;
    assert_eq!((&answer["code"], &answer["temporary"]), (&json!("backend_unavailable"), &json!(true)));
    server.pass(Duration::from_secs(2));
    let answers = [alice.receive().await, alice.receive().await];
    let answer = |id: &str| answers.iter().find(|answer| answer["id"] == id).unwrap();
    assert_eq!(answer("asked")["ok"], true, "the backend is away");
    assert_eq!(answer("waits")["code"], "backend_unavailable", "the backend has not been asked");
}

#[tokio::test]
async fn an_event_to_many_rooms_has_no_more_asked_at_once_than_may_wait_for_the_backend() {
    let backend = Backend::start(yes).await;
    let server = asking(&backend).await;
    let mut alice = server.connect("alice", json!({})).await;
    let rooms: Vec<String> = (0..20).map(|number| format!("ask:{number}")).collect();
    for room in &rooms {
        alice.join(room).await;
    }
    let turns = backend.waits(yes);
    alice.send(&json!({"type": "publish", "to": {"rooms": rooms}, "event": "e", "id": "all"}).to_string()).await;
    backend.asked_at_least(28).await;
    let mut bob = server.connect("bob", json!({})).await;
    send_join(&mut bob, "ask:0", "bob").await;
    backend.asked_at_least(29).await;
    assert_eq!(backend.asked().len(), 29, "8 of alice's, one of bob's");
    turns.add_permits(21);
    let mut told = alice.receive().await;
    while told["type"] == "event" {
        told = alice.receive().await;
    }
    assert_eq!((&told["id"], &told["ok"]), (&json!("all"), &json!(true)), "{told}");
}
