//! API keys: what each may do, in which rooms, and how they are replaced.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use wsgate::config::{ApiAction, ApiKey, File};

use crate::support::tokens::TempFile;
use crate::support::{API_KEY, JWT_SECRET, Raw, Server, within_reason};

const KEY: &str = "a-key-with-limits-abcd";
const OTHER: &str = "another-key-with-limits-wxyz";

/// A table of the configuration file.
fn written(name: &str, key: &str, allow: &[&str], rooms: &[&str]) -> String {
    format!("[[api_keys]]\nname = {name:?}\nkey = {key:?}\nallow = {allow:?}\nrooms = {rooms:?}\n")
}

fn keys(text: &str) -> Vec<ApiKey> {
    text.parse::<File>().unwrap().api_keys
}

/// A gateway with one key that has limits.
async fn limited(allow: &[&str], rooms: &[&str]) -> Server {
    let keys = keys(&written("backend", KEY, allow, rooms));
    Server::configured(|config| config.api_keys = keys).await
}

/// Every operation that needs an action: the action, the request, and a pattern that is enough for it.
const OPERATIONS: [(&str, &str, &str, &str, &str); 29] = [
    ("publish", "POST", "/v1/publish", r#"{"to":{"room":"chat:1"},"event":"e"}"#, "chat:*"),
    ("publish", "POST", "/v1/publish", r#"{"to":{"users":["alice","alba"]},"event":"e"}"#, "user:al*"),
    ("publish", "POST", "/v1/publish", r#"{"to":{"all":true},"event":"e"}"#, "*"),
    ("publish", "POST", "/v1/publish", r#"{"to":{"connection":"0123456789abcdef"},"event":"e"}"#, "*"),
    ("publish", "POST", "/v1/publish", r#"{"to":{"pattern":"chat:4*"},"event":"e"}"#, "chat:*"),
    ("publish", "POST", "/v1/batch", r#"{"publishes":[{"to":{"room":"chat:1"},"event":"e"}]}"#, "chat:*"),
    ("read", "GET", "/v1/users/alice", "", "user:alice"),
    ("read", "GET", "/v1/rooms/chat:1", "", "chat:1"),
    ("disconnect", "POST", "/v1/users/alice/disconnect", "", "user:*"),
    ("move", "POST", "/v1/users/alice/join", r#"{"room":"chat:1"}"#, "chat:*"),
    ("move", "POST", "/v1/users/alice/leave", r#"{"room":"chat:1"}"#, "chat:*"),
    ("request", "POST", "/v1/request", r#"{"to":{"user":"alice"},"event":"e"}"#, "user:alice"),
    ("request", "POST", "/v1/request", r#"{"to":{"connection":"0123456789abcdef"},"event":"e"}"#, "*"),
    ("move", "POST", "/v1/users/alice/recheck", "", "user:alice"),
    ("read", "GET", "/v1/explain?user=alice&room=chat:1&action=join", "", "*"),
    ("tickets", "POST", "/v1/tickets", r#"{"user":"alice"}"#, "user:alice"),
    ("tickets", "POST", "/v1/tickets", r#"{"user":"alice","claims":{}}"#, "*"),
    ("revoke", "POST", "/v1/revocations", r#"{"user":"alice"}"#, "user:alice"),
    ("revoke", "POST", "/v1/revocations", r#"{"jti":"a"}"#, "*"),
    ("revoke", "POST", "/v1/revocations", r#"{"sid":"a"}"#, "*"),
    ("read", "GET", "/v1/revocations", "", "*"),
    ("read", "GET", "/v1/revocations/1", "", "user:alice"),
    ("read", "GET", "/v1/revocations/2", "", "*"),
    ("revoke", "DELETE", "/v1/revocations/1", "", "user:alice"),
    ("revoke", "DELETE", "/v1/revocations/3", "", "*"),
    ("revoke", "POST", "/v1/users/alice/block", "", "user:alice"),
    ("revoke", "POST", "/v1/users/alice/unblock", "", "user:alice"),
    ("operate", "POST", "/v1/reload", "", "*"),
    ("operate", "POST", "/v1/drain", "", "*"),
];

#[tokio::test]
async fn every_operation_needs_its_action_and_a_pattern_of_what_it_concerns() {
    let server = Server::start().await;
    let ask = async |key: &str, (_, method, path, body, _): (&str, &str, &str, &str, &str)| {
        server.api_with(key, method, path, body).await
    };
    for operation in OPERATIONS {
        let (action, .., rooms) = operation;
        let all = ApiAction::ALL.map(ApiAction::as_str);
        let others: Vec<&str> = all.into_iter().filter(|other| *other != action).collect();
        let one = written("no-action", KEY, &others, &["*"]) + &written("no-room", OTHER, &all, &["elsewhere:*"]);
        server.keys.replace(None, &keys(&one)).unwrap();
        let (status, problem) = ask(KEY, operation).await;
        assert_eq!((status, &problem["code"]), (403, &json!("forbidden")), "{operation:?}");
        let expected = format!("the API key `no-action` has no leave to {action}: its `allow` lacks `{action}`");
        assert_eq!(problem["detail"], expected, "{operation:?}");
        let (mut status, mut problem) = ask(OTHER, operation).await;
        if let Some(error) = problem["results"][0].get("error") {
            // Of many events, each is refused by itself.
            (status, problem) = (403, json!({"code": error["code"], "detail": error["message"]}));
        }
        assert_eq!((status, &problem["code"]), (403, &json!("forbidden")), "{operation:?}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with("the API key `no-room` does not reach "), "{operation:?}: {detail}");

        server.keys.replace(None, &keys(&written("enough", KEY, &[action], &[rooms]))).unwrap();
        let (status, answer) = ask(KEY, operation).await;
        assert_eq!(status, 200, "{operation:?}: {answer}");
    }
}

/// Fails for an operation that is new, until a line above says what it needs.
#[tokio::test]
async fn every_operation_that_is_described_with_an_action_is_tested_for_it() {
    let server = Server::start().await;
    let (_, document) = server.api("GET", "/v1/openapi.json", "").await;
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let Some(security) = operation.get("security") else { continue };
            for action in security[0]["api_key"].as_array().unwrap() {
                described.insert((action.as_str().unwrap().to_owned(), method.to_uppercase(), path.clone()));
            }
        }
    }
    let template = |path: &str| {
        let path = path.split('?').next().unwrap();
        let path = path.replace("/alice", "/{user}").replace("/chat:1", "/{room}");
        ["1", "2", "3"].iter().fold(path, |path, id| path.replace(&format!("revocations/{id}"), "revocations/{id}"))
    };
    let tested: BTreeSet<_> = OPERATIONS
        .iter()
        .map(|(action, method, path, ..)| ((*action).to_owned(), (*method).to_owned(), template(path)))
        .collect();
    assert_eq!(described, tested);
}

#[tokio::test]
async fn a_key_for_rooms_learns_nothing_of_users_by_having_decisions_explained() {
    let server = limited(&["read"], &["chat:*"]).await;
    let _alice = server.connect("alice", json!({})).await;
    let token = server.token("alice", json!({}));
    for who in ["user=alice".to_owned(), format!("token={token}")] {
        let path = format!("/v1/explain?{who}&room=chat:1&action=join");
        let (status, problem) = server.api_with(KEY, "GET", &path, "").await;
        let expected = "the API key `backend` does not reach user:alice: no pattern in its `rooms` does";
        assert_eq!((status, &problem["detail"]), (403, &json!(expected)), "{who}");
    }
}

#[tokio::test]
async fn all_that_an_event_is_for_must_be_of_the_keys_patterns_and_nothing_else_is_sent() {
    let server = limited(&["publish"], &["chat:*", "user:a*"]).await;
    let [mut alice] = server.members(["alice"], &["chat:1", "news"]).await;
    for (to, refused) in [
        (json!({"rooms": ["chat:1", "news"]}), "news"),
        (json!({"room": "chat:1", "user": "bob"}), "user:bob"),
        (json!({"room": "chat:1", "all": true}), "`all`"),
        (json!({"room": "chat:1", "connection": alice.id}), "connections by their ids"),
    ] {
        let body = json!({"to": to, "event": "e"}).to_string();
        let (status, problem) = server.api_with(KEY, "POST", "/v1/publish", &body).await;
        let detail = problem["detail"].as_str().unwrap();
        let expected = format!("the API key `backend` does not reach {refused}");
        assert!(status == 403 && detail.starts_with(&expected), "{to}: {problem}");
    }
    alice.hears_nothing().await;
    for except in [json!({"user": "bob"}), json!({"room": "news-of-others"}), json!({"connections": []})] {
        let body = json!({"to": {"room": "chat:1", "user": "alice"}, "except": except, "event": "e"}).to_string();
        assert_eq!(server.api_with(KEY, "POST", "/v1/publish", &body).await.1, json!({"reached": 1}), "{except}");
        alice.event().await;
    }
}

#[tokio::test]
async fn a_ticket_grants_no_more_than_the_rooms_of_the_key_that_made_it() {
    let server = limited(&["tickets"], &["user:*", "chat:*"]).await;
    for (grants, status) in [
        (json!({"chat:*": ["join"], "user:bob": ["publish"]}), 200),
        (json!({"*": ["join"]}), 403),
        (json!({"chat:1": ["join"], "news": ["join"]}), 403),
        (json!({"c*": []}), 403),
    ] {
        let body = json!({"user": "alice", "grants": grants}).to_string();
        let (got, answer) = server.api_with(KEY, "POST", "/v1/tickets", &body).await;
        assert_eq!(got, status, "{grants}: {answer}");
    }
}

#[tokio::test]
async fn a_key_that_is_replaced_counts_no_more_but_for_what_has_begun() {
    let server = limited(&["publish"], &["*"]).await;
    let mut raw = Raw::open(server.backend).await;
    let body = r#"{"to":{"all":true},"event":"e"}"#;
    let head = |length: usize| {
        format!("POST /v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {length}\r\n")
    };
    // The gateway has let the request in when it asks for the body.
    raw.send(format!("{}Expect: 100-continue\r\n\r\n", head(body.len())).as_bytes()).await;
    assert!(raw.head().await.starts_with("HTTP/1.1 100 "));
    server.keys.replace(None, &keys(&written("new", OTHER, &["read"], &["*"]))).unwrap();
    raw.send(body.as_bytes()).await;
    assert!(raw.head().await.starts_with("HTTP/1.1 200 "), "it goes on as it began");

    for key in [KEY, API_KEY] {
        let (status, problem) = server.api_with(key, "GET", "/v1/users/alice", "").await;
        assert_eq!((status, &problem["code"]), (401, &json!("unauthorized")));
    }
    assert_eq!(server.api_with(OTHER, "GET", "/v1/users/alice", "").await.0, 200);
}

/// The binary, and its log.
struct Running {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    seen: String,
}

fn wsgate(config: &TempFile) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wsgate"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--backend-listen", "127.0.0.1:0", "--config"]);
    command.arg(&config.0).env_clear().env("WSGATE_JWT_SECRET", JWT_SECRET).env("WSGATE_LOG", "trace");
    command.env("WSGATE_LOG_FORMAT", "text");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, log, seen: String::new() }
    }

    /// Reads the log up to a line with these words, and gives that line.
    async fn says(&mut self, words: &str) -> String {
        within_reason(words, async {
            loop {
                let line = self.log.next_line().await.unwrap().unwrap_or_else(|| panic!("{words}: {}", self.seen));
                self.seen += &line;
                self.seen.push('\n');
                if line.contains(words) {
                    return line;
                }
            }
        })
        .await
    }

    /// Where backends connect.
    async fn listens(&mut self) -> String {
        let line = self.says("listening").await;
        line.split_once("backend=").unwrap().1.split_whitespace().next().unwrap().to_owned()
    }

    async fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([name, &id]).status().await.unwrap().success());
    }
}

async fn status(backend: &str, key: &str, path: &str) -> u16 {
    let request = reqwest::Client::new().get(format!("http://{backend}{path}")).bearer_auth(key);
    within_reason("an answer", request.send()).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn sighup_replaces_the_keys_unless_something_is_wrong_and_no_key_is_ever_in_the_log() {
    // Keys that have nothing in common with other words of the log.
    let (first, second) = ("Qx7vR2mKp9Lw4ZtB1111", "Jf3hN8sYd6Gc5XqT2222");
    let (of_environment, unknown) = ("Wk1zV0bHu4Mn8PrE3333", "Da2gS9jFo7Ci6LyU4444");
    let of_file = TempFile::new("api-key", &format!("{first}\r\n"));
    let table = format!(
        "[[api_keys]]\nname = \"reader\"\nkey_file = {:?}\nallow = [\"read\"]\nrooms = [\"chat:*\"]\n",
        of_file.0.to_str().unwrap()
    );
    let config = TempFile::new("wsgate.toml", &table);
    let mut command = wsgate(&config);
    command.env("WSGATE_API_KEY", format!("{of_environment}\n"));
    let mut running = Running::start(command);
    let backend = running.listens().await;
    let line = running.says("name=\"reader\"").await;
    for part in ["ends_with=\"1111\"", "allow=\"read\"", "rooms=\"chat:*\""] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(status(&backend, of_environment, "/v1/users/alice").await, 200, "a line's end is no part of a key");
    assert_eq!(status(&backend, first, "/v1/rooms/chat:1").await, 200);
    assert_eq!(status(&backend, first, "/v1/rooms/news").await, 403);
    let line = running.says("an API key was refused").await;
    assert!(line.contains("WARN") && line.contains("\"reader\"") && line.contains("\"1111\""), "{line}");
    assert_eq!(status(&backend, unknown, "/v1/rooms/news").await, 401);

    std::fs::write(&of_file.0, second).unwrap();
    running.signal("-HUP").await;
    running.says("the configuration has been read again").await;
    assert_eq!(status(&backend, first, "/v1/rooms/chat:1").await, 401);
    assert_eq!(status(&backend, second, "/v1/rooms/chat:1").await, 200);
    assert_eq!(status(&backend, of_environment, "/v1/users/alice").await, 200, "the one of the environment stays");

    for (wrong, named) in [
        (table.replace("read\"]", "write\"]"), "line 4"),
        (table.replace("chat:*", ""), "api_keys[0].rooms[0]"),
        (written("reader", of_environment, &["read"], &["*"]), "api_keys[0]"),
        (format!("{table}\nkey = \"{second}"), "line 7"),
    ] {
        std::fs::write(&config.0, wrong).unwrap();
        running.signal("-HUP").await;
        let line = running.says("could not be read again, and is as it was").await;
        assert!(line.contains("ERROR") && line.contains(named), "{named}: {line}");
        assert_eq!(status(&backend, second, "/v1/rooms/chat:1").await, 200);
    }
    running.signal("-TERM").await;
    within_reason("the end", running.child.wait()).await.unwrap();
    while let Some(line) = running.log.next_line().await.unwrap() {
        running.seen += &line;
    }
    for key in [first, second, of_environment, unknown] {
        for at in 0..=key.len() - 5 {
            let part = &key[at..at + 5];
            assert!(!running.seen.contains(part), "{part} of {key} is in the log:\n{}", running.seen);
        }
    }
    assert!(!running.seen.contains("4444"), "nothing of an unknown key is");
}

#[tokio::test]
async fn a_key_that_cannot_be_stops_the_start_and_is_named() {
    let good = written("one", KEY, &["read"], &["*"]);
    let two = |second: &str| good.clone() + second;
    for (text, named) in [
        (good.replace("\"one\"", "\"\""), "api_keys[0].name"),
        (good.replace("\"one\"", &format!("{:?}", "n".repeat(65))), "api_keys[0].name"),
        (two(&written("one", OTHER, &["read"], &["*"])), "api_keys[1].name"),
        (two(&written("two", KEY, &["read"], &["*"])), "api_keys[1] has the same key as one"),
        (written("two", API_KEY, &["read"], &["*"]), "api_keys[0] has the same key as api_key"),
        (good.replace(KEY, "fifteen-bytes.."), "api_keys[0].key must have at least 16 bytes, and has 15"),
        (good.replace("[\"read\"]", "[]"), "api_keys[0].allow"),
        (good.replace("allow = [\"read\"]", ""), "missing field `allow`"),
        (good.replace("[\"read\"]", "[\"reed\"]"), "unknown variant `reed`"),
        (good.replace("[\"*\"]", "[]"), "api_keys[0].rooms"),
        (good.replace("\"*\"", &format!("{:?}", "r".repeat(256))), "api_keys[0].rooms[0]"),
        (good.replace("rooms", "room"), "unknown field `room`"),
        (good.clone() + "key_env = \"HOME\"", "api_keys[0] needs one of key, key_env and key_file"),
        (good.replace("key = ", "key_file = "), "api_keys[0].key_file names"),
        (good.replace("key = ", "key_env = "), "api_keys[0].key_env names"),
    ] {
        let config = TempFile::new("wsgate.toml", &text);
        let mut command = wsgate(&config);
        command.env("WSGATE_API_KEY", API_KEY);
        let output = within_reason("the end", command.output()).await.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(named), "{named}: {error}");
    }
    let config = TempFile::new("wsgate.toml", "issuers = []");
    let output = within_reason("the end", wsgate(&config).output()).await.unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("WSGATE_API_KEY is not set"));
}

#[tokio::test]
async fn keys_of_the_file_are_enough_and_may_come_from_the_environment() {
    let text = "[[api_keys]]\nname = \"one\"\nkey_env = \"KEY_OF_ONE\"\nallow = [\"read\"]";
    let config = TempFile::new("wsgate.toml", text);
    let mut command = wsgate(&config);
    command.env("KEY_OF_ONE", KEY);
    let mut running = Running::start(command);
    let backend = running.listens().await;
    assert_eq!(status(&backend, KEY, "/v1/users/alice").await, 200);
    assert_eq!(status(&backend, API_KEY, "/v1/users/alice").await, 401);
}

#[test]
fn the_example_of_the_documentation_is_right() {
    let page = include_str!("../../docs/api-keys.md");
    let examples: Vec<&str> = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!examples.is_empty());
    for example in examples {
        let file: File = example.parse().unwrap();
        assert!(file.api_keys.len() > 1 && file.api_keys.iter().any(|key| key.rooms == ["*"]), "{file:?}");
    }
    for action in ApiAction::ALL {
        assert!(page.contains(&format!("| `{}` |", action.as_str())), "{action:?}");
    }
}
