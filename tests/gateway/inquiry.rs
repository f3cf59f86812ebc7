use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{API_KEY, Client, Raw, Server};

/// Asks, and answers later.
fn ask(server: &Server, body: &Value) -> JoinHandle<(u16, String)> {
    server.api_later("POST", "/v1/request", &body.to_string())
}

/// What has come of an inquiry.
async fn outcome(asking: JoinHandle<(u16, String)>) -> Value {
    let (status, body) = asking.await.unwrap();
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Reads the event that asks, and gives what it is to be answered with.
async fn asked(client: &mut Client) -> String {
    let event = client.receive().await;
    assert_eq!(event["type"], "event", "{event}");
    let reply_to = event["reply_to"].as_str().unwrap().to_owned();
    assert!(reply_to.len() == 16 && reply_to.bytes().all(|byte| byte.is_ascii_hexdigit()), "{reply_to}");
    reply_to
}

async fn answer(client: &mut Client, reply_to: &str, data: Value) -> Value {
    client.request(json!({"type": "answer", "reply_to": reply_to, "data": data})).await
}

fn who(client: &Client, user: &str) -> Value {
    json!({"user": user, "connection": client.id})
}

fn reply(client: &Client, user: &str, data: impl Into<Value>) -> Value {
    json!({"user": user, "connection": client.id, "data": data.into()})
}

#[tokio::test]
async fn a_connection_that_is_asked_answers_byte_for_byte() {
    let server = Server::start().await;
    let [mut alice, mut other] = server.members(["alice", "alice"], &[]).await;
    let data = r#"{ "b":1, "a":12345678901234567890}"#;
    let body = format!(r#"{{"to":{{"connection":"{}"}},"event":"where?","data":{data}}}"#, alice.id);
    let asking = server.api_later("POST", "/v1/request", &body);
    let event = alice.next().await.unwrap();
    let start = format!(r#"{{"type":"event","event":"where?","data":{data},"reply_to":""#);
    let reply_to = event.strip_prefix(&start).unwrap_or_else(|| panic!("{event}")).trim_end_matches("\"}");
    other.hears_nothing().await;
    let data = r#"{ "z":[1.10, 1e400],"z":"\u00e9" }"#;
    alice.send(&format!(r#"{{"type":"answer","reply_to":"{reply_to}","data":{data}}}"#)).await;
    let (status, answer) = asking.await.unwrap();
    let replies = format!(r#"[{{"user":"alice","connection":"{}","data":{data}}}]"#, alice.id);
    assert_eq!((status, answer), (200, format!(r#"{{"replies":{replies},"missing":[]}}"#)));
    alice.hears_nothing().await;
}

#[tokio::test]
async fn all_connections_of_a_user_are_waited_for() {
    let server = Server::start().await;
    let [mut one, mut two, mut bob] = server.members(["alice", "alice", "bob"], &[]).await;
    let asking = ask(&server, &json!({"to": {"user": "alice"}, "event": "e"}));
    let (first, second) = (asked(&mut one).await, asked(&mut two).await);
    assert_eq!(first, second);
    bob.hears_nothing().await;
    assert_eq!(answer(&mut two, &second, json!(2)).await["ok"], true);
    assert!(!asking.is_finished());
    assert_eq!(answer(&mut one, &first, json!(null)).await["ok"], true);
    let replies = json!([reply(&two, "alice", json!(2)), reply(&one, "alice", json!(null))]);
    assert_eq!(outcome(asking).await, json!({"replies": replies, "missing": []}));
}

#[tokio::test]
async fn the_first_answer_is_enough_if_that_is_wanted() {
    let server = Server::start().await;
    let [mut one, mut two] = server.members(["alice", "alice"], &[]).await;
    let asking = ask(&server, &json!({"to": {"user": "alice"}, "event": "e", "wait": "first"}));
    let (reply_to, _) = (asked(&mut one).await, asked(&mut two).await);
    answer(&mut one, &reply_to, json!("here")).await;
    let (replies, missing) = (json!([reply(&one, "alice", json!("here"))]), json!([who(&two, "alice")]));
    assert_eq!(outcome(asking).await, json!({"replies": replies, "missing": missing}));
    // The other has come too late.
    assert_eq!(answer(&mut two, &reply_to, json!(1)).await["code"], "not_asked");
}

#[tokio::test]
async fn who_does_not_answer_in_time_is_missing() {
    let server = Server::start().await;
    for (timeout, seconds) in [(json!(0.25), 0.25), (json!(60), 60.0), (Value::Null, 5.0)] {
        let [mut one, mut two] = server.members(["alice", "alice"], &[]).await;
        let mut body = json!({"to": {"user": "alice"}, "event": "e", "timeout": timeout});
        if timeout.is_null() {
            body.as_object_mut().unwrap().remove("timeout");
        }
        let asking = ask(&server, &body);
        let (reply_to, _) = (asked(&mut one).await, asked(&mut two).await);
        answer(&mut one, &reply_to, json!(1)).await;
        server.pass(Duration::from_secs_f64(seconds) - Duration::from_millis(1));
        for client in [&mut one, &mut two] {
            client.is_heard().await;
        }
        assert!(!asking.is_finished());
        server.pass(Duration::from_millis(1));
        let (replies, missing) = (json!([reply(&one, "alice", json!(1))]), json!([who(&two, "alice")]));
        assert_eq!(outcome(asking).await, json!({"replies": replies, "missing": missing}));
        assert_eq!(answer(&mut two, &reply_to, json!(2)).await["code"], "not_asked");
        one.close().await;
        two.close().await;
    }
}

#[tokio::test]
async fn where_nobody_is_connected_nobody_is_waited_for() {
    let server = Server::start().await;
    for to in [json!({"user": "nobody"}), json!({"connection": "0123456789abcdef"})] {
        let answer = outcome(ask(&server, &json!({"to": to, "event": "e"}))).await;
        assert_eq!(answer, json!({"replies": [], "missing": []}));
    }
}

#[tokio::test]
async fn a_connection_that_goes_is_missing_at_once_however_it_goes() {
    let server = Server::start().await;
    let [mut stays] = server.members(["alice"], &[]).await;
    for how in ["closes", "is dropped", "is kicked"] {
        let [mut goes] = server.members(["alice"], &[]).await;
        let asking = ask(&server, &json!({"to": {"user": "alice"}, "event": "e"}));
        let (reply_to, _) = (asked(&mut stays).await, asked(&mut goes).await);
        let gone = who(&goes, "alice");
        answer(&mut stays, &reply_to, json!(1)).await;
        assert!(!asking.is_finished());
        match how {
            "closes" => goes.close().await,
            "is dropped" => drop(goes),
            _ => {
                let member = server.hub.connection(goes.id.parse().unwrap()).unwrap();
                let close = wsgate::protocol::Close::new(wsgate::protocol::CloseCode::Kicked, "out");
                assert!(server.hub.close(&member, close));
                assert_eq!(goes.closed().await.0, 4403);
            }
        }
        let replies = json!([reply(&stays, "alice", json!(1))]);
        assert_eq!(outcome(asking).await, json!({"replies": replies, "missing": [gone]}), "{how}");
    }
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_not_asked() {
    let server = Server::start().await;
    let [mut alice, mut bob] = server.members(["alice", "bob"], &[]).await;
    for _ in 0..20 {
        let refused = answer(&mut alice, "0123456789abcdef", json!(1)).await;
        let (code, field) = (&refused["code"], &refused["field"]);
        assert_eq!((code, field, &refused["temporary"]), (&json!("not_asked"), &json!("reply_to"), &json!(false)));
    }
    let asking = ask(&server, &json!({"to": {"user": "alice"}, "event": "e"}));
    let reply_to = asked(&mut alice).await;
    assert_eq!(answer(&mut bob, &reply_to, json!("mine")).await["code"], "not_asked", "bob was not asked");
    assert_eq!(answer(&mut alice, &reply_to, json!("mine")).await["ok"], true);
    assert_eq!(answer(&mut alice, &reply_to, json!("again")).await["code"], "not_asked");
    assert_eq!(outcome(asking).await["replies"], json!([reply(&alice, "alice", json!("mine"))]));
}

#[tokio::test]
async fn a_second_answer_while_others_are_waited_for_is_not_asked() {
    let server = Server::start().await;
    let [mut one, mut two] = server.members(["alice", "alice"], &[]).await;
    let asking = ask(&server, &json!({"to": {"user": "alice"}, "event": "e"}));
    let (reply_to, _) = (asked(&mut one).await, asked(&mut two).await);
    assert_eq!(answer(&mut one, &reply_to, json!(1)).await["ok"], true);
    assert_eq!(answer(&mut one, &reply_to, json!(2)).await["code"], "not_asked");
    answer(&mut two, &reply_to, json!(3)).await;
    let replies = json!([reply(&one, "alice", json!(1)), reply(&two, "alice", json!(3))]);
    assert_eq!(outcome(asking).await["replies"], replies);
}

#[tokio::test]
async fn several_inquiries_of_one_connection_do_not_meet() {
    let server = Server::start().await;
    let [mut alice] = server.members(["alice"], &[]).await;
    let mut askings = Vec::new();
    for number in 0..3 {
        let asking = ask(&server, &json!({"to": {"user": "alice"}, "event": number.to_string()}));
        askings.push((asked(&mut alice).await, asking));
    }
    askings.rotate_left(1);
    for (number, (reply_to, asking)) in askings.into_iter().enumerate() {
        answer(&mut alice, &reply_to, json!(number)).await;
        assert_eq!(outcome(asking).await["replies"][0]["data"], number);
    }
}

#[tokio::test]
async fn no_more_than_a_thousand_are_under_way_and_who_hangs_up_makes_room() {
    let server = Server::start().await;
    let [mut alice] = server.members(["alice"], &[]).await;
    let body = json!({"to": {"user": "alice"}, "event": "e"}).to_string();
    let request = format!(
        "POST /v1/request HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut waiting = Vec::new();
    for _ in 0..1000 {
        let mut raw = Raw::open(server.backend).await;
        raw.send(request.as_bytes()).await;
        let reply_to = asked(&mut alice).await;
        waiting.push((raw, reply_to));
    }
    let (status, answer_of_full) = server.api("POST", "/v1/request", &body).await;
    assert_eq!((status, &answer_of_full["code"]), (503, &json!("full")));
    alice.hears_nothing().await;
    // One hangs up: its place is free, and its answer is not asked for any more.
    let (raw, forgotten) = waiting.pop().unwrap();
    drop(raw);
    let (asking, reply_to) = loop {
        let mut asking = server.api_later("POST", "/v1/request", &body);
        tokio::select! {
            reply_to = asked(&mut alice) => break (asking, reply_to),
            refused = &mut asking => assert_eq!(refused.unwrap().0, 503, "the gateway has not noticed yet"),
        }
    };
    assert_eq!(answer(&mut alice, &forgotten, json!(1)).await["code"], "not_asked");
    answer(&mut alice, &reply_to, json!(1)).await;
    assert_eq!(outcome(asking).await["missing"], json!([]));
    // And those who wait still get theirs.
    let (mut raw, reply_to) = waiting.pop().unwrap();
    answer(&mut alice, &reply_to, json!(1)).await;
    assert!(raw.head().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_user_with_too_many_connections_is_not_asked() {
    let server = Server::with(|limits| limits.max_listed_members = 2).await;
    let mut clients = server.members(["alice", "alice", "alice"], &[]).await;
    let (status, problem) = server.api("POST", "/v1/request", r#"{"to":{"user":"alice"},"event":"e"}"#).await;
    assert_eq!((status, &problem["code"], &problem["field"]), (400, &json!("invalid_field"), &json!("to")));
    for client in &mut clients {
        client.hears_nothing().await;
    }
}

#[tokio::test]
async fn a_bad_request_is_a_problem_that_names_the_field() {
    let server = Server::start().await;
    let id = "0123456789abcdef";
    for (body, code, field) in [
        ("", "not_json", None),
        ("[]", "not_an_object", None),
        ("{}", "missing_field", Some("to")),
        (r#"{"to":{"user":"a"}}"#, "missing_field", Some("event")),
        (r#"{"to":"a","event":"e"}"#, "invalid_field", Some("to")),
        (r#"{"to":{},"event":"e"}"#, "invalid_field", Some("to")),
        (&format!(r#"{{"to":{{"user":"a","connection":"{id}"}},"event":"e"}}"#), "invalid_field", Some("to")),
        (r#"{"to":{"user":7},"event":"e"}"#, "invalid_field", Some("to.user")),
        (r#"{"to":{"user":""},"event":"e"}"#, "invalid_field", Some("to.user")),
        (r#"{"to":{"connection":"x"},"event":"e"}"#, "invalid_field", Some("to.connection")),
        (r#"{"to":{"room":"a"},"event":"e"}"#, "unknown_field", Some("to.room")),
        (r#"{"to":{"user":"a","all":true},"event":"e"}"#, "unknown_field", Some("to.all")),
        (r#"{"to":{"user":"a"},"event":""}"#, "invalid_field", Some("event")),
        (r#"{"to":{"user":"a"},"event":"e","timeout":0}"#, "invalid_field", Some("timeout")),
        (r#"{"to":{"user":"a"},"event":"e","timeout":-1}"#, "invalid_field", Some("timeout")),
        (r#"{"to":{"user":"a"},"event":"e","timeout":60.001}"#, "invalid_field", Some("timeout")),
        (r#"{"to":{"user":"a"},"event":"e","timeout":1e999}"#, "invalid_field", Some("timeout")),
        (r#"{"to":{"user":"a"},"event":"e","timeout":"5"}"#, "invalid_field", Some("timeout")),
        (r#"{"to":{"user":"a"},"event":"e","timeout":null}"#, "invalid_field", Some("timeout")),
        (r#"{"to":{"user":"a"},"event":"e","wait":"any"}"#, "invalid_field", Some("wait")),
        (r#"{"to":{"user":"a"},"event":"e","wait":true}"#, "invalid_field", Some("wait")),
        (r#"{"to":{"user":"a"},"event":"e","echo":true}"#, "unknown_field", Some("echo")),
        (r#"{"to":{"user":"a"},"event":"e","data":1,"data":2}"#, "duplicate_field", Some("data")),
    ] {
        let (status, problem) = server.api("POST", "/v1/request", body).await;
        assert_eq!((status, &problem["status"]), (400, &json!(400)), "{body}");
        assert_eq!((problem["code"].as_str(), problem["field"].as_str()), (Some(code), field), "{body}: {problem}");
    }
    let deep = format!(r#"{{"to":{{"user":"a"}},"event":"e","data":{}}}"#, "[".repeat(1000) + &"]".repeat(1000));
    assert_eq!(server.api("POST", "/v1/request", &deep).await.1["code"], "too_deep");
    let (status, _) = server.api("GET", "/v1/request", "").await;
    assert_eq!(status, 405);
}
