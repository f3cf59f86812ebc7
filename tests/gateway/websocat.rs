//! The README's first steps, with the real websocat.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::support::{Server, until, within_reason};

struct Websocat {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Websocat {
    /// `scripts/test` installs it; its path may be given in `WEBSOCAT`.
    fn start(url: &str) -> Self {
        let program = std::env::var("WEBSOCAT").unwrap_or_else(|_| "websocat".to_owned());
        let mut command = Command::new(program);
        let command = command.arg(url).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("websocat is installed: cargo install websocat --locked");
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, input, output }
    }

    async fn paste(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn prints(&mut self) -> Value {
        let line = within_reason("a line of websocat", self.output.next_line()).await.unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

#[tokio::test]
async fn connect_join_publish_receive_as_the_readme_shows() {
    let server = Server::start().await;
    let grants = json!({"lobby": ["join", "publish"]});
    let url = |user: &str| format!("ws://{}/ws?token={}", server.public, server.token(user, grants.clone()));
    let (mut alice, mut bob) = (Websocat::start(&url("alice")), Websocat::start(&url("bob")));
    for (websocat, user) in [(&mut alice, "alice"), (&mut bob, "bob")] {
        let welcome = websocat.prints().await;
        assert_eq!((&welcome["type"], &welcome["user"]), (&json!("welcome"), &json!(user)));
        websocat.paste(r#"{"type":"join","room":"lobby","id":1}"#).await;
        assert_eq!(websocat.prints().await, json!({"type": "reply", "id": 1, "ok": true, "room": "lobby"}));
    }
    let publish = r#"{"type":"publish","to":{"room":"lobby"},"event":"message","data":{"text":"hi"},"id":2}"#;
    assert!(include_str!("../../README.md").contains(publish), "the README shows this line");
    alice.paste(publish).await;
    let event = json!({"type": "event", "room": "lobby", "event": "message", "from": "alice", "data": {"text": "hi"}});
    assert_eq!(bob.prints().await, event);
    let (first, second) = (alice.prints().await, alice.prints().await);
    assert!(
        [&first, &second].contains(&&event)
            && [&first, &second].contains(&&json!({"type": "reply", "id": 2, "ok": true}))
    );

    server.publish(json!({"to": {"room": "lobby"}, "event": "message", "data": {"text": "from the backend"}})).await;
    assert_eq!(bob.prints().await["data"]["text"], "from the backend");

    // The end of its input is websocat's way to close.
    drop(bob.input);
    within_reason("websocat to end", bob.child.wait()).await.unwrap();
    until("bob to have left", || server.hub.census().connections == 1).await;
}

#[tokio::test]
async fn websocat_stays_connected_over_many_ping_intervals() {
    let server = Server::start().await;
    let mut alice = Websocat::start(&format!("ws://{}/ws?token={}", server.public, server.token("alice", json!({}))));
    assert_eq!(alice.prints().await["type"], "welcome");
    for id in 0..5 {
        server.pass(std::time::Duration::from_secs(26));
        alice.paste(&json!({"type": "ping", "id": id}).to_string()).await;
        assert_eq!(alice.prints().await["id"], id);
    }
}
