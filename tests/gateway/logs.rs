//! What operators read: one object a line, what concerns security by itself, and never too much.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr};
use wsgate::auth::{Claims, mint};
use wsgate::{Clock, Secret};

use crate::support::program::{ANYWHERE, wsgate};
use crate::support::{API_KEY, Client, JWT_SECRET, within_reason};

/// A gateway whose log is read as a program reads it.
struct Logging {
    _child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    public: String,
    backend: String,
}

impl Logging {
    async fn start(arguments: &[&str]) -> Self {
        let mut command = wsgate(&["serve"]);
        command.args(ANYWHERE).args(arguments).env_remove("WSGATE_LOG_FORMAT");
        command.env("WSGATE_JWT_SECRET", JWT_SECRET).env("WSGATE_API_KEY", API_KEY);
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut logging = Self { _child: child, lines, public: String::new(), backend: String::new() };
        let listening = logging.line("listening").await;
        let address = |name: &str| listening[name].as_str().unwrap().to_owned();
        (logging.public, logging.backend) = (address("public"), address("backend"));
        logging
    }

    async fn next(&mut self) -> Value {
        let line = within_reason("a line of the log", self.lines.next_line()).await.unwrap().expect("a line");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// The next line with a message.
    async fn line(&mut self, message: &str) -> Value {
        loop {
            let line = self.next().await;
            if line["message"] == message {
                return line;
            }
        }
    }

    async fn refuse(&self, token: &str) {
        let mut client = Client::dial(self.public.parse().unwrap(), &format!("/ws?token={token}")).await;
        assert_eq!(client.closed().await.0, 4401);
    }
}

fn token(secret: &str, user: &str) -> String {
    let exp = Clock::system().unix().as_secs() as f64 + 3600.0;
    let claims = Claims { sub: user.to_owned(), exp, nbf: None, grants: Default::default() };
    mint(&Secret::new(secret), &claims).unwrap()
}

#[tokio::test]
async fn what_concerns_security_has_a_target_of_its_own_and_says_what_was_claimed() {
    let mut log = Logging::start(&[]).await;
    let forged = token("another-secret-that-is-32-bytes-long-or-more", "mallory\nFORGED");
    log.refuse(&forged).await;
    let line = log.line("a token was refused").await;
    assert_eq!((&line["target"], &line["level"]), (&json!("wsgate::security"), &json!("WARN")), "{line}");
    assert_eq!((&line["reason"], line["timestamp"].is_string()), (&json!("bad_signature"), true), "{line}");
    assert!(line["sub"].as_str().unwrap().contains(r"mallory\nFORGED"), "{line}");
    assert!(!line.to_string().contains(&forged[..20]), "{line}");

    let mut alice =
        Client::dial(log.public.parse().unwrap(), &format!("/ws?token={}", token(JWT_SECRET, "alice"))).await;
    alice.receive().await;
    let url = |path: &str| format!("http://{}{path}", log.backend);
    let http = reqwest::Client::new();
    for (path, body) in [("/v1/users/alice/disconnect", ""), ("/v1/users/alice/block", "")] {
        let request = http.post(url(path)).bearer_auth(API_KEY).body(body).send();
        assert!(within_reason("an answer", request).await.unwrap().status().is_success());
    }
    let wrong = http.post(url("/v1/publish")).bearer_auth("not-the-key-at-all").send();
    assert_eq!(within_reason("an answer", wrong).await.unwrap().status(), 401);
    for message in ["a user was disconnected", "revoked", "a wrong API key was refused"] {
        let line = log.line(message).await;
        assert_eq!(line["target"], "wsgate::security", "{line}");
        assert!(!line.to_string().contains("not-the-key"), "{line}");
    }
}

#[tokio::test]
async fn it_can_be_had_or_left_out_by_itself() {
    let mut log = Logging::start(&["--log", "warn,wsgate::serve=info,wsgate::security=off"]).await;
    log.refuse(&token("another-secret-that-is-32-bytes-long-or-more", "mallory")).await;
    log.refuse("nonsense").await;
    let id = log._child.id().unwrap().to_string();
    assert!(tokio::process::Command::new("kill").arg(id).status().await.unwrap().success());
    assert_eq!(log.next().await["message"], "draining", "and nothing between");
}

#[tokio::test]
async fn an_attack_does_not_fill_the_disk_and_what_was_left_out_is_told() {
    let mut log = Logging::start(&["--max-failures", "100000"]).await;
    let forged = token("another-secret-that-is-32-bytes-long-or-more", "mallory");
    for _ in 0..500 {
        log.refuse(&forged).await;
    }
    let (mut written, mut left_out) = (0, 0);
    while left_out == 0 {
        let line = log.next().await;
        match line["message"].as_str() {
            Some("a token was refused") => written += 1,
            Some("lines of the log were left out, which came too fast") => {
                assert_eq!(line["like"], "a token was refused");
                left_out = line["count"].as_u64().unwrap();
            }
            _ => {}
        }
    }
    assert!(written < 400 && written + left_out == 500, "{written} written, {left_out} left out");
}
