//! Plays every transcript of `protocol.md` against a running gateway.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use wsgate::protocol::{CloseCode, ErrorCode};

use crate::support::backend::Backend;
use crate::support::{Client, Server, until};

const PROTOCOL: &str = include_str!("../../protocol.md");

/// One transcript: a gateway of its own, and who is connected to it.
pub(crate) struct Play {
    server: Server,
    clients: HashMap<String, Client>,
    grants: HashMap<String, Value>,
    /// What the backend has been answered and has not yet looked at.
    answer: Option<JoinHandle<(u16, String)>>,
    /// What it has asked clients with.
    reply_to: String,
    /// The ticket that it has been given.
    ticket: String,
}

impl Play {
    pub(crate) fn new(server: Server) -> Self {
        let (reply_to, ticket) = (String::new(), String::new());
        Self { server, clients: HashMap::new(), grants: HashMap::new(), answer: None, reply_to, ticket }
    }

    #[allow(clippy::print_stderr, reason = "shown if the test fails")]
    pub(crate) async fn line(&mut self, line: &str) {
        eprintln!("{line}");
        if let Some((time, unit)) = line.split_once(' ').filter(|(_, rest)| rest.starts_with("second")) {
            assert!(unit.ends_with("pass") || unit.ends_with("passes"), "{line}");
            for client in self.clients.values_mut() {
                client.is_heard().await;
            }
            self.server.pass(Duration::from_secs(time.parse().unwrap()));
        } else if let Some((user, how)) = line.split_once(" connects ") {
            self.connect(user, how).await;
        } else if let Some(request) = line.strip_prefix("backend → ") {
            let mut words = request.splitn(3, ' ');
            let (method, path) = (words.next().unwrap(), words.next().unwrap());
            let answer = self.server.api_later(method, path, words.next().unwrap_or_default());
            // What waits for clients is answered after them; all else, before anything further happens.
            if path != "/v1/request" {
                until("an answer", || answer.is_finished()).await;
            }
            self.answer = Some(answer);
        } else if let Some(answer) = line.strip_prefix("backend ← ") {
            let (status, body) = answer.split_once(' ').unwrap();
            let (got_status, got) = self.answer.take().expect("a request before its answer").await.unwrap();
            let got: Value = serde_json::from_str(&got).unwrap();
            assert_eq!(got_status.to_string(), status, "{line}\n{got}");
            self.ticket = got["ticket"].as_str().unwrap_or(&self.ticket).to_owned();
            assert_same(&serde_json::from_str(body).unwrap(), &got, line);
        } else if let Some((user, frame)) = line.split_once(" → ") {
            let frame = self.with_tokens(user, frame);
            self.client(user).send(&frame).await;
        } else if let Some((user, close)) = line.split_once(" ← closed ") {
            let (code, reason) = self.client(user).next().await.expect_err(line);
            assert_eq!(format!("{code} {reason}"), close);
        } else if let Some((user, message)) = line.split_once(" ← ") {
            let got = self.client(user).next().await.expect(line);
            if let Some((_, after)) = got.split_once(r#""reply_to":""#) {
                self.reply_to = after[..16].to_owned();
            }
            assert_same(&serde_json::from_str(message).expect(line), &serde_json::from_str(&got).unwrap(), line);
            assert_eq!(shape(message), shape(&got), "fields stand in the documented order: {line}\n{got}");
        } else {
            panic!("what is this? {line}");
        }
    }

    async fn connect(&mut self, user: &str, how: &str) {
        let (how, grants) = how.split_once(", granted ").unwrap_or((how, "{}"));
        self.grants.insert(user.to_owned(), serde_json::from_str(grants).unwrap());
        let query = match how {
            "without a token" => String::new(),
            _ => self.with_tokens(user, how.strip_prefix("with ").unwrap()),
        };
        let client = self.server.dial(&query).await;
        self.clients.insert(user.to_owned(), client);
    }

    /// Puts a real token where the document has `eyJ…`.
    fn with_tokens(&self, user: &str, text: &str) -> String {
        let grants = self.grants.get(user).cloned().unwrap_or_default();
        let of_bob = self.server.token("bob", grants.clone());
        let text = text.replace("eyJ… of bob", &of_bob).replace("eyJ…", &self.server.token(user, grants));
        text.replace("uq3…", &self.ticket).replace("b1946ac92492d234", &self.reply_to)
    }

    fn client(&mut self, user: &str) -> &mut Client {
        self.clients.get_mut(user).unwrap_or_else(|| panic!("{user} is not connected"))
    }
}

/// What differs each time is compared by its kind only.
fn assert_same(documented: &Value, got: &Value, line: &str) {
    fn settle(value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(settle),
            Value::Object(fields) => {
                for (name, value) in fields {
                    match (name.as_str(), &value) {
                        ("connection" | "reply_to", Value::String(id)) if id.len() == 16 => *value = "an id".into(),
                        ("expires_at" | "at" | "until", Value::Number(_)) => *value = "a time".into(),
                        ("ticket", Value::String(_)) => *value = "a ticket".into(),
                        _ => settle(value),
                    }
                }
            }
            _ => {}
        }
    }
    let (mut documented, mut settled) = (documented.clone(), got.clone());
    settle(&mut documented);
    settle(&mut settled);
    assert_eq!(documented, settled, "{line}\n{got}");
}

/// A text without what differs each time: digits, and ids in hexadecimal.
fn shape(text: &str) -> String {
    let words = text
        .split('"')
        .map(|word| if word.len() == 16 && word.bytes().all(|b| b.is_ascii_hexdigit()) { "id" } else { word });
    words.collect::<Vec<_>>().join("\"").chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// The backend of the examples: it adds.
fn answer(asked: &Value) -> (u16, Value) {
    match (&asked["data"][0], &asked["data"][1]) {
        (Value::Number(a), Value::Number(b)) => (200, json!({"sum": a.as_i64().unwrap() + b.as_i64().unwrap()})),
        _ => (422, json!({"error": "numbers only"})),
    }
}

fn transcripts() -> Vec<&'static str> {
    let fences: Vec<&str> = PROTOCOL.split("```").skip(1).step_by(2).collect();
    fences.into_iter().map(|fence| fence.strip_prefix("transcript\n").expect("every example is a transcript")).collect()
}

/// The rules of the examples: tokens decide; who looks at a board is told of the others, and one
/// connection may be in a booth.
const RULES: &str = r#"
[[rooms]]
pattern = "board:*"
join = "grant"
publish = "grant"
members = "grant"
presence = true

[[rooms]]
pattern = "booth:*"
join = "grant"
max_members = 1

[[rooms]]
pattern = "user:*"
publish = "grant"
members = "grant"

[[rooms]]
pattern = "*"
join = "grant"
publish = "grant"
members = "grant"
"#;

#[tokio::test]
async fn every_example_of_the_contract_is_true() {
    let transcripts = transcripts();
    assert!(transcripts.len() >= 10, "{}", transcripts.len());
    for transcript in transcripts {
        let backend = Backend::start(answer).await;
        let server = Server::with_file(&format!("{RULES}{}", backend.file())).await;
        let mut play = Play::new(server);
        for line in transcript.lines() {
            play.line(line).await;
        }
        for (user, client) in &mut play.clients {
            if !transcript.contains(&format!("{user} ← closed")) {
                client.hears_nothing().await;
            }
        }
    }
}

#[test]
fn every_code_is_in_the_contract() {
    for code in ErrorCode::ALL {
        assert!(PROTOCOL.contains(&format!("| `{}` |", code.as_str())), "{code:?}");
    }
    for code in CloseCode::ALL {
        let line = PROTOCOL.lines().find(|line| line.starts_with(&format!("| {} |", code.number())));
        let line = line.unwrap_or_else(|| panic!("{code:?}"));
        let retry = serde_json::to_value(code.retry()).unwrap();
        assert!(line.ends_with(&format!("| `{}` |", retry.as_str().unwrap())), "{line}");
    }
}

#[test]
fn every_code_has_a_test() {
    let sources = [
        include_str!("api.rs"),
        include_str!("asking.rs"),
        include_str!("backpressure.rs"),
        include_str!("bad_input.rs"),
        include_str!("commands.rs"),
        include_str!("configuration.rs"),
        include_str!("conformance.rs"),
        include_str!("connect.rs"),
        include_str!("http.rs"),
        include_str!("inquiry.rs"),
        include_str!("keys.rs"),
        include_str!("limits.rs"),
        include_str!("liveness.rs"),
        include_str!("openapi.rs"),
        include_str!("origin.rs"),
        include_str!("presence.rs"),
        include_str!("renewal.rs"),
        include_str!("revocation.rs"),
        include_str!("rooms.rs"),
        include_str!("rules.rs"),
        include_str!("shutdown.rs"),
        include_str!("targets.rs"),
    ]
    .concat();
    for code in ErrorCode::ALL {
        let by_status = code == ErrorCode::BodyIncomplete && sources.contains("408");
        assert!(sources.contains(&format!("\"{}\"", code.as_str())) || by_status, "{code:?}");
    }
    for code in CloseCode::ALL {
        // The gateway's own failure cannot be brought about from outside.
        assert!(sources.contains(&code.number().to_string()) || code == CloseCode::InternalError, "{code:?}");
    }
}
